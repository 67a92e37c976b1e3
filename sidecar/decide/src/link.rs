//! Joins the accepted parts into one snapshot. A name that is missing refuses what uses it and nothing else.

mod allowed;

use std::collections::{BTreeMap, HashMap, HashSet};
use std::net::SocketAddr;
use std::sync::Arc;

use sidecar_config::Part;
use sidecar_config::backend::BackendPolicy;
use sidecar_config::policy::{
    Backend as BackendDocument, ClientAuth, Listener as ListenerDocument, Route, Rule as RuleDocument,
};
use sidecar_config::upstream::BackendTls;

use self::allowed::Known;
use crate::capture::Capture;
use crate::filter::{Filters, GateNames, IdentityHeaders};
use crate::identity::Claim;
use crate::message_type::Call;
use crate::problem::{Problem, Problems};
use crate::route::path_pattern;
use crate::snapshot::{
    AcceptedEndpoints, AcceptedIdentities, AcceptedPolicy, Backend, Bundle, Endpoint, EndpointIndex, Listener, Parts,
    Resolved, Rule, Snapshot, Target,
};
use crate::spiffe::spiffe_domain;
use crate::upstream::UpstreamTls;

/// Joins the parts, and tells what they name that does not exist.
///
/// The problems refuse no part: an `allow` entry without its identity allows nobody, a recogniser without its bundle
/// recognises nobody, a rule without its endpoints answers `route_invalid`.
#[must_use]
pub fn link(parts: &Parts) -> (Snapshot, Vec<Problem>) {
    let mut snapshot = Snapshot { server: parts.identity.clone(), ..Snapshot::default() };
    if let Some(trust) = &parts.trust {
        snapshot.bundles.clone_from(&trust.bundles);
        snapshot.trust_revision = Some(trust.revision.clone());
    }
    let mut problems = Problems::of(Part::Identities);
    let mut known = Known::default();
    if let Some(identities) = &parts.identities {
        add_identities(&mut snapshot, identities, &mut problems);
        snapshot.identities_revision = Some(identities.revision.clone());
        known = Known::of(identities);
    }
    let mut found = problems.into_found();
    if let Some(trust) = &parts.trust {
        for (name, revocation) in &trust.revocations {
            if let Some(identity) = known.name(name) {
                snapshot.directory_mut().revoke(identity, *revocation);
            }
        }
        let serials = trust.bundles.iter().map(|bundle| Arc::clone(&bundle.revoked)).collect();
        snapshot.directory_mut().revoke_serials(serials);
    }
    if let Some(policy) = &parts.policy {
        let problems = Problems::of(Part::Policy);
        let linker = PolicyLinker {
            snapshot,
            known,
            endpoints: parts.endpoints.as_deref(),
            resolved: &parts.resolved,
            pod_labels: parts.pod_labels.as_ref(),
            known_endpoints: HashMap::new(),
            told: HashSet::new(),
            problems,
        };
        let (linked, problems) = linker.run(policy);
        snapshot = linked;
        found.extend(problems);
    }
    (snapshot, found)
}

/// Adds the identities, in their order.
fn add_identities(snapshot: &mut Snapshot, identities: &AcceptedIdentities, problems: &mut Problems) {
    for (index, client) in identities.identities.iter().enumerate() {
        let identity = snapshot.directory_mut().add(&client.name);
        for (number, (bundle, claim)) in client.claims.iter().enumerate() {
            let place = format!("[{index}].recognise[{number}]");
            let Some(bundle_index) = snapshot.bundle(bundle) else {
                let detail = format_args!("there is no bundle `{bundle}`; name one of trust.bundles");
                problems.add_missing(format_args!("{place}.bundle"), detail, Part::Trust);
                continue;
            };
            if let Err(error) = vouched(&snapshot.bundles[bundle_index], claim) {
                problems.add(place, error);
            } else if !snapshot.directory_mut().recognise(identity, bundle_index, claim.clone()) {
                let advice =
                    "another identity claims the same under this bundle, so neither is recognised by it; remove one";
                problems.add(place, advice);
            }
        }
    }
}

/// Whether a bundle may vouch for a claim.
fn vouched(bundle: &Bundle, claim: &Claim) -> Result<(), String> {
    match claim {
        Claim::CommonName(_) if !bundle.vouches_for.common_name => Err(format!(
            "bundle `{0}` does not vouch for common names; set trust.bundles.{0}.vouchesFor.commonName or use another claim",
            bundle.name
        )),
        Claim::Uri(uri) => match spiffe_domain(uri) {
            Some(domain) if !bundle.vouches_for_domain(domain) => Err(format!(
                "bundle `{0}` does not vouch for SPIFFE trust domain `{domain}`; add it to trust.bundles.{0}.vouchesFor.spiffe if it is theirs",
                bundle.name
            )),
            _ => Ok(()),
        },
        _ => Ok(()),
    }
}

/// Everything a policy is linked against, and what comes of it.
struct PolicyLinker<'a> {
    snapshot: Snapshot,
    known: Known<'a>,
    endpoints: Option<&'a AcceptedEndpoints>,
    resolved: &'a Resolved,
    pod_labels: Option<&'a BTreeMap<String, String>>,
    known_endpoints: HashMap<Endpoint, EndpointIndex>,
    told: HashSet<Arc<IdentityHeaders>>,
    problems: Problems,
}

impl<'a> PolicyLinker<'a> {
    fn run(mut self, policy: &'a AcceptedPolicy) -> (Snapshot, Vec<Problem>) {
        self.snapshot.limits = policy.limits.clone();
        self.snapshot.trusted_hops = policy.trusted_hops;
        let served: Vec<_> =
            policy.routes.iter().enumerate().filter(|(index, (route, _))| self.serves(*index, route)).collect();
        let routes = served.iter().map(|(_, (route, _))| route);
        self.snapshot.gate_names = Arc::new(GateNames::of(routes, policy.trusted_hops));
        self.snapshot.policy_revision = Some(policy.revision.clone());
        for (index, listener) in policy.listeners.iter().enumerate() {
            let listener = self.listener(index, listener);
            self.snapshot.listeners.push(listener);
        }
        for (index, (route, hash)) in served {
            self.route(index, route);
            self.snapshot.routes.insert(route.name.clone(), hash.clone());
        }
        (self.snapshot, self.problems.into_found())
    }

    /// Whether this pod is among those that serve a route. One that does not know its labels serves none that chooses by
    /// them.
    fn serves(&mut self, index: usize, route: &Route) -> bool {
        let Some(selector) = &route.pod_selector else { return true };
        let Some(labels) = self.pod_labels else {
            let detail =
                "the labels of this pod are not known, so the route is not served; have them in the file `labels`";
            self.problems.add(format_args!("routes[{index}].podSelector"), detail);
            return false;
        };
        selector.match_labels.iter().all(|(label, value)| labels.get(label) == Some(value))
    }

    fn listener(&mut self, index: usize, document: &ListenerDocument) -> Listener {
        let mut bundles = Vec::new();
        let tls = document.tls.as_ref();
        for (number, name) in tls.map_or(&[][..], |tls| &tls.trust).iter().enumerate() {
            match self.snapshot.bundle(name) {
                Some(bundle) => bundles.push(bundle),
                None => {
                    let place = format!("listeners[{index}].tls.trust[{number}]");
                    missing(&mut self.problems, &place, "bundle", name, Part::Trust);
                }
            }
        }
        let certificates = self.certificates(index, tls.map_or(&[][..], |tls| &tls.certificates));
        Listener {
            name: document.name.as_str().into(),
            address: document.address,
            protocol: document.protocol,
            client_auth: tls.map_or(ClientAuth::None, |tls| tls.client_auth),
            min_version: tls.map(|tls| tls.min_version).unwrap_or_default(),
            unknown_server_name: tls.map(|tls| tls.unknown_server_name).unwrap_or_default(),
            bundles,
            certificates,
            table: crate::RouteTable::default(),
        }
    }

    /// Where the certificates of a listener are. It serves with the others while one of them is missing.
    fn certificates(&mut self, listener: usize, names: &[String]) -> Box<[usize]> {
        let known = self.snapshot.server.as_ref().map_or(&[][..], |server| &server.certificates);
        let mut found = Vec::new();
        for (number, name) in names.iter().enumerate() {
            match known.iter().position(|certificate| certificate.name.as_deref() == Some(name)) {
                Some(index) => found.push(index),
                None => {
                    let place = format!("listeners[{listener}].tls.certificates[{number}]");
                    missing(&mut self.problems, &place, "certificate", name, Part::Identity);
                }
            }
        }
        found.into()
    }

    fn route(&mut self, index: usize, route: &'a Route) {
        let name: Arc<str> = route.name.as_str().into();
        let policy = Arc::new(route.backend_policy.clone());
        let capture = route.capture.as_ref().map(|capture| Arc::new(Capture::of(capture)));
        for (number, rule) in route.rules.iter().enumerate() {
            let place = format!("routes[{index}].rules[{number}]");
            let compiled = Rule {
                listener: route.listener.as_str().into(),
                route: Arc::clone(&name),
                name: rule.name.as_str().into(),
                mode: rule.mode,
                path_pattern: path_pattern(&rule.matches).map(Into::into),
                calls: Call::all(&rule.matches),
                capture: capture.clone(),
                allowed: self.known.allowed(&mut self.snapshot, route, rule, &place, &mut self.problems),
                filters: self.filters(rule),
                target: self.target(&place, rule, &policy),
                load_balancer: policy.load_balancer.kind,
                timeouts: rule.timeouts.clone(),
            };
            let rule_index = self.snapshot.rules.len();
            self.snapshot.rules.push(compiled);
            self.enter(route, rule, rule_index);
        }
    }

    /// Enters a rule into its listener's table.
    fn enter(&mut self, route: &Route, rule: &RuleDocument, rule_index: usize) {
        let listeners = &mut self.snapshot.listeners;
        let Some(listener) = listeners.iter_mut().find(|listener| *listener.name == *route.listener) else { return };
        listener.table.enter_rule(route, rule, rule_index);
    }

    /// A rule's filters. What several rules tell of their callers in the same way is one, and worked out once.
    fn filters(&mut self, rule: &RuleDocument) -> Filters {
        let mut filters = Filters::of(rule);
        if let Some(identity) = &mut filters.identity {
            match self.told.get(identity) {
                Some(same) => *identity = Arc::clone(same),
                None => drop(self.told.insert(Arc::clone(identity))),
            }
        }
        filters
    }

    fn target(&mut self, place: &str, rule: &RuleDocument, policy: &Arc<BackendPolicy>) -> Target {
        let mut backends = Vec::with_capacity(rule.backends.len());
        let mut invalid = false;
        for (number, backend) in rule.backends.iter().enumerate() {
            let mut addresses: Vec<SocketAddr> = backend.address.into_iter().collect();
            if let Some(name) = &backend.endpoints {
                match self.endpoints.and_then(|endpoints| endpoints.sets.get(name)) {
                    Some(set) => addresses.extend(set),
                    None => {
                        let place = format!("{place}.backends[{number}].endpoints");
                        missing(&mut self.problems, &place, "set of endpoints", name, Part::Endpoints);
                        invalid = true;
                    }
                }
            }
            if let (Some(host), Some(port)) = (&backend.host, backend.port) {
                let known = self.resolved.get(host).into_iter().flatten();
                addresses.extend(known.map(|address| SocketAddr::new(*address, port)));
                self.snapshot.names.insert(host.clone());
            }
            let tls =
                backend.tls.as_ref().map(|tls| self.upstream_tls(tls, &format!("{place}.backends[{number}].tls")));
            let Ok(tls) = tls.transpose() else {
                invalid = true;
                continue;
            };
            let endpoint = |address| Endpoint {
                address,
                policy: Arc::clone(policy),
                protocol: backend.protocol,
                tls: tls.clone(),
            };
            let endpoints = addresses.into_iter().map(|address| self.endpoint(endpoint(address))).collect();
            let name = backend_name(backend).into();
            backends.push(Backend { name, weight: backend.weight, endpoints, is_named: backend.host.is_some() });
        }
        if invalid { Target::Invalid } else { Target::Backends(backends.into()) }
    }

    /// TLS to a backend, unless it names what is not there.
    fn upstream_tls(&mut self, document: &BackendTls, place: &str) -> Result<Arc<UpstreamTls>, Missing> {
        let before = self.problems.count();
        let mut bundles = Vec::with_capacity(document.trust.len());
        for (number, name) in document.trust.iter().enumerate() {
            match self.snapshot.bundle(name) {
                Some(bundle) => bundles.push(&self.snapshot.bundles[bundle]),
                None => {
                    missing(&mut self.problems, &format!("{place}.trust[{number}]"), "bundle", name, Part::Trust);
                }
            }
        }
        let tls = UpstreamTls::of(document);
        // A bundle that is not there vouches for nobody, and is told already.
        let is_told = self.problems.count() > before;
        if let Some(domain) = tls.unvouched(&bundles).next().filter(|_| !is_told) {
            let advice = "add it to trust.bundles.NAME.vouchesFor.spiffe of the bundle whose it is";
            let detail = format_args!("no bundle in trust vouches for SPIFFE trust domain `{domain}`; {advice}");
            self.problems.add_missing(format_args!("{place}.peers"), detail, Part::Trust);
        }
        if tls.shows_certificate && self.snapshot.server.is_none() {
            let detail = "the gate has no certificate to show; give part identity a chain and a key, or write `Simple`";
            self.problems.add_missing(format_args!("{place}.mode"), detail, Part::Identity);
        }
        if self.problems.count() > before { Err(Missing) } else { Ok(Arc::new(tls)) }
    }

    /// The index of an endpoint, which is new unless another rule uses the same address in the same way.
    fn endpoint(&mut self, endpoint: Endpoint) -> EndpointIndex {
        let endpoints = &mut self.snapshot.endpoints;
        *self.known_endpoints.entry(endpoint.clone()).or_insert_with(|| {
            endpoints.push(endpoint);
            endpoints.len() - 1
        })
    }
}

/// What a backend is called, in the words of its document: as many names as it has backends, whatever their addresses are.
fn backend_name(backend: &BackendDocument) -> String {
    match backend {
        BackendDocument { address: Some(address), .. } => address.to_string(),
        BackendDocument { endpoints: Some(set), .. } => set.clone(),
        BackendDocument { host: Some(host), port: Some(port), .. } => format!("{host}:{port}"),
        // Not accepted: one of the three is said.
        _ => String::new(),
    }
}

/// Something that is named is not there, and that was told.
struct Missing;

fn missing(problems: &mut Problems, place: &str, what: &str, name: &str, part: Part) {
    let list = match part {
        Part::Trust => "trust.bundles",
        Part::Identity => "identity.certificates",
        Part::Identities | Part::Policy | Part::Endpoints => part.name(),
    };
    problems.add_missing(place, format_args!("there is no {what} `{name}`; name one of {list}"), part);
}
