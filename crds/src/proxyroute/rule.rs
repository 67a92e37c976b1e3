//! Some requests, who may make them, and where they go.

use kube::KubeSchema;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::backend::BackendRef;
use super::filter::Filter;
use crate::Duration;
use crate::words::{self, Labels};

/// Some requests, who may make them, and where they go.
// Not `Rule`: `KubeSchema` has one of its own in scope where it makes schemas.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = (
    "has(self.backendRefs) != (has(self.filters) && self.filters.exists(f, has(f.requestRedirect)))",
    "backendRefs is required, and left out only in a rule that has the filter requestRedirect",
))]
pub struct RouteRule {
    /// Name, unique within its route; the request log records it.
    #[schemars(schema_with = "words::label")]
    pub name: String,
    /// A request matches the rule if it matches any of these; absent means every path and method.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(min = 1, max = 16))]
    pub matches: Vec<Match>,
    /// Who may call: any of these. Required, and never empty: absence never means anyone.
    #[schemars(length(min = 1, max = 64))]
    pub allow: Vec<Allow>,
    /// Whether a caller that `allow` does not name is refused.
    #[serde(default)]
    pub mode: Mode,
    /// What is done to requests and responses on their way, at most one of each kind.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(min = 1, max = 5))]
    #[x_kube(validation = ("self.filter(f, has(f.forwardIdentity)).size() < 2", "filters: forwardIdentity is there twice; write one that says both"))]
    #[x_kube(validation = ("self.filter(f, has(f.requestHeaderModifier)).size() < 2", "filters: requestHeaderModifier is there twice; write one that says both"))]
    #[x_kube(validation = ("self.filter(f, has(f.responseHeaderModifier)).size() < 2", "filters: responseHeaderModifier is there twice; write one that says both"))]
    #[x_kube(validation = ("self.filter(f, has(f.requestRedirect)).size() < 2", "filters: requestRedirect is there twice; write one"))]
    #[x_kube(validation = ("self.filter(f, has(f.urlRewrite)).size() < 2", "filters: urlRewrite is there twice; write one that says both"))]
    pub filters: Vec<Filter>,
    /// Where the requests go, in proportion to the weights. Required, but for a rule that redirects, which has none.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(min = 1, max = 16))]
    pub backend_refs: Vec<BackendRef>,
    /// How long its requests may take.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub timeouts: Option<Timeouts>,
}

/// A condition on a request; everything that is given must hold.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct Match {
    /// On the path; absent means every path.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub path: Option<PathMatch>,
    /// On the method, such as `GET`; absent means every method.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 32), regex(pattern = "^[A-Z][A-Z0-9_-]*$"))]
    pub method: Option<String>,
    /// On header fields, each name once; all must hold.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(
        length(max = 16),
        extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["name"])
    )]
    pub headers: Vec<ValueMatch>,
    /// On parameters of the query, each name once; all must hold.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(
        length(max = 16),
        extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["name"])
    )]
    pub query_params: Vec<ValueMatch>,
    /// On the type of the message in the request's body, by its media type or the root element of its XML: an element of
    /// IEEE 2030.5 such as `DERControlResponse`, `exi` or `json`. Absent means any, and none.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 64), regex(pattern = "^[A-Za-z][A-Za-z0-9]*$"))]
    pub message_type: Option<String>,
}

/// A condition on the normalised path.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = (
    "self.type == 'RegularExpression' || self.value.startsWith('/')",
    "path.value: an absolute path begins with `/`; write it so, or type RegularExpression",
))]
pub struct PathMatch {
    /// How the value is compared.
    #[serde(rename = "type")]
    pub kind: PathMatchType,
    /// An absolute path, without dot segments, double slashes or query; or what its type says.
    #[schemars(length(min = 1, max = 1024))]
    pub value: String,
}

/// How a path is compared.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[schemars(transform = crate::schema::words)]
pub enum PathMatchType {
    /// The whole path, byte for byte.
    Exact,
    /// Its first segments: `/orders` matches `/orders` and `/orders/7`, not `/ordersheet`.
    PathPrefix,
    /// The whole path, where `{id}` is any one segment and `{rest...}`, at its end, all that is left.
    Template,
    /// The whole path by a regular expression.
    RegularExpression,
}

/// A condition on a named value; a request without the name never meets it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct ValueMatch {
    /// Name of the header field, in any case, or of the parameter.
    #[schemars(length(min = 1, max = 256))]
    pub name: String,
    /// How the value is compared.
    #[serde(rename = "type", default)]
    pub kind: ValueMatchType,
    /// What it is compared with.
    #[schemars(length(max = 1024))]
    pub value: String,
}

/// How a named value is compared.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[schemars(transform = crate::schema::words)]
pub enum ValueMatchType {
    /// The whole value, byte for byte.
    #[default]
    Exact,
    /// The whole value by a regular expression.
    RegularExpression,
}

/// Callers who may pass: exactly one key.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = (
    "[has(self.identity), has(self.identitySelector), has(self.serviceAccount), has(self.spiffe), has(self.verified), has(self.anyone)].filter(h, h).size() == 1",
    "allow[]: write exactly one of identity, identitySelector, serviceAccount, spiffe, verified and anyone",
))]
pub struct Allow {
    /// One ClientIdentity.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub identity: Option<AllowedIdentity>,
    /// Every ClientIdentity of this namespace that has some labels.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub identity_selector: Option<Selector>,
    /// Whoever runs as a service account, by its SPIFFE ID.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub service_account: Option<AllowedServiceAccount>,
    /// Any certificate with this SPIFFE ID, or with one below it where it ends in `/*`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "words::spiffe_pattern")]
    pub spiffe: Option<String>,
    /// Any certificate of some authorities.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub verified: Option<Verified>,
    /// Everyone the listener lets in.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub anyone: Option<Anyone>,
}

/// The one thing that an entry of `allow` says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Caller<'a> {
    /// One ClientIdentity.
    Identity(&'a AllowedIdentity),
    /// Those with some labels.
    IdentitySelector(&'a Selector),
    /// A service account.
    ServiceAccount(&'a AllowedServiceAccount),
    /// A SPIFFE ID, or a pattern of them.
    Spiffe(&'a str),
    /// Any certificate of some authorities.
    Verified(&'a Verified),
    /// Everyone.
    Anyone,
}

impl Allow {
    /// The one thing it says; none where it says nothing or several things, which the schema lets nobody write.
    #[must_use]
    pub fn caller(&self) -> Option<Caller<'_>> {
        let Self { identity, identity_selector, service_account, spiffe, verified, anyone } = self;
        let said = [
            identity.as_ref().map(Caller::Identity),
            identity_selector.as_ref().map(Caller::IdentitySelector),
            service_account.as_ref().map(Caller::ServiceAccount),
            spiffe.as_deref().map(Caller::Spiffe),
            verified.as_ref().map(Caller::Verified),
            anyone.as_ref().map(|_| Caller::Anyone),
        ];
        let mut said = said.into_iter().flatten();
        said.next().filter(|_| said.next().is_none())
    }
}

/// A ClientIdentity by its name.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct AllowedIdentity {
    /// Its name.
    #[schemars(schema_with = "words::object_name")]
    pub name: String,
    /// Its namespace. Absent: the route's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "words::label")]
    pub namespace: Option<String>,
}

/// A choice by labels, all of which must be there and have these values.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Selector {
    /// The labels. Never empty: that would choose everything.
    #[schemars(schema_with = "words::match_labels")]
    pub match_labels: Labels,
}

/// A service account, whose SPIFFE ID is `spiffe://<trust domain>/ns/<namespace>/sa/<name>`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct AllowedServiceAccount {
    /// Its namespace. Absent: the route's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "words::label")]
    pub namespace: Option<String>,
    /// Its name.
    #[schemars(schema_with = "words::service_account")]
    pub name: String,
    /// Its trust domain. Absent: Postern's own.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "words::trust_domain")]
    pub trust_domain: Option<String>,
}

/// Certificates of some authorities.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Verified {
    /// Name of the authorities among `listener.tls.trust`. Absent: Postern's own.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "words::label")]
    pub trust: Option<String>,
}

/// Nothing more to say: everyone.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Anyone {}

/// What happens to a caller that `allow` does not name.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[schemars(transform = crate::schema::words)]
pub enum Mode {
    /// It is refused.
    #[default]
    Enforce,
    /// It passes, and the request log says `would_refuse` and why.
    Audit,
}

/// How long requests may take, in the words of Gateway API (GEP-1742); `0s` means any time.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = (
    "!has(self.request) || !has(self.backendRequest) || duration(self.request) == duration('0s') || duration(self.backendRequest) <= duration(self.request)",
    "timeouts.backendRequest is longer than timeouts.request; write the same or a shorter time",
))]
pub struct Timeouts {
    /// From a request's head to the end of its response, with everything between.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[x_kube(validation = ("duration(self) <= duration('24h')", "timeouts.request: write a time up to 24h"))]
    pub request: Option<Duration>,
    /// The same of one request to a backend; no longer than `request`.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[x_kube(validation = ("duration(self) <= duration('24h')", "timeouts.backendRequest: write a time up to 24h"))]
    pub backend_request: Option<Duration>,
}
