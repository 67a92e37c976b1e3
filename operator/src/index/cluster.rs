//! The picture of the cluster: plain maps, changed by one object at a time.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use postern_crds::{ClientIdentity, ProxyRoute};
use sidecar_config::endpoints::Endpoint;

use super::backends::Backends;
use super::{Grant, Granted, Held, HeldKind, ObjectName, Pod, Service, ServicePort, Slice, Unresolved, concern};
use crate::identity::directory::Directory;
use crate::limits::GONE_KNOWN;
use crate::pki::names::Names;
use crate::queue::{Key, Pace};

/// Something of the cluster, as it is now.
#[derive(Clone, Debug)]
pub enum Object {
    /// A route.
    Route(Arc<ProxyRoute>),
    /// A client.
    Identity(Arc<ClientIdentity>),
    /// A pod with a sidecar.
    Pod(Arc<Pod>),
    /// A ConfigMap or Secret of ours.
    Held(Arc<Held>),
    /// A Service.
    Service(Arc<Service>),
    /// Addresses of a Service.
    Slice(Arc<Slice>),
    /// What routes of other namespaces may ask.
    Grant(Arc<Grant>),
    /// A namespace, and whether it is on its way out.
    Namespace {
        /// Its name.
        name: String,
        /// Whether it is being deleted: nothing can be made in it any more.
        is_ending: bool,
    },
}

/// Where news of an object comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Source {
    /// A list of all there are. It is believed whatever was known.
    List,
    /// A change that was watched, or what an own write was answered. They may overtake each other.
    Change,
}

/// What kinds of objects there are.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum ObjectKind {
    /// Routes.
    Route,
    /// Clients.
    Identity,
    /// Pods.
    Pod,
    /// ConfigMaps or Secrets.
    Held(HeldKind),
    /// Services.
    Service,
    /// Addresses of Services.
    Slice,
    /// What routes of other namespaces may ask.
    Grant,
    /// Namespaces.
    Namespace,
}

impl ObjectKind {
    /// In a closed set of words.
    #[must_use]
    pub fn word(self) -> &'static str {
        match self {
            Self::Route => "route",
            Self::Identity => "identity",
            Self::Pod => "pod",
            Self::Held(HeldKind::ConfigMap) => "configmap",
            Self::Held(HeldKind::Secret) => "secret",
            Self::Service => "service",
            Self::Slice => "endpointslice",
            Self::Grant => "referencegrant",
            Self::Namespace => "namespace",
        }
    }
}

impl Object {
    /// Its kind.
    #[must_use]
    pub fn kind(&self) -> ObjectKind {
        match self {
            Self::Route(_) => ObjectKind::Route,
            Self::Identity(_) => ObjectKind::Identity,
            Self::Pod(_) => ObjectKind::Pod,
            Self::Held(held) => ObjectKind::Held(held.kind),
            Self::Service(_) => ObjectKind::Service,
            Self::Slice(_) => ObjectKind::Slice,
            Self::Grant(_) => ObjectKind::Grant,
            Self::Namespace { .. } => ObjectKind::Namespace,
        }
    }

    /// Its version, where that matters: a larger one is newer.
    fn version(&self) -> u64 {
        match self {
            Self::Route(route) => version_of(route.metadata.resource_version.as_deref()),
            Self::Identity(identity) => version_of(identity.metadata.resource_version.as_deref()),
            Self::Held(held) => held.version,
            Self::Pod(_) | Self::Service(_) | Self::Slice(_) | Self::Grant(_) | Self::Namespace { .. } => u64::MAX,
        }
    }

    /// Its name.
    #[must_use]
    pub fn name(&self) -> ObjectName {
        match self {
            Self::Route(route) => ObjectName::of(&**route),
            Self::Identity(identity) => ObjectName::of(&**identity),
            Self::Pod(pod) => pod.name.clone(),
            Self::Held(held) => held.name.clone(),
            Self::Service(service) => service.name.clone(),
            Self::Slice(slice) => slice.name.clone(),
            Self::Grant(grant) => grant.name.clone(),
            Self::Namespace { name, .. } => ObjectName::new("", name),
        }
    }
}

/// The picture.
#[derive(Debug, Default)]
pub struct Cluster {
    routes: BTreeMap<ObjectName, Arc<ProxyRoute>>,
    identities: BTreeMap<ObjectName, Arc<ClientIdentity>>,
    pods: BTreeMap<ObjectName, Arc<Pod>>,
    held: BTreeMap<(HeldKind, ObjectName), Arc<Held>>,
    services: BTreeMap<ObjectName, Arc<Service>>,
    backends: Backends,
    grants: BTreeMap<ObjectName, Arc<Grant>>,
    ending: BTreeSet<String>,
    /// Names of a workload's pods.
    workloads: BTreeMap<ObjectName, BTreeSet<ObjectName>>,
    /// What the identities come to together, once somebody has asked.
    directory: Option<Arc<Directory>>,
    /// Versions in which objects went that we write to, so that the answer to a write does not bring them back.
    gone: BTreeMap<(ObjectKind, ObjectName), u64>,
}

impl Cluster {
    /// Takes in what an object is now, and tells whose turn it is.
    pub fn set(&mut self, object: Object, source: Source) -> Vec<(Key, Pace)> {
        if source == Source::Change && self.is_old(&object) {
            return Vec::new();
        }
        match object {
            Object::Route(route) => {
                let name = ObjectName::of(&*route);
                let old = self.routes.insert(name.clone(), Arc::clone(&route));
                self.backends.route(&name, old.as_deref(), Some(&route));
                concern::of_route(self, old.as_deref(), Some(&route))
            }
            Object::Identity(identity) => {
                let old = self.identities.insert(ObjectName::of(&*identity), Arc::clone(&identity));
                // Of thousands most news are of statuses, and of those the directory knows nothing.
                if old.as_ref().is_none_or(|old| !is_same_but_status(old, &identity)) {
                    self.directory = None;
                }
                concern::of_identity(self, old.as_deref(), Some(&identity))
            }
            Object::Pod(pod) => {
                let old = self.pods.insert(pod.name.clone(), Arc::clone(&pod));
                if let Some(old) = &old {
                    self.leave(old);
                }
                self.workloads.entry(pod.workload()).or_default().insert(pod.name.clone());
                concern::of_pod(self, old.as_deref(), Some(&pod))
            }
            Object::Held(held) => {
                let old = self.held.insert((held.kind, held.name.clone()), Arc::clone(&held));
                concern::of_held(self, old.as_deref(), Some(&held))
            }
            Object::Service(service) => {
                let old = self.services.insert(service.name.clone(), Arc::clone(&service));
                concern::of_service(self, old.as_deref(), Some(&service))
            }
            Object::Slice(slice) => {
                let old = self.backends.set(&slice);
                concern::of_slice(self, old.as_deref(), Some(&slice))
            }
            Object::Grant(grant) => {
                let old = self.grants.insert(grant.name.clone(), Arc::clone(&grant));
                concern::of_grant(self, old.as_deref(), Some(&grant))
            }
            Object::Namespace { name, is_ending } => {
                let has_changed = if is_ending { self.ending.insert(name.clone()) } else { self.ending.remove(&name) };
                if has_changed { concern::of_namespace(self, &name) } else { Vec::new() }
            }
        }
    }

    /// Takes in what an own write was answered, and tells whose turn it is: for what was written nobody's, but the answer
    /// has in it what somebody else has changed a moment before, which the watch tells too late to be believed.
    pub fn set_written(&mut self, object: Object) -> Vec<(Key, Pace)> {
        let own = match &object {
            Object::Identity(identity) => Some(Key::Identity(ObjectName::of(&**identity))),
            _ => None,
        };
        let is_held = matches!(object, Object::Held(_));
        let mut turns = self.set(object, Source::Change);
        if is_held {
            // All of it is as it was written. A namespace has to see which authorities its policies use now.
            turns.retain(|(key, pace)| matches!((key, pace), (Key::Trust(_), Pace::Gathered)));
        } else if turns.iter().all(|(key, _)| Some(key) == own.as_ref()) {
            turns.clear();
        }
        turns
    }

    /// Whether this of an object, or something newer, is known.
    fn is_old(&self, object: &Object) -> bool {
        let (kind, name) = (object.kind(), object.name());
        let known = match kind {
            ObjectKind::Route => self.routes.get(&name).map(|route| Object::Route(Arc::clone(route))),
            ObjectKind::Held(held) => self.held.get(&(held, name.clone())).map(|held| Object::Held(Arc::clone(held))),
            ObjectKind::Identity => self.identities.get(&name).map(|identity| Object::Identity(Arc::clone(identity))),
            ObjectKind::Pod | ObjectKind::Service | ObjectKind::Slice | ObjectKind::Grant | ObjectKind::Namespace => {
                None
            }
        };
        let newest = known.map(|known| known.version()).into_iter().chain(self.gone.get(&(kind, name)).copied()).max();
        newest.is_some_and(|newest| object.version() <= newest)
    }

    /// Takes in that an object went as of a version, and tells whose turn it is.
    pub fn remove_at(&mut self, kind: ObjectKind, name: &ObjectName, version: u64) -> Vec<(Key, Pace)> {
        // Answers to writes are under way for moments only.
        if self.gone.len() >= GONE_KNOWN {
            self.gone.clear();
        }
        self.gone.insert((kind, name.clone()), version);
        self.remove(kind, name)
    }

    /// Takes in that an object is gone, and tells whose turn it is.
    pub fn remove(&mut self, kind: ObjectKind, name: &ObjectName) -> Vec<(Key, Pace)> {
        match kind {
            ObjectKind::Route => {
                let old = self.routes.remove(name);
                self.backends.route(name, old.as_deref(), None);
                concern::of_route(self, old.as_deref(), None)
            }
            ObjectKind::Identity => {
                let old = self.identities.remove(name);
                self.directory = None;
                concern::of_identity(self, old.as_deref(), None)
            }
            ObjectKind::Pod => {
                let old = self.pods.remove(name);
                if let Some(old) = &old {
                    self.leave(old);
                }
                concern::of_pod(self, old.as_deref(), None)
            }
            ObjectKind::Held(kind) => {
                let old = self.held.remove(&(kind, name.clone()));
                concern::of_held(self, old.as_deref(), None)
            }
            ObjectKind::Service => {
                let old = self.services.remove(name);
                concern::of_service(self, old.as_deref(), None)
            }
            ObjectKind::Slice => {
                let old = self.backends.remove(name);
                concern::of_slice(self, old.as_deref(), None)
            }
            ObjectKind::Grant => {
                let old = self.grants.remove(name);
                concern::of_grant(self, old.as_deref(), None)
            }
            ObjectKind::Namespace => {
                self.ending.remove(&name.name);
                Vec::new()
            }
        }
    }

    /// Takes in that a pod was touched.
    pub fn touched(&mut self, pod: &Pod, value: &str) {
        if let Some(known) = self.pods.get_mut(&pod.name)
            && known.uid == pod.uid
        {
            *known = Arc::new(Pod { touched: Some(value.to_owned()), ..(**known).clone() });
        }
    }

    /// A pod is not its workload's any more.
    fn leave(&mut self, pod: &Pod) {
        let workload = pod.workload();
        if let Some(pods) = self.workloads.get_mut(&workload) {
            pods.remove(&pod.name);
            if pods.is_empty() {
                self.workloads.remove(&workload);
            }
        }
    }

    /// Names of the objects of a kind, in one namespace or all.
    #[must_use]
    pub fn names(&self, kind: ObjectKind, namespace: Option<&str>) -> Vec<ObjectName> {
        let is_there = |name: &&ObjectName| namespace.is_none_or(|namespace| name.namespace == namespace);
        match kind {
            ObjectKind::Route => self.routes.keys().filter(is_there).cloned().collect(),
            ObjectKind::Identity => self.identities.keys().filter(is_there).cloned().collect(),
            ObjectKind::Pod => self.pods.keys().filter(is_there).cloned().collect(),
            ObjectKind::Held(kind) => {
                let names = self.held.keys().filter(|(held, _)| *held == kind).map(|(_, name)| name);
                names.filter(is_there).cloned().collect()
            }
            ObjectKind::Service => self.services.keys().filter(is_there).cloned().collect(),
            ObjectKind::Slice => self.backends.names().filter(is_there).cloned().collect(),
            ObjectKind::Grant => self.grants.keys().filter(is_there).cloned().collect(),
            ObjectKind::Namespace => self.ending.iter().map(|name| ObjectName::new("", name)).collect(),
        }
    }

    /// Namespaces that have anything a sidecar might need to know of.
    #[must_use]
    pub fn namespaces(&self) -> BTreeSet<String> {
        let names = self.routes.keys().chain(self.identities.keys()).chain(self.pods.keys());
        names.map(|name| name.namespace.clone()).collect()
    }

    /// Whether nothing can be made in a namespace any more.
    #[must_use]
    pub fn is_ending(&self, namespace: &str) -> bool {
        self.ending.contains(namespace)
    }

    /// A route.
    #[must_use]
    pub fn route(&self, name: &ObjectName) -> Option<&Arc<ProxyRoute>> {
        self.routes.get(name)
    }

    /// Routes of a namespace, in the order of their names.
    pub fn routes_in<'a>(&'a self, namespace: &'a str) -> impl Iterator<Item = &'a Arc<ProxyRoute>> {
        in_namespace(&self.routes, namespace)
    }

    /// Routes of all namespaces.
    pub fn routes(&self) -> impl Iterator<Item = &Arc<ProxyRoute>> {
        self.routes.values()
    }

    /// A client.
    #[must_use]
    pub fn identity(&self, name: &ObjectName) -> Option<&Arc<ClientIdentity>> {
        self.identities.get(name)
    }

    /// Clients of all namespaces.
    pub fn identities(&self) -> impl Iterator<Item = &Arc<ClientIdentity>> {
        self.identities.values()
    }

    /// What all clients come to together.
    pub fn directory(&mut self, names: &Names) -> Arc<Directory> {
        let identities = &self.identities;
        let make = || Arc::new(Directory::of(identities.values().map(|identity| &**identity), names));
        Arc::clone(self.directory.get_or_insert_with(make))
    }

    /// A pod.
    #[must_use]
    pub fn pod(&self, name: &ObjectName) -> Option<&Arc<Pod>> {
        self.pods.get(name)
    }

    /// Pods of a workload, in the order of their names.
    pub fn pods_of(&self, workload: &ObjectName) -> impl Iterator<Item = &Arc<Pod>> {
        self.workloads.get(workload).into_iter().flatten().filter_map(|name| self.pods.get(name))
    }

    /// Pods of a namespace, in the order of their names.
    pub fn pods_in<'a>(&'a self, namespace: &'a str) -> impl Iterator<Item = &'a Arc<Pod>> {
        in_namespace(&self.pods, namespace)
    }

    /// Workloads that a route selects a pod of.
    #[must_use]
    pub fn workloads_of(&self, route: &ProxyRoute) -> BTreeSet<ObjectName> {
        let namespace = route.metadata.namespace.as_deref().unwrap_or_default();
        self.pods_in(namespace).filter(|pod| !pod.is_ending && selects(route, pod)).map(|pod| pod.workload()).collect()
    }

    /// All workloads of a namespace.
    pub fn workloads_in<'a>(&'a self, namespace: &'a str) -> impl Iterator<Item = &'a ObjectName> {
        let names = self.workloads.range(ObjectName::new(namespace, "")..).map(|(name, _)| name);
        names.take_while(move |name| name.namespace == namespace)
    }

    /// Services of a namespace, by name.
    pub fn services_in<'a>(&'a self, namespace: &'a str) -> impl Iterator<Item = &'a Arc<Service>> {
        in_namespace(&self.services, namespace)
    }

    /// Services that send requests to a pod of a workload, by name.
    pub fn services_of<'a>(&'a self, workload: &'a ObjectName) -> impl Iterator<Item = &'a Arc<Service>> {
        let services = in_namespace(&self.services, &workload.namespace);
        services.filter(|service| self.pods_of(workload).any(|pod| !pod.is_ending && service.selects(pod)))
    }

    /// Where a port of a Service is, as far as it is known, for routes of a namespace.
    ///
    /// # Errors
    /// When they may not know, there is no such port, or it can have no addresses.
    pub fn endpoints(&self, from: &str, port: &ServicePort) -> Result<Vec<Endpoint>, Unresolved> {
        // Whether there is such a Service is nobody's business who may not ask it.
        if !self.permits(from, Granted::Service, &port.service) {
            return Err(Unresolved::NotPermitted(port.service.clone(), from.to_owned()));
        }
        self.backends.endpoints(self.services.get(&port.service).map(|service| &**service), port)
    }

    /// Whether routes of a namespace may name an object: of their own, or where a grant says so.
    #[must_use]
    pub fn permits(&self, from: &str, kind: Granted, object: &ObjectName) -> bool {
        let mut grants = in_namespace(&self.grants, &object.namespace);
        object.namespace == from || grants.any(|grant| grant.permits(from, kind, &object.name))
    }

    /// Workloads whose routes send requests to a Service of a namespace.
    #[must_use]
    pub fn workloads_asking_in(&self, namespace: &str) -> BTreeSet<ObjectName> {
        self.backends.services_in(namespace).flat_map(|service| self.workloads_asking(service)).collect()
    }

    /// Workloads whose routes send requests to a Service.
    #[must_use]
    pub fn workloads_asking(&self, service: &ObjectName) -> BTreeSet<ObjectName> {
        let routes = self.backends.routes_of(service).filter_map(|name| self.routes.get(name));
        routes.flat_map(|route| self.workloads_of(route)).collect()
    }

    /// An object of ours.
    #[must_use]
    pub fn held(&self, kind: HeldKind, name: &ObjectName) -> Option<&Arc<Held>> {
        self.held.get(&(kind, name.clone()))
    }

    /// All objects of ours of a kind in a namespace.
    pub fn held_in<'a>(&'a self, kind: HeldKind, namespace: &'a str) -> impl Iterator<Item = &'a Arc<Held>> {
        let there = self.held.range((kind, ObjectName::new(namespace, ""))..).map(|(_, held)| held);
        there.take_while(move |held| held.kind == kind && held.name.namespace == namespace)
    }
}

/// Whether two states of a client differ in what others say of it at most.
fn is_same_but_status(old: &ClientIdentity, new: &ClientIdentity) -> bool {
    let (before, now) = (&old.metadata, &new.metadata);
    old.spec == new.spec
        && (&before.uid, &before.labels) == (&now.uid, &now.labels)
        && (&before.creation_timestamp, &before.deletion_timestamp)
            == (&now.creation_timestamp, &now.deletion_timestamp)
}

/// Whether a route's selector chooses a pod.
#[must_use]
pub fn selects(route: &ProxyRoute, pod: &Pod) -> bool {
    let selector = &route.spec.pod_selector;
    // An empty selector would choose everything; the schema refuses it, and so does this.
    !selector.match_labels.is_empty() && selector.selects(&pod.labels)
}

/// A version as a number. It is one in every API server that stores into etcd; what is none is older than everything.
#[must_use]
pub fn version_of(text: Option<&str>) -> u64 {
    text.and_then(|text| text.parse().ok()).unwrap_or(0)
}

fn in_namespace<'a, T>(
    objects: &'a BTreeMap<ObjectName, Arc<T>>,
    namespace: &'a str,
) -> impl Iterator<Item = &'a Arc<T>> {
    let first = ObjectName::new(namespace, "");
    objects.range(first..).take_while(move |(name, _)| name.namespace == namespace).map(|(_, object)| object)
}

#[cfg(test)]
mod tests;
