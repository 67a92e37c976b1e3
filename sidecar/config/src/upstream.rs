//! How the gate speaks to the servers of a backend. Since contract 1.3.

use serde::{Deserialize, Serialize};

use crate::backend::is_default;

/// TLS to a backend. There is no way to leave the server's certificate unverified: what it must be is always said, by
/// `serverName`, `peers` or both.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct BackendTls {
    /// Whether the gate shows a certificate of its own.
    #[serde(default, skip_serializing_if = "is_default")]
    pub mode: BackendTlsMode,
    /// The name that the server is asked for (SNI), and that its certificate must have, unless `peers` says who it is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub server_name: Option<String>,
    /// Names of the bundles that the server's certificate must come from. Required.
    pub trust: Vec<String>,
    /// SPIFFE IDs that the server may have, each whole or ending in `/*` for all below it. Where there are some, they
    /// decide and no name does.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub peers: Vec<String>,
}

/// Whether the gate shows a certificate of its own to the servers of a backend.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub enum BackendTlsMode {
    /// It shows none.
    #[default]
    Simple,
    /// It shows the first one of part `identity` to a server that asks for one.
    Mutual,
}

/// What is spoken with a backend, whether in TLS or not.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub enum BackendProtocol {
    /// HTTP/1.1.
    #[default]
    #[serde(rename = "HTTP")]
    Http,
    /// HTTP/2: with TLS as ALPN has it (`h2`), without from the first byte on, as Kubernetes' appProtocol
    /// `kubernetes.io/h2c` says of a port. gRPC needs it.
    #[serde(rename = "HTTP2")]
    Http2,
}
