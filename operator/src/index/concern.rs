//! Whose turn it is when something of the cluster has changed.

use std::collections::BTreeSet;

use postern_crds::clientidentity::State;
use postern_crds::proxyroute::Caller;
use postern_crds::{ClientIdentity, ProxyRoute};

use super::cluster::selects;
use super::held::{BUNDLES_ANNOTATION, PART_LABEL};
use super::{Cluster, Grant, Held, HeldKind, ObjectName, Pod, Service, Slice};
use crate::authority::AUTHORITY_PART;
use crate::identity::objects::{IDENTITY_LABEL, LEDGER, LEDGER_LABEL, label_value};
use crate::limits::CALM;
use crate::pki::ledger::Ledger;
use crate::queue::{Key, Pace};

type Turns = Vec<(Key, Pace)>;

fn gathered(keys: impl IntoIterator<Item = Key>) -> Turns {
    keys.into_iter().map(|key| (key, Pace::Gathered)).collect()
}

/// Everything there is, whatever became of it before.
pub(super) fn of_everything(cluster: &Cluster) -> Turns {
    let mut turns = vec![(Key::Authority, Pace::Gathered), (Key::Webhook, Pace::Now), (Key::Audit, Pace::After(CALM))];
    for namespace in cluster.namespaces() {
        turns.extend(cluster.workloads_in(&namespace).cloned().map(|name| (Key::Workload(name), Pace::Gathered)));
        // Clients that went while nobody looked.
        turns.push((Key::Ledger(namespace.clone()), Pace::Now));
        turns.push((Key::Trust(namespace), Pace::Urgent));
    }
    turns.extend(cluster.routes().map(|route| (Key::Route(ObjectName::of(&**route)), Pace::Gathered)));
    turns.extend(cluster.identities().map(|one| (Key::Identity(ObjectName::of(&**one)), Pace::Gathered)));
    turns
}

/// Everything there is in a namespace, which was not served before.
pub(super) fn of_everything_in(cluster: &Cluster, namespace: &str) -> Turns {
    let is_in = |name: &ObjectName| name.namespace == namespace;
    let routes = cluster.routes_in(namespace).map(|route| Key::Route(ObjectName::of(&**route)));
    let clients = cluster.identities().map(|one| ObjectName::of(&**one)).filter(is_in).map(Key::Identity);
    let workloads = cluster.workloads_in(namespace).cloned().map(Key::Workload);
    let mut turns = gathered(workloads.chain(routes).chain(clients));
    turns.push((Key::Trust(namespace.to_owned()), Pace::Urgent));
    turns
}

/// A route concerns the workloads it selects, before or now, and its own status.
pub(super) fn of_route(cluster: &Cluster, old: Option<&ProxyRoute>, new: Option<&ProxyRoute>) -> Turns {
    // What was written to its status by us or others changes nothing that is planned.
    if let (Some(old), Some(new)) = (old, new)
        && old.spec == new.spec
        && old.metadata.generation == new.metadata.generation
        && old.metadata.uid == new.metadata.uid
    {
        return Turns::new();
    }
    let both = [old, new].into_iter().flatten();
    let mut keys: BTreeSet<_> = both.clone().flat_map(|route| cluster.workloads_of(route)).map(Key::Workload).collect();
    keys.extend(new.map(|route| Key::Route(ObjectName::of(route))));
    // A bundle that a route names is its namespace's to trust.
    keys.extend(both.filter_map(|route| route.metadata.namespace.clone()).map(Key::Trust));
    gathered(keys)
}

/// A client concerns whoever lets it in, and everybody as soon as it is more or less than active.
pub(super) fn of_identity(cluster: &Cluster, old: Option<&ClientIdentity>, new: Option<&ClientIdentity>) -> Turns {
    let both = [old, new].into_iter().flatten();
    let mut turns: Turns =
        new.map(|identity| (Key::Identity(ObjectName::of(identity)), Pace::Now)).into_iter().collect();
    if new.is_none_or(|new| old.is_some_and(|old| old.metadata.uid != new.metadata.uid)) {
        // It has gone, perhaps past its finalizer.
        let namespace = both.clone().find_map(|identity| identity.metadata.namespace.clone());
        turns.extend(namespace.map(|namespace| (Key::Ledger(namespace), Pace::Now)));
    }
    if let (Some(old), Some(new)) = (old, new)
        && old.spec == new.spec
        && old.metadata.labels == new.metadata.labels
        && old.metadata.uid == new.metadata.uid
        && old.metadata.deletion_timestamp == new.metadata.deletion_timestamp
    {
        return turns;
    }
    let namespaces = cluster.namespaces();
    turns.extend(namespaces.iter().map(|namespace| (Key::Trust(namespace.clone()), Pace::Urgent)));
    let own = both.clone().filter_map(|identity| identity.metadata.namespace.as_deref()).collect::<BTreeSet<_>>();
    let concerned =
        if both.clone().any(is_restricted) { namespaces.iter().map(String::as_str).collect() } else { own.clone() };
    let mut workloads: BTreeSet<ObjectName> =
        concerned.iter().flat_map(|namespace| cluster.workloads_in(namespace)).cloned().collect();
    let elsewhere = cluster.routes().filter(|route| own.iter().any(|namespace| names_clients_of(route, namespace)));
    workloads.extend(elsewhere.flat_map(|route| cluster.workloads_of(route)));
    turns.extend(gathered(workloads.into_iter().map(Key::Workload)));
    turns
}

/// A pod concerns its workload, and the routes that it gives a workload to or takes one from.
pub(super) fn of_pod(cluster: &Cluster, old: Option<&Pod>, new: Option<&Pod>) -> Turns {
    if let (Some(old), Some(new)) = (old, new)
        && !old.differs(new)
    {
        return Turns::new();
    }
    let both = [old, new].into_iter().flatten();
    let mut keys: BTreeSet<_> = both.clone().map(|pod| Key::Workload(pod.workload())).collect();
    if old.is_none() {
        keys.extend(new.map(|pod| Key::Trust(pod.name.namespace.clone())));
    }
    for pod in both {
        let routes = cluster.routes_in(&pod.name.namespace).filter(|route| selects(route, pod));
        keys.extend(routes.map(|route| Key::Route(ObjectName::of(&**route))));
    }
    gathered(keys)
}

/// An object of ours that is not as it was left concerns whoever writes it.
pub(super) fn of_held(cluster: &Cluster, old: Option<&Held>, new: Option<&Held>) -> Turns {
    if let (Some(old), Some(new)) = (old, new)
        && !old.differs(new)
    {
        return Turns::new();
    }
    let Some(held) = new.or(old) else { return Turns::new() };
    let namespace = &held.name.namespace;
    if let Some(workload) = held.workload() {
        let bundles =
            |held: Option<&Held>| held.and_then(|held| held.annotations.get(BUNDLES_ANNOTATION).map(str::to_owned));
        // A namespace trusts what its policies use, until they are written without it.
        let trust = (bundles(old) != bundles(new)).then(|| Key::Trust(namespace.clone()));
        return gathered(trust.into_iter().chain([Key::Workload(workload)]));
    }
    if held.labels.get(PART_LABEL).is_some_and(|part| part == AUTHORITY_PART) {
        return gathered([Key::Authority]);
    }
    if let Some(label) = held.labels.get(IDENTITY_LABEL) {
        let identities = cluster.identities().map(|identity| ObjectName::of(&**identity));
        let its = identities.filter(|name| name.namespace == *namespace && label_value(&name.name) == label);
        return gathered(its.map(Key::Identity));
    }
    if held.labels.get(LEDGER_LABEL.0).is_some_and(|part| part == LEDGER_LABEL.1) {
        if let (Some(old), Some(new)) = (old.and_then(revoked), new.and_then(revoked))
            && old == new
        {
            // Somebody was issued something, which nobody has to be told.
            return Turns::new();
        }
        // It revokes in all namespaces: certificates are shown wherever their owners like.
        return cluster.namespaces().into_iter().map(|namespace| (Key::Trust(namespace), Pace::Urgent)).collect();
    }
    if held.kind == HeldKind::ConfigMap && held.name.name == crate::workload::names::TRUST {
        return vec![(Key::Trust(namespace.clone()), Pace::Urgent)];
    }
    Turns::new()
}

/// What a ledger revokes; `None` of one that cannot be read, which somebody has to be told.
fn revoked(ledger: &Held) -> Option<BTreeSet<String>> {
    let text = ledger.entries.as_deref()?.text(LEDGER)?;
    Some(Ledger::read(Some(text)).ok()?.revoked().map(str::to_owned).collect())
}

/// A Service gives its name to the workloads whose pods it sends requests to, and its addresses to those that ask it.
pub(super) fn of_service(cluster: &Cluster, old: Option<&Service>, new: Option<&Service>) -> Turns {
    if old == new {
        return Turns::new();
    }
    let pods = |service: &Service| {
        let pods = cluster.pods_in(&service.name.namespace).filter(|pod| service.selects(pod));
        pods.map(|pod| Key::Workload(pod.workload())).collect::<Vec<_>>()
    };
    let both = [old, new].into_iter().flatten();
    let asking = both.clone().next().map(|service| cluster.workloads_asking(&service.name)).unwrap_or_default();
    gathered(both.flat_map(pods).chain(asking.into_iter().map(Key::Workload)).collect::<BTreeSet<_>>())
}

/// Addresses of a Service concern the workloads that ask it.
pub(super) fn of_slice(cluster: &Cluster, old: Option<&Slice>, new: Option<&Slice>) -> Turns {
    if old == new {
        return Turns::new();
    }
    let services: BTreeSet<_> = [old, new].into_iter().flatten().map(|slice| &slice.service).collect();
    let workloads: BTreeSet<_> = services.into_iter().flat_map(|service| cluster.workloads_asking(service)).collect();
    gathered(workloads.into_iter().map(Key::Workload))
}

/// A grant concerns the workloads that ask Services of its namespace, or show certificates of it.
pub(super) fn of_grant(cluster: &Cluster, old: Option<&Grant>, new: Option<&Grant>) -> Turns {
    if old == new {
        return Turns::new();
    }
    let namespaces: BTreeSet<_> = [old, new].into_iter().flatten().map(|grant| &grant.name.namespace).collect();
    let mut workloads: BTreeSet<_> =
        namespaces.iter().flat_map(|namespace| cluster.workloads_asking_in(namespace)).collect();
    let showing = cluster.routes().filter(|route| namespaces.iter().any(|name| shows_certificates_of(route, name)));
    workloads.extend(showing.flat_map(|route| cluster.workloads_of(route)));
    gathered(workloads.into_iter().map(Key::Workload))
}

/// A namespace that comes to its end, or is there after all, concerns all that is in it.
pub(super) fn of_namespace(cluster: &Cluster, namespace: &str) -> Turns {
    let workloads = cluster.workloads_in(namespace).cloned().map(Key::Workload);
    gathered(workloads.chain([Key::Trust(namespace.to_owned())]))
}

/// Whether a client says more of itself than that it is let in where a rule says so.
pub(crate) fn is_restricted(identity: &ClientIdentity) -> bool {
    identity.spec.state != State::Active || identity.spec.accept_issued_after.is_some()
}

/// Whether a route's listener shows certificates of another namespace.
fn shows_certificates_of(route: &ProxyRoute, namespace: &str) -> bool {
    let refs = route.spec.listener.tls.iter().flat_map(|tls| &tls.certificate_refs);
    refs.filter_map(|reference| reference.namespace.as_deref()).any(|named| named == namespace)
}

/// Whether a route lets clients of a namespace in by their names.
fn names_clients_of(route: &ProxyRoute, namespace: &str) -> bool {
    let mut entries = route.spec.rules.iter().flat_map(|rule| &rule.allow);
    entries.any(|entry| {
        matches!(entry.caller(), Some(Caller::Identity(client)) if client.namespace.as_deref() == Some(namespace))
    })
}
