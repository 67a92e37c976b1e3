//! How an address is asked whether it is well, and when one that fails is left out. Since contract 1.3.

use serde::{Deserialize, Serialize};

use crate::Duration;

/// Asks each address now and then whether it is well: exactly one of `http`, `tcp` and `grpc` says how.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct HealthCheck {
    /// By a request.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub http: Option<HttpCheck>,
    /// By a connection.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tcp: Option<TcpCheck>,
    /// By gRPC's own health service.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub grpc: Option<GrpcCheck>,
    /// From the end of a check to the next.
    #[serde(default = "default_interval")]
    pub interval: Duration,
    /// Share of the interval by which it is longer at random, so that not all gates ask at once; 0 to 100.
    #[serde(default = "default_jitter")]
    pub interval_jitter_percent: u32,
    /// How long a check may take.
    #[serde(default = "default_timeout")]
    pub timeout: Duration,
    /// Checks in a row that an address has to pass to be used again; 1 to 1000.
    #[serde(default = "default_healthy_threshold")]
    pub healthy_threshold: u32,
    /// Checks in a row that an address has to fail not to be used any more; 1 to 1000.
    #[serde(default = "default_unhealthy_threshold")]
    pub unhealthy_threshold: u32,
}

/// A check by `GET`.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct HttpCheck {
    /// The path, with its query if it has one.
    pub path: String,
    /// The host; absent means the address.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub host: Option<String>,
    /// The statuses of one that is well.
    #[serde(default = "default_statuses")]
    pub expected_statuses: Vec<u16>,
}

/// A check by `grpc.health.v1.Health/Check`; its backends speak `HTTP2`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct GrpcCheck {
    /// The service that is asked for; empty is the server as a whole.
    #[serde(default)]
    pub service: String,
}

/// A check by a connection that is made and closed.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct TcpCheck {}

/// When an address that fails is left out for a while (ejected), in Envoy's words. An empty table is all defaults.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct OutlierDetection {
    /// Failures one after the other after which it is ejected: no connection or no answer in time; by themselves, answers
    /// that break off; 1 to 1000000.
    #[serde(default = "default_consecutive_failures")]
    pub consecutive_local_origin_failures: u32,
    /// Answers 502, 503 and 504 one after the other after which it is ejected, from 1; absent means that they do not count.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub consecutive_gateway_errors: Option<u32>,
    /// How long it is ejected the first time; the second time twice as long, and so on.
    #[serde(default = "default_base_ejection_time")]
    pub base_ejection_time: Duration,
    /// How long it is ejected at most; no shorter than `baseEjectionTime`.
    #[serde(default = "default_max_ejection_time")]
    pub max_ejection_time: Duration,
    /// Share of a rule's addresses that are ejected at most, rounded down; 1 to 100. Only with 100 all of them are.
    #[serde(default = "default_max_ejection_percent")]
    pub max_ejection_percent: u32,
}

impl Default for OutlierDetection {
    fn default() -> Self {
        Self {
            consecutive_local_origin_failures: default_consecutive_failures(),
            consecutive_gateway_errors: None,
            base_ejection_time: default_base_ejection_time(),
            max_ejection_time: default_max_ejection_time(),
            max_ejection_percent: default_max_ejection_percent(),
        }
    }
}

/// Often enough to notice an application that went within a quarter of a minute, too rarely to be a load on it.
fn default_interval() -> Duration {
    Duration::from_millis(5_000)
}

/// Enough to drift apart.
fn default_jitter() -> u32 {
    10
}

/// As Kubernetes has it for probes: an application in the same pod answers within milliseconds.
fn default_timeout() -> Duration {
    Duration::from_millis(1_000)
}

/// HAProxy's `rise`.
fn default_healthy_threshold() -> u32 {
    2
}

/// HAProxy's `fall`.
fn default_unhealthy_threshold() -> u32 {
    3
}

/// What Envoy expects.
fn default_statuses() -> Vec<u16> {
    vec![200]
}

/// Envoy's default: more than chance, few enough to be there soon.
fn default_consecutive_failures() -> u32 {
    5
}

/// Envoy's default: longer than a restart mostly takes.
fn default_base_ejection_time() -> Duration {
    Duration::from_millis(30_000)
}

/// Envoy's default: what came back is found within five minutes.
fn default_max_ejection_time() -> Duration {
    Duration::from_millis(300_000)
}

/// Of two addresses one may go. Envoy's 10 would let none go of fewer than ten.
fn default_max_ejection_percent() -> u32 {
    50
}
