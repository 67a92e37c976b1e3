//! What a gate would decide, from the objects alone: rendered, accepted and decided by the code that does it in earnest.
//! Pure: the clock and who signs come as values.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use http::{HeaderMap, Method};
use postern_crds::{ClientIdentity, ProxyRoute};
use sidecar_config::CONTRACT_MAX;
use sidecar_config::identities::Recogniser;
use sidecar_config::policy::{ClientAuth, Policy, Protocol};
use sidecar_config::trust::{RevocationState, SerialRevocation};
use sidecar_decide::accept::usable;
use sidecar_decide::route::{Request, Sent};
use sidecar_decide::{Caller, CertificateFacts, Decision, Listener, Parts, Reason, Snapshot, Who, accept, link, path};

use crate::identity::directory::{Directory, Entry};
use crate::identity::trust::{ExternalBundle, OUR_BUNDLE, TrustInput, document};
use crate::index::{Cluster, ObjectName, Pod, ServicePort};
use crate::pki::authority::Issuer;
use crate::pki::names::Names;
use crate::workload::trust::accepted;
use crate::workload::turn::known;
use crate::workload::validate::{Input, validate};

/// The objects that count.
#[derive(Clone, Debug, Default)]
pub struct World {
    /// Routes of the namespace.
    pub routes: Vec<ProxyRoute>,
    /// Identities of all namespaces.
    pub identities: Vec<ClientIdentity>,
    /// Labels of the pod that is asked.
    pub labels: BTreeMap<String, String>,
    /// Serial numbers of our certificates that its gates refuse.
    pub revoked: BTreeSet<String>,
    /// Services that routes name, their addresses, and who may ask them; `None` where nobody has looked.
    pub services: Option<Arc<Cluster>>,
    /// Those of them whose addresses nobody has looked at.
    pub unaddressed: BTreeSet<ObjectName>,
}

/// What is the same for all worlds.
pub struct Common {
    /// Which names are whose.
    pub names: Names,
    /// Somebody who signs. Which certificates bundles have changes no decision, only that they have some.
    pub issuer: Issuer,
    /// In seconds since the epoch: what is shown was issued now.
    pub now: i64,
}

/// Who asks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum From {
    /// A ClientIdentity.
    Identity(ObjectName),
    /// Whoever has a certificate with this SPIFFE ID.
    Spiffe(String),
    /// Somebody without a certificate.
    Nobody,
}

/// What is asked.
#[derive(Clone, Debug)]
pub struct Question {
    /// Who asks.
    pub from: From,
    /// Through which route.
    pub to: ObjectName,
    /// The method.
    pub method: Method,
    /// The path, as it is sent.
    pub path: String,
    /// The query.
    pub query: Option<String>,
    /// The host.
    pub host: String,
    /// The header fields.
    pub headers: HeaderMap,
    /// What its message is.
    pub message: Sent,
}

/// What comes of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// The route is not served; why.
    NotServed(String),
    /// No rule was found, or none was looked for.
    Stopped(Reason),
    /// A rule decided.
    Decided {
        /// The rule's route.
        route: String,
        /// The rule.
        rule: String,
        /// What it decided.
        decision: Decision,
        /// Why the application does not answer whom it lets in, as far as that is known beforehand.
        unanswered: Option<Unanswered>,
    },
}

/// What the gate answers in place of the application.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Unanswered {
    /// Its reason, as in the row.
    pub reason: Reason,
    /// In words.
    pub why: String,
}

impl World {
    /// What would become of a request.
    ///
    /// # Errors
    /// When it names something that is not there.
    pub fn decide(&self, common: &Common, question: &Question) -> Result<Outcome, String> {
        let mut routes: Vec<_> = self.routes.iter().filter(|route| self.has_labels_of(route)).cloned().collect();
        routes.sort_by_key(|route| {
            let created = route.metadata.creation_timestamp.as_ref().map(|time| time.0);
            (created.is_none(), created, ObjectName::of(route))
        });
        let routes: Vec<_> = routes.into_iter().map(Arc::new).collect();
        let pods = [Arc::new(Pod::imagined(question.to.clone(), self.labels.clone()))];
        let trust_domain = &common.names.trust_domain;
        let input = Input { routes: &routes, pods: &pods, last: None, trust_domain, newest: CONTRACT_MAX };
        let validated = validate(&input);
        match validated.routes.get(&question.to).map(|judged| &judged.accepted) {
            None => return Err(format!("ProxyRoute {} does not exist, or does not select the pod", question.to)),
            Some(Err(refused)) => return Ok(Outcome::NotServed(refused.message.clone())),
            Some(Ok(_)) => {}
        }
        let directory = Directory::of(&self.identities, &common.names);
        let bundles = validated.needs.values().flat_map(|needs| &needs.bundles).map(|(name, bundle)| {
            let external = ExternalBundle { pem: common.issuer.roots_pem(), vouches_for: bundle.vouches_for.clone() };
            (name.clone(), external)
        });
        let mut trust = document(&TrustInput {
            issuer: &common.issuer,
            names: &common.names,
            directory: &directory,
            ledgers: &[],
            bundles: &bundles.collect(),
        });
        let serial = |serial: &String| SerialRevocation { bundle: OUR_BUNDLE.to_owned(), serial: serial.clone() };
        trust.document.revocations.serials.extend(self.revoked.iter().map(serial));
        let trust = accepted(&trust)?;
        let known = known(&directory, &validated, &trust);
        let identities = accept::identities(&known).map_err(|refusal| format!("part identities: {refusal:?}"))?;
        let listener = validated.policy.routes.iter().find(|route| route.name == question.to.to_string());
        let listener = listener.map(|route| route.listener.clone()).unwrap_or_default();
        let parts = Parts {
            trust: Some(Arc::new(trust)),
            identities: Some(Arc::new(identities)),
            policy: Some(Arc::new(validated.accepted)),
            pod_labels: Some(self.labels.clone()),
            ..Parts::default()
        };
        let (snapshot, _) = link(&parts);
        let listener = snapshot.listener(&listener).ok_or("the route has no listener")?;
        let serial = self.serial(&question.from).unwrap_or_default();
        let asked = Asked { snapshot: &snapshot, listener, directory: &directory, common, serial };
        Ok(match asked.answer(question)? {
            Outcome::Decided { route, rule, decision, .. } => {
                let unanswered = self.unanswered(&validated.policy, &route, &rule);
                Outcome::Decided { route, rule, decision, unanswered }
            }
            other => other,
        })
    }

    /// The serial number of the certificate that an identity has now, if it has one of ours.
    pub fn serial(&self, from: &From) -> Option<String> {
        let From::Identity(name) = from else { return None };
        let identity = self.identities.iter().find(|identity| ObjectName::of(*identity) == *name)?;
        Some(identity.status.as_ref()?.certificate.as_ref()?.serial.clone())
    }

    /// Why nobody is behind a rule of a policy: a Service that cannot be asked refuses all of the rule's requests, and so
    /// do Services that are all without an address. Names and addresses are not looked at.
    fn unanswered(&self, policy: &Policy, route: &str, rule: &str) -> Option<Unanswered> {
        let cluster = self.services.as_deref()?;
        let (namespace, _) = route.split_once('/')?;
        let rules = policy.routes.iter().filter(|one| one.name == route).flat_map(|one| &one.rules);
        let rule = rules.into_iter().find(|one| one.name == rule)?;
        let (mut empty, mut has_others) = (Vec::new(), false);
        for backend in &rule.backends {
            let Some(port) = backend.endpoints.as_deref().and_then(ServicePort::of) else {
                has_others = true;
                continue;
            };
            match cluster.endpoints(namespace, &port) {
                Err(why) => return Some(Unanswered { reason: Reason::RouteInvalid, why: why.to_string() }),
                Ok(_) if self.unaddressed.contains(&port.service) => has_others = true,
                Ok(addresses) if usable(&addresses).is_empty() => empty.push(port.to_string()),
                Ok(_) => has_others = true,
            }
        }
        let is_anybody_there = has_others || empty.is_empty();
        let why = format!("no pod of Service {} is ready", empty.join(", nor of "));
        (!is_anybody_there).then_some(Unanswered { reason: Reason::UpstreamNoEndpoint, why })
    }

    fn has_labels_of(&self, route: &ProxyRoute) -> bool {
        let wanted = &route.spec.pod_selector.match_labels;
        wanted.iter().all(|(name, value)| self.labels.get(name) == Some(value))
    }
}

struct Asked<'a> {
    snapshot: &'a Snapshot,
    listener: &'a Listener,
    directory: &'a Directory,
    common: &'a Common,
    /// Of the certificate that is shown; empty where it is nobody's in particular.
    serial: String,
}

impl Asked<'_> {
    fn answer(&self, question: &Question) -> Result<Outcome, String> {
        let caller = match self.caller(&question.from)? {
            // It says so in the handshake, and to requests of connections that are open already in another word.
            Ok(caller) if caller.revoked == Some(Reason::PolicyCertificateRevoked) => {
                return Ok(Outcome::Stopped(Reason::TlsRevoked));
            }
            Ok(caller) => caller,
            Err(reason) => return Ok(Outcome::Stopped(reason)),
        };
        let path = match path::normalise(&question.path) {
            Ok(path) => path,
            Err(reason) => return Ok(Outcome::Stopped(reason)),
        };
        let request = Request {
            host: &question.host,
            path: &path,
            method: &question.method,
            headers: &question.headers,
            query: question.query.as_deref(),
            message: question.message,
        };
        let rule = match self.listener.table.find(&request) {
            Ok(index) => self.snapshot.rules.get(index).ok_or("the rule is not there")?,
            Err(reason) => return Ok(Outcome::Stopped(reason)),
        };
        let decision = self.snapshot.decide(rule, &caller);
        let (route, rule) = (rule.route.to_string(), rule.name.to_string());
        Ok(Outcome::Decided { route, rule, decision, unanswered: None })
    }

    /// Who is let in, or why not.
    fn caller(&self, from: &From) -> Result<Result<Caller, Reason>, String> {
        let asks = match (self.listener.protocol, self.listener.client_auth) {
            (Protocol::Http, _) | (_, ClientAuth::None) => return self.existing(from).map(|()| Ok(Caller::ANONYMOUS)),
            (_, ClientAuth::Required) => true,
            (_, ClientAuth::Optional) => false,
        };
        match from {
            From::Nobody if asks => Ok(Err(Reason::TlsNoCertificate)),
            From::Nobody => Ok(Ok(Caller::ANONYMOUS)),
            From::Spiffe(uri) => Ok(self.spiffe(uri)),
            From::Identity(name) => Ok(self.identity(self.entry(name)?)),
        }
    }

    fn existing(&self, from: &From) -> Result<(), String> {
        match from {
            From::Identity(name) => self.entry(name).map(drop),
            _ => Ok(()),
        }
    }

    fn entry(&self, name: &ObjectName) -> Result<&Entry, String> {
        let entry = self.directory.entry(&name.to_string());
        entry.ok_or_else(|| format!("ClientIdentity {name} does not exist; make it, or write --from spiffe://…"))
    }

    fn spiffe(&self, uri: &str) -> Result<Caller, Reason> {
        let domain = uri.strip_prefix("spiffe://").and_then(|rest| rest.split('/').next()).unwrap_or_default();
        let vouches = |index: &&usize| {
            self.snapshot.bundles.get(**index).is_some_and(|bundle| match &*bundle.name {
                OUR_BUNDLE => domain == self.common.names.trust_domain,
                _ => bundle.vouches_for_domain(domain),
            })
        };
        let bundle = self.listener.bundles.iter().find(vouches).ok_or(Reason::TlsUnknownCa)?;
        let facts = CertificateFacts { uris: vec![uri.to_owned()], ..self.facts() };
        Ok(self.snapshot.directory.resolve(&facts, vec![*bundle]))
    }

    fn identity(&self, entry: &Entry) -> Result<Caller, Reason> {
        let bundle = self.snapshot.bundle(entry.bundle.name()).filter(|index| self.listener.bundles.contains(index));
        let bundle = bundle.ok_or(Reason::TlsUnknownCa)?;
        let facts = entry.known.recognise.first().map_or_else(|| self.facts(), |one| self.shown(one));
        let mut caller = self.snapshot.directory.resolve(&facts, vec![bundle]);
        let directory = &self.snapshot.directory;
        let is_it = |index: &usize| directory.name(*index).is_some_and(|name| **name == *entry.known.name);
        let index = (0..).take_while(|index| directory.name(*index).is_some()).find(is_it);
        // Some digests belong to no certificate that anybody could make up: whose they are is known all the same.
        if let (Who::Unknown, Some(index)) = (caller.who, index) {
            let revocation = directory.revocation(index);
            caller.who = Who::Known(index);
            caller.revoked = caller.revoked.or(match revocation.state {
                Some(RevocationState::Suspended) => Some(Reason::PolicyIdentitySuspended),
                Some(RevocationState::Revoked) => Some(Reason::PolicyIdentityRevoked),
                None => {
                    let is_early = revocation.accept_issued_after.is_some_and(|time| self.common.now < time);
                    is_early.then_some(Reason::PolicyIssuedTooEarly)
                }
            });
        }
        Ok(caller)
    }

    /// A certificate with what an identity is recognised by.
    fn shown(&self, one: &Recogniser) -> CertificateFacts {
        CertificateFacts {
            uris: one.uri.iter().cloned().collect(),
            dns_names: one.dns_name.iter().map(|name| name.to_ascii_lowercase()).collect(),
            common_name: one.common_name.clone(),
            ..self.facts()
        }
    }

    fn facts(&self) -> CertificateFacts {
        CertificateFacts {
            subject: String::new(),
            issuer: String::new(),
            common_name: None,
            serial: self.serial.clone(),
            uris: Vec::new(),
            dns_names: Vec::new(),
            addresses: Vec::new(),
            san: String::new(),
            not_before: self.common.now,
            not_after: self.common.now,
            sha256: [0; 32],
            spki: Vec::new(),
            self_issued: false,
            is_ca: false,
            signs_crls: false,
        }
    }
}
