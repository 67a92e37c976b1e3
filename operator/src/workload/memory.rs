//! What is remembered of a workload from turn to turn, and lost with the process: nothing that is written depends on it.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, PoisonError};

use sidecar_config::{CONTRACT_MAX, ContractVersion};
use tokio::time::Instant;

use super::ask::{Answer, AskError};
use super::board::Heard;
use super::content::Write;
use super::names::{self, POLICY_ENTRY};
use super::plan::Plan;
use crate::index::held::BUNDLES_ANNOTATION;
use crate::index::{Cluster, ContentDigest, HeldKind, ObjectName, Pod};
use crate::limits::{CHUNKS, UNREACHABLE_AFTER};

/// The memory of every workload, which its turns have one after the other.
#[derive(Debug, Default)]
pub struct Memories(Mutex<HashMap<ObjectName, Arc<tokio::sync::Mutex<Memory>>>>);

impl Memories {
    /// That of a workload.
    #[must_use]
    pub fn of(&self, workload: &ObjectName) -> Arc<tokio::sync::Mutex<Memory>> {
        // Each change is whole, so that a panic elsewhere leaves nothing half done.
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        Arc::clone(all.entry(workload.clone()).or_default())
    }

    /// Forgets a workload.
    pub fn forget(&self, workload: &ObjectName) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).remove(workload);
    }
}

/// A policy as it was written.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct WrittenPolicy {
    /// The document; empty where there is none.
    pub document: String,
    /// Where the bundles of its routes are.
    pub bundles: String,
}

/// Part `identities` as it was packed last. Packing it again only to find that it is there would cost the most of
/// a turn.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PackedIdentities {
    /// Digest of the document.
    pub document: [u8; 32],
    objects: BTreeMap<ObjectName, ContentDigest>,
}

impl PackedIdentities {
    /// As a plan has it.
    #[must_use]
    pub fn of(plan: &Plan) -> Self {
        let set = plan.identities.iter().filter_map(|write| match write {
            Write::Set(content) => Some((content.name.clone(), content.digest())),
            Write::Keep | Write::Remove(..) => None,
        });
        Self { document: plan.identities_document, objects: set.collect() }
    }

    /// Whether all of it is still there, and nothing else.
    #[must_use]
    pub fn is_there(&self, cluster: &Cluster, workload: &ObjectName) -> bool {
        (0..CHUNKS).all(|chunk| {
            let name = ObjectName::new(workload.namespace.clone(), names::identities(&workload.name, chunk));
            cluster.held(HeldKind::ConfigMap, &name).map(|held| held.digest) == self.objects.get(&name).copied()
        })
    }
}

/// The memory of a workload.
#[derive(Debug, Default)]
pub struct Memory {
    /// When part of its policy was written last.
    pub written: Option<Instant>,
    /// Its policy as it was written last, once somebody had to know.
    pub policy: Option<WrittenPolicy>,
    /// Its clients as they were packed last.
    pub identities: Option<PackedIdentities>,
    /// What was heard of its pods, by UID.
    pub heard: HashMap<String, PodMemory>,
    /// Turns in a row after which somebody lagged behind.
    pub lagging: u32,
}

impl Memory {
    /// Takes note of the policy that was written, unless its name was taken.
    pub fn remember(&mut self, policy: &Write, taken: &[ObjectName]) {
        let Write::Set(content) = policy else { return };
        if taken.contains(&content.name) {
            return;
        }
        let document = content.entries.text(POLICY_ENTRY).unwrap_or_default();
        let bundles = content.annotations.get(BUNDLES_ANNOTATION).cloned().unwrap_or_default();
        if self.policy.as_ref().is_none_or(|known| known.document != document || known.bundles != bundles) {
            self.policy = Some(WrittenPolicy { document: document.to_owned(), bundles });
        }
    }

    /// What a sidecar answers, kept once for all pods that say the same, as those of a workload do.
    #[must_use]
    pub fn shared(&self, answer: Answer) -> Arc<Answer> {
        let mut known = self.heard.values().filter_map(|pod| pod.answer.as_ref());
        known.find(|known| ***known == answer).cloned().unwrap_or_else(|| Arc::new(answer))
    }

    /// The newest contract version that all sidecars read which have said so.
    #[must_use]
    pub fn newest_version(&self, pods: &[Arc<Pod>]) -> ContractVersion {
        let said = pods.iter().filter_map(|pod| Some(self.heard.get(&pod.uid)?.answer.as_ref()?.contract.max));
        said.min().unwrap_or(CONTRACT_MAX).min(CONTRACT_MAX)
    }
}

/// What was heard of a pod.
#[derive(Clone, Debug, Default)]
pub struct PodMemory {
    answer: Option<Arc<Answer>>,
    silent_since: Option<Instant>,
}

impl PodMemory {
    /// What is to be said of a sidecar after it was asked.
    pub fn hear(&mut self, answer: Result<Arc<Answer>, AskError>, now: Instant) -> Heard {
        match answer {
            Ok(answer) => {
                *self = Self { answer: Some(Arc::clone(&answer)), silent_since: None };
                Heard::Answered(answer)
            }
            Err(error) => {
                let since = *self.silent_since.get_or_insert(now);
                if now.duration_since(since) >= UNREACHABLE_AFTER {
                    return Heard::Unreachable(error.to_string());
                }
                // What it said a moment ago is still the best that is known.
                self.answer.clone().map_or_else(|| Heard::Silent(error.to_string()), Heard::Answered)
            }
        }
    }
}
