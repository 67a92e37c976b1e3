//! What the operator says about a client.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::UtcTime;
use crate::condition::{self, Condition};

/// What is so, as of one moment.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ClientIdentityStatus {
    /// `Accepted`, `Issued`, `Enforced` and `Ready`, all about the same moment.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(schema_with = "condition::list")]
    pub conditions: Vec<Condition>,
    /// How it gets its certificate.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub kind: Option<Kind>,
    /// What it is recognised by: its SPIFFE ID, or the first claim of an external one.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 2048))]
    pub subject: Option<String>,
    /// Its newest certificate, where Postern issues it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub certificate: Option<CertificateStatus>,
    /// Sidecars that know its state.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub enforced: Option<EnforcedStatus>,
}

/// How a client gets its certificate.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[schemars(transform = crate::schema::words)]
pub enum Kind {
    /// Postern makes key and certificate.
    Issue,
    /// The client has made its own key.
    #[serde(rename = "CSR")]
    Csr,
    /// It runs as a service account.
    ServiceAccount,
    /// From elsewhere.
    External,
}

/// A certificate.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct CertificateStatus {
    /// Serial number, in hex digits.
    #[schemars(length(min = 2, max = 64))]
    pub serial: String,
    /// Valid from.
    pub not_before: UtcTime,
    /// Valid until.
    pub not_after: UtcTime,
    /// When it is renewed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub renewal_time: Option<UtcTime>,
    /// SHA-256 over the DER certificate, 64 hex digits.
    #[schemars(length(min = 64, max = 64))]
    pub sha256: String,
    /// Its SPIFFE ID.
    #[schemars(length(max = 2048))]
    pub spiffe_id: String,
    /// Its long form device identifier (IEEE 2030.5).
    #[schemars(length(min = 40, max = 40))]
    pub lfdi: String,
    /// Its short form device identifier (IEEE 2030.5).
    #[schemars(length(min = 12, max = 12))]
    pub sfdi: String,
    /// The certificate and its intermediates in PEM; with `csr` only, where there is no Secret.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 32768))]
    pub chain: Option<String>,
}

/// How many sidecars know an identity's state.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct EnforcedStatus {
    /// Sidecars that have started and that it concerns.
    pub started: u32,
    /// Those that have the trust revision that carries the state.
    pub enforced: u32,
}
