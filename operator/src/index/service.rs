//! What is kept of a Service: whom it sends requests to.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::Service as ServiceObject;

use super::{ObjectName, Pod};

/// A Service.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Service {
    /// Its name.
    pub name: ObjectName,
    /// The labels of its pods; empty for one whose endpoints others write.
    pub selector: BTreeMap<String, String>,
}

impl Service {
    /// What is kept of an object.
    #[must_use]
    pub fn of(service: ServiceObject) -> Self {
        let name = ObjectName::of(&service);
        Self { name, selector: service.spec.and_then(|spec| spec.selector).unwrap_or_default() }
    }

    /// Whether it sends requests to a pod.
    #[must_use]
    pub fn selects(&self, pod: &Pod) -> bool {
        !self.selector.is_empty() && self.selector.iter().all(|(name, value)| pod.labels.get(name) == Some(value))
    }
}
