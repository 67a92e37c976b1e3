//! What is logged.

use std::io;
use std::sync::Arc;

use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;
use tracing_subscriber::{Layer, fmt, registry};

use crate::metrics::{Metrics, StepTimes};
use crate::settings::LogLevel;

/// From now on what is logged is written to standard error, and steps are measured.
pub fn start(level: LogLevel, metrics: Option<&Arc<Metrics>>) {
    let log = fmt::layer().json().with_writer(io::stderr).with_filter(level.0);
    registry().with(log).with(metrics.map(|metrics| StepTimes(Arc::clone(metrics)))).init();
}
