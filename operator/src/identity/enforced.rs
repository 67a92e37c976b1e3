//! How many sidecars know an identity's state: what they say they have loaded, beside what was written. Pure.

use std::collections::BTreeMap;
use std::sync::Arc;

use postern_crds::clientidentity::EnforcedStatus;
use postern_crds::condition::{ConditionStatus, ConditionType, Reason, Verdict};
use sidecar_config::trust::{IdentityRevocation, Trust};

/// Pods that are named in a message.
const NAMED: usize = 3;

/// A part `trust` that was written to a namespace.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WrittenTrust {
    /// Its revision, as sidecars report it.
    pub revision: String,
    /// What it says.
    pub document: Arc<Trust>,
}

/// A sidecar that has started, and what it said last.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SidecarSeen {
    /// Its pod's namespace.
    pub namespace: String,
    /// Its pod.
    pub pod: String,
    /// The revision of part `trust` it has loaded; `None` where it does not answer.
    pub trust_loaded: Option<String>,
}

/// What was written and what was seen.
#[derive(Clone, Copy, Debug)]
pub struct TrustView<'a> {
    /// What was written to each namespace, as far back as is remembered: a sidecar that has not the newest may have one
    /// that says the same of an identity.
    pub written: &'a BTreeMap<String, Vec<WrittenTrust>>,
    /// All sidecars that have started.
    pub seen: &'a [SidecarSeen],
    /// Namespaces to which no more can be written, and why.
    pub held_up: &'a BTreeMap<String, String>,
}

/// What of an identity every sidecar is to know.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ToKnow<'a> {
    /// Its name.
    pub name: &'a str,
    /// What is revoked of it.
    pub revocation: Option<&'a IdentityRevocation>,
    /// Its serial numbers that are revoked.
    pub serials: &'a [String],
}

impl ToKnow<'_> {
    /// Whether a document says so.
    fn is_said_by(&self, document: &Trust) -> bool {
        let revocations = &document.revocations;
        let said = revocations.identities.iter().find(|one| one.name == self.name);
        let has = |serial: &String| revocations.serials.iter().any(|one| one.serial == *serial);
        said == self.revocation && self.serials.iter().all(has)
    }
}

/// Counts, and says it as a condition.
#[must_use]
pub fn enforced(to_know: &ToKnow<'_>, view: TrustView<'_>) -> (EnforcedStatus, Verdict) {
    let mut carrying: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
    for (namespace, written) in view.written {
        let carries = written.iter().filter(|one| to_know.is_said_by(&one.document));
        carrying.insert(namespace, carries.map(|one| one.revision.as_str()).collect());
    }
    let (mut status, mut behind, mut silent) = (EnforcedStatus::default(), Vec::new(), Vec::new());
    for sidecar in view.seen {
        status.started = status.started.saturating_add(1);
        let good = carrying.get(sidecar.namespace.as_str());
        match &sidecar.trust_loaded {
            Some(loaded) if good.is_some_and(|good| good.contains(&loaded.as_str())) => status.enforced += 1,
            Some(_) => behind.push(sidecar),
            None => silent.push(sidecar),
        }
    }
    let counted = format!("{} of {} sidecars", status.enforced, status.started);
    let held_up = behind.iter().find_map(|sidecar| view.held_up.get(&sidecar.namespace));
    let (so, reason, message) = if let Some(why) = held_up {
        (ConditionStatus::False, Reason::TooLarge, format!("{counted} know it; {why}"))
    } else if !behind.is_empty() {
        (ConditionStatus::False, Reason::Propagating, format!("{counted} know it; not yet {}", pods(&behind)))
    } else if !silent.is_empty() {
        (ConditionStatus::Unknown, Reason::Unreachable, format!("{counted} know it; no answer from {}", pods(&silent)))
    } else {
        (ConditionStatus::True, Reason::Enforced, format!("{counted} know it"))
    };
    (status, Verdict { kind: ConditionType::Enforced, status: so, reason, message })
}

fn pods(sidecars: &[&SidecarSeen]) -> String {
    let mut names: Vec<_> = sidecars.iter().map(|sidecar| format!("{}/{}", sidecar.namespace, sidecar.pod)).collect();
    names.sort();
    let more = names.len().saturating_sub(NAMED);
    names.truncate(NAMED);
    let more = if more > 0 { format!(" and {more} more") } else { String::new() };
    format!("{}{more}", names.join(", "))
}
