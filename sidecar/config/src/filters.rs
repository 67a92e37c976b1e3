//! What a rule does to requests on their way to the application, and to the responses. Since contract 1.2.

use serde::{Deserialize, Serialize};

/// One thing a rule does; exactly one key each.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "camelCase")]
pub enum Filter {
    /// Tells the application who calls.
    ForwardIdentity(ForwardIdentity),
    /// Changes header fields of the request.
    RequestHeaderModifier(HeaderModifier),
    /// Changes header fields of the application's response.
    ResponseHeaderModifier(HeaderModifier),
}

/// Header fields that say who the caller is. What a caller does not have is left out, and never empty.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct ForwardIdentity {
    /// Envoy's `x-forwarded-client-cert`, with these of its keys, in this order.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub x_forwarded_client_cert: Vec<ClientCertField>,
    /// One fact each, under a name of choice.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub headers: Vec<IdentityHeader>,
}

/// A key of `x-forwarded-client-cert`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub enum ClientCertField {
    /// SHA-256 over the certificate, in lower-case hex.
    Hash,
    /// The certificate in PEM, percent-escaped.
    Cert,
    /// The same with all certificates that the client sent.
    Chain,
    /// The subject (RFC 4514).
    Subject,
    /// Each URI subject alternative name.
    #[serde(rename = "URI")]
    Uri,
    /// Each DNS subject alternative name.
    #[serde(rename = "DNS")]
    Dns,
}

/// A header field that says one thing about the caller.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct IdentityHeader {
    /// Name of the field. No client can set it, under any rule.
    pub name: String,
    /// What it says.
    pub value: IdentityFact,
}

/// Something that can be said about a caller.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub enum IdentityFact {
    /// Name of the known identity.
    Identity,
    /// The one SPIFFE ID, if a bundle vouches for it.
    SpiffeId,
    /// Name of the bundle that the chain ends in.
    Bundle,
    /// The subject (RFC 4514).
    Subject,
    /// The issuer (RFC 4514).
    Issuer,
    /// SHA-256 over the certificate, 64 digits in lower-case hex.
    Sha256,
    /// The long form device identifier (IEEE 2030.5), 40 digits in lower-case hex.
    Lfdi,
    /// The short form device identifier (IEEE 2030.5), 12 decimal digits.
    Sfdi,
    /// The certificate in PEM, percent-escaped, as nginx's `$ssl_client_escaped_cert`.
    EscapedPem,
    /// The certificate as `Client-Cert` has it (RFC 9440 §2.2).
    Rfc9440,
    /// The certificates the client sent above its own, as `Client-Cert-Chain` has them (RFC 9440 §2.3).
    Rfc9440Chain,
}

/// Changes of header fields: what is removed goes first, then what is set, then what is added.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct HeaderModifier {
    /// Fields that get this value instead of any other.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub set: Vec<HeaderValue>,
    /// Fields that get this value beside others.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub add: Vec<HeaderValue>,
    /// Names of fields that are taken out.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub remove: Vec<String>,
}

/// A header field.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct HeaderValue {
    /// Its name, in any case.
    pub name: String,
    /// Its value.
    pub value: String,
}
