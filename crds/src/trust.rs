//! Whose signatures count: references to certificates of authorities, and what those may vouch for.

use kube::KubeSchema;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::words;

/// Certificates of authorities, in an object of the same namespace.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct CaCertificateRef {
    /// Kind of the object.
    #[serde(default)]
    pub kind: CaCertificateKind,
    /// Name of the object. Its key `ca.crt` holds the certificates in PEM; a chain that ends in any of them counts.
    #[schemars(schema_with = "words::object_name")]
    pub name: String,
}

/// Kinds of objects that hold certificates of authorities.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
#[schemars(transform = crate::schema::words)]
pub enum CaCertificateKind {
    /// A ConfigMap: certificates are no secrets.
    #[default]
    ConfigMap,
}

/// Authorities under a name.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct NamedTrust {
    /// Name, by which rules refer to these authorities.
    #[schemars(schema_with = "words::label")]
    pub name: String,
    /// Where their certificates are.
    #[schemars(length(min = 1, max = 8))]
    pub ca_certificate_refs: Vec<CaCertificateRef>,
    /// What certificates under these authorities may claim beyond DNS names and digests. Absent: nothing.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub vouches_for: Option<VouchesFor>,
}

/// Authorities of one identity.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Trust {
    /// Where their certificates are.
    #[schemars(length(min = 1, max = 8))]
    pub ca_certificate_refs: Vec<CaCertificateRef>,
    /// What certificates under these authorities may claim beyond DNS names and digests. Absent: nothing.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub vouches_for: Option<VouchesFor>,
}

/// Claims that count under some authorities, and not under any others.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct VouchesFor {
    /// SPIFFE trust domains, such as `partner.example`. A SPIFFE ID of any other domain is recorded and never
    /// recognised; Postern's own trust domain counts under its own authorities only, whatever is written here.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(schema_with = "words::trust_domains")]
    pub spiffe: Vec<String>,
    /// Whether the subject's common name identifies a client.
    #[serde(default)]
    pub common_name: bool,
}
