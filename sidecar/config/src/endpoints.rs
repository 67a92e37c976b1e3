//! Part `endpoints`: addresses of backends by name. It changes often, so it is a part of its own.

use std::net::SocketAddr;

use serde::{Deserialize, Serialize};

use crate::words::address;

/// A named set of addresses.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct EndpointSet {
    /// Name; a rule's backend refers to it.
    pub name: String,
    /// Its addresses; a set without one that is to be used answers `upstream_no_endpoint`.
    #[serde(default)]
    pub addresses: Vec<Endpoint>,
}

/// One address of a set, with what Kubernetes says of it. Those that are ready and not on their way out are used; where
/// there is none, those that still serve.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[serde(expecting = "a table such as `{ address = \"127.0.0.1:8080\" }`")]
pub struct Endpoint {
    /// Address and port.
    #[serde(deserialize_with = "address")]
    pub address: SocketAddr,
    /// Whether it is to get requests. Since 1.4.
    #[serde(default = "yes", skip_serializing_if = "is_yes")]
    pub ready: bool,
    /// Whether it answers, be it ready or on its way out. Since 1.4.
    #[serde(default = "yes", skip_serializing_if = "is_yes")]
    pub serving: bool,
    /// Whether it is on its way out. Since 1.4.
    #[serde(default, skip_serializing_if = "is_no")]
    pub terminating: bool,
}

impl Endpoint {
    /// An address that is to be used.
    #[must_use]
    pub fn ready(address: SocketAddr) -> Self {
        Self { address, ready: true, serving: true, terminating: false }
    }
}

fn yes() -> bool {
    true
}

// Serde gives a reference.
fn is_yes(value: &bool) -> bool {
    *value
}

fn is_no(value: &bool) -> bool {
    !*value
}
