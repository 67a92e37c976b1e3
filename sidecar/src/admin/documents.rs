//! What the admin socket answers, as its commands read it. Not part of the contract: command and sidecar are one binary.

use serde::{Deserialize, Serialize};

/// Where requests go.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Upstreams {
    /// Every endpoint, once for each way it is used.
    pub endpoints: Vec<EndpointLine>,
    /// Rules that have no endpoint at all; their requests are refused with `upstream_no_endpoint`.
    pub without_endpoint: Vec<String>,
    /// Rules that name endpoints which do not exist; their requests are refused with `route_invalid`.
    pub invalid: Vec<String>,
}

/// One endpoint.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct EndpointLine {
    /// Where it is.
    pub address: String,
    /// `usable`, `unchecked` before its first health check, `unhealthy` where it fails them, `ejected` where requests failed
    /// too often.
    pub condition: String,
    /// For how long it is still ejected.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ejected_ms: Option<u64>,
    /// Connections of all workers, idle ones included.
    pub connections: usize,
    /// Connections that there may be.
    pub max_connections: u32,
    /// Requests it is working on.
    pub in_flight: usize,
    /// Requests that wait for a connection.
    pub pending: usize,
    /// Requests that may wait.
    pub max_pending: u32,
    /// Why a try at it failed last.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_failure: Option<LastFailure>,
    /// Routes that use it, the first few.
    pub routes: Vec<String>,
    /// Routes besides them.
    pub more_routes: usize,
}

/// A try that failed.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct LastFailure {
    /// Why, as in rows.
    pub reason: String,
    /// When, RFC 3339 in UTC.
    pub time: String,
}

/// Some of the known identities.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Identities {
    /// Revision of part `identities`; pages of two revisions do not fit together.
    pub revision: String,
    /// All that are known.
    pub known: usize,
    /// Those of this page.
    pub identities: Vec<IdentityLine>,
    /// Where the next page begins; absent on the last.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next: Option<usize>,
}

/// One known identity.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct IdentityLine {
    /// Its name.
    pub name: String,
    /// `Active`, `Suspended` or `Revoked`.
    pub state: String,
    /// Certificates from before are refused; RFC 3339 in UTC.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub accept_issued_after: Option<String>,
    /// By how many facts of a certificate it is recognised.
    pub recognisers: usize,
}

/// How the drain fares.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct DrainState {
    /// Whether it was asked for. There is no way back but a new start.
    pub draining: bool,
    /// Whether all connections have ended.
    pub drained: bool,
    /// Connections of clients that are open.
    pub connections: usize,
}
