//! Whether a pod has its gate, by what is in its spec: a label can say anything. Pure.

use k8s_openapi::api::core::v1::{Container, Pod};

use super::cannot_have_one;
use super::sidecar::CONFIG_VOLUME;
use crate::index::pod::SIDECAR_CONTAINER;

/// Whether a pod has a gate.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Gate {
    /// Among its containers is one.
    There,
    /// Among them is none.
    Missing,
    /// It can have none.
    NoPlace,
}

impl Gate {
    /// Of a pod.
    #[must_use]
    pub fn of(pod: &Pod) -> Self {
        let mut containers = pod.spec.iter().flat_map(|spec| spec.init_containers.iter().flatten());
        if containers.any(is_gate) {
            Self::There
        } else if cannot_have_one(pod).is_some() {
            Self::NoPlace
        } else {
            Self::Missing
        }
    }
}

/// Whether a container runs beside the application's and is given what is written for a gate. Which image it has is for
/// whoever makes pods to choose, and nothing to go by.
fn is_gate(container: &Container) -> bool {
    let mut mounts = container.volume_mounts.iter().flatten();
    container.name == SIDECAR_CONTAINER
        && container.restart_policy.as_deref() == Some("Always")
        && mounts.any(|mount| mount.name == CONFIG_VOLUME)
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::Gate;

    #[test]
    fn what_is_in_the_spec_decides_and_no_label() {
        let mounts = json!([{"name": "postern-config", "mountPath": "/etc/postern"}]);
        let gate = json!({"name": "postern-sidecar", "restartPolicy": "Always", "volumeMounts": mounts});
        let without = |field: &str| {
            let mut gate = gate.clone();
            gate.as_object_mut().expect("a container").remove(field);
            gate
        };
        let spec = |containers: Value| json!({"containers": [], "initContainers": containers});
        let mut renamed = gate.clone();
        renamed["name"] = json!("sidecar");
        let mut on_the_node = spec(json!([]));
        on_the_node["hostNetwork"] = json!(true);
        let rows = [
            (spec(json!([gate])), Gate::There),
            (spec(json!([{"name": "meddler"}, gate])), Gate::There),
            (spec(json!([])), Gate::Missing),
            (json!({"containers": [gate]}), Gate::Missing),
            (spec(json!([without("restartPolicy")])), Gate::Missing),
            (spec(json!([without("volumeMounts")])), Gate::Missing),
            (spec(json!([renamed])), Gate::Missing),
            (on_the_node, Gate::NoPlace),
        ];
        for (spec, expected) in rows {
            let labels = json!({"postern.dev/sidecar": "0.1.0", "postern.dev/workload": "a.pod"});
            let pod = json!({"metadata": {"name": "a", "labels": labels}, "spec": spec});
            let read = serde_json::from_value(pod.clone()).expect("a pod");
            assert_eq!(Gate::of(&read), expected, "{pod}");
        }
    }
}
