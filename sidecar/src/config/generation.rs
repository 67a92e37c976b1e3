//! One generation of the configuration, with all that workers need of it made beforehand.

use std::net::SocketAddr;
use std::sync::Arc;

use sidecar_config::policy::{Mode, Protocol};
use sidecar_decide::{Listener, Rule, Snapshot, Target};

use crate::health::Ejections;
use crate::limit::{Limits, Room};
use crate::log::{Scope, ScopeFacts};
use crate::metrics::Counted;
use crate::tls::{OwnCertificates, ServerKey, TicketKeys, TlsContext, UpstreamTls, UpstreamTlsStates};
use crate::upstream::{EndpointState, Endpoints};

/// What is known of upstreams over generations.
#[derive(Debug, Default)]
pub struct Upstreams {
    endpoints: Endpoints,
    tls: UpstreamTlsStates,
}

impl Upstreams {
    /// Counts of endpoints that were left out.
    pub fn ejections(&self) -> &Arc<Ejections> {
        self.endpoints.ejections()
    }
}

/// A snapshot and what is derived from it once, off the workers.
#[derive(Debug)]
pub struct Generation {
    /// What requests are decided on.
    pub snapshot: Snapshot,
    /// Bounds on what clients may take.
    pub limits: Limits,
    /// What rows say of where they were decided, by rule.
    pub rule_scopes: Vec<Arc<Scope>>,
    /// The same where no rule was found, by listener.
    pub listener_scopes: Vec<Arc<Scope>>,
    /// What each listener is known by over reloads.
    pub listener_keys: Vec<ListenerKey>,
    /// Where tries are counted, by rule and its backends.
    pub backend_scopes: Vec<Box<[Arc<BackendScope>]>>,
    /// What is known of each endpoint, in the snapshot's order.
    pub endpoints: Vec<Arc<EndpointState>>,
    /// TLS to each of them; `None` where there is none to speak, or none that can be spoken.
    pub upstream_tls: Vec<Option<Arc<UpstreamTls>>>,
    /// TLS by listener; `None` for `HTTP`, and without a certificate.
    pub tls: Vec<Option<Arc<TlsContext>>>,
}

impl Generation {
    /// Derives everything from a snapshot, how much room there is, the keys of the server's certificates, in their order,
    /// the keys of the session tickets, and what is known of upstreams.
    pub fn new(
        snapshot: Snapshot,
        room: &Room,
        keys: &[ServerKey],
        tickets: &TicketKeys,
        upstreams: &mut Upstreams,
    ) -> Self {
        let certificates = snapshot.server.as_ref().and_then(|server| OwnCertificates::new(server, keys));
        let endpoints = upstreams.endpoints.of(&snapshot.endpoints);
        let upstream_tls = upstreams.tls.of(&snapshot, certificates.as_ref());
        let revision = snapshot.policy_revision.as_ref().map(|revision| Box::from(revision.as_str()));
        let rule_scopes = snapshot.rules.iter().map(|rule| rule_scope(rule, revision.clone())).collect();
        let backend_scopes = snapshot.rules.iter().map(backend_scopes).collect();
        let listener_scopes = snapshot.listeners.iter().map(|listener| listener_scope(listener, revision.clone()));
        let listener_scopes = listener_scopes.collect();
        let tls = snapshot.listeners.iter().map(|listener| {
            let certificates = certificates.clone().filter(|_| listener.protocol != Protocol::Http)?;
            Some(Arc::new(TlsContext::new(&snapshot, listener, certificates, tickets.clone())))
        });
        let tls = tls.collect();
        let listener_keys = snapshot.listeners.iter().map(ListenerKey::of).collect();
        Self {
            limits: Limits::of(&snapshot.limits, room),
            snapshot,
            rule_scopes,
            listener_scopes,
            listener_keys,
            backend_scopes,
            endpoints,
            upstream_tls,
            tls,
        }
    }

    /// Whether a client that another generation has let in, and not refused since, may be judged otherwise by this one.
    /// `has_tunnels`: whether anybody has gone on with another protocol than HTTP.
    pub fn judges_anew(&self, other: &Self, has_tunnels: bool) -> bool {
        let parts = |generation: &Self| {
            (generation.snapshot.trust_revision.clone(), generation.snapshot.identities_revision.clone())
        };
        let trusted = |generation: &Self| {
            let listeners = generation.listener_keys.iter().zip(&generation.snapshot.listeners);
            listeners.map(|(key, listener)| (key.clone(), listener.client_auth, listener.bundles.clone())).collect()
        };
        // Requests are decided one by one; what is passed on as it comes was decided by the policy of its beginning.
        let forwards = has_tunnels || self.snapshot.listeners.iter().any(|listener| listener.protocol == Protocol::Tls);
        let policy_differs = self.snapshot.policy_revision != other.snapshot.policy_revision;
        let (mine, others): (Vec<_>, Vec<_>) = (trusted(self), trusted(other));
        parts(self) != parts(other) || mine != others || (forwards && policy_differs)
    }

    /// Whether another generation presents another certificate.
    pub fn presents_another(&self, other: &Self) -> bool {
        let revision = |generation: &Self| generation.snapshot.server.as_ref().map(|server| server.revision.clone());
        let own = |generation: &Self| {
            let listeners = generation.listener_keys.iter().zip(&generation.snapshot.listeners);
            let own = listeners.filter(|(_, listener)| !listener.certificates.is_empty());
            own.map(|(key, listener)| (key.clone(), listener.certificates.clone())).collect::<Vec<_>>()
        };
        revision(self) != revision(other) || own(self) != own(other)
    }

    /// Where a listener stands, if this generation still has it.
    pub fn listener(&self, key: &ListenerKey) -> Option<usize> {
        self.listener_keys.iter().position(|known| known == key)
    }

    /// The listeners that can serve: with TLS, those that have a certificate.
    pub fn listening(&self) -> Vec<ListenerKey> {
        let listeners = self.listener_keys.iter().zip(&self.tls);
        let can_serve = |(key, tls): &(&ListenerKey, &Option<_>)| key.protocol == Protocol::Http || tls.is_some();
        listeners.filter(can_serve).map(|(key, _)| key.clone()).collect()
    }

    /// What a listener is called; empty if this generation does not have it.
    pub fn listener_name(&self, key: &ListenerKey) -> Arc<str> {
        let listener = self.listener(key).and_then(|index| self.snapshot.listeners.get(index));
        listener.map_or_else(|| "".into(), |listener| Arc::clone(&listener.name))
    }
}

/// A backend of a rule, for metrics.
#[derive(Debug)]
pub struct BackendScope {
    /// What the configuration calls it.
    pub name: Arc<str>,
    /// Where what becomes of tries is counted.
    pub counted: Counted,
}

/// What makes two listeners the same over a reload, so that sockets and connections are kept: address and protocol,
/// whatever the listener is called. Only port 0, which asks for any port, needs the name to tell two apart. Were the
/// protocol not in it, connections from before would be served by rules that count on another one.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ListenerKey {
    /// The address as configured.
    pub address: SocketAddr,
    /// What is spoken on it.
    pub protocol: Protocol,
    name: Option<Arc<str>>,
}

impl ListenerKey {
    fn of(listener: &Listener) -> Self {
        let name = (listener.address.port() == 0).then(|| Arc::clone(&listener.name));
        Self { address: listener.address, protocol: listener.protocol, name }
    }
}

fn backend_scopes(rule: &Rule) -> Box<[Arc<BackendScope>]> {
    let Target::Backends(backends) = &rule.target else { return Box::default() };
    let scope = |name: &Arc<str>| Arc::new(BackendScope { name: Arc::clone(name), counted: Counted::default() });
    backends.iter().map(|backend| scope(&backend.name)).collect()
}

fn rule_scope(rule: &Rule, policy_revision: Option<Box<str>>) -> Arc<Scope> {
    let mode = match rule.mode {
        Mode::Enforce => "Enforce",
        Mode::Audit => "Audit",
    };
    Arc::new(Scope::new(ScopeFacts {
        listener: Some((&*rule.listener).into()),
        route: Some((&*rule.route).into()),
        rule: Some((&*rule.name).into()),
        mode: Some(mode),
        policy_revision,
        ..ScopeFacts::default()
    }))
}

fn listener_scope(listener: &Listener, policy_revision: Option<Box<str>>) -> Arc<Scope> {
    let listener = Some((&*listener.name).into());
    Arc::new(Scope::new(ScopeFacts { listener, policy_revision, ..ScopeFacts::default() }))
}
