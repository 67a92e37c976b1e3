//! What the last turn of each workload found out: what routes' and clients' statuses are made of.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use postern_crds::ProxyRoute;

use super::ask::Answer;
use super::plan::Verdict;
use crate::identity::enforced::SidecarSeen;
use crate::index::{ObjectName, Pod};

/// What a sidecar said last, or why it says nothing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Heard {
    /// It has not started, and nobody asks it.
    NotStarted,
    /// It has answered.
    Answered(Arc<Answer>),
    /// It does not answer, but not for long.
    Silent(String),
    /// It has not answered for so long that this is told.
    Unreachable(String),
}

/// What is known of the program that runs as a pod's sidecar.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Runs {
    /// Which version, by its own word; nothing of one that is older than this.
    Version(Option<String>),
    /// It has not started, or does not answer.
    Unheard,
    /// It has started, and is about to be asked.
    Unasked,
}

/// What is new of a report.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct News {
    /// Sidecars know of revocations what they did not before.
    pub trusts: bool,
    /// Sidecars run other versions than before.
    pub versions: bool,
}

/// What one turn of a workload found out, all as of one moment.
#[derive(Clone, Debug)]
pub struct Report {
    /// Pods that are not on their way out, and what was heard of each.
    pub pods: Vec<(Arc<Pod>, Heard)>,
    /// What was planned for each route.
    pub routes: BTreeMap<ObjectName, Verdict>,
    /// Which generation of each route that is about.
    pub generations: BTreeMap<ObjectName, i64>,
    /// Revision of part `policy` that sidecars are to have.
    pub policy_revision: String,
    /// What keeps the workload from being written as planned.
    pub problems: Vec<String>,
}

impl Report {
    /// Whether it is about a route as it is now.
    #[must_use]
    pub fn is_about(&self, route: &ProxyRoute) -> bool {
        let generation = route.metadata.generation.unwrap_or_default();
        self.generations.get(&ObjectName::of(route)) == Some(&generation)
    }

    /// All sidecars that have started, with the revision of part `trust` that each has; `None` of one that is silent.
    #[must_use]
    pub fn trusts(&self) -> Vec<SidecarSeen> {
        let started = self.pods.iter().filter(|(_, heard)| *heard != Heard::NotStarted);
        let seen = started.map(|(pod, heard)| SidecarSeen {
            namespace: pod.name.namespace.clone(),
            pod: pod.name.name.clone(),
            trust_loaded: match heard {
                Heard::Answered(answer) => answer.parts.get("trust").map(|part| part.loaded.clone()),
                Heard::NotStarted | Heard::Silent(_) | Heard::Unreachable(_) => None,
            },
        });
        seen.collect()
    }

    /// The versions that sidecars run, by their pods' UIDs.
    fn versions(&self) -> BTreeMap<&str, Option<&str>> {
        let answered = self.pods.iter().filter_map(|(pod, heard)| match heard {
            Heard::Answered(answer) => Some((pod.uid.as_str(), answer.version.as_deref())),
            Heard::NotStarted | Heard::Silent(_) | Heard::Unreachable(_) => None,
        });
        answered.collect()
    }
}

/// The last report of each workload.
#[derive(Debug, Default)]
pub struct Board {
    reports: Mutex<BTreeMap<ObjectName, Arc<Report>>>,
    /// What all reports say of sidecars, once somebody has asked: thousands of clients do after every change.
    seen: Mutex<Option<Arc<[SidecarSeen]>>>,
}

impl Board {
    /// Replaces the report of a workload.
    pub fn set(&self, workload: &ObjectName, report: Report) -> News {
        let new = Arc::new(report);
        let old = self.reports().insert(workload.clone(), Arc::clone(&new));
        let trusts = old.as_ref().map(|old| old.trusts()).unwrap_or_default() != new.trusts();
        let versions = old.as_ref().map(|old| old.versions()).unwrap_or_default() != new.versions();
        if trusts {
            self.forget_seen();
        }
        News { trusts, versions }
    }

    /// What runs as the sidecar of a pod.
    #[must_use]
    pub fn runs(&self, pod: &Pod) -> Runs {
        if !pod.is_started {
            return Runs::Unheard;
        }
        let report = self.report(&pod.workload());
        let heard = report.iter().flat_map(|report| &report.pods).find(|(known, _)| known.uid == pod.uid);
        match heard {
            Some((_, Heard::Answered(answer))) => Runs::Version(answer.version.clone()),
            Some((_, Heard::Unreachable(_))) => Runs::Unheard,
            Some((_, Heard::NotStarted | Heard::Silent(_))) | None => Runs::Unasked,
        }
    }

    /// Forgets a workload that is gone. Tells whether it had sidecars that are missing now.
    pub fn forget(&self, workload: &ObjectName) -> bool {
        let had_some = self.reports().remove(workload).is_some_and(|report| !report.trusts().is_empty());
        if had_some {
            self.forget_seen();
        }
        had_some
    }

    /// All sidecars that have started, with the revision of part `trust` that each has.
    #[must_use]
    pub fn seen(&self) -> Arc<[SidecarSeen]> {
        let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        let gather = || self.reports().values().flat_map(|report| report.trusts()).collect();
        Arc::clone(seen.get_or_insert_with(gather))
    }

    fn forget_seen(&self) {
        *self.seen.lock().unwrap_or_else(PoisonError::into_inner) = None;
    }

    /// The report of a workload.
    #[must_use]
    pub fn report(&self, workload: &ObjectName) -> Option<Arc<Report>> {
        self.reports().get(workload).cloned()
    }

    /// All reports.
    #[must_use]
    pub fn all(&self) -> BTreeMap<ObjectName, Arc<Report>> {
        self.reports().clone()
    }

    // A report is replaced as a whole, so that a panic elsewhere leaves nothing half done.
    fn reports(&self) -> MutexGuard<'_, BTreeMap<ObjectName, Arc<Report>>> {
        self.reports.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
