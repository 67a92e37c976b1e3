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
    /// Its addresses; an empty set answers `upstream_no_endpoint`.
    #[serde(default)]
    pub addresses: Vec<Endpoint>,
}

/// One address of a set.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[serde(expecting = "a table such as `{ address = \"127.0.0.1:8080\" }`")]
pub struct Endpoint {
    /// Address and port.
    #[serde(deserialize_with = "address")]
    pub address: SocketAddr,
}
