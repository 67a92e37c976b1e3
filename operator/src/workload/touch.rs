//! Tells the kubelet to look at a pod's volume at once: by an annotation that says what should be in it.
//!
//! The annotation is a digest of what is written for the pod, so that a pod is touched when that has changed, once, and
//! not because the operator was started.

use k8s_openapi::api::core::v1::Pod as PodObject;
use kube::api::{Patch, PatchParams};
use kube::{Api, Client};
use serde_json::json;
use sha2::{Digest, Sha256};
use thiserror::Error;

use super::names;
use crate::FIELD_MANAGER;
use crate::index::pod::TOUCH_ANNOTATION;
use crate::index::{Cluster, HeldKind, Index, ObjectName, Pod};
use crate::limits::CHUNKS;

/// A pod could not be touched.
#[derive(Debug, Error)]
#[error("cannot touch pod {pod}: {cause}")]
pub struct TouchError {
    /// The pod.
    pub pod: ObjectName,
    /// Why.
    pub cause: Box<kube::Error>,
}

/// What a pod's annotation says when everything that is written for it has been looked at.
#[must_use]
pub fn value(cluster: &Cluster, pod: &Pod) -> String {
    let (namespace, workload) = (&pod.name.namespace, &pod.workload);
    let mut objects = vec![
        (HeldKind::ConfigMap, names::TRUST.to_owned()),
        (HeldKind::Secret, names::identity(workload, &pod.service_account)),
        (HeldKind::ConfigMap, names::endpoints(workload)),
        (HeldKind::ConfigMap, names::policy(workload)),
    ];
    objects.extend((0..CHUNKS).map(|chunk| (HeldKind::ConfigMap, names::identities(workload, chunk))));
    let mut hasher = Sha256::new();
    for (kind, name) in objects {
        match cluster.held(kind, &ObjectName::new(namespace, name)) {
            Some(held) => hasher.update(held.digest.bytes()),
            None => hasher.update([0; 32]),
        }
    }
    hasher.finalize().iter().take(6).map(|byte| format!("{byte:02x}")).collect()
}

/// Whether a pod is worth it: one without an address has no volume yet, or reads it when it starts.
#[must_use]
pub fn is_due(pod: &Pod, value: &str) -> bool {
    !pod.is_ending && pod.address.is_some() && pod.touched.as_deref() != Some(value)
}

/// Touches a pod.
///
/// # Errors
/// When the API server does not let it. A pod that is gone needs none.
pub async fn touch(client: &Client, index: &Index, pod: &Pod, value: &str) -> Result<(), TouchError> {
    let api = Api::<PodObject>::namespaced(client.clone(), &pod.name.namespace);
    let parameters = PatchParams { field_manager: Some(FIELD_MANAGER.to_owned()), ..PatchParams::default() };
    // With its UID, so that another pod of that name is left alone.
    let patch = json!({"metadata": {"uid": pod.uid, "annotations": {TOUCH_ANNOTATION: value}}});
    match api.patch_status(&pod.name.name, &parameters, &Patch::Merge(patch)).await {
        Ok(_) => {
            index.cluster().touched(pod, value);
            Ok(())
        }
        Err(kube::Error::Api(error)) if error.code == 404 || error.code == 409 => Ok(()),
        Err(cause) => Err(TouchError { pod: pod.name.clone(), cause: Box::new(cause) }),
    }
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;
    use std::sync::Arc;

    use super::{is_due, value};
    use crate::index::cluster::Source;
    use crate::index::{Cluster, Entries, Held, HeldKind, Object, ObjectKind, ObjectName, Pod};
    use crate::workload::content::Content;

    fn pod(name: &str, account: &str) -> Pod {
        Pod {
            name: ObjectName::new("shop", name),
            uid: String::new(),
            workload: "orders".to_owned(),
            service_account: account.to_owned(),
            labels: [].into(),
            ports: [].into(),
            address: Some(Ipv4Addr::LOCALHOST.into()),
            is_started: false,
            is_ending: false,
            gate: crate::inject::gate::Gate::There,
            touched: None,
        }
    }

    fn write(cluster: &mut Cluster, kind: HeldKind, name: &str, text: &str) {
        let name = ObjectName::new("shop", name);
        let content = Content::config_map(name.clone(), "p", Some("orders"), Entries::default().with("a", text));
        let held = Held {
            kind,
            name,
            uid: String::new(),
            version: 1,
            digest: content.digest(),
            names: content.entries.names(),
            labels: content.labels.into(),
            annotations: content.annotations.into(),
            secret_type: String::new(),
            entries: None,
            is_ending: false,
        };
        cluster.set(Object::Held(Arc::new(held)), Source::List);
    }

    #[test]
    fn a_pod_is_touched_for_each_object_of_its_volume_and_for_no_other() {
        let mut cluster = Cluster::default();
        let (a, b) = (pod("a", "default"), pod("b", "other"));
        let mut last = (value(&cluster, &a), value(&cluster, &b));
        assert_eq!(last.0, last.1);
        for (kind, name, is_a, is_b) in [
            (HeldKind::ConfigMap, "postern-trust", true, true),
            (HeldKind::Secret, "postern-id-orders-default", true, false),
            (HeldKind::Secret, "postern-id-orders-other", false, true),
            (HeldKind::ConfigMap, "postern-identities-orders-0", true, true),
            (HeldKind::ConfigMap, "postern-identities-orders-3", true, true),
            (HeldKind::ConfigMap, "postern-endpoints-orders", true, true),
            (HeldKind::ConfigMap, "postern-policy-orders", true, true),
            (HeldKind::ConfigMap, "postern-policy-orders-good", false, false),
            (HeldKind::ConfigMap, "postern-policy-stock", false, false),
        ] {
            for text in ["one", "two"] {
                write(&mut cluster, kind, name, text);
                let now = (value(&cluster, &a), value(&cluster, &b));
                assert_eq!((now.0 != last.0, now.1 != last.1), (is_a, is_b), "{name}");
                last = now;
            }
        }
        let before = value(&cluster, &a);
        cluster.remove(ObjectKind::Held(HeldKind::ConfigMap), &ObjectName::new("shop", "postern-policy-orders"));
        assert_ne!(value(&cluster, &a), before);
    }

    #[test]
    fn a_pod_is_touched_once_and_only_if_it_can_look() {
        let pod = pod("a", "default");
        let rows = [
            (pod.clone(), true),
            (Pod { touched: Some("old".to_owned()), ..pod.clone() }, true),
            (Pod { touched: Some("new".to_owned()), ..pod.clone() }, false),
            (Pod { address: None, ..pod.clone() }, false),
            (Pod { is_ending: true, ..pod }, false),
        ];
        for (pod, expected) in rows {
            assert_eq!(is_due(&pod, "new"), expected, "{pod:?}");
        }
    }
}
