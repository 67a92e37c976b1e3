//! Services that routes send requests to: which routes name them, and at which addresses they are.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::net::SocketAddr;
use std::sync::Arc;

use postern_crds::ProxyRoute;
use postern_crds::proxyroute::BackendTarget;
use sidecar_config::endpoints::Endpoint;
use thiserror::Error;

use super::{ObjectName, Service, Slice};

/// A port of a Service. In documents it is the name of a set of addresses.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct ServicePort {
    /// The Service.
    pub service: ObjectName,
    /// Its port.
    pub port: u16,
}

impl ServicePort {
    /// Of the name of a set; `None` for what was not made from one.
    #[must_use]
    pub fn of(set: &str) -> Option<Self> {
        let (service, port) = set.rsplit_once(':')?;
        let (namespace, name) = service.split_once('/')?;
        Some(Self { service: ObjectName::new(namespace, name), port: port.parse().ok()? })
    }
}

impl fmt::Display for ServicePort {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.service, self.port)
    }
}

/// Why a port of a Service has no addresses, not even none.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
pub enum Unresolved {
    /// There is no such Service.
    #[error("there is no Service {0}")]
    NoService(ObjectName),
    /// It has other ports.
    #[error("Service {0} has no port {1} for TCP; it has {2}")]
    NoPort(ObjectName, u16, String),
    /// Nobody in its namespace has said that it may be asked from another one.
    #[error("Service {0} is of another namespace, and no ReferenceGrant there permits ProxyRoutes of {1} to ask it")]
    NotPermitted(ObjectName, String),
    /// It has no addresses of its own.
    #[error("Service {0} is of type ExternalName, which has no addresses; write the name that it stands for as `host`")]
    External(ObjectName),
}

/// Slices by Service, and routes by the Services they name.
#[derive(Debug, Default)]
pub(super) struct Backends {
    slices: BTreeMap<ObjectName, Arc<Slice>>,
    slices_of: BTreeMap<ObjectName, BTreeSet<ObjectName>>,
    routes_of: BTreeMap<ObjectName, BTreeSet<ObjectName>>,
}

impl Backends {
    /// Takes in what a slice is now, and gives what it was.
    pub(super) fn set(&mut self, slice: &Arc<Slice>) -> Option<Arc<Slice>> {
        let old = self.remove(&slice.name);
        self.slices_of.entry(slice.service.clone()).or_default().insert(slice.name.clone());
        self.slices.insert(slice.name.clone(), Arc::clone(slice));
        old
    }

    /// Takes in that a slice is gone, and gives what it was.
    pub(super) fn remove(&mut self, name: &ObjectName) -> Option<Arc<Slice>> {
        let old = self.slices.remove(name)?;
        leave(&mut self.slices_of, &old.service, name);
        Some(old)
    }

    /// Names of all slices.
    pub(super) fn names(&self) -> impl Iterator<Item = &ObjectName> {
        self.slices.keys()
    }

    /// Takes in what Services a route names, before and now.
    pub(super) fn route(&mut self, name: &ObjectName, old: Option<&ProxyRoute>, new: Option<&ProxyRoute>) {
        for service in old.into_iter().flat_map(named_services) {
            leave(&mut self.routes_of, &service, name);
        }
        for service in new.into_iter().flat_map(named_services) {
            self.routes_of.entry(service).or_default().insert(name.clone());
        }
    }

    /// Services of a namespace that routes name.
    pub(super) fn services_in<'a>(&'a self, namespace: &'a str) -> impl Iterator<Item = &'a ObjectName> {
        let first = ObjectName::new(namespace, "");
        self.routes_of.range(first..).map(|(service, _)| service).take_while(|service| service.namespace == *namespace)
    }

    /// Names of the routes that name a Service.
    pub(super) fn routes_of(&self, service: &ObjectName) -> impl Iterator<Item = &ObjectName> {
        self.routes_of.get(service).into_iter().flatten()
    }

    /// Where a port of a Service is, sorted, each address once.
    pub(super) fn endpoints(&self, service: Option<&Service>, port: &ServicePort) -> Result<Vec<Endpoint>, Unresolved> {
        let name = &port.service;
        let service = service.ok_or_else(|| Unresolved::NoService(name.clone()))?;
        if service.is_external {
            return Err(Unresolved::External(name.clone()));
        }
        let Some(known) = service.ports.iter().find(|known| known.number == port.port) else {
            let ports: Vec<_> = service.ports.iter().map(|known| known.number.to_string()).collect();
            let ports = if ports.is_empty() { "none".to_owned() } else { ports.join(", ") };
            return Err(Unresolved::NoPort(name.clone(), port.port, ports));
        };
        let slices = self.slices_of.get(name).into_iter().flatten().filter_map(|slice| self.slices.get(slice));
        let mut found = BTreeMap::<SocketAddr, Endpoint>::new();
        for (slice, number) in slices.filter_map(|slice| Some((slice, slice.port(&known.name)?))) {
            for endpoint in &slice.endpoints {
                let address = SocketAddr::new(endpoint.address, number);
                let new = Endpoint {
                    address,
                    ready: endpoint.is_ready,
                    serving: endpoint.is_serving,
                    terminating: endpoint.is_terminating,
                };
                // While it moves from one slice to another it may be in both: the better word counts.
                let rank = |one: &Endpoint| (one.ready && !one.terminating, one.serving);
                let kept = found.entry(address).or_insert_with(|| new.clone());
                if rank(&new) > rank(kept) {
                    *kept = new;
                }
            }
        }
        Ok(found.into_values().collect())
    }
}

/// Services that a route names.
#[must_use]
pub fn named_services(route: &ProxyRoute) -> Vec<ObjectName> {
    let own = route.metadata.namespace.as_deref().unwrap_or_default();
    let backends = route.spec.rules.iter().flat_map(|rule| &rule.backend_refs);
    let named = backends.filter_map(|backend| match backend.target()? {
        BackendTarget::Service { namespace, name, .. } => Some(ObjectName::new(namespace.unwrap_or(own), name)),
        BackendTarget::Local(_) | BackendTarget::Host { .. } => None,
    });
    named.collect()
}

/// Takes a name out of a set, and the set out of the map when it is empty.
fn leave(map: &mut BTreeMap<ObjectName, BTreeSet<ObjectName>>, key: &ObjectName, name: &ObjectName) {
    if let Some(names) = map.get_mut(key) {
        names.remove(name);
        if names.is_empty() {
            map.remove(key);
        }
    }
}

#[cfg(test)]
mod tests;
