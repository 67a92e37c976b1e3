//! A traced request as OTLP has it, in the words of the stable semantic conventions for HTTP. Pure.

use std::net::SocketAddr;
use std::time::{SystemTime, UNIX_EPOCH};

use http::Method;
use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use opentelemetry_proto::tonic::common::v1::any_value::Value;
use opentelemetry_proto::tonic::common::v1::{AnyValue, InstrumentationScope, KeyValue};
use opentelemetry_proto::tonic::resource::v1::Resource;
use opentelemetry_proto::tonic::trace::v1::span::SpanKind;
use opentelemetry_proto::tonic::trace::v1::status::StatusCode;
use opentelemetry_proto::tonic::trace::v1::{ResourceSpans, ScopeSpans, Span, Status};
use prost::Message;
use sidecar_config::settings::{Pod, Tracing};
use sidecar_decide::reason::Side;

use super::Ended;
use crate::log::{Client, Record};

/// Methods by which spans are named (RFC 9110, RFC 5789); a client can invent any others.
const METHODS: [&str; 9] = ["CONNECT", "DELETE", "GET", "HEAD", "OPTIONS", "PATCH", "POST", "PUT", "TRACE"];

/// Flags of a span that say whether its parent was another process's (trace.proto, `SpanFlags`).
const KNOWS_REMOTE: u32 = 0x100;
const IS_REMOTE: u32 = 0x200;

/// Who sends: the same in every request.
pub(super) fn resource(tracing: &Tracing, pod: &Pod) -> Resource {
    let name = tracing.service_name.as_deref().filter(|name| !name.is_empty());
    let workload = Some(pod.workload.as_str()).filter(|workload| !workload.is_empty());
    let mut attributes = vec![
        text("service.name", name.or(workload).unwrap_or("postern")),
        text("service.version", env!("CARGO_PKG_VERSION")),
    ];
    let pod = [
        ("k8s.pod.name", &pod.name),
        ("k8s.pod.uid", &pod.uid),
        ("k8s.namespace.name", &pod.namespace),
        ("service.instance.id", &pod.uid),
    ];
    attributes.extend(pod.into_iter().filter(|(_, value)| !value.is_empty()).map(|(key, value)| text(key, value)));
    Resource { attributes, ..Resource::default() }
}

/// A batch in bytes.
pub(super) fn encode(resource: &Resource, batch: &[Ended]) -> Vec<u8> {
    let spans = batch.iter().flat_map(of).flatten();
    let scope = InstrumentationScope {
        name: "postern-sidecar".to_owned(),
        version: env!("CARGO_PKG_VERSION").to_owned(),
        ..InstrumentationScope::default()
    };
    let scope_spans = ScopeSpans { scope: Some(scope), spans: spans.collect(), ..ScopeSpans::default() };
    let resource_spans =
        ResourceSpans { resource: Some(resource.clone()), scope_spans: vec![scope_spans], ..ResourceSpans::default() };
    ExportTraceServiceRequest { resource_spans: vec![resource_spans] }.encode_to_vec()
}

/// The gate's span, and the application's where it was asked.
pub(super) fn of(ended: &Ended) -> [Option<Span>; 2] {
    [Some(server(ended)), client(ended)]
}

/// The gate's span.
fn server(ended: &Ended) -> Span {
    let Ended { trace, record } = ended;
    let mut attributes = Attributes::of(record);
    let version = record.protocol.and_then(|protocol| protocol.strip_prefix("HTTP/"));
    attributes.text("network.protocol.version", version);
    attributes.text("url.path", record.path.as_deref());
    attributes.text("url.scheme", Some(if trace.is_tls { "https" } else { "http" }));
    let host = record.host.as_deref().map(split_port);
    attributes.text("server.address", host.map(|(name, _)| name));
    attributes.number("server.port", host.and_then(|(_, port)| port));
    attributes.text("http.route", trace.path_pattern.as_deref());
    attributes.number("http.response.status_code", record.status.map(i64::from));
    if let Some(Client::Address(address)) = record.client_addr {
        attributes.peer("client.address", "client.port", address);
    }
    let scope = record.scope.as_deref();
    attributes.text("postern.route", scope.and_then(|scope| scope.route.as_deref()));
    attributes.text("postern.rule", scope.and_then(|scope| scope.rule.as_deref()));
    attributes.text("postern.verdict", Some(record.verdict.name()));
    attributes.text("postern.reason", record.reason.map(|reason| reason.code()));
    attributes.text("postern.identity", record.peer.as_deref().and_then(|peer| peer.identity.as_deref()));
    let request_id = record.request_id.as_ref().map(ToString::to_string);
    attributes.text("postern.request_id", request_id.as_deref());
    // What a client did wrong is no error of whoever serves it.
    let is_error = record.status.is_none_or(|status| status >= 500) || is_broken(record);
    let status = attributes.fail(is_error, record);
    let method = attributes.method;
    let name = match &trace.path_pattern {
        Some(pattern) => format!("{method} {pattern}"),
        None => method.to_owned(),
    };
    let start = start(record);
    Span {
        trace_id: trace.trace_id.to_vec(),
        span_id: trace.server.to_vec(),
        parent_span_id: trace.parent.map(|parent| parent.to_vec()).unwrap_or_default(),
        name,
        kind: SpanKind::Server.into(),
        start_time_unix_nano: start,
        end_time_unix_nano: end(record),
        attributes: attributes.list,
        status,
        flags: u32::from(trace.flags) | KNOWS_REMOTE | if trace.parent.is_some() { IS_REMOTE } else { 0 },
        ..Span::default()
    }
}

/// The application's part, from the first try to the end of its response; none where it was not asked.
fn client(ended: &Ended) -> Option<Span> {
    let Ended { trace, record } = ended;
    let (asked, path) = trace.asked.as_ref()?;
    let mut attributes = Attributes::of(record);
    if let Some(upstream) = record.upstream {
        let scheme = if trace.asks_by_tls { "https" } else { "http" };
        attributes.text("url.full", Some(&format!("{scheme}://{upstream}{path}")));
        attributes.peer("server.address", "server.port", upstream);
    }
    let resent = i64::from(record.attempts.saturating_sub(1));
    attributes.number("http.request.resend_count", (resent > 0).then_some(resent));
    // Where the application answered, the status is its own.
    let status = record.status.filter(|_| record.upstream_us.is_some());
    attributes.number("http.response.status_code", status.map(i64::from));
    let is_error = status.is_none_or(|status| status >= 400) || is_broken(record);
    let status = attributes.fail(is_error, record);
    let start = start(record).saturating_add(*asked);
    Some(Span {
        trace_id: trace.trace_id.to_vec(),
        span_id: trace.client.to_vec(),
        parent_span_id: trace.server.to_vec(),
        name: attributes.method.to_owned(),
        kind: SpanKind::Client.into(),
        start_time_unix_nano: start,
        end_time_unix_nano: end(record).max(start),
        attributes: attributes.list,
        status,
        flags: u32::from(trace.flags) | KNOWS_REMOTE,
        ..Span::default()
    })
}

/// Whether the application's answer did not come to its end, whatever it began with.
fn is_broken(record: &Record) -> bool {
    record.reason.is_some_and(|reason| reason.facts().side == Side::Upstream)
}

/// What is known of a span, in the making.
struct Attributes {
    list: Vec<KeyValue>,
    /// By which it is named.
    method: &'static str,
}

impl Attributes {
    /// What both spans of a request say.
    fn of(record: &Record) -> Self {
        let known = record.method.as_ref().and_then(known_method);
        let mut attributes = Self { list: Vec::with_capacity(20), method: known.unwrap_or("HTTP") };
        attributes.text("http.request.method", Some(known.unwrap_or("_OTHER")));
        if known.is_none() {
            attributes.text("http.request.method_original", record.method.as_ref().map(Method::as_str));
        }
        attributes
    }

    fn text(&mut self, key: &str, value: Option<&str>) {
        self.list.extend(value.map(|value| text(key, value)));
    }

    fn number(&mut self, key: &str, value: Option<i64>) {
        let number = |value| KeyValue {
            key: key.to_owned(),
            value: Some(AnyValue { value: Some(Value::IntValue(value)) }),
            ..KeyValue::default()
        };
        self.list.extend(value.map(number));
    }

    /// The other end of a connection: as the conventions name it for the side that it is on, and for the network.
    fn peer(&mut self, address_key: &str, port_key: &str, address: SocketAddr) {
        let (ip, port) = (address.ip().to_canonical().to_string(), i64::from(address.port()));
        self.text(address_key, Some(&ip));
        self.number(port_key, Some(port));
        self.text("network.peer.address", Some(&ip));
        self.number("network.peer.port", Some(port));
    }

    /// What went wrong, if it did: the gate's reason, or the status.
    fn fail(&mut self, is_error: bool, record: &Record) -> Option<Status> {
        if !is_error {
            return None;
        }
        let status = record.status.map(|status| status.to_string());
        let reason = record.reason.map(|reason| reason.code());
        self.text("error.type", reason.or(status.as_deref()).or(Some("_OTHER")));
        Some(Status { code: StatusCode::Error.into(), ..Status::default() })
    }
}

fn text(key: &str, value: &str) -> KeyValue {
    KeyValue {
        key: key.to_owned(),
        value: Some(AnyValue { value: Some(Value::StringValue(value.to_owned())) }),
        ..KeyValue::default()
    }
}

fn known_method(method: &Method) -> Option<&'static str> {
    METHODS.into_iter().find(|known| *known == method.as_str())
}

/// A host without its brackets, and its port.
fn split_port(host: &str) -> (&str, Option<i64>) {
    let (name, port) = sidecar_decide::route::split_port(host);
    let literal = name.strip_prefix('[').and_then(|name| name.strip_suffix(']'));
    (literal.unwrap_or(name), port.parse::<u16>().ok().map(i64::from))
}

fn start(record: &Record) -> u64 {
    nanoseconds(record.time)
}

fn end(record: &Record) -> u64 {
    nanoseconds(record.time).saturating_add(record.duration_us.saturating_mul(1000))
}

fn nanoseconds(time: SystemTime) -> u64 {
    let since = time.duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_nanos()).unwrap_or(u64::MAX)
}
