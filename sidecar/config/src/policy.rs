//! Part `policy`: listeners, routes with who may call them, limits.

use std::collections::BTreeMap;
use std::net::SocketAddr;

use serde::{Deserialize, Serialize};

use crate::backend::{BackendPolicy, Timeouts, default_weight, is_default, is_default_weight};
use crate::capture::Capture;
use crate::filters::Filter;
use crate::upstream::{BackendProtocol, BackendTls};
use crate::words::{address, some_address};
use crate::{Duration, Size};

/// Listeners, routes and limits of one workload.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Policy {
    /// Where the gate listens.
    #[serde(default)]
    pub listeners: Vec<Listener>,
    /// What passes through it. A request that no route matches is refused.
    #[serde(default)]
    pub routes: Vec<Route>,
    /// Bounds on what clients may take.
    #[serde(default)]
    pub limits: Limits,
    /// What is believed of those in front of the gate. Since contract 1.2.
    #[serde(default, skip_serializing_if = "Forwarding::is_default")]
    pub forwarding: Forwarding,
}

/// One address the gate listens on.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Listener {
    /// Name; routes refer to it.
    pub name: String,
    /// Address and port, such as `0.0.0.0:8443` or `[::]:8443`.
    #[serde(deserialize_with = "address")]
    pub address: SocketAddr,
    /// What is spoken on it.
    pub protocol: Protocol,
    /// TLS settings; required with `HTTPS` and `TLS`, refused with `HTTP`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tls: Option<ListenerTls>,
}

/// What a listener speaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub enum Protocol {
    /// HTTP/1.1 and HTTP/2 over TLS, chosen by ALPN.
    #[serde(rename = "HTTPS")]
    Https,
    /// HTTP/1.1, and HTTP/2 from clients that begin with it, without TLS: nobody has a certificate. Since 1.2.
    #[serde(rename = "HTTP")]
    Http,
    /// Any protocol over TLS: who may connect is decided once, then bytes are passed on. Since 1.2.
    #[serde(rename = "TLS")]
    Tls,
}

/// TLS on a listener.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct ListenerTls {
    /// Whether a client must present a certificate.
    #[serde(default)]
    pub client_auth: ClientAuth,
    /// Oldest TLS version accepted.
    #[serde(default)]
    pub min_version: TlsVersion,
    /// Names of the bundles whose certificates are accepted.
    #[serde(default)]
    pub trust: Vec<String>,
    /// What becomes of a client that asks for a name that no certificate has. Since 1.2.
    #[serde(default, skip_serializing_if = "UnknownServerName::is_default")]
    pub unknown_server_name: UnknownServerName,
    /// Names of certificates of part `identity` that are shown here before all others. The first of them takes the place
    /// of the default one. Since 1.5.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub certificates: Vec<String>,
}

/// What becomes of a client that asks for a name (SNI) that no certificate of part `identity` has.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub enum UnknownServerName {
    /// It is shown the listener's first certificate, or the default one, `chain` and `key`.
    #[default]
    Default,
    /// Its handshake is refused.
    Refuse,
}

impl UnknownServerName {
    /// Left out of what is written, so that documents of older versions keep their revisions.
    fn is_default(&self) -> bool {
        *self == Self::Default
    }
}

/// Whether a client must present a certificate.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
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
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub enum TlsVersion {
    /// TLS 1.2 (RFC 5246).
    #[default]
    #[serde(rename = "1.2")]
    V1_2,
    /// TLS 1.3 (RFC 8446).
    #[serde(rename = "1.3")]
    V1_3,
}

/// What requests for some hosts may do.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Route {
    /// Name, `namespace/name`; the request log records it.
    pub name: String,
    /// Name of the listener it is served on.
    pub listener: String,
    /// Which of the workload's pods serve it; absent means all. Since 1.3.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pod_selector: Option<PodSelector>,
    /// Hosts it serves, compared without case and port, on a `TLS` listener with the name the client asks for (SNI); `*.example.com` is every name that ends in `.example.com`.
    /// Empty means any host.
    #[serde(default)]
    pub hostnames: Vec<String>,
    /// Its rules. A request that none matches is refused.
    pub rules: Vec<Rule>,
    /// How the backends of its rules are used. Since 1.2.
    #[serde(default, skip_serializing_if = "is_default")]
    pub backend_policy: BackendPolicy,
    /// What rows tell of its requests beyond what they tell of all; nothing where it is absent. Since 1.8.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub capture: Option<Capture>,
}

/// A choice of pods.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct PodSelector {
    /// Labels that a pod must have, all of them and with these values. Never empty.
    pub match_labels: BTreeMap<String, String>,
}

/// Some requests, who may make them, and where they go.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Rule {
    /// Name, unique within its route; the request log records it.
    pub name: String,
    /// A request matches the rule if it matches any of these; empty means every path and method.
    #[serde(default)]
    pub matches: Vec<Match>,
    /// Who may call: any of these. Required, and never empty: absence never means anyone.
    pub allow: Vec<Allow>,
    /// Whether a caller that `allow` does not name is refused.
    #[serde(default)]
    pub mode: Mode,
    /// What is done to requests and responses on their way, at most one of each kind. Since contract 1.2.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub filters: Vec<Filter>,
    /// Where the requests go, in proportion to the weights. Required, but for a rule that redirects, which has none.
    #[serde(default)]
    pub backends: Vec<Backend>,
    /// How long its requests may take. Since 1.2.
    #[serde(default, skip_serializing_if = "is_default")]
    pub timeouts: Timeouts,
}

/// A condition on a request; everything that is given must hold.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Match {
    /// On the path; absent means every path.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub path: Option<PathMatch>,
    /// On the method, such as `GET`; absent means every method.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub method: Option<String>,
    /// On header fields, each name once in any case; all must hold. Since contract 1.1.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub headers: Vec<ValueMatch>,
    /// On parameters of the query, each name once; all must hold. Since contract 1.1.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub query_params: Vec<ValueMatch>,
    /// On the type of the message in the request's body: a root element of IEEE 2030.5 such as `DERControlResponse`, `exi`
    /// or `json`; absent means any, and none. Since contract 1.6.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub message_type: Option<String>,
}

/// A condition on the normalised path.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct PathMatch {
    /// How the value is compared.
    #[serde(rename = "type")]
    pub kind: PathMatchType,
    /// An absolute path, without dot segments, double slashes or query; or what its type says.
    pub value: String,
}

/// How a path is compared.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub enum PathMatchType {
    /// The whole path, byte for byte.
    Exact,
    /// Its first segments: `/orders` matches `/orders` and `/orders/7`, not `/ordersheet`.
    PathPrefix,
    /// The whole path, where `{id}` is any one segment and `{rest...}`, at its end, all that is left. Since contract 1.1.
    Template,
    /// The whole path by a regular expression. Since contract 1.1.
    RegularExpression,
}

/// A condition on a named value; a request without the name never meets it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct ValueMatch {
    /// Name of the header field or parameter.
    pub name: String,
    /// How the value is compared.
    #[serde(rename = "type", default)]
    pub kind: ValueMatchType,
    /// What it is compared with.
    pub value: String,
}

/// How a named value is compared.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub enum ValueMatchType {
    /// The whole value, byte for byte.
    #[default]
    Exact,
    /// The whole value by a regular expression.
    RegularExpression,
}

/// A caller who may pass; exactly one key each.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "camelCase")]
pub enum Allow {
    /// The known identity of this name.
    Identity(String),
    /// Every known identity that has these labels. Since 1.1.
    IdentitySelector(IdentitySelector),
    /// Any certificate with the SPIFFE ID of this service account. Since 1.1.
    ServiceAccount(ServiceAccount),
    /// Any certificate with this SPIFFE ID, or with one below it where it ends in `/*`. Since 1.1.
    Spiffe(String),
    /// Any certificate that chains to the bundle of this name.
    Verified(String),
    /// Everyone the listener lets in.
    Anyone(Anyone),
}

/// A choice of known identities.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct IdentitySelector {
    /// Labels that an identity must have, all of them and with these values. Never empty.
    pub match_labels: BTreeMap<String, String>,
}

/// A Kubernetes service account, whose SPIFFE ID is `spiffe://<trust domain>/ns/<namespace>/sa/<name>`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct ServiceAccount {
    /// Its namespace.
    pub namespace: String,
    /// Its name.
    pub name: String,
    /// Its trust domain; may be left out while bundles vouch for one domain only.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub trust_domain: Option<String>,
}

/// Nothing more to say: everyone.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct Anyone {}

/// What happens to a caller that `allow` does not name.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub enum Mode {
    /// Refused.
    #[default]
    Enforce,
    /// Passes; the row says `would_refuse` and why.
    Audit,
}

/// Where requests go: exactly one of `address`, `endpoints`, and `host` with `port`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Backend {
    /// One address and port.
    #[serde(default, deserialize_with = "some_address", skip_serializing_if = "Option::is_none")]
    pub address: Option<SocketAddr>,
    /// Name of a set in part `endpoints`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub endpoints: Option<String>,
    /// A name that DNS has addresses for; all of them are used. Since 1.3.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub host: Option<String>,
    /// The port at each of them; with `host`. Since 1.3.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub port: Option<u16>,
    /// Its share of the rule's requests, in proportion to the other backends; 0 to 1000000, and 0 gets none. Since 1.2.
    #[serde(default = "default_weight", skip_serializing_if = "is_default_weight")]
    pub weight: u32,
    /// What is spoken with its addresses. Since 1.3.
    #[serde(default, skip_serializing_if = "is_default")]
    pub protocol: BackendProtocol,
    /// TLS to its addresses; absent means none. Since 1.3.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tls: Option<BackendTls>,
}

/// Proxies in front of the gate.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Forwarding {
    /// How many there are, one behind the other; 0 to 16. What they say in `x-forwarded-for`, `x-forwarded-proto`,
    /// `x-forwarded-host` and `x-request-id` is believed.
    #[serde(default)]
    pub trusted_hops: u8,
}

impl Forwarding {
    // Serde gives a reference. Left out, it leaves revisions of policies as they were before 1.2.
    fn is_default(&self) -> bool {
        *self == Self::default()
    }
}

/// Bounds on what clients may take.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Limits {
    /// Client connections open at once, over all listeners; 1 to 1000000. Absent: as many as fit the memory limit of the
    /// process, at most 10000. Lower where the file limit says so.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_connections: Option<u32>,
    /// Bytes of one request's body.
    #[serde(default = "default_max_request_body_size")]
    pub max_request_body_size: Size,
    /// Requests at once whose response's head has not come; 1 to 1000000. Absent: as many as `maxStreams` unasked, at most
    /// 1024. Since 1.2.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_pending_requests: Option<u32>,
    /// How long nothing is accepted or refused at that limit; up to a minute. Since 1.2.
    #[serde(default = "default_pending_timeout", skip_serializing_if = "is_default_pending_timeout")]
    pub pending_timeout: Duration,
    /// Requests and connections that are passed on at once, to their last byte; 1 to 1000000. Absent: as many as fit the
    /// memory limit of the process, at most 10000. Since 1.2.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_streams: Option<u32>,
    /// Requests at once that ask for an upgrade, or have become a tunnel; 1 to 1000000. Absent: as many as `maxStreams`
    /// unasked. Since 1.3.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_tunnels: Option<u32>,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            max_connections: None,
            max_request_body_size: default_max_request_body_size(),
            max_pending_requests: None,
            pending_timeout: default_pending_timeout(),
            max_streams: None,
            max_tunnels: None,
        }
    }
}

/// Bodies are streamed, so this bounds abuse and not memory.
fn default_max_request_body_size() -> Size {
    Size::from_bytes(1 << 30)
}

/// Longer than a burst or a pause for garbage, shorter than a caller's patience.
fn default_pending_timeout() -> Duration {
    Duration::from_millis(1000)
}

/// A revision must not change because a version has one more field.
fn is_default_pending_timeout(timeout: &Duration) -> bool {
    *timeout == default_pending_timeout()
}
