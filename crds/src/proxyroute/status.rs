//! What the operator says about a route.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::condition::{self, Condition};

/// Most workloads that a status names; what is beyond is in the totals.
pub const WORKLOADS_MAX: usize = 16;

/// What is so, as of one moment.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ProxyRouteStatus {
    /// `Accepted`, `ResolvedRefs`, `Programmed`, `Enclosed` and `Ready`, all about the same moment.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(schema_with = "condition::list")]
    pub conditions: Vec<Condition>,
    /// The workloads that the route selects, by name; the first sixteen.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(
        length(max = 16),
        extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["name"])
    )]
    pub workloads: Vec<WorkloadStatus>,
    /// Sums over all workloads.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub totals: Option<Totals>,
}

/// One workload's pods, as far as the route concerns them.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct WorkloadStatus {
    /// Name of the workload.
    #[schemars(length(min = 1, max = 63))]
    pub name: String,
    /// Pods that are not on their way out.
    #[serde(default)]
    pub pods: u32,
    /// Those whose sidecar has started.
    #[serde(default)]
    pub started: u32,
    /// Those that have loaded the route as it is.
    #[serde(default)]
    pub programmed: u32,
    /// Those that have refused it.
    #[serde(default)]
    pub rejected: u32,
    /// Those that could not be asked.
    #[serde(default)]
    pub unreachable: u32,
    /// What is the matter, if something is.
    #[serde(default)]
    #[schemars(length(max = 256))]
    pub message: String,
}

/// Sums over all workloads of a route.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Totals {
    /// Workloads that the route selects.
    #[serde(default)]
    pub workloads: u32,
    /// Pods that are not on their way out.
    #[serde(default)]
    pub pods: u32,
    /// Those whose sidecar has started.
    #[serde(default)]
    pub started: u32,
    /// Those that have loaded the route as it is.
    #[serde(default)]
    pub programmed: u32,
    /// Those that have refused it.
    #[serde(default)]
    pub rejected: u32,
    /// Those that could not be asked.
    #[serde(default)]
    pub unreachable: u32,
}
