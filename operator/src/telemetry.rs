//! What is logged.

use std::io;
use std::sync::Arc;

use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;
use tracing_subscriber::{Layer, fmt, registry};

use crate::metrics::{Metrics, StepTimes};
use crate::settings::{Log, LogFormat};

/// From now on what is logged is written to standard error, and steps are measured.
pub fn start(log: Log, metrics: Option<&Arc<Metrics>>) {
    let lines = fmt::layer().with_writer(io::stderr);
    let lines = match log.format {
        // The words of the sidecar's lines; `spans` says besides which turn and step a line is of, the outermost first.
        LogFormat::Json => lines.json().flatten_event(true).with_current_span(false).boxed(),
        LogFormat::Text => lines.with_ansi(false).boxed(),
    };
    registry().with(lines.with_filter(log.level.0)).with(metrics.map(|metrics| StepTimes(Arc::clone(metrics)))).init();
}
