//! What there is to know of a workload, as of one moment. The only step that looks.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use postern_crds::ProxyRoute;

use super::names;
use crate::index::cluster::selects;
use crate::index::{Cluster, Held, HeldKind, ObjectName, Pod};

/// What there is to know of a workload.
#[derive(Clone, Debug)]
pub struct Observed {
    /// Its name.
    pub workload: ObjectName,
    /// Its pods, by name.
    pub pods: Vec<Arc<Pod>>,
    /// Routes that select any of them, the oldest first.
    pub routes: Vec<Arc<ProxyRoute>>,
    /// Secrets with its certificates.
    pub secrets: Vec<Arc<Held>>,
    /// Names of the Services that send requests to its pods.
    pub services: Vec<String>,
    /// Whether nothing can be made in its namespace any more.
    pub is_ending: bool,
}

impl Observed {
    /// Which generation of each route this is.
    #[must_use]
    pub fn generations(&self) -> BTreeMap<ObjectName, i64> {
        let generation = |route: &ProxyRoute| route.metadata.generation.unwrap_or_default();
        self.routes.iter().map(|route| (ObjectName::of(&**route), generation(route))).collect()
    }

    /// Service accounts of its pods.
    #[must_use]
    pub fn accounts(&self) -> BTreeSet<&str> {
        self.pods.iter().filter(|pod| !pod.is_ending).map(|pod| pod.service_account.as_str()).collect()
    }

    /// Names of the Secrets with its certificates, as they are to be.
    #[must_use]
    pub fn identity_secrets(&self) -> Vec<ObjectName> {
        let name = |account: &str| names::identity(&self.workload.name, account);
        self.accounts().into_iter().map(|one| ObjectName::new(self.workload.namespace.clone(), name(one))).collect()
    }
}

/// Looks.
#[must_use]
pub fn observe(cluster: &Cluster, workload: &ObjectName) -> Observed {
    let pods: Vec<_> = cluster.pods_of(workload).cloned().collect();
    let selected = |route: &&Arc<ProxyRoute>| pods.iter().any(|pod| !pod.is_ending && selects(route, pod));
    let mut routes: Vec<_> = cluster.routes_in(&workload.namespace).filter(selected).cloned().collect();
    routes.sort_by_cached_key(|route| age(route));
    let secrets = cluster.held_in(HeldKind::Secret, &workload.namespace);
    let secrets = secrets.filter(|held| held.workload().as_ref() == Some(workload)).cloned().collect();
    let services = cluster.services_of(workload).map(|service| service.name.name.clone()).collect();
    let is_ending = cluster.is_ending(&workload.namespace);
    Observed { workload: workload.clone(), routes, secrets, services, is_ending, pods }
}

/// Of two routes the older one is heard; of the same age the one whose name comes first.
fn age(route: &ProxyRoute) -> (Option<k8s_openapi::jiff::Timestamp>, ObjectName) {
    (route.metadata.creation_timestamp.as_ref().map(|time| time.0), ObjectName::of(route))
}
