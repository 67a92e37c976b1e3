//! The accepted parts, and the immutable whole that requests are decided on.

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use sidecar_config::backend::{BackendPolicy, LoadBalancerType, Timeouts};
use sidecar_config::policy::{ClientAuth, Limits, Mode, Protocol, Route, TlsVersion, UnknownServerName};
use sidecar_config::trust::VouchesFor;
use sidecar_config::upstream::BackendProtocol;

use crate::capture::Capture;
use crate::certificate::Certificate;
use crate::crl::Revoked;
use crate::filter::{Filters, GateNames};
use crate::hash::Revision;
use crate::identity::{BundleIndex, Caller, Claim, Directory, Revocation};
use crate::message_type::Call;
use crate::policy::{self, Allowed, Decision};
use crate::route::RouteTable;
use crate::server::ServerCertificate;
use crate::upstream::UpstreamTls;

/// The last accepted form of every part; `None` before the first.
#[derive(Clone, Debug, Default)]
pub struct Parts {
    /// Root bundles and revocations.
    pub trust: Option<Arc<AcceptedTrust>>,
    /// The workload's own certificate.
    pub identity: Option<Arc<AcceptedIdentity>>,
    /// Known clients.
    pub identities: Option<Arc<AcceptedIdentities>>,
    /// Listeners and routes.
    pub policy: Option<Arc<AcceptedPolicy>>,
    /// Addresses of backends.
    pub endpoints: Option<Arc<AcceptedEndpoints>>,
    /// What is known of names. Of no document, and so no part: it comes and goes by itself.
    pub resolved: Resolved,
    /// Labels of the pod, where they are known. Of no document either: Kubernetes tells them.
    pub pod_labels: Option<BTreeMap<String, String>>,
}

/// Addresses by name, as far as names are known.
pub type Resolved = BTreeMap<String, Vec<IpAddr>>;

/// Part `trust`, accepted.
#[derive(Debug)]
pub struct AcceptedTrust {
    /// Its revision.
    pub revision: Revision,
    /// Its bundles.
    pub bundles: Vec<Bundle>,
    /// What is revoked of identities, by name.
    pub revocations: BTreeMap<String, Revocation>,
}

/// A set of roots, by name.
#[derive(Clone, Debug)]
pub struct Bundle {
    /// Its name.
    pub name: Arc<str>,
    /// Its root certificates; never empty.
    pub roots: Vec<Certificate>,
    /// CA certificates below the roots, for clients that do not send them.
    pub intermediates: Vec<Certificate>,
    /// What the revocation lists of its authorities say.
    pub listed: Arc<Revoked>,
    /// What its certificates may claim.
    pub vouches_for: VouchesFor,
    /// Serial numbers of client certificates that are revoked, as [`CertificateFacts`](crate::CertificateFacts) writes
    /// them.
    pub revoked: Arc<HashSet<Box<str>>>,
}

impl Bundle {
    /// Whether it may vouch for SPIFFE IDs of a trust domain.
    #[must_use]
    pub fn vouches_for_domain(&self, domain: &str) -> bool {
        self.vouches_for.spiffe.iter().any(|vouched| vouched == domain)
    }
}

/// Part `identity`, accepted: each chain and its key belong together.
#[derive(Debug)]
pub struct AcceptedIdentity {
    /// Its revision; the keys have no part in it.
    pub revision: Revision,
    /// The default first; never empty.
    pub certificates: Vec<Arc<ServerCertificate>>,
}

/// Part `identities`, accepted.
#[derive(Debug)]
pub struct AcceptedIdentities {
    /// Its revision.
    pub revision: Revision,
    /// Its identities.
    pub identities: Vec<AcceptedClient>,
}

/// One known client.
#[derive(Debug)]
pub struct AcceptedClient {
    /// Its name.
    pub name: String,
    /// What selectors choose it by.
    pub labels: BTreeMap<String, String>,
    /// What it is recognised by: a bundle's name and a claim.
    pub claims: Vec<(String, Claim)>,
}

/// Part `policy`, accepted.
#[derive(Debug)]
pub struct AcceptedPolicy {
    /// Its revision.
    pub revision: Revision,
    /// Its listeners.
    pub listeners: Vec<sidecar_config::policy::Listener>,
    /// Its routes with their hashes.
    pub routes: Vec<(Route, Revision)>,
    /// Its limits.
    pub limits: Limits,
    /// How many proxies in front of the gate are believed.
    pub trusted_hops: u8,
}

/// Part `endpoints`, accepted.
#[derive(Debug)]
pub struct AcceptedEndpoints {
    /// Its revision.
    pub revision: Revision,
    /// Addresses by name.
    pub sets: BTreeMap<String, Vec<SocketAddr>>,
}

/// Everything a request is decided on. Immutable: a request ends on the one it began with.
#[derive(Debug, Default)]
pub struct Snapshot {
    /// All bundles; listeners and callers refer to them by index.
    pub bundles: Vec<Bundle>,
    /// Known identities and their states; also asked about servers, by whoever connects to them.
    pub directory: Arc<Directory>,
    /// Where the gate listens.
    pub listeners: Vec<Listener>,
    /// All rules of all listeners; route tables refer to them by index.
    pub rules: Vec<Rule>,
    /// Every address that rules send requests to, once for each way it is used; rules refer to them by index.
    pub endpoints: Vec<Endpoint>,
    /// Names that rules send requests to.
    pub names: BTreeSet<String>,
    /// Hash of every route, by name.
    pub routes: BTreeMap<String, Revision>,
    /// Bounds on what clients may take.
    pub limits: Limits,
    /// How many proxies in front of the gate are believed.
    pub trusted_hops: u8,
    /// Header fields that no client can set.
    pub gate_names: Arc<GateNames>,
    /// Revision of the trust, by which connections were let in.
    pub trust_revision: Option<Revision>,
    /// Revision of the known identities.
    pub identities_revision: Option<Revision>,
    /// Revision of the policy, for rows.
    pub policy_revision: Option<Revision>,
    /// The gate's own certificates.
    pub server: Option<Arc<AcceptedIdentity>>,
}

/// One listener, with its routes compiled.
#[derive(Debug)]
pub struct Listener {
    /// Its name.
    pub name: Arc<str>,
    /// Where it listens.
    pub address: SocketAddr,
    /// What is spoken on it.
    pub protocol: Protocol,
    /// Whether clients need a certificate; without TLS none is asked for.
    pub client_auth: ClientAuth,
    /// Oldest TLS version.
    pub min_version: TlsVersion,
    /// What becomes of a client that asks for a name that no certificate has.
    pub unknown_server_name: UnknownServerName,
    /// Bundles whose certificates it accepts, in the order of the document.
    pub bundles: Vec<BundleIndex>,
    /// Certificates of its own, as indices of those of [`Snapshot::server`].
    pub certificates: Box<[usize]>,
    /// Its routes.
    pub table: RouteTable,
}

/// One rule, compiled.
#[derive(Debug)]
pub struct Rule {
    /// Name of its listener.
    pub listener: Arc<str>,
    /// Name of its route.
    pub route: Arc<str>,
    /// Its name.
    pub name: Arc<str>,
    /// Whether it refuses or only watches.
    pub mode: Mode,
    /// What all paths have in common that it matches, as one pattern of few; `None` where there is no such.
    pub path_pattern: Option<Arc<str>>,
    /// Methods of gRPC that its paths name.
    pub calls: Box<[Call]>,
    /// What rows tell of its requests beyond what they tell of all, if anything.
    pub capture: Option<Arc<Capture>>,
    /// Who may use it.
    pub allowed: Allowed,
    /// What is done to its requests and their responses.
    pub filters: Filters,
    /// Where its requests go.
    pub target: Target,
    /// How an endpoint of a backend is chosen.
    pub load_balancer: LoadBalancerType,
    /// How long its requests may take.
    pub timeouts: Timeouts,
}

/// Index of an endpoint in [`Snapshot::endpoints`].
pub type EndpointIndex = usize;

/// One address that requests go to, and how it is used.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Endpoint {
    /// The address.
    pub address: SocketAddr,
    /// How it is used.
    pub policy: Arc<BackendPolicy>,
    /// What is spoken with it.
    pub protocol: BackendProtocol,
    /// TLS to it; `None` for none.
    pub tls: Option<Arc<UpstreamTls>>,
}

/// Where a rule's requests go.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Target {
    /// To one of these; where none of them has an endpoint it is `upstream_no_endpoint`.
    Backends(Box<[Backend]>),
    /// Nowhere: it names endpoints that do not exist.
    Invalid,
}

/// One backend of a rule.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Backend {
    /// What the configuration calls it: an address, a set of endpoints, or a name and port.
    pub name: Arc<str>,
    /// Its share of the rule's requests, in proportion to the others.
    pub weight: u32,
    /// Its endpoints.
    pub endpoints: Box<[EndpointIndex]>,
    /// Whether they are what a name stands for.
    pub is_named: bool,
}

impl Snapshot {
    /// The directory, while it is being filled and nobody else has it.
    pub(crate) fn directory_mut(&mut self) -> &mut Directory {
        Arc::make_mut(&mut self.directory)
    }

    /// Decides whether a caller may use a rule.
    #[must_use]
    pub fn decide(&self, rule: &Rule, caller: &Caller) -> Decision {
        policy::decide(&rule.allowed, rule.mode, caller)
    }

    /// Index of the bundle of a name.
    #[must_use]
    pub fn bundle(&self, name: &str) -> Option<BundleIndex> {
        self.bundles.iter().position(|bundle| &*bundle.name == name)
    }

    /// The listener of a name.
    #[must_use]
    pub fn listener(&self, name: &str) -> Option<&Listener> {
        self.listeners.iter().find(|listener| &*listener.name == name)
    }
}
