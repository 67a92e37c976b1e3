//! How an address is asked whether it is well, and when one that fails is left out.

use kube::KubeSchema;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::Duration;

/// Asks each address now and then whether it is well: exactly one of `http`, `tcp` and `grpc` says how.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = (
    "[has(self.http), has(self.tcp), has(self.grpc)].filter(h, h).size() == 1",
    "backendPolicy.healthCheck: write exactly one of http, tcp and grpc",
))]
pub struct HealthCheck {
    /// By a request.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub http: Option<HttpCheck>,
    /// By a connection.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tcp: Option<TcpCheck>,
    /// By gRPC's own health service. The backends' `protocol` is `HTTP2`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub grpc: Option<GrpcCheck>,
    /// From the end of a check to the next; 100ms or longer.
    #[serde(default = "default_interval")]
    #[x_kube(validation = ("duration(self) >= duration('100ms') && duration(self) <= duration('24h')", "backendPolicy.healthCheck.interval: write a time from 100ms to 24h"))]
    pub interval: Duration,
    /// Share of the interval by which it is longer at random, so that not all gates ask at once.
    #[serde(default = "default_jitter")]
    #[schemars(range(min = 0, max = 100))]
    pub interval_jitter_percent: u32,
    /// How long a check may take; up to a minute.
    #[serde(default = "default_timeout")]
    #[x_kube(validation = ("duration(self) >= duration('1ms') && duration(self) <= duration('1m')", "backendPolicy.healthCheck.timeout: write a time from 1ms to 1m"))]
    pub timeout: Duration,
    /// Checks in a row that an address has to pass to be used again.
    #[serde(default = "default_healthy_threshold")]
    #[schemars(range(min = 1, max = 1000))]
    pub healthy_threshold: u32,
    /// Checks in a row that an address has to fail not to be used any more.
    #[serde(default = "default_unhealthy_threshold")]
    #[schemars(range(min = 1, max = 1000))]
    pub unhealthy_threshold: u32,
}

/// A check by `GET`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct HttpCheck {
    /// The path, with its query if it has one.
    #[schemars(length(min = 1, max = 1024), regex(pattern = "^/[!\"$-~]*$"))]
    pub path: String,
    /// The host, with a port if it has one. Absent: the address.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 259), regex(pattern = r"^[A-Za-z0-9._-]+(:[0-9]{1,5})?$"))]
    pub host: Option<String>,
    /// The statuses of one that is well.
    #[serde(default = "default_statuses")]
    #[schemars(length(min = 1, max = 16), inner(range(min = 200, max = 599)))]
    pub expected_statuses: Vec<u16>,
}

/// A check by a connection that is made and closed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct TcpCheck {}

/// A check by `grpc.health.v1.Health/Check`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct GrpcCheck {
    /// The service that is asked for; empty is the server as a whole.
    #[serde(default)]
    #[schemars(length(max = 1024))]
    pub service: String,
}

/// When an address that fails is left out for a while (ejected), in Envoy's words. An empty object is all defaults.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = (
    "duration(self.maxEjectionTime) >= duration(self.baseEjectionTime)",
    "outlierDetection.maxEjectionTime is shorter than baseEjectionTime; write the same or a longer time",
))]
pub struct OutlierDetection {
    /// Failures one after the other after which it is ejected: no connection or no answer in time; by themselves,
    /// answers that break off.
    #[serde(default = "default_consecutive_failures")]
    #[schemars(range(min = 1, max = 1_000_000))]
    pub consecutive_local_origin_failures: u32,
    /// Answers 502, 503 and 504 one after the other after which it is ejected. Absent: they do not count.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 1_000_000))]
    pub consecutive_gateway_errors: Option<u32>,
    /// How long it is ejected the first time; the second time twice as long, and so on.
    #[serde(default = "default_base_ejection_time")]
    #[x_kube(validation = ("duration(self) >= duration('1ms') && duration(self) <= duration('24h')", "backendPolicy.outlierDetection.baseEjectionTime: write a time from 1ms to 24h"))]
    pub base_ejection_time: Duration,
    /// How long it is ejected at most; no shorter than `baseEjectionTime`.
    #[serde(default = "default_max_ejection_time")]
    #[x_kube(validation = ("duration(self) >= duration('1ms') && duration(self) <= duration('24h')", "backendPolicy.outlierDetection.maxEjectionTime: write a time from 1ms to 24h"))]
    pub max_ejection_time: Duration,
    /// Share of a rule's addresses that are ejected at most, rounded down. Only with 100 all of them are.
    #[serde(default = "default_max_ejection_percent")]
    #[schemars(range(min = 1, max = 100))]
    pub max_ejection_percent: u32,
}

fn default_interval() -> Duration {
    "5s".into()
}

fn default_jitter() -> u32 {
    10
}

fn default_timeout() -> Duration {
    "1s".into()
}

fn default_healthy_threshold() -> u32 {
    2
}

fn default_unhealthy_threshold() -> u32 {
    3
}

fn default_statuses() -> Vec<u16> {
    vec![200]
}

fn default_consecutive_failures() -> u32 {
    5
}

fn default_base_ejection_time() -> Duration {
    "30s".into()
}

fn default_max_ejection_time() -> Duration {
    "5m".into()
}

fn default_max_ejection_percent() -> u32 {
    50
}
