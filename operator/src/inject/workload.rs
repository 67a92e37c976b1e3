//! Which workload a pod is of: a pure function of the pod alone, whose generated name is not known yet.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, OwnerReference};
use sha2::{Digest, Sha256};
use thiserror::Error;

use crate::index::pod::WORKLOAD_LABEL;

/// Longest value of a label.
const LABEL_BYTES: usize = 63;
/// Hex digits that stand for what was cut off.
const DIGEST_DIGITS: usize = 10;
/// Digits of the time in minutes that ends the name of a CronJob's Job.
const CRON_DIGITS: usize = 8;
/// How a Deployment, and how Argo Rollouts, tell the pods of their ReplicaSets apart.
const TEMPLATE_HASHES: [(&str, &str); 2] =
    [("pod-template-hash", "deployment"), ("rollouts-pod-template-hash", "rollout")];
/// The groups of Kubernetes' own workloads. Kinds of others may be called the same.
const OWN_GROUPS: [&str; 3] = ["", "apps", "batch"];

/// The label that says of which workload a pod is says nothing that could be one.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error(
    "label {WORKLOAD_LABEL}: `{0}` cannot be a workload, because objects are named after it; write lower-case letters, digits, `-` and `.` inside"
)]
pub struct BadLabel(String);

/// The workload of a pod as it is created.
///
/// # Errors
/// When its own label names one that there cannot be.
pub fn of_pod(pod: &ObjectMeta) -> Result<String, BadLabel> {
    if let Some(own) = own_label(pod)? {
        return Ok(own);
    }
    let owner = pod.owner_references.iter().flatten().find(|owner| owner.controller == Some(true));
    Ok(bounded(&match owner {
        Some(owner) => of_owner(owner, pod),
        None => {
            let name = pod.name.as_deref().filter(|name| !name.is_empty()).or(pod.generate_name.as_deref());
            format!("{}.pod", name.unwrap_or_default().trim_end_matches(['-', '.']))
        }
    }))
}

/// The workload of the pods that an object makes of its template.
///
/// # Errors
/// When the template's label names one that there cannot be.
pub fn of_template(api_version: &str, kind: &str, name: &str, template: &ObjectMeta) -> Result<String, BadLabel> {
    if let Some(own) = own_label(template)? {
        return Ok(own);
    }
    Ok(bounded(&named(api_version, kind, name)))
}

fn own_label(pod: &ObjectMeta) -> Result<Option<String>, BadLabel> {
    let own = pod.labels.iter().flatten().find(|(label, _)| *label == WORKLOAD_LABEL).map(|(_, value)| value);
    let Some(own) = own.filter(|own| !own.is_empty()) else { return Ok(None) };
    if is_name(own) { Ok(Some(own.clone())) } else { Err(BadLabel(own.clone())) }
}

fn of_owner(owner: &OwnerReference, pod: &ObjectMeta) -> String {
    let OwnerReference { api_version, kind, name, .. } = owner;
    if kind == "ReplicaSet" {
        let label = |label: &str| pod.labels.as_ref()?.get(label);
        let made = TEMPLATE_HASHES.iter().find_map(|(hash, maker)| {
            let maker_name = name.strip_suffix(label(hash)?.as_str())?.strip_suffix('-')?;
            Some(format!("{maker_name}.{maker}"))
        });
        if let Some(made) = made {
            return made;
        }
    }
    named(api_version, kind, name)
}

fn named(api_version: &str, kind: &str, name: &str) -> String {
    let group = api_version.split_once('/').map_or("", |(group, _)| group);
    let kind = kind.to_ascii_lowercase();
    match (group, kind.as_str()) {
        ("batch", "job") => match cron_job(name) {
            Some(cron_job) => format!("{cron_job}.cronjob"),
            None => format!("{name}.job"),
        },
        ("argoproj.io", "rollout") => format!("{name}.rollout"),
        // A kind of another group may be called like one of ours, and both may have an object of one name.
        (group, _) if !OWN_GROUPS.contains(&group) && is_own_kind(&kind) => format!("{name}.{kind}.{group}"),
        _ => format!("{name}.{kind}"),
    }
}

fn is_own_kind(kind: &str) -> bool {
    let own = ["pod", "replicaset", "replicationcontroller", "deployment", "rollout", "statefulset", "daemonset"];
    own.contains(&kind) || ["job", "cronjob"].contains(&kind)
}

/// The CronJob of a Job: its name without the time in minutes that it was due.
fn cron_job(job: &str) -> Option<&str> {
    let (name, time) = job.rsplit_once('-')?;
    (time.len() >= CRON_DIGITS && time.bytes().all(|byte| byte.is_ascii_digit()) && !name.is_empty()).then_some(name)
}

/// A name for objects, and the value of a label. What is too long, or has what no name may have, ends in a digest.
fn bounded(name: &str) -> String {
    if name.len() <= LABEL_BYTES && is_name(name) {
        return name.to_owned();
    }
    let digest: String =
        Sha256::digest(name).iter().map(|byte| format!("{byte:02x}")).take(DIGEST_DIGITS / 2).collect();
    let is_plain = |byte: char| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == '-';
    // A dot needs letters on both sides: in what is cut a hyphen does.
    let plain: String = name.chars().map(|one| if is_plain(one) { one } else { '-' }).collect();
    let start = plain.get(..LABEL_BYTES - DIGEST_DIGITS - 1).unwrap_or(&plain).trim_matches('-');
    if start.is_empty() { digest } else { format!("{start}-{digest}") }
}

/// Whether objects can be called so (RFC 1123, as Kubernetes has it): labels with dots between them.
fn is_name(text: &str) -> bool {
    let is_inner = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
    text.split('.').all(|label| {
        !label.is_empty() && label.bytes().all(is_inner) && !label.starts_with('-') && !label.ends_with('-')
    })
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
    use serde_json::{Value, json};

    use super::{LABEL_BYTES, is_name, of_pod, of_template};

    fn metadata(value: Value) -> ObjectMeta {
        serde_json::from_value(value).expect("metadata")
    }

    fn owned(api_version: &str, kind: &str, name: &str, labels: Value) -> Value {
        let owner = json!({"apiVersion": api_version, "kind": kind, "name": name, "uid": "u", "controller": true});
        let mut pod = json!({"generateName": format!("{name}-"), "ownerReferences": [owner]});
        pod["labels"] = labels;
        pod
    }

    #[test]
    fn a_workload_is_a_function_of_the_pod() {
        let hash = json!({"pod-template-hash": "7c5ddbdf54"});
        let rollout = json!({"rollouts-pod-template-hash": "6b8f"});
        let rows = [
            (owned("apps/v1", "ReplicaSet", "orders-7c5ddbdf54", hash.clone()), "orders.deployment"),
            (owned("apps/v1", "ReplicaSet", "orders-7c5ddbdf54", json!({})), "orders-7c5ddbdf54.replicaset"),
            (owned("apps/v1", "ReplicaSet", "orders", hash), "orders.replicaset"),
            (owned("apps/v1", "ReplicaSet", "orders-6b8f", rollout), "orders.rollout"),
            (owned("apps/v1", "StatefulSet", "orders", json!({})), "orders.statefulset"),
            (owned("apps/v1", "DaemonSet", "orders", json!({})), "orders.daemonset"),
            (owned("v1", "ReplicationController", "orders", json!({})), "orders.replicationcontroller"),
            (owned("batch/v1", "Job", "orders", json!({})), "orders.job"),
            (owned("batch/v1", "Job", "orders-29380560", json!({})), "orders.cronjob"),
            (owned("batch/v1", "Job", "orders-2938056", json!({})), "orders-2938056.job"),
            (owned("batch/v1", "Job", "orders-2938056a", json!({})), "orders-2938056a.job"),
            (owned("batch/v1", "Job", "29380560", json!({})), "29380560.job"),
            (owned("apps.kruise.io/v1beta1", "StatefulSet", "orders", json!({})), "orders.statefulset.apps.kruise.io"),
            (owned("ray.io/v1", "RayCluster", "orders", json!({})), "orders.raycluster"),
            (json!({"name": "orders"}), "orders.pod"),
            (json!({"generateName": "orders-"}), "orders.pod"),
            (json!({"name": "orders-x1", "generateName": "orders-"}), "orders-x1.pod"),
            // Who only refers to it does not control it.
            (
                json!({"name": "orders", "ownerReferences": [{"apiVersion": "v1", "kind": "A", "name": "b", "uid": "u"}]}),
                "orders.pod",
            ),
            (owned("apps/v1", "StatefulSet", "orders", json!({"postern.dev/workload": "mine"})), "mine"),
            (owned("apps/v1", "StatefulSet", "orders", json!({"postern.dev/workload": ""})), "orders.statefulset"),
        ];
        for (pod, expected) in rows {
            assert_eq!(of_pod(&metadata(pod.clone())).as_deref(), Ok(expected), "{pod}");
        }
    }

    #[test]
    fn kinds_of_one_name_are_different_workloads() {
        let kinds = [
            ("apps/v1", "Deployment"),
            ("apps/v1", "StatefulSet"),
            ("apps/v1", "DaemonSet"),
            ("batch/v1", "Job"),
            ("batch/v1", "CronJob"),
            ("argoproj.io/v1alpha1", "Rollout"),
            ("apps.kruise.io/v1beta1", "StatefulSet"),
            ("example.com/v1", "Rollout"),
            ("v1", "Pod"),
        ];
        for name in ["orders".to_owned(), "o".repeat(253), "o".repeat(60), format!("{}.a", "o".repeat(56))] {
            let of = |(version, kind): &(&str, &str)| of_template(version, kind, &name, &ObjectMeta::default());
            let workloads: BTreeSet<_> = kinds.iter().map(|kind| of(kind).expect("a workload")).collect();
            assert_eq!(workloads.len(), kinds.len(), "{workloads:?}");
            assert!(workloads.iter().all(|one| one.len() <= LABEL_BYTES && is_name(one)), "{workloads:?}");
        }
    }

    #[test]
    fn a_template_and_its_pods_are_of_one_workload() {
        let long = "o".repeat(100);
        for name in ["orders", "orders.example", &long] {
            let hash = json!({"pod-template-hash": "5d4"});
            let pod = owned("apps/v1", "ReplicaSet", &format!("{name}-5d4"), hash);
            let template = of_template("apps/v1", "Deployment", name, &ObjectMeta::default());
            assert_eq!(of_pod(&metadata(pod)), template);
            let pod = owned("batch/v1", "Job", &format!("{name}-29380560"), json!({}));
            assert_eq!(of_pod(&metadata(pod)), of_template("batch/v1", "CronJob", name, &ObjectMeta::default()));
        }
    }

    #[test]
    fn a_label_that_no_object_can_be_named_after_is_refused() {
        for label in ["Orders", "a_b", "a..b", "a.-b"] {
            let pod = metadata(json!({"name": "orders", "labels": {"postern.dev/workload": label}}));
            let told = of_pod(&pod).expect_err(label).to_string();
            assert!(told.starts_with(&format!("label postern.dev/workload: `{label}` cannot be a workload")), "{told}");
        }
    }
}
