//! What a workload's objects are to be, and which certificates are due. Pure: it takes the clock as a value, and keys and
//! serial numbers are made when it is carried out.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use postern_crds::Reason;
use sha2::{Digest, Sha256};
use sidecar_config::endpoints::EndpointSet;
use sidecar_config::identities::KnownIdentity;
use sidecar_config::policy::Policy;
use sidecar_config::{ContractVersion, Part};
use sidecar_decide::snapshot::AcceptedTrust;
use sidecar_decide::{Parts, accept, link};

use super::backends::{self, Backends};
use super::certificates::{self, Carried, Certificates};
use super::content::{Content, Write};
use super::document::document;
use super::last_good::write_bundles;
use super::names;
use super::observe::Observed;
use super::pack::{self, TooLarge};
use super::validate::{Judged, Refused, Validated, told};
use crate::index::held::BUNDLES_ANNOTATION;
use crate::index::{Entries, HeldKind, ObjectName};
use crate::limits::{BUNDLES_BYTES, CHUNKS};
use crate::pki::authority::Issuer;
use crate::pki::issue::Request;
use crate::pki::key::Algorithm;
use crate::pki::names::{Asked, Names};
use crate::pki::rotate::{self, Decision, KeyOf, Wanted};

/// What a workload's objects are to be.
#[derive(Debug)]
pub struct Plan {
    /// Certificates, one for each service account of its pods.
    pub leaves: Vec<Leaf>,
    /// Part `identities`, in the order in which it is written: the digest of all of it last.
    pub identities: Vec<Write>,
    /// Digest of its document.
    pub identities_document: [u8; 32],
    /// Part `endpoints`.
    pub endpoints: Write,
    /// Part `policy`.
    pub policy: Write,
    /// Part `policy` as it is to be when every started pod has it.
    pub good: Content,
    /// Revisions that sidecars are to have, by part.
    pub expected: Expected,
    /// What there is to say of each route.
    pub routes: BTreeMap<ObjectName, Verdict>,
    /// When a certificate is to be looked at again, in seconds since the epoch.
    pub next_look: Option<i64>,
}

/// Revisions that sidecars are to have.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Expected {
    /// Of part `trust`.
    pub trust: String,
    /// Of part `identities`.
    pub identities: String,
    /// Of part `policy`.
    pub policy: String,
    /// Of part `endpoints`; `None` while what is there stays as it is.
    pub endpoints: Option<String>,
}

impl Expected {
    /// All but the policy's, by part.
    #[must_use]
    pub fn others(&self) -> Vec<(&'static str, &String)> {
        let others = [("trust", &self.trust), ("identities", &self.identities)].into_iter();
        others.chain(self.endpoints.iter().map(|revision| ("endpoints", revision))).collect()
    }
}

/// What a plan says of a route.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Verdict {
    /// Its hash, or why it is not served as it is.
    pub accepted: Result<String, Refused>,
    /// The hash of the form that was accepted last, if that is served instead.
    pub kept: Option<String>,
    /// What it refers to in vain.
    pub missing: Vec<Missing>,
}

/// Something that a route refers to in vain.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Missing {
    /// Why, in one word.
    pub reason: Reason,
    /// Why, and where.
    pub message: String,
}

impl Missing {
    fn not_found(message: impl Into<String>) -> Self {
        Self { reason: Reason::RefNotFound, message: message.into() }
    }
}

/// The certificate of those pods of a workload that run as one service account.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Leaf {
    /// Name of its Secret.
    pub name: ObjectName,
    /// Why it has to be made, and with what; `None` if the one that is there is good.
    pub due: Option<(rotate::Reason, Request)>,
    /// What its Secret carries beside it.
    pub carried: Carried,
}

/// What all workloads have in common.
#[derive(Clone, Copy, Debug)]
pub struct Common<'a> {
    /// Who signs.
    pub issuer: &'a Issuer,
    /// Which names are whose.
    pub names: &'a Names,
    /// How long certificates of gates are valid.
    pub certificate_seconds: i64,
    /// What the namespace trusts.
    pub trust: &'a Arc<AcceptedTrust>,
    /// Bundles that it does not trust because they cannot be read, and why.
    pub unreadable: &'a BTreeMap<String, String>,
    /// Clients that the workload has to know.
    pub known: &'a [KnownIdentity],
    /// Digest of the document of identities that is written as it was packed, if there is one.
    pub written_identities: Option<[u8; 32]>,
    /// Bytes of identities that an object takes.
    pub chunk_bytes: usize,
    /// Services that its routes send requests to.
    pub backends: &'a Backends,
    /// Certificates of users that its listeners show.
    pub certificates: &'a Certificates,
    /// The newest contract version that all of its sidecars read.
    pub newest: ContractVersion,
    /// In seconds since the epoch.
    pub now: i64,
}

/// Plans.
#[must_use]
pub fn plan(observed: &Observed, validated: &Validated, common: Common<'_>) -> Plan {
    let workload = &observed.workload;
    let mut verdicts: BTreeMap<_, _> = validated
        .routes
        .iter()
        .map(|(name, Judged { accepted, kept })| {
            (name.clone(), Verdict { accepted: accepted.clone(), kept: kept.clone(), missing: Vec::new() })
        })
        .collect();
    let sets = backends::sets(common.backends, common.newest);
    let endpoints = backends::text(&sets);
    let asked_in_vain = backends::missing(&validated.policy, common.backends, endpoints.is_none());
    let (leaves, next_look) = leaves(observed, validated, common);
    let left_out = leaves.iter().flat_map(|leaf| leaf.carried.left_out.iter().cloned()).collect();
    let shown = certificates::missing(&validated.policy, &observed.routes, common.certificates, &left_out, common.now);
    for (name, what) in missing(validated, common, &sets).into_iter().chain(asked_in_vain).chain(shown) {
        if let Some(verdict) = verdicts.get_mut(&name) {
            verdict.missing.push(what);
        }
    }
    let name = |name: String| ObjectName::new(workload.namespace.clone(), name);
    let policy = document(Part::Policy, &validated.policy);
    let config_map = |object: String, part: &str, entries: Entries| {
        Content::config_map(name(object), part, Some(&workload.name), entries)
    };
    let bundles = bundles(validated);
    let good = config_map(
        names::good_policy(&workload.name),
        "policy-good",
        Entries::default().with(names::GOOD_POLICY_ENTRY, policy.as_bytes()),
    );
    let good = good.sealed().annotated(BUNDLES_ANNOTATION, bundles.clone());
    let identities_text = document(Part::Identities, &common.known);
    let identities_document = Sha256::digest(&identities_text).into();
    let identities = if common.written_identities == Some(identities_document) {
        Ok(Vec::new())
    } else {
        identities(workload, identities_text.as_bytes(), common.chunk_bytes)
    };
    let too_large = identities.as_ref().err().copied();
    if let Some(error) = too_large {
        let refused = Refused { reason: Reason::TooLarge, message: error.to_string() };
        verdicts.values_mut().for_each(|verdict| verdict.accepted = Err(refused.clone()));
    }
    let policy_content =
        config_map(names::policy(&workload.name), "policy", Entries::default().with(names::POLICY_ENTRY, policy));
    let set = |content: Content| if too_large.is_some() { Write::Keep } else { Write::Set(content) };
    Plan {
        leaves,
        identities: identities.unwrap_or_default(),
        identities_document,
        endpoints: endpoints.as_ref().map_or(Write::Keep, |text| {
            let entries = Entries::default().with("endpoints.json", text.as_bytes());
            set(config_map(names::endpoints(&workload.name), "endpoints", entries))
        }),
        policy: set(policy_content.sealed().annotated(BUNDLES_ANNOTATION, bundles)),
        good,
        expected: Expected {
            trust: common.trust.revision.to_string(),
            identities: accept::identities(common.known).map(|one| one.revision.to_string()).unwrap_or_default(),
            policy: validated.accepted.revision.to_string(),
            endpoints: endpoints.and_then(|_| Some(accept::endpoints(&sets).ok()?.revision.to_string())),
        },
        routes: verdicts,
        next_look,
    }
}

/// Part `identities` in as many objects as it takes; those that are not needed any more go.
fn identities(workload: &ObjectName, document: &[u8], limit: usize) -> Result<Vec<Write>, TooLarge> {
    let packed = pack::pack(document, limit)?;
    let name = |chunk| ObjectName::new(workload.namespace.clone(), names::identities(&workload.name, chunk));
    let mut chunks = packed
        .chunks
        .into_iter()
        .enumerate()
        .map(|(number, bytes)| {
            let mut entries = Entries::default().with(format!("identities.{number}.zst"), bytes);
            if number == 0 {
                entries = entries.with("identities.sum", packed.sums.as_bytes());
            }
            Write::Set(Content::config_map(
                name(number),
                &format!("identities-{number}"),
                Some(&workload.name),
                entries,
            ))
        })
        .collect::<Vec<_>>();
    let count = chunks.len();
    // Whoever reads in between finds digests that do not fit, and keeps what it has.
    chunks.reverse();
    chunks.extend((count..CHUNKS).map(|number| Write::Remove(HeldKind::ConfigMap, name(number))));
    Ok(chunks)
}

/// Where the bundles are that the routes use: whoever keeps one of their forms needs them after the routes name others.
fn bundles(validated: &Validated) -> String {
    let all: BTreeMap<_, _> = validated.needs.values().flat_map(|needs| needs.bundles.clone()).collect();
    let text = if all.is_empty() { String::new() } else { write_bundles(&all) };
    // Without them, what is kept after a restart is kept without the callers that they vouch for.
    if text.len() > BUNDLES_BYTES { String::new() } else { text }
}

/// What routes refer to in vain, as the sidecar will find it.
fn missing(validated: &Validated, common: Common<'_>, sets: &[EndpointSet]) -> Vec<(ObjectName, Missing)> {
    let mut found = Vec::new();
    let names: Vec<_> = validated.policy.routes.iter().map(|route| route.name.clone()).collect();
    let object = |name: &str| name.split_once('/').map(|(namespace, name)| ObjectName::new(namespace, name));
    for (route, needs) in &validated.needs {
        let unreadable = needs.bundles.keys().filter_map(|bundle| common.unreadable.get(bundle));
        found.extend(unreadable.map(|why| (route.clone(), Missing::not_found(why))));
    }
    let parts = Parts {
        trust: Some(Arc::clone(common.trust)),
        identities: accept::identities(common.known).ok().map(Arc::new),
        endpoints: accept::endpoints(sets).ok().map(Arc::new),
        policy: accept::policy(&for_any_pod(&validated.policy)).ok().map(Arc::new),
        ..Parts::default()
    };
    for problem in link(&parts).1.iter().filter(|problem| problem.part == Part::Policy) {
        // Keys are looked at by those who hold them; why there are no addresses is known better.
        if matches!(problem.missing_in, Some(Part::Identity | Part::Endpoints)) {
            continue;
        }
        // Told already, and better.
        if problem.missing_in == Some(Part::Trust) && !common.unreadable.is_empty() {
            continue;
        }
        let index = problem.path.strip_prefix("policy.routes[").and_then(|rest| rest.split_once(']')?.0.parse().ok());
        match index.and_then(|index: usize| Some((index, object(names.get(index)?)?))) {
            Some((index, name)) => found.push((name, Missing::not_found(told(problem, index)))),
            // Of a listener, and so of everybody on it.
            None => {
                let told = Missing::not_found(told(problem, usize::MAX));
                found.extend(names.iter().filter_map(|name| Some((object(name)?, told.clone()))));
            }
        }
    }
    found
}

/// A policy as a pod has it that all of its routes select.
fn for_any_pod(policy: &Policy) -> Policy {
    let mut policy = policy.clone();
    policy.routes.iter_mut().for_each(|route| route.pod_selector = None);
    policy
}

/// Which certificates the pods need, and which of them are due.
fn leaves(observed: &Observed, validated: &Validated, common: Common<'_>) -> (Vec<Leaf>, Option<i64>) {
    let workload = &observed.workload;
    let mut next_look = certificates::next_look(common.certificates, common.now);
    let leaves = observed.accounts().into_iter().map(|account| {
        let name = ObjectName::new(workload.namespace.clone(), names::identity(&workload.name, account));
        let dns_names = dns_names(observed, account, validated, common.names);
        let request = Request::pod(common.names, &workload.namespace, account, dns_names, common.certificate_seconds);
        let held = observed.secrets.iter().find(|held| held.name == name);
        let entries = held.and_then(|held| held.entries.as_deref());
        let bytes = |entry| entries.and_then(|entries| entries.bytes(entry));
        let held = rotate::Held::read(bytes("tls.crt"), bytes("tls.key"));
        let wanted = Wanted {
            name: &name.to_string(),
            request: &request,
            issuer: common.issuer,
            key: KeyOf::Ours(Algorithm::EcdsaP256),
            renew_before_seconds: None,
            issued: None,
        };
        let due = match rotate::decide(&held, &wanted, common.now) {
            Decision::Keep { next_look: at } => {
                next_look = Some(next_look.map_or(at, |known| known.min(at)));
                None
            }
            Decision::Renew(reason) => Some((reason, request)),
        };
        let carried = certificates::carried(&validated.policy, common.certificates, entries, common.now);
        Leaf { name, due, carried }
    });
    (leaves.collect(), next_look)
}

/// DNS names of the gate: those of its Services, and those hosts of its routes that its namespace may have.
fn dns_names(observed: &Observed, account: &str, validated: &Validated, names: &Names) -> Vec<String> {
    let namespace = &observed.workload.namespace;
    let own = names.service_account(namespace, account);
    let hosts = validated.policy.routes.iter().flat_map(|route| &route.hostnames);
    let services = observed.services.iter().flat_map(|service| names.service(namespace, service));
    let is_allowed = |host: &str| {
        let asked = Asked { dns_names: vec![host.to_owned()], ..Asked::default() };
        names.refusals(namespace, &own, &asked).is_empty()
    };
    // Sorted and without repetitions, as they are in the certificate.
    services.chain(hosts.filter(|host| is_allowed(host)).cloned()).collect::<BTreeSet<_>>().into_iter().collect()
}

#[cfg(test)]
mod tests;
