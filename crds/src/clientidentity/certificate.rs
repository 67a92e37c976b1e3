//! What Postern issues: key, certificate, and where they are put.

use kube::KubeSchema;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::Duration;
use crate::words;

/// A key and a certificate that Postern makes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct Issue {
    /// Name of the Secret (kubernetes.io/tls, with `ca.crt`) that is made. A Secret that somebody else made is never
    /// taken over.
    #[schemars(schema_with = "words::object_name")]
    pub secret_name: String,
    /// The private key. Absent: ECDSA on P-256.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub private_key: Option<PrivateKey>,
    /// Another form in which key and certificate are put into the Secret besides.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub keystore: Option<Keystore>,
}

/// How a private key is made.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = (
    "!has(self.size) || (self.algorithm == 'ECDSA' && self.size == 256) || (self.algorithm == 'RSA' && self.size >= 2048)",
    "privateKey.size does not fit its algorithm; write 256 with ECDSA, 2048, 3072 or 4096 with RSA, and none with Ed25519",
))]
pub struct PrivateKey {
    /// The algorithm.
    #[serde(default)]
    pub algorithm: Algorithm,
    /// Bits of the key. Absent: 256 with ECDSA, 2048 with RSA.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(extend("enum" = [256, 2048, 3072, 4096]))]
    pub size: Option<u16>,
}

/// An algorithm of keys.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[schemars(transform = crate::schema::words)]
pub enum Algorithm {
    /// On the curve P-256.
    #[default]
    #[serde(rename = "ECDSA")]
    Ecdsa,
    /// RFC 8032. Not every client can use it.
    Ed25519,
    /// For clients that know nothing else.
    #[serde(rename = "RSA")]
    Rsa,
}

/// A form in which key and certificate are kept together.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[schemars(transform = crate::schema::words)]
pub enum Keystore {
    /// Key `keystore.p12`; its password is the key `password` of another Secret, whose name ends in `-password` besides.
    #[serde(rename = "PKCS12")]
    Pkcs12,
}

/// A request for a certificate: the key stays with the client.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Csr {
    /// The request (PKCS#10) in PEM, in base64. What it says beyond its key is left to `spec.certificate`.
    #[schemars(length(min = 4, max = 16384), regex(pattern = "^[A-Za-z0-9+/]+={0,2}$"))]
    pub request: String,
}

/// What stands in a certificate. All names must be under the namespace's authority.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = (
    "!has(self.renewBefore) || duration(self.renewBefore) < duration(self.duration)",
    "certificate.renewBefore is not shorter than certificate.duration; write a shorter time",
))]
pub struct Certificate {
    /// The subject's common name. Absent: the name of the identity.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "words::common_name")]
    pub common_name: Option<String>,
    /// URIs besides the identity's own SPIFFE ID.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(schema_with = "words::uris")]
    pub uris: Vec<String>,
    /// DNS names.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(schema_with = "words::dns_names")]
    pub dns_names: Vec<String>,
    /// How long it is valid; never longer than its issuer.
    #[serde(default = "default_duration")]
    #[x_kube(validation = ("duration(self) >= duration('10m') && duration(self) <= duration('87600h')", "certificate.duration: write a time from 10m to 87600h"))]
    pub duration: Duration,
    /// How long before its end it is renewed. Absent: a third of its life.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub renew_before: Option<Duration>,
    /// What it is good for.
    #[serde(default)]
    pub profile: Profile,
}

impl Default for Certificate {
    fn default() -> Self {
        Self {
            common_name: None,
            uris: Vec::new(),
            dns_names: Vec::new(),
            duration: default_duration(),
            renew_before: None,
            profile: Profile::default(),
        }
    }
}

/// What a certificate is good for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[schemars(transform = crate::schema::words)]
pub enum Profile {
    /// A client of TLS.
    #[default]
    Default,
}

/// A quarter of a year.
fn default_duration() -> Duration {
    "2160h".into()
}
