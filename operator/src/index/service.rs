//! What is kept of a Service: whom it sends requests to, and at which ports.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::Service as ServiceObject;
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;

use super::{ObjectName, Pod};

/// A Service.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Service {
    /// Its name.
    pub name: ObjectName,
    /// The labels of its pods; empty for one whose endpoints others write.
    pub selector: BTreeMap<String, String>,
    /// Its ports for TCP.
    pub ports: Vec<Port>,
    /// Whether it is another name for a host, and so has no endpoints.
    pub is_external: bool,
}

/// A port of a Service.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Port {
    /// The port itself.
    pub number: u16,
    /// What it is called; empty where it is the only one. Slices say under this name which port it is at the pods.
    pub name: String,
    /// Where it is at the pods.
    pub target: Target,
}

/// A port of pods.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Target {
    /// Its number.
    Number(u16),
    /// What each pod calls it.
    Name(String),
}

impl Service {
    /// What is kept of an object.
    #[must_use]
    pub fn of(service: ServiceObject) -> Self {
        let name = ObjectName::of(&service);
        let spec = service.spec.unwrap_or_default();
        let is_tcp = |protocol: Option<&str>| protocol.is_none_or(|protocol| protocol == "TCP");
        let ports = spec.ports.unwrap_or_default().into_iter().filter(|port| is_tcp(port.protocol.as_deref()));
        let ports = ports.filter_map(|port| {
            let number = u16::try_from(port.port).ok()?;
            let target = match port.target_port {
                Some(IntOrString::String(name)) => Target::Name(name),
                Some(IntOrString::Int(target)) if target > 0 => Target::Number(u16::try_from(target).ok()?),
                // As it is where nothing is said.
                Some(IntOrString::Int(_)) | None => Target::Number(number),
            };
            Some(Port { number, name: port.name.unwrap_or_default(), target })
        });
        Self {
            name,
            selector: spec.selector.unwrap_or_default(),
            ports: ports.collect(),
            is_external: spec.type_.as_deref() == Some("ExternalName"),
        }
    }

    /// Whether it sends requests to a pod.
    #[must_use]
    pub fn selects(&self, pod: &Pod) -> bool {
        !self.selector.is_empty() && self.selector.iter().all(|(name, value)| pod.labels.get(name) == Some(value))
    }
}
