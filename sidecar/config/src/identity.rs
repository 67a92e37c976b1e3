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

/// A certificate that is shown to clients that ask for one of its names.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct CertificatePair {
    /// PEM file with the leaf certificate first, then its intermediates. Its DNS and IP subject alternative names choose it.
    pub chain: String,
    /// PEM file with the leaf's private key (PKCS#8, SEC1 or PKCS#1).
    pub key: String,
}
