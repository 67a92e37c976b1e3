//! Part `identity`: the workload's own keys and certificate chains, each as a pair or not at all.

use serde::{Deserialize, Serialize};

/// The server's own certificate chains and private keys.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Identity {
    /// PEM file with the leaf certificate first, then its intermediates.
    pub chain: String,
    /// PEM file with the leaf's private key (PKCS#8, SEC1 or PKCS#1).
    pub key: String,
    /// Certificates for other names: a client is shown the one that has the name it asks for (SNI). Since 1.2.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub certificates: Vec<CertificatePair>,
}

/// A certificate beside the default one.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct CertificatePair {
    /// What listeners call it that show it. One without a name is shown on all of them. Since 1.5.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// PEM file with the leaf certificate first, then its intermediates. Its DNS and IP subject alternative names choose it.
    pub chain: String,
    /// PEM file with the leaf's private key (PKCS#8, SEC1 or PKCS#1).
    pub key: String,
}
