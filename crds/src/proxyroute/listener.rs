//! Where the gate of a route listens, and what it asks of those who connect.

use kube::KubeSchema;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::trust::NamedTrust;
use crate::words;

/// A port of each pod. A route that says only `port` joins the listener that another route of the workload defines;
/// routes that define one port in two ways contradict each other, and the older is heard.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = (
    "!has(self.protocol) || self.protocol != 'HTTP' || !has(self.tls)",
    "spec.listener.tls has no meaning with protocol HTTP; leave it out, or write protocol HTTPS",
))]
pub struct Listener {
    /// The port.
    #[schemars(range(min = 1, max = 65535))]
    pub port: u16,
    /// Addresses of the pod on which it is. Absent: as another route defines it, else `All`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub address: Option<Address>,
    /// What is spoken on it. Absent: as another route defines it, else `HTTPS`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub protocol: Option<Protocol>,
    /// TLS on it. Absent: as another route defines it, else a certificate of Postern's own authorities is required.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tls: Option<ListenerTls>,
}

impl Listener {
    /// Whether it says more than which port it is.
    #[must_use]
    pub fn is_definition(&self) -> bool {
        self.address.is_some() || self.protocol.is_some() || self.tls.is_some()
    }
}

/// Addresses of a pod.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[schemars(transform = crate::schema::words)]
pub enum Address {
    /// All of them: the gate in front of an application.
    #[default]
    All,
    /// Loopback alone: a gate for what an application of the pod asks of others.
    Loopback,
}

/// What a listener speaks.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[schemars(transform = crate::schema::words)]
pub enum Protocol {
    /// HTTP/1.1 and HTTP/2 over TLS, chosen by ALPN.
    #[default]
    #[serde(rename = "HTTPS")]
    Https,
    /// HTTP/1.1, and HTTP/2 from clients that begin with it, without TLS: nobody has a certificate.
    #[serde(rename = "HTTP")]
    Http,
    /// Any protocol over TLS: who may connect is decided once, then bytes are passed on.
    #[serde(rename = "TLS")]
    Tls,
}

/// TLS on a listener.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct ListenerTls {
    /// Whether a client must present a certificate.
    #[serde(default)]
    pub client_auth: ClientAuth,
    /// Oldest TLS version accepted.
    #[serde(default)]
    pub min_version: TlsVersion,
    /// Whose certificates are accepted besides those of Postern's own authorities.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(
        length(max = 8),
        extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["name"])
    )]
    pub trust: Vec<NamedTrust>,
    /// Certificates of your own that are shown on this listener before the workload's, which Postern issues. The name that
    /// a client asks for (SNI) chooses among them; who asks for none is shown the first. Clients must trust those who
    /// issued them. The workload's is still shown to who asks for one of its names that none of these has.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 8), extend("x-kubernetes-list-type" = "atomic"))]
    pub certificate_refs: Vec<CertificateRef>,
    /// What becomes of a client that asks for a name that no certificate has.
    #[serde(default)]
    pub unknown_server_name: UnknownServerName,
}

/// A Secret of type `kubernetes.io/tls` with a certificate and its key, such as cert-manager keeps one.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct CertificateRef {
    /// Kind of the object.
    #[serde(default)]
    pub kind: CertificateKind,
    /// Name of the object. Its key `tls.crt` holds the certificate and what is between it and its root in PEM, `tls.key`
    /// the key without a password: ECDSA on P-256 or P-384, Ed25519, or RSA from 2048 bits.
    #[schemars(schema_with = "words::object_name")]
    pub name: String,
    /// Namespace of the object, which has to be served by the operator, too. Absent: the route's own. In any other one a
    /// ReferenceGrant has to permit it, from ProxyRoutes of the route's namespace to the Secret.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "words::label")]
    pub namespace: Option<String>,
}

/// Kinds of objects that hold a certificate and its key.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
#[schemars(transform = crate::schema::words)]
pub enum CertificateKind {
    /// A Secret.
    #[default]
    Secret,
}

/// Whether a client must present a certificate.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[schemars(transform = crate::schema::words)]
pub enum ClientAuth {
    /// A handshake without a certificate that verifies is refused.
    #[default]
    Required,
    /// A client may come without a certificate; one that it presents must verify.
    Optional,
    /// No certificate is asked for.
    None,
}

/// A TLS protocol version.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[schemars(transform = crate::schema::words)]
pub enum TlsVersion {
    /// TLS 1.2 (RFC 5246).
    #[default]
    #[serde(rename = "1.2")]
    V1_2,
    /// TLS 1.3 (RFC 8446).
    #[serde(rename = "1.3")]
    V1_3,
}

/// What becomes of a client that asks for a name (SNI) that no certificate has.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[schemars(transform = crate::schema::words)]
pub enum UnknownServerName {
    /// It is shown the first of `certificateRefs`, or the workload's own certificate.
    #[default]
    Default,
    /// Its handshake is refused.
    Refuse,
}
