//! Traces of turns: a span for each turn and each of its steps. The SDK makes them of spans of tracing; they are sent by
//! the same thread as the sidecar's, from a bounded queue that nobody waits for.

use std::fmt;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use http::{HeaderMap, Request, StatusCode, Uri};
use http_body_util::Full;
use hyper::body::Bytes;
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use opentelemetry::KeyValue;
use opentelemetry::trace::{SpanId, Status, TracerProvider};
use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use opentelemetry_proto::transform::common::tonic::ResourceAttributesWithSchema;
use opentelemetry_proto::transform::trace::tonic::group_spans_by_resource_and_scope;
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::error::OTelSdkResult;
use opentelemetry_sdk::trace::{Sampler, SdkTracer, SdkTracerProvider, Span, SpanData, SpanLimits, SpanProcessor};
use postern_telemetry::{Exporter, Outlet, SpanStats, Spans};
use prost::Message;
use rustix::system::uname;
use sidecar_config::settings::Tracing;
use tokio::net::TcpStream;

/// Who makes the spans, and what the program is called in traces unless it is told otherwise.
const NAME: &str = "postern-operator";
/// Attributes of a turn by the names of its span's fields, which are those of log lines.
const ATTRIBUTES: [(&str, &str); 3] =
    [("namespace", "postern.namespace"), ("object", "postern.name"), (RESULT, "postern.result")];
/// What a turn is about, in the words of metrics: the name of its span.
const KIND: &str = "postern.kind";
/// Field of how a turn has ended.
pub const RESULT: &str = "result";
/// Results that are errors.
const FAILED: [&str; 2] = ["failed", "timeout"];

/// How spans are told.
struct Turns {
    resource: ResourceAttributesWithSchema,
}

/// Starts the thread for a collector, and what makes spans for it. `namespace` is the operator's own.
///
/// # Errors
/// When there can be no thread, or the collector has no address.
pub fn start(tracing: &Tracing, namespace: &str, stats: Arc<SpanStats>) -> io::Result<(SdkTracer, Exporter)> {
    let resource = resource(tracing, namespace);
    let turns = Turns { resource: (&resource).into() };
    let (spans, exporter) = postern_telemetry::start(&tracing.endpoint, turns, stats)?;
    let ratio = f64::from(tracing.sampling_ratio.millionths()) / 1e6;
    // What would be read from the environment is said here: settings are read in one place.
    let provider = SdkTracerProvider::builder()
        .with_sampler(Sampler::ParentBased(Box::new(Sampler::TraceIdRatioBased(ratio))))
        .with_span_limits(SpanLimits::default())
        .with_resource(resource)
        .with_span_processor(Queued(spans))
        .build();
    Ok((provider.tracer(NAME), exporter))
}

/// Who sends.
fn resource(tracing: &Tracing, namespace: &str) -> Resource {
    let host = uname().nodename().to_string_lossy().into_owned();
    let name = tracing.service_name.clone().unwrap_or_else(|| NAME.to_owned());
    let attributes = [
        ("service.name", name),
        ("service.version", env!("CARGO_PKG_VERSION").to_owned()),
        ("service.instance.id", host),
        ("k8s.namespace.name", namespace.to_owned()),
    ];
    Resource::builder_empty().with_attributes(attributes.map(|(key, value)| KeyValue::new(key, value))).build()
}

/// Puts spans that have ended into the queue.
struct Queued(Spans<Turns>);

impl fmt::Debug for Queued {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Queued")
    }
}

impl SpanProcessor for Queued {
    fn on_start(&self, _: &mut Span, _: &opentelemetry::Context) {}

    fn on_end(&self, span: SpanData) {
        self.0.send(span);
    }

    // The exporter is stopped by whoever has started it.
    fn force_flush(&self) -> OTelSdkResult {
        Ok(())
    }

    fn shutdown_with_timeout(&self, _: Duration) -> OTelSdkResult {
        Ok(())
    }
}

impl Outlet for Turns {
    type Ended = SpanData;

    fn spans(_: &SpanData) -> u64 {
        1
    }

    fn encode(&self, batch: &[SpanData]) -> Vec<u8> {
        let spans = batch.iter().cloned().map(told).collect();
        let resource_spans = group_spans_by_resource_and_scope(spans, &self.resource);
        ExportTraceServiceRequest { resource_spans }.encode_to_vec()
    }

    async fn post(
        stream: TcpStream,
        target: Uri,
        headers: HeaderMap,
        body: Bytes,
    ) -> Result<(StatusCode, HeaderMap), String> {
        post(stream, target, headers, body).await.map_err(|error| error.to_string())
    }
}

async fn post(
    stream: TcpStream,
    target: Uri,
    headers: HeaderMap,
    body: Bytes,
) -> Result<(StatusCode, HeaderMap), hyper::Error> {
    let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await?;
    let mut request = Request::post(target).body(Full::new(body)).unwrap_or_default();
    *request.headers_mut() = headers;
    let answer = sender.send_request(request);
    tokio::pin!(answer);
    let answer = tokio::select! {
        answer = answer.as_mut() => answer,
        // It may have brought the answer with its last bytes.
        _ended = connection => answer.await,
    }?;
    let (head, _) = answer.into_parts();
    Ok((head.status, head.headers))
}

/// A span in the words of traces.
fn told(mut span: SpanData) -> SpanData {
    for attribute in &mut span.attributes {
        if let Some((_, key)) = ATTRIBUTES.iter().find(|(field, _)| *field == attribute.key.as_str()) {
            attribute.key = (*key).into();
        }
        if attribute.key.as_str() == "postern.result" && FAILED.contains(&&*attribute.value.as_str()) {
            span.status = Status::error(attribute.value.as_str().into_owned());
        }
    }
    if span.parent_span_id == SpanId::INVALID {
        span.attributes.push(KeyValue::new(KIND, span.name.to_string()));
    }
    span
}

#[cfg(test)]
mod tests {
    use opentelemetry::trace::{Status, TraceContextExt, TracerProvider};
    use tracing::error_span;
    use tracing::field::Empty;
    use tracing_subscriber::layer::SubscriberExt;

    use super::*;

    fn all() -> Tracing {
        Tracing {
            endpoint: "http://127.9.9.9:9".to_owned(),
            sampling_ratio: sidecar_config::Ratio::from_millionths(1_000_000),
            service_name: None,
        }
    }

    /// Spans that have ended while something ran, as they are told.
    fn ended(of: impl FnOnce()) -> Vec<SpanData> {
        let (spans, mut queue) = postern_telemetry::queue(Arc::default());
        let provider = SdkTracerProvider::builder().with_span_processor(Queued(spans)).build();
        let subscriber = tracing_subscriber::registry().with(super::super::layer(provider.tracer(NAME)));
        tracing::subscriber::with_default(subscriber, of);
        std::iter::from_fn(|| queue.try_recv().ok()).map(told).collect()
    }

    fn attributes(span: &SpanData) -> Vec<String> {
        let mut all: Vec<_> = span.attributes.iter().map(|one| format!("{}={}", one.key, one.value)).collect();
        all.sort_unstable();
        all
    }

    #[test]
    fn a_turn_says_what_it_was_about_and_how_it_ended() {
        for (result, status) in [
            ("done", Status::Unset),
            ("again", Status::Unset),
            ("failed", Status::error("failed")),
            ("timeout", Status::error("timeout")),
        ] {
            let spans = ended(|| {
                let turn = error_span!("workload", namespace = "shop", object = %"orders", result = Empty);
                turn.in_scope(|| error_span!("plan").in_scope(|| tracing::warn!(why = "x", "a turn failed")));
                turn.record(RESULT, result);
            });
            let [plan, turn] = &spans[..] else { panic!("{spans:?}") };
            let expected = ["postern.kind=workload", "postern.name=orders", "postern.namespace=shop"];
            assert_eq!(attributes(turn), [&expected[..], &[&*format!("postern.result={result}")]].concat());
            assert_eq!(turn.status, status);
            assert_eq!((plan.parent_span_id, attributes(plan)), (turn.span_context.span_id(), Vec::new()));
            assert_eq!((plan.events.len(), &*plan.events[0].name), (1, "a turn failed"));
        }
    }

    #[test]
    fn what_libraries_trace_and_what_is_for_debugging_is_in_no_span() {
        let spans = ended(|| {
            error_span!(target: "kube_client", "request").in_scope(|| ());
            error_span!("route").in_scope(|| tracing::debug!("a detail"));
        });
        assert_eq!(spans.iter().map(|span| (&*span.name, span.events.len())).collect::<Vec<_>>(), [("route", 0)]);
    }

    #[test]
    fn a_full_queue_counts_spans_and_never_blocks() {
        let stats = Arc::new(SpanStats::default());
        let (spans, queue) = postern_telemetry::queue(Arc::clone(&stats));
        let provider = SdkTracerProvider::builder().with_span_processor(Queued(spans)).build();
        let tracer = provider.tracer(NAME);
        for _ in 0..postern_telemetry::limits::QUEUE + 3 {
            let _ended =
                opentelemetry::Context::current_with_span(opentelemetry::trace::Tracer::start(&tracer, "turn"));
        }
        assert_eq!(stats.dropped(postern_telemetry::SpanDrop::QueueFull), 3);
        drop(queue);
    }

    #[test]
    fn a_ratio_is_of_turns_and_a_step_goes_with_its_turn() {
        let mut tracing = all();
        tracing.sampling_ratio = sidecar_config::Ratio::from_millionths(0);
        for (millionths, expected) in [(0, false), (1_000_000, true)] {
            tracing.sampling_ratio = sidecar_config::Ratio::from_millionths(millionths);
            let (tracer, exporter) = start(&tracing, "postern", Arc::default()).expect("a thread");
            let turn = opentelemetry::trace::Tracer::start(&tracer, "turn");
            let context = opentelemetry::Context::new().with_span(turn);
            let step = opentelemetry::trace::Tracer::start_with_context(&tracer, "step", &context);
            let is_sampled = opentelemetry::trace::Span::span_context(&step).is_sampled();
            assert_eq!((context.span().span_context().is_sampled(), is_sampled), (expected, expected));
            drop((step, context));
            exporter.stop();
        }
    }
}
