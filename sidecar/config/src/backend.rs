//! How a route's backends are used: whose turn it is, and the connections to them. Since contract 1.2.

use serde::{Deserialize, Serialize};

use crate::Duration;
use crate::health::{HealthCheck, OutlierDetection};

/// How a route's backends are used. Routes that say the same about an address share its connections.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct BackendPolicy {
    /// Which address of a backend is chosen.
    #[serde(default, skip_serializing_if = "is_default")]
    pub load_balancer: LoadBalancer,
    /// Connections to each address.
    #[serde(default, skip_serializing_if = "is_default")]
    pub pool: PoolPolicy,
    /// How an address is asked whether it is well; absent means that it is not. Since 1.3.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub health_check: Option<HealthCheck>,
    /// When an address that fails is left out for a while; absent means never. Since 1.3.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub outlier_detection: Option<OutlierDetection>,
}

/// How long requests may take, in the words of Gateway API (GEP-1742); `0s` means any time.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Timeouts {
    /// From a request's head to the end of its response, with everything between.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub request: Option<Duration>,
    /// The same of one request to a backend; no longer than `request`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub backend_request: Option<Duration>,
}

/// How an address of a backend is chosen.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct LoadBalancer {
    /// The way.
    #[serde(rename = "type", default)]
    pub kind: LoadBalancerType,
}

/// A way to choose an address.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub enum LoadBalancerType {
    /// Each in turn.
    #[default]
    RoundRobin,
    /// Of two at random the one that has less to do.
    LeastRequest,
}

/// Bounds on the connections to each address of a backend.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct PoolPolicy {
    /// Connections to one address, of all workers, idle ones included; 1 to 1000000.
    #[serde(default = "default_max_connections")]
    pub max_connections: u32,
    /// Requests that wait for a connection to one address, of all workers; 0 to 1000000.
    #[serde(default = "default_max_pending")]
    pub max_pending: u32,
    /// How long a request waits for a connection.
    #[serde(default = "default_pending_timeout")]
    pub pending_timeout: Duration,
    /// How long making a connection may take.
    #[serde(default = "default_connect_timeout")]
    pub connect_timeout: Duration,
    /// Idle connections that each worker keeps to one address; 0 to 1000000, and 0 keeps none.
    #[serde(default = "default_max_idle")]
    pub max_idle: u32,
    /// How long an idle connection is kept. Best shorter than the application keeps it.
    #[serde(default = "default_idle_timeout")]
    pub idle_timeout: Duration,
    /// How old a connection is at most that takes another request; absent means any age.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_age: Option<Duration>,
    /// Requests that one connection takes, from 1; absent means any number.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_requests_per_connection: Option<u32>,
}

impl Default for PoolPolicy {
    fn default() -> Self {
        Self {
            max_connections: default_max_connections(),
            max_pending: default_max_pending(),
            pending_timeout: default_pending_timeout(),
            connect_timeout: default_connect_timeout(),
            max_idle: default_max_idle(),
            idle_timeout: default_idle_timeout(),
            max_age: None,
            max_requests_per_connection: None,
        }
    }
}

/// Whether a value says nothing that is not said by leaving it out, so that both have the same revision.
pub(crate) fn is_default<T: Default + PartialEq>(value: &T) -> bool {
    *value == T::default()
}

/// The share of a backend that says nothing about it.
pub(crate) fn default_weight() -> u32 {
    1
}

/// Whether it is that.
#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde hands over a reference")]
pub(crate) fn is_default_weight(weight: &u32) -> bool {
    *weight == default_weight()
}

/// More than an application in the same pod works on at once, and few enough not to drown it.
fn default_max_connections() -> u32 {
    1024
}

/// As many as can be served next.
fn default_max_pending() -> u32 {
    1024
}

/// Longer than a burst, shorter than a client's patience.
fn default_pending_timeout() -> Duration {
    Duration::from_millis(1_000)
}

/// The upstream is near.
fn default_connect_timeout() -> Duration {
    Duration::from_millis(5_000)
}

/// More than a worker has under way at once: what is above it is closed after use, and made anew for the next request.
fn default_max_idle() -> u32 {
    256
}

/// Shorter than the 75 s of nginx, so that an idle connection is rarely met while it is being closed.
fn default_idle_timeout() -> Duration {
    Duration::from_millis(60_000)
}
