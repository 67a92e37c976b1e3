//! Part `identities`: who is known, and how a certificate is recognised as theirs.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// A known client.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct KnownIdentity {
    /// Name, `namespace/name`. Rules refer to it; the request log records it.
    pub name: String,
    /// What selectors choose it by. Since 1.1.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub labels: BTreeMap<String, String>,
    /// Any one of these makes a certificate this identity's.
    pub recognise: Vec<Recogniser>,
}

/// One way a certificate is recognised: exactly one claim, and only under the bundle named here, because the same
/// words signed by somebody else are somebody else's.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Recogniser {
    /// The bundle the certificate's chain must end in.
    pub bundle: String,
    /// A URI subject alternative name, byte for byte; a SPIFFE ID counts only if the bundle vouches for its domain.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub uri: Option<String>,
    /// A DNS subject alternative name, compared without case.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub dns_name: Option<String>,
    /// The subject's common name, byte for byte; counts only if the bundle vouches for common names.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub common_name: Option<String>,
    /// SHA-256 over the DER certificate: `sha256:` and 64 hex digits.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub fingerprint: Option<String>,
    /// Long form device identifier (IEEE 2030.5): the first 20 bytes of the certificate's SHA-256, 40 hex digits.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub lfdi: Option<String>,
    /// Short form device identifier (IEEE 2030.5): 12 digits, the last of which is a check digit. Since 1.1.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sfdi: Option<String>,
    /// Serial number in hex digits, with or without colons, in either case. Since 1.1.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub serial: Option<String>,
    /// SHA-256 over the certificate's subjectPublicKeyInfo: `sha256:` and 64 hex digits. Since 1.1.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub spki: Option<String>,
}
