//! What a rule does to requests on their way to the application, and to the responses.

use kube::KubeSchema;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::words;

/// One thing a rule does: exactly one key.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = (
    "[has(self.forwardIdentity), has(self.requestHeaderModifier), has(self.responseHeaderModifier), has(self.requestRedirect), has(self.urlRewrite)].filter(h, h).size() == 1",
    "filters[]: write exactly one of forwardIdentity, requestHeaderModifier, responseHeaderModifier, requestRedirect and urlRewrite",
))]
pub struct Filter {
    /// Tells the application who calls.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub forward_identity: Option<ForwardIdentity>,
    /// Changes header fields of the request.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub request_header_modifier: Option<HeaderModifier>,
    /// Changes header fields of the response.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub response_header_modifier: Option<HeaderModifier>,
    /// Answers with the place to ask instead of asking the application.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub request_redirect: Option<RequestRedirect>,
    /// Asks the application for another host or path.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub url_rewrite: Option<UrlRewrite>,
}

/// Header fields that say who the caller is. What a caller does not have is left out, and never empty.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = (
    "has(self.xForwardedClientCert) || has(self.headers)",
    "forwardIdentity tells nothing; write xForwardedClientCert or headers",
))]
pub struct ForwardIdentity {
    /// Envoy's `x-forwarded-client-cert`, with these of its keys, in this order.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(min = 1, max = 6))]
    #[x_kube(validation = ("self.all(f, self.exists_one(g, g == f))", "xForwardedClientCert: a key is there twice; write each once"))]
    pub x_forwarded_client_cert: Vec<ClientCertField>,
    /// One fact each, under a name of choice.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(
        length(min = 1, max = 16),
        extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["name"])
    )]
    pub headers: Vec<IdentityHeader>,
}

/// A key of `x-forwarded-client-cert`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[schemars(transform = crate::schema::words)]
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
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct IdentityHeader {
    /// Name of the field. No client can set it, under any rule.
    #[schemars(schema_with = "words::header_name")]
    pub name: String,
    /// What it says.
    pub value: IdentityFact,
}

/// Something that can be said about a caller.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[schemars(transform = crate::schema::words)]
pub enum IdentityFact {
    /// Name of the ClientIdentity, `namespace/name`.
    Identity,
    /// The one SPIFFE ID, if the authorities vouch for it.
    SpiffeId,
    /// Name of the authorities that the chain ends in.
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
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = (
    "has(self.set) || has(self.add) || has(self.remove)",
    "a header modifier changes nothing; write set, add or remove",
))]
pub struct HeaderModifier {
    /// Fields that get this value instead of any other.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(
        length(min = 1, max = 16),
        extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["name"])
    )]
    pub set: Vec<Header>,
    /// Fields that get this value beside others.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(min = 1, max = 16))]
    pub add: Vec<Header>,
    /// Names of fields that are taken out.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(schema_with = "words::header_names")]
    pub remove: Vec<String>,
}

/// A header field.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Header {
    /// Its name, in any case.
    #[schemars(schema_with = "words::header_name")]
    pub name: String,
    /// Its value: ASCII without control characters, and without spaces around it.
    #[schemars(length(max = 1024), regex(pattern = "^([!-~]([ -~]*[!-~])?)?$"))]
    pub value: String,
}

/// Where to ask instead. What is left out stays as the client asked.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = (
    "has(self.scheme) || has(self.hostname) || has(self.port) || has(self.path)",
    "requestRedirect leads to where the request came to; write scheme, hostname, port or path",
))]
pub struct RequestRedirect {
    /// The scheme.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub scheme: Option<Scheme>,
    /// The host, without a port.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "words::precise_hostname")]
    pub hostname: Option<String>,
    /// The port. Left out, it is the scheme's own where `scheme` is given.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 65535))]
    pub port: Option<u16>,
    /// The path. The query stays.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub path: Option<PathModifier>,
    /// The answer's status.
    #[serde(default = "found")]
    #[schemars(extend("enum" = [301, 302, 303, 307, 308]))]
    pub status_code: u16,
}

fn found() -> u16 {
    302
}

/// A scheme.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
#[schemars(transform = crate::schema::words)]
pub enum Scheme {
    /// Without TLS.
    Http,
    /// Over TLS.
    Https,
}

/// Another host, another path, or both.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = ("has(self.hostname) || has(self.path)", "urlRewrite changes nothing; write hostname or path"))]
pub struct UrlRewrite {
    /// The host, without a port, that the application is asked for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "words::precise_hostname")]
    pub hostname: Option<String>,
    /// The path that it is asked for. The query stays.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub path: Option<PathModifier>,
}

/// Another path: `type`, and the field that it names.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = (
    "has(self.replaceFullPath) == (self.type == 'ReplaceFullPath')",
    "path.replaceFullPath is required with type ReplaceFullPath, and left out with any other",
))]
#[x_kube(validation = (
    "has(self.replacePrefixMatch) == (self.type == 'ReplacePrefixMatch')",
    "path.replacePrefixMatch is required with type ReplacePrefixMatch, and left out with any other",
))]
pub struct PathModifier {
    /// What is replaced.
    #[serde(rename = "type")]
    pub kind: PathModifierType,
    /// What stands in place of the path: an absolute path without dot segments, double slashes or query.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 1024), regex(pattern = "^/[!-~]*$"))]
    pub replace_full_path: Option<String>,
    /// What stands in place of the prefix: the same, or nothing.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 1024), regex(pattern = "^(/[!-~]*)?$"))]
    pub replace_prefix_match: Option<String>,
}

/// What of a path is replaced.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[schemars(transform = crate::schema::words)]
pub enum PathModifierType {
    /// All of it.
    ReplaceFullPath,
    /// The segments of the rule's `PathPrefix`.
    ReplacePrefixMatch,
}
