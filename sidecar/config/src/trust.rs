//! Part `trust`: whose signatures count, what each bundle may vouch for, and which identities are revoked.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::UtcTime;

/// Root bundles by name, and the revocations.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Trust {
    /// Root bundles by name. Listeners and recognisers refer to these names.
    #[serde(default)]
    pub bundles: BTreeMap<String, Bundle>,
    /// What is no longer accepted although its certificate still verifies.
    #[serde(default)]
    pub revocations: Revocations,
}

/// A set of root certificates and what certificates that chain to them may claim.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Bundle {
    /// PEM files with root certificates, relative to the document's folder.
    pub roots: Vec<String>,
    /// PEM files with CA certificates below the roots, for clients that send only their own. Since 1.2.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub intermediates: Vec<String>,
    /// PEM or DER files with revocation lists of the roots and intermediates. Since 1.2.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub crls: Vec<String>,
    /// What a certificate that chains to these roots may claim beyond DNS names and digests.
    #[serde(default)]
    pub vouches_for: VouchesFor,
}

/// Claims of identity that a bundle's certificates may make.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct VouchesFor {
    /// SPIFFE trust domains, such as `demo.local`. A SPIFFE URI of any other domain is recorded and never recognised.
    #[serde(default)]
    pub spiffe: Vec<String>,
    /// Whether the subject's common name identifies a client. Off unless a bundle says so.
    #[serde(default)]
    pub common_name: bool,
}

/// What is no longer accepted.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Revocations {
    /// States of identities other than active. State lives here only, so that a revocation is one small write.
    #[serde(default)]
    pub identities: Vec<IdentityRevocation>,
    /// Certificates that are refused in the handshake. Since 1.1.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub serials: Vec<SerialRevocation>,
}

/// A client's certificate by its serial number.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct SerialRevocation {
    /// The bundle its chain ends in.
    pub bundle: String,
    /// The serial number in hex digits, with or without colons, in either case.
    pub serial: String,
}

/// What is revoked of one identity: its state, its older certificates, or both.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct IdentityRevocation {
    /// Name of the identity, `namespace/name`.
    pub name: String,
    /// Its state. Required in 1.0.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub state: Option<RevocationState>,
    /// Certificates that are valid from an earlier time are refused: older ones are gone without a list. Since 1.1.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub accept_issued_after: Option<UtcTime>,
}

/// Why an identity is refused whatever the rules say.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub enum RevocationState {
    /// Refused for now.
    Suspended,
    /// Refused for good.
    Revoked,
}
