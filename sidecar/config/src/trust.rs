//! Part `trust`: whose signatures count, what each bundle may vouch for, and which identities are revoked.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

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
}

/// The state of one identity.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct IdentityRevocation {
    /// Name of the identity, `namespace/name`.
    pub name: String,
    /// Its state.
    pub state: RevocationState,
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
