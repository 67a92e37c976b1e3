//! What is watched, and what is kept of each kind: no more than somebody asks for, because there are thousands of objects
//! and all of it stays in memory.
//!
//! | kind | kept | why |
//! |---|---|---|
//! | ProxyRoute, ClientIdentity | spec, status, and of the metadata what `essentials` says | turns read all of both; managed fields and annotations are larger than they are |
//! | Pod | `pod`: labels, address, named ports, service account, whether its sidecar has started | what a pod runs is nobody's business here |
//! | Service, EndpointSlice, ReferenceGrant | `service`, `slice`, `grant`: selectors, ports, addresses, permissions | of a whole cluster, of which routes name a few |
//! | ConfigMap, Secret | `held`: of ours alone, by label; a digest of what is in them | what is there is compared, not read; entries stay of ledgers and of certificates of gates, which are renewed by what is in them |
//! | Namespace | whether it is ending; metadata alone is asked for | nothing else concerns anybody |

use std::sync::Arc;

use k8s_openapi::api::core::v1::{ConfigMap, Namespace, Pod as PodObject, Secret, Service as ServiceObject};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::core::PartialObjectMeta;
use kube::runtime::watcher;
use postern_crds::{ClientIdentity, ProxyRoute};

use super::held::MANAGED_LABEL;
use super::pod::WORKLOAD_LABEL;
use super::slice::SERVICE_LABEL;
use super::watch::{Place, Watches};
use super::{Held, HeldKind, Object, ObjectKind, Pod, Service, Slice};
use crate::limits::LISTED_AT_ONCE;

/// Everything of a kind, as many at once as are held without need.
fn everything() -> watcher::Config {
    watcher::Config::default().page_size(LISTED_AT_ONCE)
}

/// Starts watching what is read of a namespace, or of all; clients and grants are watched by themselves.
pub(super) fn watch(watches: &mut Watches<'_>, place: &Place) {
    watches.follow(place, everything(), ObjectKind::Route, route);
    watches.follow(place, everything().labels(WORKLOAD_LABEL), ObjectKind::Pod, pod);
    watches.follow(place, everything(), ObjectKind::Service, |service: ServiceObject| {
        Some(Object::Service(Arc::new(Service::of(service))))
    });
    // Of all Services: which of them are asked is up to routes that come and go.
    let slices = everything().labels(SERVICE_LABEL);
    watches.follow(place, slices, ObjectKind::Slice, |slice: EndpointSlice| {
        Some(Object::Slice(Arc::new(Slice::of(slice)?)))
    });
}

/// Starts watching clients.
pub(super) fn watch_identities(watches: &mut Watches<'_>, place: &Place) {
    watches.follow(place, everything(), ObjectKind::Identity, identity);
}

/// Starts watching our own ConfigMaps and Secrets.
pub(super) fn watch_held(watches: &mut Watches<'_>, place: &Place) {
    let managed = everything().labels(&format!("{}={}", MANAGED_LABEL.0, MANAGED_LABEL.1));
    watches.follow(place, managed.clone(), ObjectKind::Held(HeldKind::ConfigMap), config_map);
    watches.follow(place, managed, ObjectKind::Held(HeldKind::Secret), secret);
}

/// What is kept of a route.
#[must_use]
pub fn route(mut route: ProxyRoute) -> Option<Object> {
    essentials(&mut route.metadata);
    Some(Object::Route(Arc::new(route)))
}

/// What is kept of a client.
#[must_use]
pub fn identity(mut identity: ClientIdentity) -> Option<Object> {
    essentials(&mut identity.metadata);
    Some(Object::Identity(Arc::new(identity)))
}

/// What is kept of a pod; nothing of one without a workload.
#[must_use]
pub fn pod(pod: PodObject) -> Option<Object> {
    Some(Object::Pod(Arc::new(Pod::of(pod)?)))
}

/// What is kept of a ConfigMap; nothing of one that is not ours.
#[must_use]
pub fn config_map(object: ConfigMap) -> Option<Object> {
    Some(Object::Held(Arc::new(Held::of_config_map(object)?)))
}

/// What is kept of a Secret; nothing of one that is not ours.
#[must_use]
pub fn secret(object: Secret) -> Option<Object> {
    Some(Object::Held(Arc::new(Held::of_secret(object)?)))
}

/// What is kept of a namespace.
pub(super) fn namespace(namespace: PartialObjectMeta<Namespace>) -> Option<Object> {
    let metadata = namespace.metadata;
    Some(Object::Namespace {
        is_ending: metadata.deletion_timestamp.is_some(),
        name: metadata.name.unwrap_or_default(),
    })
}

/// Takes away what nobody asks for: `kubectl apply` leaves a copy of the whole object in an annotation, and whoever has
/// written a field is named beside it.
pub(crate) fn essentials(metadata: &mut ObjectMeta) {
    let all = std::mem::take(metadata);
    *metadata = ObjectMeta {
        name: all.name,
        namespace: all.namespace,
        uid: all.uid,
        resource_version: all.resource_version,
        generation: all.generation,
        creation_timestamp: all.creation_timestamp,
        deletion_timestamp: all.deletion_timestamp,
        labels: all.labels,
        finalizers: all.finalizers,
        ..ObjectMeta::default()
    };
}
