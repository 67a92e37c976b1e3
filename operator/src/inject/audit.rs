//! Finds pods that should have a sidecar and have none, or one of another version: they were made while the webhook did
//! not know of them. What is in their specs decides, and of the version what runs there, by its own word. Pods of workloads are in the index; of others the API server is asked
//! for those alone that ask for a sidecar, so that a cluster in order costs a request a namespace.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};

use k8s_openapi::api::core::v1::{Namespace, Pod};
use kube::api::ListParams;
use kube::{Api, Client};
use thiserror::Error;

use super::gate::Gate;
use super::{INJECT_LABEL, VERSION, VERSION_LABEL};
use crate::events::transition::Told;
use crate::index::pod::WORKLOAD_LABEL;
use crate::index::{Index, ObjectKind, ObjectName, Scope};
use crate::limits::{AUDIT_AGAIN, AUDITED_NAMESPACES, AUDITED_PAGE, AUDITED_PODS};
use crate::queue::Outcome;
use crate::workload::board::{Board, Runs};
use crate::workload::turn::{TurnError, Worker};

/// Where the webhook is never asked, beside the operator's own namespace.
const SYSTEM_NAMESPACE: &str = "kube-system";
/// Pods that go on.
const RUNNING: &str = "status.phase!=Succeeded,status.phase!=Failed";

/// It cannot be told.
#[derive(Debug, Error)]
#[error("cannot look for pods without a sidecar: {0}")]
pub struct AuditError(#[from] kube::Error);

/// What is wrong with a pod.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Fault {
    /// It has no sidecar.
    Missing,
    /// Its sidecar is of another version.
    Old,
    /// It has a sidecar, and no label that says of which workload it is.
    Stray,
}

impl Fault {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Missing, Self::Old, Self::Stray];

    /// In metrics.
    #[must_use]
    pub const fn word(self) -> &'static str {
        match self {
            Self::Missing => "missing",
            Self::Old => "old",
            Self::Stray => "stray",
        }
    }

    /// In events.
    const fn reason(self) -> &'static str {
        match self {
            Self::Missing => "SidecarMissing",
            Self::Old => "SidecarOld",
            Self::Stray => "SidecarStray",
        }
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Missing => "it should have a sidecar and has none; nothing guards it until it is made anew",
            Self::Old => "its sidecar is of another version; make it anew to have this one",
            Self::Stray => {
                "its sidecar is of no workload, for want of label postern.dev/workload, and nothing is written for it; make it anew"
            }
        })
    }
}

/// A pod at fault.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    /// What is wrong with it.
    pub fault: Fault,
    /// Which pod of that name.
    pub uid: String,
}

/// Pods at fault.
pub type Findings = BTreeMap<ObjectName, Finding>;

/// Looks for them, and remembers what was told.
pub struct Auditor {
    client: Client,
    index: Arc<Index>,
    operator_namespace: String,
    told: Mutex<Findings>,
}

impl Auditor {
    /// For the namespaces that are served.
    #[must_use]
    pub fn new(client: Client, index: Arc<Index>, operator_namespace: String) -> Self {
        Self { client, index, operator_namespace, told: Mutex::default() }
    }

    /// Looks.
    ///
    /// # Errors
    /// When the API server does not answer.
    pub async fn look(&self, board: &Board) -> Result<Findings, AuditError> {
        let scope = self.index.scope();
        let asking = self.asking(&scope).await?;
        let mut found = self.of_workloads(&asking, board);
        let others = |more: &str| format!("{INJECT_LABEL}{more},!{WORKLOAD_LABEL}");
        for namespace in &asking {
            self.gather(Some(namespace), &others("!=disabled"), true, &mut found).await?;
        }
        let everywhere: Vec<_> = match &scope {
            Scope::Cluster => vec![None],
            Scope::Namespaces(names) => names.iter().map(Some).collect(),
            Scope::Enabled => Vec::new(),
        };
        for namespace in everywhere {
            self.gather(namespace.map(String::as_str), &others("=enabled"), true, &mut found).await?;
        }
        found.retain(|pod, _| ![SYSTEM_NAMESPACE, &self.operator_namespace].contains(&pod.namespace.as_str()));
        Ok(found)
    }

    /// What is new of what is told, and is not told again.
    #[must_use]
    pub fn news(&self, found: &Findings) -> Findings {
        let now = shown(found);
        let mut told = self.told.lock().unwrap_or_else(PoisonError::into_inner);
        let before = std::mem::replace(&mut *told, now.clone());
        now.into_iter().filter(|(pod, finding)| before.get(pod) != Some(finding)).collect()
    }

    /// Namespaces that ask for sidecars.
    async fn asking(&self, scope: &Scope) -> Result<BTreeSet<String>, AuditError> {
        let api = Api::<Namespace>::all(self.client.clone());
        let mut parameters = ListParams::default().labels(&format!("{INJECT_LABEL}=enabled")).limit(AUDITED_NAMESPACES);
        let mut names = BTreeSet::new();
        loop {
            let page = api.list_metadata(&parameters).await?;
            names.extend(page.items.into_iter().filter_map(|namespace| namespace.metadata.name));
            match page.metadata.continue_.filter(|token| !token.is_empty()) {
                Some(token) => parameters = parameters.continue_token(&token),
                None => break,
            }
        }
        names.retain(|name| scope.contains(name));
        Ok(names)
    }

    /// Those that say of which workload they are, whatever else their labels say.
    fn of_workloads(&self, asking: &BTreeSet<String>, board: &Board) -> Findings {
        let cluster = self.index.cluster();
        let names = cluster.names(ObjectKind::Pod, None);
        let pods = names.iter().filter_map(|name| cluster.pod(name)).filter(|pod| !pod.is_ending);
        let pods = pods.filter(|pod| self.index.serves(&pod.name.namespace));
        let found = pods.filter_map(|pod| {
            let fault = fault(pod.gate, &board.runs(pod), &pod.labels, asking.contains(&pod.name.namespace))?;
            Some((pod.name.clone(), Finding { fault, uid: pod.uid.clone() }))
        });
        found.collect()
    }

    /// Those of others that a selector chooses.
    async fn gather(
        &self,
        namespace: Option<&str>,
        selector: &str,
        is_asked: bool,
        found: &mut Findings,
    ) -> Result<(), AuditError> {
        let api = match namespace {
            Some(namespace) => Api::<Pod>::namespaced(self.client.clone(), namespace),
            None => Api::all(self.client.clone()),
        };
        let mut parameters = ListParams::default().labels(selector).fields(RUNNING).limit(AUDITED_PAGE);
        let most = found.len() + AUDITED_PODS;
        loop {
            let page = api.list(&parameters).await?;
            let pods = page.items.into_iter().filter(|pod| pod.metadata.deletion_timestamp.is_none());
            found.extend(pods.filter_map(|pod| {
                let labels = pod.metadata.labels.clone().unwrap_or_default();
                let fault = fault(Gate::of(&pod), &Runs::Unheard, &labels, is_asked)?;
                Some((ObjectName::of(&pod), Finding { fault, uid: pod.metadata.uid.unwrap_or_default() }))
            }));
            match page.metadata.continue_.filter(|token| !token.is_empty() && found.len() < most) {
                Some(token) => parameters = parameters.continue_token(&token),
                None => return Ok(()),
            }
        }
    }
}

/// So many of each namespace.
fn shown(found: &Findings) -> Findings {
    let mut counts = BTreeMap::new();
    let mut shown = Findings::new();
    for (pod, finding) in found {
        let count: &mut usize = counts.entry(pod.namespace.as_str()).or_default();
        *count += 1;
        if *count <= AUDITED_PODS {
            shown.insert(pod.clone(), finding.clone());
        }
    }
    shown
}

/// What is wrong with a pod that runs, or will. `is_asked` says whether its namespace asks for sidecars.
fn fault(gate: Gate, runs: &Runs, labels: &BTreeMap<String, String>, is_asked: bool) -> Option<Fault> {
    let label = |name: &str| labels.get(name).map(String::as_str);
    let asks = match label(INJECT_LABEL) {
        Some("disabled") => return None,
        Some("enabled") => true,
        _ => is_asked,
    };
    match gate {
        Gate::NoPlace => None,
        Gate::Missing => asks.then_some(Fault::Missing),
        Gate::There if label(WORKLOAD_LABEL).is_none_or(str::is_empty) => Some(Fault::Stray),
        Gate::There => {
            let is_old = match runs {
                Runs::Version(version) => version.as_deref() != Some(VERSION),
                // Nobody says more than what was put in.
                Runs::Unheard => label(VERSION_LABEL) != Some(VERSION),
                Runs::Unasked => false,
            };
            is_old.then_some(Fault::Old)
        }
    }
}

impl Worker {
    /// Looks for pods without a sidecar, and tells of them: in the log, and as events of the pods.
    ///
    /// # Errors
    /// When the API server does not answer.
    pub async fn audit(&self) -> Result<Outcome, TurnError> {
        let found = self.auditor.look(&self.board).await?;
        for fault in Fault::ALL {
            let count = found.values().filter(|finding| finding.fault == fault).count();
            self.metrics.set_pods_without_sidecar(fault.word(), count);
        }
        for (name, Finding { fault, uid }) in self.auditor.news(&found) {
            tracing::warn!(pod = %name, "{fault}");
            let mut pod = Pod::default();
            pod.metadata.namespace = Some(name.namespace);
            pod.metadata.name = Some(name.name);
            pod.metadata.uid = Some(uid);
            let (reason, note) = (fault.reason().to_owned(), fault.to_string());
            // A pod has no status of ours that would say what was told of it by the operator before.
            let is_warning = fault != Fault::Old;
            self.events.tell_once(&pod, Told { is_warning, reason, action: "Audit", note });
        }
        Ok(Outcome::Again(AUDIT_AGAIN))
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::{Fault, Gate, Runs, VERSION, fault};

    #[test]
    fn who_asks_and_has_no_gate_is_found_whatever_its_labels_say() {
        let version = format!("postern.dev/sidecar={VERSION}");
        let current = ["postern.dev/workload=a.pod", &*version];
        let labels = |more: &[&str]| -> BTreeMap<_, _> {
            more.iter().filter_map(|one| one.split_once('=')).map(|(name, value)| (name.into(), value.into())).collect()
        };
        let forged = |more: &'static str| [&current[..], &[more]].concat();
        let rows: [(Gate, Vec<&str>, bool, Option<Fault>); 12] = [
            (Gate::There, current.to_vec(), true, None),
            (Gate::There, current.to_vec(), false, None),
            (Gate::There, vec!["postern.dev/workload=a.pod", "postern.dev/sidecar=0.0.1"], false, Some(Fault::Old)),
            (Gate::There, vec!["postern.dev/workload=a.pod"], true, Some(Fault::Old)),
            (Gate::There, vec![&version], true, Some(Fault::Stray)),
            (Gate::Missing, vec![], true, Some(Fault::Missing)),
            (Gate::Missing, vec![], false, None),
            (Gate::Missing, current.to_vec(), true, Some(Fault::Missing)),
            (Gate::Missing, forged("postern.dev/inject=enabled"), false, Some(Fault::Missing)),
            (Gate::Missing, vec!["postern.dev/inject=disabled"], true, None),
            (Gate::Missing, vec!["postern.dev/inject=perhaps"], true, Some(Fault::Missing)),
            (Gate::NoPlace, vec!["postern.dev/inject=enabled"], true, None),
        ];
        for (gate, more, is_asked, expected) in rows {
            let found = fault(gate, &Runs::Unheard, &labels(&more), is_asked);
            assert_eq!(found, expected, "{gate:?} {more:?} {is_asked}");
        }
    }

    #[test]
    fn what_runs_says_whether_it_is_old_and_its_label_only_while_nobody_hears_it() {
        let says = |version: &str| Runs::Version(Some(version.to_owned()));
        let rows = [
            (says(VERSION), VERSION, None),
            (says(VERSION), "0.0.1", None),
            (says("0.0.1"), VERSION, Some(Fault::Old)),
            (says("99.0.0"), VERSION, Some(Fault::Old)),
            (Runs::Version(None), VERSION, Some(Fault::Old)),
            (Runs::Unheard, VERSION, None),
            (Runs::Unheard, "0.0.1", Some(Fault::Old)),
            (Runs::Unasked, "0.0.1", None),
        ];
        for (runs, label, expected) in rows {
            let labels = [("postern.dev/workload", "a.pod"), ("postern.dev/sidecar", label)];
            let labels = labels.map(|(name, value)| (name.to_owned(), value.to_owned())).into();
            assert_eq!(fault(Gate::There, &runs, &labels, false), expected, "{runs:?} {label}");
        }
    }
}
