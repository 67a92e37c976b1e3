//! Where requests go, and how the connections there are used.

use kube::KubeSchema;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::health::{HealthCheck, OutlierDetection};
use crate::Duration;
use crate::trust::CaCertificateRef;
use crate::words;

/// Where requests go: `localPort`, `name` with `port`, or `host` with `port`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = (
    "[has(self.localPort), has(self.name), has(self.host)].filter(way, way).size() == 1",
    "backendRefs[]: write exactly one of localPort, name with port, and host with port",
))]
#[x_kube(validation = (
    "has(self.port) == (has(self.name) || has(self.host))",
    "backendRefs[].port is required with name and host, and left out with localPort",
))]
pub struct BackendRef {
    /// A port of the application in the same pod, asked on loopback.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 65535))]
    pub local_port: Option<u16>,
    /// A Service of the same namespace, whose pods are asked, each by itself. One of type ExternalName has none; write
    /// its name as `host`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "words::label")]
    pub name: Option<String>,
    /// A name that DNS has addresses for; all of them are asked.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "words::precise_hostname")]
    pub host: Option<String>,
    /// The port of the Service, or at each address of the host.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 65535))]
    pub port: Option<u16>,
    /// Its share of the rule's requests, in proportion to the other backends; 0 gets none.
    #[serde(default = "one")]
    #[schemars(range(min = 0, max = 1_000_000))]
    pub weight: u32,
    /// What is spoken with it.
    #[serde(default)]
    pub protocol: BackendProtocol,
    /// TLS to it. Absent: none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tls: Option<BackendTls>,
}

/// The one place that a backend is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BackendTarget<'a> {
    /// A port of the same pod.
    Local(u16),
    /// A port of a Service.
    Service {
        /// Its name.
        name: &'a str,
        /// Its port, which may be another one at its pods.
        port: u16,
    },
    /// A port of whatever DNS says.
    Host {
        /// The name.
        host: &'a str,
        /// The port.
        port: u16,
    },
}

impl BackendRef {
    /// The one place that it says; none where it says none or several, which the schema lets nobody write.
    #[must_use]
    pub fn target(&self) -> Option<BackendTarget<'_>> {
        match (self.local_port, self.name.as_deref(), self.host.as_deref(), self.port) {
            (Some(port), None, None, None) => Some(BackendTarget::Local(port)),
            (None, Some(name), None, Some(port)) => Some(BackendTarget::Service { name, port }),
            (None, None, Some(host), Some(port)) => Some(BackendTarget::Host { host, port }),
            _ => None,
        }
    }
}

fn one() -> u32 {
    1
}

/// What is spoken with a backend, whether in TLS or not.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[schemars(transform = crate::schema::words)]
pub enum BackendProtocol {
    /// HTTP/1.1.
    #[default]
    #[serde(rename = "HTTP")]
    Http,
    /// HTTP/2, with TLS or without. gRPC needs it.
    #[serde(rename = "HTTP2")]
    Http2,
}

/// TLS to a backend. There is no way to leave the server's certificate unverified: what it must be is always said.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = (
    "has(self.serverName) || has(self.peers)",
    "backendRefs[].tls: write serverName, peers or both: encryption to anybody protects nobody",
))]
pub struct BackendTls {
    /// Whether the gate shows a certificate of its own.
    #[serde(default)]
    pub mode: BackendTlsMode,
    /// The name that the server is asked for (SNI), and that its certificate must have, unless `peers` says who it is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "words::precise_hostname")]
    pub server_name: Option<String>,
    /// Authorities that the server's certificate must come from. Absent: Postern's own.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(min = 1, max = 8))]
    pub ca_certificate_refs: Vec<CaCertificateRef>,
    /// SPIFFE IDs that the server may have, each whole or ending in `/*` for all below it. Where there are some, they
    /// decide and no name does. The authorities are believed about them.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(schema_with = "words::spiffe_patterns")]
    pub peers: Vec<String>,
}

/// Whether the gate shows a certificate of its own to a server.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[schemars(transform = crate::schema::words)]
pub enum BackendTlsMode {
    /// It shows none.
    #[default]
    Simple,
    /// It shows the workload's own to a server that asks for one.
    Mutual,
}

/// How a route's backends are used. Routes that say the same about an address share its connections.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct BackendPolicy {
    /// Which address of a backend is chosen.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub load_balancer: Option<LoadBalancer>,
    /// Connections to each address.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pool: Option<PoolPolicy>,
    /// How an address is asked whether it is well. Absent: it is not asked.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub health_check: Option<HealthCheck>,
    /// When an address that fails is left out for a while. Absent: never.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub outlier_detection: Option<OutlierDetection>,
}

/// How an address of a backend is chosen.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct LoadBalancer {
    /// The way.
    #[serde(rename = "type", default)]
    pub kind: LoadBalancerType,
}

/// A way to choose an address.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[schemars(transform = crate::schema::words)]
pub enum LoadBalancerType {
    /// Each in turn.
    #[default]
    RoundRobin,
    /// Of two at random the one that has less to do.
    LeastRequest,
}

/// Bounds on the connections of each pod to each address of a backend.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct PoolPolicy {
    /// Connections to one address, idle ones included.
    #[serde(default = "default_max_connections")]
    #[schemars(range(min = 1, max = 1_000_000))]
    pub max_connections: u32,
    /// Requests that wait for a connection to one address.
    #[serde(default = "default_max_pending")]
    #[schemars(range(min = 0, max = 1_000_000))]
    pub max_pending: u32,
    /// How long a request waits for a connection.
    #[serde(default = "default_pending_timeout")]
    #[x_kube(validation = ("duration(self) >= duration('1ms') && duration(self) <= duration('24h')", "backendPolicy.pool.pendingTimeout: write a time from 1ms to 24h"))]
    pub pending_timeout: Duration,
    /// How long making a connection may take.
    #[serde(default = "default_connect_timeout")]
    #[x_kube(validation = ("duration(self) >= duration('1ms') && duration(self) <= duration('24h')", "backendPolicy.pool.connectTimeout: write a time from 1ms to 24h"))]
    pub connect_timeout: Duration,
    /// Idle connections that each worker of a gate keeps to one address; 0 keeps none.
    #[serde(default = "default_max_idle")]
    #[schemars(range(min = 0, max = 1_000_000))]
    pub max_idle: u32,
    /// How long an idle connection is kept. Best shorter than the application keeps it.
    #[serde(default = "default_idle_timeout")]
    #[x_kube(validation = ("duration(self) >= duration('1ms') && duration(self) <= duration('24h')", "backendPolicy.pool.idleTimeout: write a time from 1ms to 24h"))]
    pub idle_timeout: Duration,
    /// How old a connection is at most that takes another request. Absent: any age.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[x_kube(validation = ("duration(self) >= duration('1ms') && duration(self) <= duration('24h')", "backendPolicy.pool.maxAge: write a time from 1ms to 24h"))]
    pub max_age: Option<Duration>,
    /// Requests that one connection takes. Absent: any number.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 1_000_000))]
    pub max_requests_per_connection: Option<u32>,
}

fn default_max_connections() -> u32 {
    1024
}

fn default_max_pending() -> u32 {
    1024
}

fn default_pending_timeout() -> Duration {
    "1s".into()
}

fn default_connect_timeout() -> Duration {
    "5s".into()
}

fn default_max_idle() -> u32 {
    256
}

fn default_idle_timeout() -> Duration {
    "1m".into()
}
