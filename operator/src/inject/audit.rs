//! Finds pods that should have a sidecar and have none, or one of another version: they were made while the webhook did
//! not know of them. The API server is asked for those alone, so that a cluster in order costs a request a namespace.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};

use k8s_openapi::api::core::v1::{Namespace, Pod};
use kube::api::ListParams;
use kube::{Api, Client};
use thiserror::Error;

use super::{INJECT_LABEL, VERSION, VERSION_LABEL, cannot_have_one};
use crate::index::{Index, ObjectName, Scope};
use crate::limits::{AUDIT_AGAIN, AUDITED_NAMESPACES, AUDITED_PODS};
use crate::queue::Outcome;
use crate::workload::turn::{TurnError, Worker};

/// Where the webhook is never asked, beside the operator's own namespace.
const SYSTEM_NAMESPACE: &str = "kube-system";

/// It cannot be told.
#[derive(Debug, Error)]
#[error("cannot look for pods without a sidecar: {0}")]
pub struct AuditError(#[from] kube::Error);

/// What is wrong with a pod.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Fault {
    /// It has no sidecar.
    Missing,
    /// Its sidecar was put in by another version.
    Old,
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Missing => "it should have a sidecar and has none; nothing guards it until it is made anew",
            Self::Old => "its sidecar was put in by another version; make it anew to have this one",
        })
    }
}

/// Pods at fault.
pub type Findings = BTreeMap<ObjectName, Fault>;

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

    /// Looks, and tells of what is new.
    ///
    /// # Errors
    /// When the API server does not answer.
    pub async fn look(&self) -> Result<Findings, AuditError> {
        let mut found = Findings::new();
        let scope = self.index.scope();
        for namespace in self.asking(&scope).await? {
            let selector = format!("{INJECT_LABEL}!=disabled,!{VERSION_LABEL}");
            self.gather(Some(&namespace), &selector, Fault::Missing, &mut found).await?;
        }
        let asking = format!("{INJECT_LABEL}=enabled,!{VERSION_LABEL}");
        let old = format!("{VERSION_LABEL},{VERSION_LABEL}!={VERSION},{INJECT_LABEL}!=disabled");
        let everywhere: Vec<_> = match &scope {
            Scope::Cluster => vec![None],
            Scope::Namespaces(names) => names.iter().map(Some).collect(),
            Scope::Enabled => Vec::new(),
        };
        for namespace in everywhere {
            let namespace = namespace.map(String::as_str);
            self.gather(namespace, &asking, Fault::Missing, &mut found).await?;
            self.gather(namespace, &old, Fault::Old, &mut found).await?;
        }
        self.tell(&found);
        Ok(found)
    }

    /// Namespaces that ask for sidecars.
    async fn asking(&self, scope: &Scope) -> Result<Vec<String>, AuditError> {
        let api = Api::<Namespace>::all(self.client.clone());
        let mut parameters = ListParams::default().labels(&format!("{INJECT_LABEL}=enabled")).limit(AUDITED_NAMESPACES);
        let mut names = Vec::new();
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

    async fn gather(
        &self,
        namespace: Option<&str>,
        selector: &str,
        fault: Fault,
        found: &mut Findings,
    ) -> Result<(), AuditError> {
        let api = match namespace {
            Some(namespace) => Api::<Pod>::namespaced(self.client.clone(), namespace),
            None => Api::all(self.client.clone()),
        };
        let page = api.list(&ListParams::default().labels(selector).limit(AUDITED_PODS)).await?;
        let pods = page.items.iter().filter(|pod| is_expected(pod)).map(ObjectName::of);
        let is_exempt =
            |pod: &ObjectName| [SYSTEM_NAMESPACE, &self.operator_namespace].contains(&pod.namespace.as_str());
        found.extend(pods.filter(|pod| !is_exempt(pod)).map(|pod| (pod, fault)));
        Ok(())
    }

    fn tell(&self, found: &Findings) {
        let mut told = self.told.lock().unwrap_or_else(PoisonError::into_inner);
        for (pod, fault) in found.iter().filter(|(pod, fault)| told.get(pod) != Some(fault)) {
            tracing::warn!(%pod, "{fault}");
        }
        told.clone_from(found);
    }
}

/// Whether a pod runs, or will, and has a place for a sidecar.
fn is_expected(pod: &Pod) -> bool {
    let phase = pod.status.as_ref().and_then(|status| status.phase.as_deref());
    let has_ended = matches!(phase, Some("Succeeded" | "Failed")) || pod.metadata.deletion_timestamp.is_some();
    !has_ended && cannot_have_one(pod).is_none()
}

impl Worker {
    /// Looks for pods without a sidecar.
    ///
    /// # Errors
    /// When the API server does not answer.
    pub async fn audit(&self) -> Result<Outcome, TurnError> {
        let found = self.auditor.look().await?;
        let count = |fault| found.values().filter(|one| **one == fault).count();
        self.metrics.set_pods_without_sidecar(count(Fault::Missing), count(Fault::Old));
        Ok(Outcome::Again(AUDIT_AGAIN))
    }
}

#[cfg(test)]
mod tests {
    use k8s_openapi::api::core::v1::Pod;
    use serde_json::{Value, json};

    use super::is_expected;

    #[test]
    fn who_has_no_place_for_a_sidecar_or_has_ended_is_not_expected_to_have_one() {
        let spec = |more: Value| {
            let mut spec = json!({"containers": []});
            spec.as_object_mut().expect("a spec").extend(more.as_object().cloned().unwrap_or_default());
            json!({"metadata": {"name": "a"}, "spec": spec})
        };
        let rows = [
            (spec(json!({})), true),
            (spec(json!({"hostNetwork": true})), false),
            (json!({"metadata": {"name": "a"}, "status": {"phase": "Pending"}}), true),
            (json!({"metadata": {"name": "a"}, "status": {"phase": "Succeeded"}}), false),
            (json!({"metadata": {"name": "a"}, "status": {"phase": "Failed"}}), false),
            (json!({"metadata": {"name": "a", "deletionTimestamp": "2026-11-20T00:00:00Z"}}), false),
            (
                json!({"metadata": {"name": "a", "annotations": {"kubernetes.io/config.mirror": "x"}}, "spec": {"containers": []}}),
                false,
            ),
        ];
        for (pod, expected) in rows {
            let read: Pod = serde_json::from_value(pod.clone()).expect("a pod");
            assert_eq!(is_expected(&read), expected, "{pod}");
        }
    }
}
