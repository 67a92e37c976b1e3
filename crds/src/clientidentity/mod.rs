//! `ClientIdentity`: a client that rules may name, how it is recognised, and the certificate it is given.

mod certificate;
mod status;

use kube::{CustomResource, KubeSchema};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::UtcTime;
use crate::trust::Trust;
use crate::words;

pub use certificate::{Algorithm, Certificate, Csr, Issue, Keystore, PrivateKey, Profile};
pub use status::{CertificateStatus, ClientIdentityStatus, EnforcedStatus, Kind};

/// A client: exactly one of `issue`, `csr`, `serviceAccount` and `external` says how it gets its certificate.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, CustomResource, KubeSchema)]
#[serde(rename_all = "camelCase")]
#[kube(
    group = "postern.dev",
    version = "v1alpha1",
    kind = "ClientIdentity",
    plural = "clientidentities",
    shortname = "cid",
    category = "postern",
    namespaced,
    status = "ClientIdentityStatus",
    derive = "PartialEq",
    doc = "A client that rules of ProxyRoutes may name: how it is recognised, the certificate it is given, and whether it is still welcome.",
    selectable = ".spec.state",
    selectable = ".spec.issue.secretName",
    selectable = ".spec.serviceAccount.name",
    printcolumn(
        name = "Kind",
        type_ = "string",
        json_path = ".status.kind",
        description = "How it gets its certificate"
    ),
    printcolumn(
        name = "Subject",
        type_ = "string",
        json_path = ".status.subject",
        description = "What it is recognised by"
    ),
    printcolumn(
        name = "Expires",
        type_ = "string",
        json_path = ".status.certificate.notAfter",
        description = "When its certificate expires"
    ),
    printcolumn(
        name = "Ready",
        type_ = "string",
        json_path = r#".status.conditions[?(@.type=="Ready")].status"#,
        description = "Whether it can be used"
    ),
    printcolumn(name = "Age", type_ = "date", json_path = ".metadata.creationTimestamp")
)]
#[x_kube(validation = (
    "[has(self.issue), has(self.csr), has(self.serviceAccount), has(self.external)].filter(h, h).size() == 1",
    "spec: write exactly one of issue, csr, serviceAccount and external",
))]
#[x_kube(validation = (
    "has(self.issue) == has(oldSelf.issue) && has(self.csr) == has(oldSelf.csr) && has(self.serviceAccount) == has(oldSelf.serviceAccount) && has(self.external) == has(oldSelf.external)",
    "spec: issue, csr, serviceAccount and external cannot replace each other; delete the identity and create another",
))]
#[x_kube(validation = (
    "!has(self.certificate) || has(self.issue) || has(self.csr)",
    "spec.certificate is about what Postern issues; leave it out with serviceAccount and external",
))]
pub struct ClientIdentitySpec {
    /// Postern makes key and certificate, and renews them in a Secret.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub issue: Option<Issue>,
    /// The client has made its own key, and asks for a certificate of it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub csr: Option<Csr>,
    /// Pods with a Postern sidecar that run as a service account of this namespace.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub service_account: Option<ServiceAccount>,
    /// Certificates of others: recognised, and never issued.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub external: Option<External>,
    /// What stands in the certificate. Only with `issue` or `csr`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub certificate: Option<Certificate>,
    /// Whether the client is let in. What is revoked stays so.
    #[serde(default)]
    #[x_kube(validation = (
        "oldSelf != 'Revoked' || self == 'Revoked'",
        "spec.state: what is revoked stays revoked; create another identity",
    ))]
    pub state: State,
    /// Certificates that are valid from an earlier time are refused: older ones are gone without a list.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub accept_issued_after: Option<UtcTime>,
}

/// The one way in which a client gets its certificate.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Source<'a> {
    /// Postern makes all of it.
    Issue(&'a Issue),
    /// The client has a key.
    Csr(&'a Csr),
    /// It runs as a service account.
    ServiceAccount(&'a ServiceAccount),
    /// From elsewhere.
    External(&'a External),
}

impl ClientIdentitySpec {
    /// The one way it says; none where it says none or several, which the schema lets nobody write.
    #[must_use]
    pub fn source(&self) -> Option<Source<'_>> {
        let said = [
            self.issue.as_ref().map(Source::Issue),
            self.csr.as_ref().map(Source::Csr),
            self.service_account.as_ref().map(Source::ServiceAccount),
            self.external.as_ref().map(Source::External),
        ];
        let mut said = said.into_iter().flatten();
        said.next().filter(|_| said.next().is_none())
    }
}

/// Whether a client is let in.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[schemars(transform = crate::schema::words)]
pub enum State {
    /// Where a rule allows it.
    #[default]
    Active,
    /// Not for now.
    Suspended,
    /// Never again.
    Revoked,
}

/// A service account of the same namespace.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ServiceAccount {
    /// Its name.
    #[schemars(schema_with = "words::service_account")]
    pub name: String,
}

/// Certificates of others. Any one claim makes a certificate this client's, if its chain ends in `trust`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = (
    "has(self.uris) || has(self.dnsNames) || has(self.commonNames) || has(self.fingerprints) || has(self.lfdi) || has(self.sfdi) || has(self.serials) || has(self.spki)",
    "spec.external recognises nobody; write uris, dnsNames, commonNames, fingerprints, lfdi, sfdi, serials or spki",
))]
#[x_kube(validation = (
    "!has(self.commonNames) || (has(self.trust.vouchesFor) && self.trust.vouchesFor.commonName)",
    "spec.external.commonNames count only under authorities that vouch for them; write trust.vouchesFor.commonName true",
))]
pub struct External {
    /// The authorities that a certificate must come from.
    pub trust: Trust,
    /// URI subject alternative names, byte for byte; a SPIFFE ID counts only if `trust` vouches for its domain.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(schema_with = "words::claimed_uris")]
    pub uris: Vec<String>,
    /// DNS subject alternative names.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(schema_with = "words::claimed_dns_names")]
    pub dns_names: Vec<String>,
    /// Common names of the subject, byte for byte; they count only if `trust` vouches for them.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(schema_with = "words::common_names")]
    pub common_names: Vec<String>,
    /// SHA-256 over the DER certificate: `sha256:` and 64 hex digits.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(schema_with = "words::sha256_digests")]
    pub fingerprints: Vec<String>,
    /// Long form device identifiers (IEEE 2030.5): the first 20 bytes of the certificate's SHA-256, 40 hex digits.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(schema_with = "words::lfdis")]
    pub lfdi: Vec<String>,
    /// Short form device identifiers (IEEE 2030.5): 12 digits, the last of which is a check digit.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(schema_with = "words::sfdis")]
    pub sfdi: Vec<String>,
    /// Serial numbers in hex digits, with or without colons.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(schema_with = "words::serials")]
    pub serials: Vec<String>,
    /// SHA-256 over the certificate's subjectPublicKeyInfo: `sha256:` and 64 hex digits.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(schema_with = "words::sha256_digests")]
    pub spki: Vec<String>,
}
