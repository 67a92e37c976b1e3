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
    /// Changes header fields of the response.
    ResponseHeaderModifier(HeaderModifier),
    /// Answers with the place to ask instead of asking the application. Since 1.3.
    RequestRedirect(RequestRedirect),
    /// Asks the application for another host or path. Since 1.3.
    UrlRewrite(UrlRewrite),
}

/// Where to ask instead. What is left out stays as the client asked.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct RequestRedirect {
    /// The scheme.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub scheme: Option<Scheme>,
    /// The host, without a port.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hostname: Option<String>,
    /// The port. Left out, it is the scheme's own where `scheme` is given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub port: Option<u16>,
    /// The path. The query stays.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub path: Option<PathModifier>,
    /// The answer's status: 301, 302, 303, 307 or 308.
    #[serde(default = "found", skip_serializing_if = "is_found")]
    pub status_code: u16,
}

/// Another host, another path, or both.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct UrlRewrite {
    /// The host, without a port, that the application is asked for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hostname: Option<String>,
    /// The path that it is asked for. The query stays.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub path: Option<PathModifier>,
}

/// Another path.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct PathModifier {
    /// What is replaced.
    #[serde(rename = "type")]
    pub kind: PathModifierType,
    /// What stands in its place: an absolute path without dot segments, double slashes or query. In place of a prefix it
    /// may be empty.
    pub value: String,
}

/// What of a path is replaced.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub enum PathModifierType {
    /// All of it.
    ReplaceFullPath,
    /// The segments of the rule's `PathPrefix`.
    ReplacePrefixMatch,
}

/// A scheme.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "lowercase")]
pub enum Scheme {
    /// Without TLS.
    Http,
    /// Over TLS.
    Https,
}

fn found() -> u16 {
    302
}

// Serde gives a reference.
fn is_found(status: &u16) -> bool {
    *status == found()
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
