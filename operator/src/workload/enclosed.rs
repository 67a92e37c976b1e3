//! Whether there is a way around the gate of a route: a Service that sends past it, or an application that listens on more
//! than loopback, as each sidecar sees it. Pure.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use postern_crds::condition::Verdict as Condition;
use postern_crds::proxyroute::BackendTarget;
use postern_crds::{ConditionStatus, ConditionType, ProxyRoute, Reason};

use super::board::{Heard, Report};
use crate::index::cluster::selects;
use crate::index::{Cluster, ObjectName, Pod};

/// What is known of ways around a gate.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Ways {
    /// Services that send to the application past the gate, in words.
    pub services: Vec<String>,
    /// Pods whose application can be reached past the gate, in words.
    pub pods: Vec<String>,
    /// Pods that have started.
    pub started: u32,
    /// Those of them whose sidecar has the route and has looked.
    pub told: u32,
    /// Whether the route sends anything to an application of its own pods.
    pub is_local: bool,
}

impl Ways {
    /// Around the gate of a route, with the reports of all workloads that it selects.
    #[must_use]
    pub fn of(route: &ProxyRoute, services: Vec<String>, reports: &BTreeMap<ObjectName, Arc<Report>>) -> Self {
        let local = local_ports(route);
        let mut ways = Self { services, is_local: !local.is_empty(), ..Self::default() };
        let name = ObjectName::of(route);
        for report in reports.values() {
            let hash = report.routes.get(&name).and_then(|verdict| verdict.accepted.as_ref().ok());
            for (pod, heard) in report.pods.iter().filter(|(pod, _)| selects(route, pod)) {
                if *heard == Heard::NotStarted {
                    continue;
                }
                ways.started += 1;
                let Heard::Answered(answer) = heard else { continue };
                // A sidecar looks at the ports of the routes that it has.
                let has_route = hash.is_some() && answer.routes.get(&name.to_string()) == hash;
                let Some(exposed) = answer.exposed_ports.as_ref().filter(|_| has_route) else { continue };
                ways.told += 1;
                let ports: Vec<_> = exposed.iter().filter(|port| local.contains(port)).map(u16::to_string).collect();
                if !ports.is_empty() {
                    ways.pods.push(format!("{} at port {}", pod.name.name, ports.join(", ")));
                }
            }
        }
        ways
    }
}

/// Services of a route's namespace that send to its pods' applications, in words.
#[must_use]
pub fn bypassing(cluster: &Cluster, route: &ProxyRoute) -> Vec<String> {
    let (local, namespace) = (local_ports(route), route.metadata.namespace.as_deref().unwrap_or_default());
    if local.is_empty() {
        return Vec::new();
    }
    let pods: Vec<_> = cluster.pods_in(namespace).filter(|pod| !pod.is_ending && selects(route, pod)).collect();
    let mut found = Vec::new();
    for service in cluster.services_in(namespace) {
        let of = |pod: &&&Arc<Pod>| service.selects(pod);
        for port in &service.ports {
            let targets = pods.iter().filter(of).filter_map(|pod| pod.port(&port.target));
            let past: BTreeSet<_> = targets.filter(|target| local.contains(target)).collect();
            found.extend(
                past.iter().map(|target| format!("{} from its port {} to {target}", service.name, port.number)),
            );
        }
    }
    found
}

/// Ports of the application that a route sends requests to.
fn local_ports(route: &ProxyRoute) -> BTreeSet<u16> {
    let backends = route.spec.rules.iter().flat_map(|rule| &rule.backend_refs);
    let ports = backends.filter_map(|backend| match backend.target()? {
        BackendTarget::Local(port) => Some(port),
        BackendTarget::Service { .. } | BackendTarget::Host { .. } => None,
    });
    ports.collect()
}

/// What is so.
#[must_use]
pub fn verdict(ways: &Ways) -> Condition {
    let Ways { services, pods, started, told, is_local } = ways;
    let condition = |status, reason, message| Condition { kind: ConditionType::Enclosed, status, reason, message };
    if !services.is_empty() {
        let advice = "let it send to the gate's port, or take it away";
        let message = format!("a Service sends past the gate: {}; {advice}", services.join("; "));
        return condition(ConditionStatus::False, Reason::ServiceBypasses, message);
    }
    if !pods.is_empty() {
        let advice = "let it listen on 127.0.0.1 alone";
        let message = format!("the application can be reached past the gate: {}; {advice}", pods.join("; "));
        return condition(ConditionStatus::False, Reason::AppListensOnAllAddresses, message);
    }
    if !is_local {
        let message = "it sends nothing to an application of its own pods".to_owned();
        return condition(ConditionStatus::True, Reason::Enclosed, message);
    }
    if *started == 0 || told < started {
        let message = format!("{told} of {started} started pods have told whether there is a way around the gate");
        return condition(ConditionStatus::Unknown, Reason::NotChecked, message);
    }
    let message = "no Service sends past the gate, and no application listens beyond loopback".to_owned();
    condition(ConditionStatus::True, Reason::Enclosed, message)
}

#[cfg(test)]
mod tests;
