//! The `/status` document: what this sidecar has loaded, by part and by route. No secrets.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::ContractVersion;

/// Longest message in a status document, in bytes: it is copied into Kubernetes objects.
pub const MESSAGE_MAX_BYTES: usize = 256;

/// What a sidecar has loaded.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Status {
    /// Contract versions it reads.
    pub contract: ContractRange,
    /// UID of its pod, so that a reused address is not taken for another pod's answer; empty standalone.
    pub pod_uid: String,
    /// The five parts.
    pub parts: Parts,
    /// Hash of every route that is served, by name.
    pub routes: BTreeMap<String, String>,
    /// Serial number of its own leaf certificate, hex; absent while it has none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub leaf_serial: Option<String>,
    /// When that leaf expires, RFC 3339 in UTC.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub leaf_not_after: Option<String>,
    /// Whether `/readyz` answers 200.
    pub ready: bool,
    /// Ports of backends on loopback at which somebody listens on other addresses too: ways around the gate. Absent where
    /// nobody can tell. Since 1.4.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub exposed_ports: Option<Vec<u16>>,
    /// Version of the program that answers. Since 1.5.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub version: Option<String>,
    /// How rows of the request log fare that are sent to PostgreSQL. Absent where they are sent nowhere. Since 1.6.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub shipping: Option<Shipping>,
}

/// What of the request log PostgreSQL has.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Shipping {
    /// Why the last try failed, a word of metric `postern_log_ship_failures_total`; absent where it did not.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub failing: Option<String>,
    /// Rows that are still to be sent.
    pub backlog_rows: u64,
    /// Bytes of the log that they take.
    pub backlog_bytes: u64,
    /// Seconds since the oldest of them was decided.
    pub backlog_age_seconds: u64,
    /// When the newest row was decided that was sent, RFC 3339 in UTC; absent before the first.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub watermark: Option<String>,
    /// Rows that will never be sent, since the start.
    pub dropped_rows: u64,
}

/// Contract versions a sidecar reads, both ends included.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct ContractRange {
    /// The oldest.
    pub min: ContractVersion,
    /// The newest.
    pub max: ContractVersion,
}

/// The state of the five parts.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Parts {
    /// Root bundles and revocations.
    pub trust: PartStatus,
    /// The workload's own certificate.
    pub identity: PartStatus,
    /// Known clients.
    pub identities: PartStatus,
    /// Listeners and routes.
    pub policy: PartStatus,
    /// Addresses of backends.
    pub endpoints: PartStatus,
}

impl Parts {
    /// All of them with their names.
    #[must_use]
    pub fn named(&self) -> [(&'static str, &PartStatus); 5] {
        [
            ("trust", &self.trust),
            ("identity", &self.identity),
            ("identities", &self.identities),
            ("policy", &self.policy),
            ("endpoints", &self.endpoints),
        ]
    }
}

/// The state of one part.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct PartStatus {
    /// Revision in use: 12 hex digits, or `none` before the first.
    pub loaded: String,
    /// Revision that was offered last and refused; `unreadable` where it could not be parsed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub refused: Option<String>,
    /// Why it was refused, or which of its references are missing; at most 256 bytes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub why: Option<String>,
    /// When what is in use was accepted, RFC 3339 in UTC, where it comes from the state directory and not from the
    /// configuration. Since 1.2.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub kept_since: Option<String>,
}
