//! `ProxyRoute`: where a workload's gate listens, who may send which requests, and where they go.

mod backend;
mod capture;
mod filter;
mod health;
mod listener;
mod rule;
mod status;
#[cfg(test)]
mod tests;

use kube::{CustomResource, KubeSchema};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::words::{self, Labels};
use crate::{Duration, Size};

pub use backend::{BackendPolicy, BackendProtocol, BackendRef, BackendTarget, BackendTls, BackendTlsMode};
pub use backend::{LoadBalancer, LoadBalancerType, PoolPolicy};
pub use capture::{Capture, Captured, CapturedAs, CapturedBodies};
pub use filter::{
    ClientCertField, Filter, ForwardIdentity, Header, HeaderModifier, IdentityFact, IdentityHeader, PathModifier,
    PathModifierType, RequestRedirect, Scheme, UrlRewrite,
};
pub use health::{GrpcCheck, HealthCheck, HttpCheck, OutlierDetection, TcpCheck};
pub use listener::{Address, CertificateKind, CertificateRef, ClientAuth, Listener, ListenerTls};
pub use listener::{Protocol, TlsVersion, UnknownServerName};
pub use rule::{
    Allow, AllowedIdentity, AllowedServiceAccount, Anyone, Caller, Match, Mode, PathMatch, PathMatchType, RouteRule,
    Selector, Timeouts, ValueMatch, ValueMatchType, Verified,
};
pub use status::{ProxyRouteStatus, Totals, WORKLOADS_MAX, WorkloadStatus};

/// What some callers may ask of a workload, through the gates in front of its pods.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, CustomResource, KubeSchema)]
#[serde(rename_all = "camelCase")]
#[kube(
    group = "postern.dev",
    version = "v1alpha1",
    kind = "ProxyRoute",
    plural = "proxyroutes",
    shortname = "pxr",
    category = "postern",
    namespaced,
    status = "ProxyRouteStatus",
    derive = "PartialEq",
    doc = "Who may send which requests to a workload, and where they go: everything else is refused by the gate in front of each of its pods.",
    selectable = ".spec.listener.port",
    selectable = ".spec.listener.protocol",
    printcolumn(
        name = "Port",
        type_ = "integer",
        json_path = ".spec.listener.port",
        description = "Port of the listener"
    ),
    printcolumn(
        name = "Workloads",
        type_ = "integer",
        json_path = ".status.totals.workloads",
        description = "Workloads that the route selects"
    ),
    printcolumn(
        name = "Programmed",
        type_ = "string",
        json_path = r#".status.conditions[?(@.type=="Programmed")].status"#,
        description = "Whether all sidecars have loaded it"
    ),
    printcolumn(
        name = "Enclosed",
        type_ = "string",
        json_path = r#".status.conditions[?(@.type=="Enclosed")].status"#,
        description = "Whether there is no way around the gate"
    ),
    printcolumn(
        name = "Reason",
        type_ = "string",
        json_path = r#".status.conditions[?(@.type=="Ready")].reason"#,
        description = "Why it is ready or not"
    ),
    printcolumn(name = "Age", type_ = "date", json_path = ".metadata.creationTimestamp")
)]
#[x_kube(validation = (
    "!has(self.listener.protocol) || self.listener.protocol != 'HTTP' || self.rules.all(r, r.allow.all(a, has(a.anyone)))",
    "spec.rules[].allow: nobody has a certificate on an HTTP listener; write `allow: [{anyone: {}}]` in every rule, or listener.protocol HTTPS",
))]
#[x_kube(validation = (
    "!has(self.listener.protocol) || self.listener.protocol != 'TLS' || self.rules.all(r, !has(r.matches) && !has(r.filters))",
    "spec.rules[]: on a TLS listener bytes are passed on as they are; leave out matches and filters, or write listener.protocol HTTPS",
))]
#[x_kube(validation = (
    "!has(self.listener.protocol) || self.listener.protocol != 'TLS' || size(self.rules) == 1",
    "spec.rules: on a TLS listener the first rule gets everything; keep one rule, and tell routes apart by spec.hostnames",
))]
#[x_kube(validation = (
    "!has(self.listener.protocol) || self.listener.protocol != 'TLS' || self.rules.all(r, !has(r.backendRefs) || r.backendRefs.all(b, !has(b.tls) && b.protocol == 'HTTP'))",
    "spec.rules[].backendRefs[]: on a TLS listener bytes are passed on as they are; leave out tls and protocol, or write listener.protocol HTTPS",
))]
#[x_kube(validation = (
    "!has(self.listener.protocol) || self.listener.protocol != 'TLS' || !has(self.capture)",
    "spec.capture: on a TLS listener bytes are passed on as they are; leave it out, or write listener.protocol HTTPS",
))]
#[x_kube(validation = (
    "!has(self.backendPolicy) || !has(self.backendPolicy.healthCheck) || !has(self.backendPolicy.healthCheck.grpc) || self.rules.all(r, !has(r.backendRefs) || r.backendRefs.all(b, b.protocol == 'HTTP2'))",
    "spec.rules[].backendRefs[].protocol: backendPolicy.healthCheck.grpc asks by HTTP/2; write `protocol: HTTP2`",
))]
pub struct ProxyRouteSpec {
    /// The pods in front of which the route is served, by their labels, in this namespace. It cannot be changed: another
    /// choice is another route.
    #[x_kube(validation = ("self == oldSelf", "spec.podSelector cannot be changed; delete the route and create another"))]
    pub pod_selector: Selector,
    /// Where the gate listens.
    pub listener: Listener,
    /// Hosts the route serves, compared without case and port, on a `TLS` listener with the name the client asks for
    /// (SNI); `*.example.com` is every name that ends in `.example.com`. Empty means any host.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(schema_with = "words::hostnames")]
    pub hostnames: Vec<String>,
    /// Its rules. A request that none matches is refused.
    #[schemars(
        length(min = 1, max = 64),
        extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["name"])
    )]
    pub rules: Vec<RouteRule>,
    /// How the backends of its rules are used.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub backend_policy: Option<BackendPolicy>,
    /// Bounds on what clients may take of each pod, over all routes of the workload. Of several routes that say
    /// something, the oldest is heard.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub limits: Option<Limits>,
    /// What is believed of proxies in front of the gate, over all routes of the workload. Of several routes that say
    /// something, the oldest is heard.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub forwarding: Option<Forwarding>,
    /// What rows of the request log tell of its requests beyond what they tell of all.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub capture: Option<Capture>,
    /// Whether the route may be ready although there is a way around the gate.
    #[serde(default)]
    pub allow_bypass: bool,
}

/// Bounds on what clients may take of each pod.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct Limits {
    /// Client connections open at once, over all listeners. Absent: as many as fit the sidecar's memory limit, at most
    /// 10000. Lower where the file limit says so.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 1_000_000))]
    pub max_connections: Option<u32>,
    /// Bytes of one request's body.
    #[serde(default = "default_max_request_body_size")]
    pub max_request_body_size: Size,
    /// Requests at once whose response's head has not come. Absent: as many as `maxStreams` unasked, at most 1024.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 1_000_000))]
    pub max_pending_requests: Option<u32>,
    /// How long nothing is accepted or refused at that limit; up to a minute.
    #[serde(default = "one_second")]
    #[x_kube(validation = ("duration(self) <= duration('1m')", "limits.pendingTimeout: write a time up to 1m"))]
    pub pending_timeout: Duration,
    /// Requests and connections that are passed on at once, to their last byte. Absent: as many as fit the sidecar's memory
    /// limit, at most 10000.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 1_000_000))]
    pub max_streams: Option<u32>,
    /// Requests at once that ask for an upgrade, or have become a tunnel. Absent: as many as `maxStreams` unasked.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 1_000_000))]
    pub max_tunnels: Option<u32>,
}

/// Proxies in front of the gate.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Forwarding {
    /// How many there are, one behind the other. What they say in `x-forwarded-for`, `x-forwarded-proto`,
    /// `x-forwarded-host` and `x-request-id` is believed.
    #[schemars(range(min = 0, max = 16))]
    pub trusted_hops: u8,
}

fn default_max_request_body_size() -> Size {
    "1Gi".into()
}

fn one_second() -> Duration {
    "1s".into()
}

impl Selector {
    /// Whether labels are chosen.
    #[must_use]
    pub fn selects(&self, labels: &Labels) -> bool {
        self.match_labels.iter().all(|(key, value)| labels.get(key) == Some(value))
    }
}
