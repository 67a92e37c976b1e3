//! Certificates of users that listeners show: which the policy names, what of them a workload's Secret carries, what there
//! is to say of them. Pure, but for looking them up.
//!
//! What is named is read from the policy itself, so that it is what is served, wherever a route's form comes from.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use postern_crds::{ProxyRoute, Reason};
use sha2::{Digest, Sha256};
use sidecar_config::identity::CertificatePair;
use sidecar_config::policy::Policy;

use super::observe::Observed;
use super::plan::Missing;
use super::turn::Worker;
use crate::index::{Entries, Granted, ObjectName};
use crate::limits::{CERTIFICATES, CERTIFICATES_BYTES};
use crate::queue::Key;
use crate::references::certificate::{Found, Pair, Summary, digest};

/// The Secrets that a policy names, and what is known of each; `None` where it may not be named.
pub type Certificates = BTreeMap<ObjectName, Option<Found>>;

/// What a Secret carries beside the workload's own key and chain.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Carried {
    /// As part `identity` says it.
    pub pairs: Vec<CertificatePair>,
    /// The files that it names.
    pub entries: Entries,
    /// Certificates for which there was no room.
    pub left_out: BTreeSet<ObjectName>,
}

/// Names of the certificates that a policy names, in its order.
fn named(policy: &Policy) -> impl Iterator<Item = (&str, usize, ObjectName)> {
    policy.listeners.iter().flat_map(|listener| {
        let names = listener.tls.iter().flat_map(|tls| &tls.certificates).enumerate();
        names.filter_map(|(number, name)| Some((listener.name.as_str(), number, ObjectName::read(name)?)))
    })
}

impl Worker {
    /// Looks up what a policy names. A Secret whose bytes are in all of the workload's Secrets is not read again.
    pub(super) async fn certificates(&self, observed: &Observed, policy: &Policy) -> Certificates {
        let workload = &observed.workload;
        let names: BTreeSet<_> = named(policy).map(|(_, _, name)| name).collect();
        let permitted: BTreeSet<_> = {
            let cluster = self.index.cluster();
            let is_permitted = |name: &&ObjectName| cluster.permits(&workload.namespace, Granted::Secret, name);
            names.iter().filter(is_permitted).cloned().collect()
        };
        let secrets = observed.identity_secrets();
        let is_held = |name: &ObjectName, summary: &Summary| {
            secrets.iter().all(|secret| {
                let held = observed.secrets.iter().find(|held| held.name == *secret);
                let held = held.and_then(|held| held_pair(held.entries.as_deref()?, name));
                held.is_some_and(|(chain, key)| digest(chain, key) == summary.digest)
            })
        };
        let mut found = self.certificates.look(&Key::Workload(workload.clone()), &permitted, is_held).await;
        names.into_iter().map(|name| (name.clone(), found.remove(&name))).collect()
    }
}

/// The files of a certificate.
fn files(name: &ObjectName) -> [String; 2] {
    let digest: String = Sha256::digest(name.to_string())[..6].iter().map(|byte| format!("{byte:02x}")).collect();
    ["crt", "key"].map(|ending| format!("certificate-{digest}.{ending}"))
}

/// What a Secret of the workload holds of a certificate.
fn held_pair<'a>(held: &'a Entries, name: &ObjectName) -> Option<(&'a [u8], &'a [u8])> {
    let [chain, key] = files(name);
    Some((held.bytes(&chain)?, held.bytes(&key)?))
}

/// What a Secret is to carry that holds this now: of what cannot be shown any more, what was shown last.
#[must_use]
pub fn carried(policy: &Policy, certificates: &Certificates, held: Option<&Entries>, now: i64) -> Carried {
    let mut carried = Carried::default();
    let mut seen = BTreeSet::new();
    for (_, _, name) in named(policy) {
        let Some(Some(found)) = certificates.get(&name) else { continue };
        if !seen.insert(name.clone()) {
            continue;
        }
        let Some((chain, key)) = bytes(found, held.and_then(|held| held_pair(held, &name)), now) else { continue };
        if carried.pairs.len() >= CERTIFICATES || carried.entries.size() + chain.len() + key.len() > CERTIFICATES_BYTES
        {
            carried.left_out.insert(name);
            continue;
        }
        let [chain_file, key_file] = files(&name);
        carried.entries = carried.entries.with(&*chain_file, chain).with(&*key_file, key);
        carried.pairs.push(CertificatePair { name: Some(name.to_string()), chain: chain_file, key: key_file });
    }
    carried
}

/// The bytes to be shown of a certificate: as they are in its Secret, if they can be shown, else as they were.
fn bytes(found: &Found, held: Option<(&[u8], &[u8])>, now: i64) -> Option<(Vec<u8>, Vec<u8>)> {
    let kept = || held.map(|(chain, key)| (chain.to_vec(), key.to_vec()));
    // What somebody has changed there would have the sidecar refuse all of it.
    let known_good = || kept().filter(|(chain, key)| Pair::read(chain, key).is_ok());
    match (&found.summary, &found.pair) {
        (Ok(summary), _) if summary.out_of_time(now).is_some() => known_good(),
        (Ok(_), Some(pair)) => Some((pair.chain.clone().into_bytes(), pair.key.as_bytes().to_vec())),
        (Ok(summary), None) => match held {
            Some((chain, key)) if digest(chain, key) == summary.digest => kept(),
            _ => known_good(),
        },
        (Err(_), _) => known_good(),
    }
}

/// When one of them has to be judged anew.
#[must_use]
pub fn next_look(certificates: &Certificates, now: i64) -> Option<i64> {
    let known = certificates.values().flatten().filter_map(|found| found.summary.as_ref().ok());
    known.filter_map(|summary| summary.next_look(now)).min()
}

/// What routes name in vain: everybody on a listener is told of its certificates.
#[must_use]
pub fn missing(
    policy: &Policy,
    routes: &[Arc<ProxyRoute>],
    certificates: &Certificates,
    left_out: &BTreeSet<ObjectName>,
    now: i64,
) -> Vec<(ObjectName, Missing)> {
    let mut told = Vec::new();
    for (listener, number, name) in named(policy) {
        for route in policy.routes.iter().filter(|route| route.listener == listener) {
            let Some(route) = ObjectName::read(&route.name) else { continue };
            let Some((reason, why)) = wrong(&name, certificates, left_out, &route.namespace, now) else { continue };
            let defines =
                |known: &&Arc<ProxyRoute>| ObjectName::of(&***known) == route && known.spec.listener.is_definition();
            let place = match routes.iter().find(defines) {
                Some(_) => "spec.listener.tls".to_owned(),
                None => format!("listener `{listener}`"),
            };
            told.push((route, Missing { reason, message: format!("{place}.certificateRefs[{number}]: {why}") }));
        }
    }
    told
}

/// Why a certificate is not shown as it is in its Secret, if it is not.
fn wrong(
    name: &ObjectName,
    certificates: &Certificates,
    left_out: &BTreeSet<ObjectName>,
    from: &str,
    now: i64,
) -> Option<(Reason, String)> {
    let Some(found) = certificates.get(name)? else {
        let why = format!(
            "Secret {name} is of another namespace, and no ReferenceGrant there permits ProxyRoutes of {from} to name it"
        );
        return Some((Reason::RefNotPermitted, why));
    };
    if left_out.contains(name) {
        let why = format!(
            "Secret {name} finds no room: the listeners of a workload show at most {CERTIFICATES} certificates, of {} KiB together; name fewer",
            CERTIFICATES_BYTES >> 10
        );
        return Some((Reason::TooLarge, why));
    }
    let why = match &found.summary {
        Ok(summary) => summary.out_of_time(now)?,
        Err(why) => why.clone(),
    };
    let served = "what was shown last is shown on, or else the workload's own";
    let colon = if why.starts_with('`') { ":" } else { "" };
    Some((Reason::InvalidCertificateRef, format!("Secret {name}{colon} {why}; {served}")))
}

#[cfg(test)]
mod tests;
