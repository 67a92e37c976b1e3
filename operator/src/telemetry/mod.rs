//! What the process tells of itself: lines, measured steps, and traces.

pub mod traces;

use std::io;
use std::sync::Arc;

use opentelemetry_sdk::trace::SdkTracer;
use postern_telemetry::Exporter;
use tracing::level_filters::LevelFilter;
use tracing::{Metadata, Subscriber};
use tracing_subscriber::filter::filter_fn;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::registry::LookupSpan;
use tracing_subscriber::util::SubscriberInitExt;
use tracing_subscriber::{Layer, fmt, registry};

use crate::metrics::{Metrics, StepTimes};
use crate::settings::{Log, LogFormat, Settings};

/// The webhook: from now on what is logged is written to standard error.
pub fn start(log: Log) {
    registry().with(lines(log)).init();
}

/// The operator: the same, and steps are measured, turns traced. Gives what sends the traces, if any are to be sent, and
/// what counts them.
///
/// # Errors
/// When traces cannot be sent at all.
pub fn start_with(settings: &Settings, metrics: &Arc<Metrics>) -> io::Result<Option<Exporter>> {
    let stats = metrics.traces().map(Arc::clone);
    let traces = settings
        .tracing
        .as_ref()
        .zip(stats)
        .map(|(tracing, stats)| traces::start(tracing, &settings.operator_namespace, stats));
    let (tracer, exporter) = traces.transpose()?.unzip();
    registry().with(lines(settings.log)).with(StepTimes(Arc::clone(metrics))).with(tracer.map(layer)).init();
    Ok(exporter)
}

fn lines<S: Subscriber + for<'a> LookupSpan<'a>>(log: Log) -> impl Layer<S> {
    let lines = fmt::layer().with_writer(io::stderr);
    let lines = match log.format {
        // The words of the sidecar's lines; `spans` says besides which turn and step a line is of, the outermost first.
        LogFormat::Json => lines.json().flatten_event(true).with_current_span(false).boxed(),
        LogFormat::Text => lines.with_ansi(false).boxed(),
    };
    lines.with_filter(log.level.0)
}

/// Makes spans of our own spans; what libraries trace is theirs. Lines are in them down to `Info`, whatever is logged.
fn layer<S: Subscriber + for<'a> LookupSpan<'a>>(tracer: SdkTracer) -> impl Layer<S> {
    let is_told = |metadata: &Metadata<'_>| {
        metadata.target().starts_with("postern_operator") && *metadata.level() <= LevelFilter::INFO
    };
    tracing_opentelemetry::layer()
        .with_tracer(tracer)
        .with_location(false)
        .with_threads(false)
        .with_target(false)
        .with_tracked_inactivity(false)
        .with_context_activation(false)
        .with_filter(filter_fn(is_told))
}
