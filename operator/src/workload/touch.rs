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

use super::apply::FIELD_MANAGER;
use super::names;
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
