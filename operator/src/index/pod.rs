//! What is kept of a pod: the little that decides what it gets and whether it has it.

use std::collections::BTreeMap;
use std::net::IpAddr;

use k8s_openapi::api::core::v1::{ContainerStatus, Pod as PodObject, PodSpec};

use super::ObjectName;
use super::service::Target;
use crate::inject::gate::Gate;

/// Label that says which workload a pod is of. Everything selects by it.
pub const WORKLOAD_LABEL: &str = "postern.dev/workload";
/// Annotation that is changed so that the kubelet looks at the pod's volumes at once.
pub const TOUCH_ANNOTATION: &str = "postern.dev/touch";
/// The sidecar's container.
pub const SIDECAR_CONTAINER: &str = "postern-sidecar";

/// A pod with a sidecar.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pod {
    /// Its name.
    pub name: ObjectName,
    /// Its UID: an address may be another pod's tomorrow.
    pub uid: String,
    /// Name of its workload.
    pub workload: String,
    /// Its service account.
    pub service_account: String,
    /// Its labels, which routes select it by.
    pub labels: BTreeMap<String, String>,
    /// Its ports for TCP that have a name.
    pub ports: BTreeMap<String, u16>,
    /// Its address, once it has one.
    pub address: Option<IpAddr>,
    /// Whether its sidecar has started.
    pub is_started: bool,
    /// Whether it is on its way out, or has run to its end.
    pub is_ending: bool,
    /// Whether it has a sidecar, by its containers.
    pub gate: Gate,
    /// What the kubelet was last told to look at.
    pub touched: Option<String>,
}

impl Pod {
    /// What is kept of an object; `None` for a pod without a workload.
    #[must_use]
    pub fn of(pod: PodObject) -> Option<Self> {
        let (name, gate) = (ObjectName::of(&pod), Gate::of(&pod));
        let labels = pod.metadata.labels.unwrap_or_default();
        let workload = labels.get(WORKLOAD_LABEL).filter(|workload| !workload.is_empty())?.clone();
        let status = pod.status.unwrap_or_default();
        let has_ended = matches!(status.phase.as_deref(), Some("Succeeded" | "Failed"));
        let containers = [status.init_container_statuses, status.container_statuses];
        let is_started = containers.iter().flatten().flatten().any(is_started_sidecar);
        let ports = pod.spec.as_ref().map(named_ports).unwrap_or_default();
        let service_account = pod.spec.and_then(|spec| spec.service_account_name).filter(|name| !name.is_empty());
        Some(Self {
            name,
            uid: pod.metadata.uid.unwrap_or_default(),
            workload,
            service_account: service_account.unwrap_or_else(|| "default".to_owned()),
            labels,
            ports,
            address: status.pod_ip.and_then(|address| address.parse().ok()),
            is_started: is_started && !has_ended,
            is_ending: has_ended || pod.metadata.deletion_timestamp.is_some(),
            gate,
            touched: pod.metadata.annotations.and_then(|mut annotations| annotations.remove(TOUCH_ANNOTATION)),
        })
    }

    /// A pod that nobody has made, with these labels: to ask what would be served there.
    #[must_use]
    pub fn imagined(name: ObjectName, labels: BTreeMap<String, String>) -> Self {
        Self {
            uid: String::new(),
            workload: name.name.clone(),
            service_account: "default".to_owned(),
            labels,
            ports: BTreeMap::new(),
            address: None,
            is_started: true,
            is_ending: false,
            gate: Gate::There,
            touched: None,
            name,
        }
    }

    /// The workload, with its namespace.
    #[must_use]
    pub fn workload(&self) -> ObjectName {
        ObjectName::new(self.name.namespace.clone(), self.workload.clone())
    }

    /// The number of one of its ports.
    #[must_use]
    pub fn port(&self, target: &Target) -> Option<u16> {
        match target {
            Target::Number(number) => Some(*number),
            Target::Name(name) => self.ports.get(name).copied(),
        }
    }

    /// Whether it should have what is written for it.
    #[must_use]
    pub fn counts(&self) -> bool {
        self.is_started && !self.is_ending
    }

    /// Whether two states of a pod differ in more than the touch, which is our own doing.
    #[must_use]
    pub fn differs(&self, other: &Self) -> bool {
        let untouched = |pod: &Self| Self { touched: None, ..pod.clone() };
        untouched(self) != untouched(other)
    }
}

/// Of several ports of one name the first counts, as for Services.
fn named_ports(spec: &PodSpec) -> BTreeMap<String, u16> {
    let containers = spec.containers.iter().chain(spec.init_containers.iter().flatten());
    let ports = containers.flat_map(|container| container.ports.iter().flatten());
    let is_tcp = |protocol: Option<&str>| protocol.is_none_or(|protocol| protocol == "TCP");
    let ports = ports.filter(|port| is_tcp(port.protocol.as_deref()));
    let mut found = BTreeMap::new();
    for (name, number) in ports.filter_map(|port| Some((port.name.clone()?, u16::try_from(port.container_port).ok()?)))
    {
        found.entry(name).or_insert(number);
    }
    found
}

fn is_started_sidecar(status: &ContainerStatus) -> bool {
    status.name == SIDECAR_CONTAINER && status.started == Some(true)
}
