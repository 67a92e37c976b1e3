//! Probes of an application that the gate makes for whoever asks its status port. Since contract 1.4.

use serde::{Deserialize, Serialize};

use crate::Duration;
use crate::backend::is_default;
use crate::health::{GrpcCheck, TcpCheck};

/// A probe of an application in the same pod, made on 127.0.0.1 when `/probe/<name>` is asked for: whoever asks from
/// outside does not reach what listens there alone. Exactly one of `http`, `tcp` and `grpc` says how.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Probe {
    /// What it is called, such as `app/readiness`.
    pub name: String,
    /// The application's port.
    pub port: u16,
    /// By a request.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub http: Option<HttpProbe>,
    /// By a connection.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tcp: Option<TcpCheck>,
    /// By gRPC's own health service.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub grpc: Option<GrpcCheck>,
    /// How long it may take.
    #[serde(default = "default_timeout")]
    pub timeout: Duration,
}

/// A probe by `GET`, which is passed with a status from 200 to 399, as the kubelet has it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct HttpProbe {
    /// The path, with its query if it has one.
    pub path: String,
    /// Whether it is asked for over TLS. Whatever certificate the application shows is taken, as the kubelet has
    /// it. Since 1.5.
    #[serde(default, skip_serializing_if = "is_default")]
    pub tls: bool,
    /// Further fields of the request; `Host` goes before the address.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub headers: Vec<ProbeHeader>,
}

/// A field of a probe's request.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct ProbeHeader {
    /// Its name.
    pub name: String,
    /// Its value.
    pub value: String,
}

/// As Kubernetes has it.
fn default_timeout() -> Duration {
    Duration::from_millis(1_000)
}
