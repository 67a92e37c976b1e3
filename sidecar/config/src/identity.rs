//! Part `identity`: the workload's own key and certificate chain, as a pair or not at all.

use serde::{Deserialize, Serialize};

/// The server's own certificate chain and private key.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Identity {
    /// PEM file with the leaf certificate first, then its intermediates.
    pub chain: String,
    /// PEM file with the leaf's private key (PKCS#8, SEC1 or PKCS#1).
    pub key: String,
}
