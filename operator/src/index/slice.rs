//! What is kept of an EndpointSlice: addresses of one Service, and whether they are to be used.

use std::net::IpAddr;

use k8s_openapi::api::discovery::v1::EndpointSlice;

use super::ObjectName;

/// Label that says whose addresses a slice has.
pub const SERVICE_LABEL: &str = "kubernetes.io/service-name";

/// A slice. There are many in a cluster, so that it is kept small.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Slice {
    /// Its name.
    pub name: ObjectName,
    /// The Service.
    pub service: ObjectName,
    /// Ports for TCP, by the names that the Service has for them.
    pub ports: Box<[(Box<str>, u16)]>,
    /// The addresses.
    pub endpoints: Box<[SliceEndpoint]>,
}

/// An address of a slice.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SliceEndpoint {
    /// The address.
    pub address: IpAddr,
    /// Whether it is to get requests.
    pub is_ready: bool,
    /// Whether it answers.
    pub is_serving: bool,
    /// Whether it is on its way out.
    pub is_terminating: bool,
}

impl Slice {
    /// What is kept of an object; `None` for one that is no Service's.
    #[must_use]
    pub fn of(slice: EndpointSlice) -> Option<Self> {
        let name = ObjectName::of(&slice);
        let service = slice.metadata.labels?.remove(SERVICE_LABEL).filter(|service| !service.is_empty())?;
        let is_tcp = |protocol: Option<&str>| protocol.is_none_or(|protocol| protocol == "TCP");
        let ports = slice.ports.unwrap_or_default().into_iter().filter(|port| is_tcp(port.protocol.as_deref()));
        let ports = ports
            .filter_map(|port| Some((port.name.unwrap_or_default().into_boxed_str(), u16::try_from(port.port?).ok()?)));
        let endpoints = slice.endpoints.into_iter().flat_map(|endpoint| {
            let conditions = endpoint.conditions.unwrap_or_default();
            // What is not said is as if all were well, as the API has it.
            let is_ready = conditions.ready.unwrap_or(true);
            let of = move |address| SliceEndpoint {
                address,
                is_ready,
                is_serving: conditions.serving.unwrap_or(is_ready),
                is_terminating: conditions.terminating.unwrap_or(false),
            };
            // Names, of slices for such, are no addresses. Further addresses of one endpoint are the same endpoint.
            endpoint.addresses.first().and_then(|address| address.parse().ok()).map(of)
        });
        let service = ObjectName::new(name.namespace.clone(), service);
        Some(Self { service, ports: ports.collect(), endpoints: endpoints.collect(), name })
    }

    /// The port at its addresses that a Service calls so.
    #[must_use]
    pub fn port(&self, name: &str) -> Option<u16> {
        self.ports.iter().find(|(port, _)| **port == *name).map(|(_, port)| *port)
    }
}
