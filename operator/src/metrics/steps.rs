//! How long steps take: a step is a span of tracing, and a span that closes is measured by its name.

use std::sync::Arc;
use std::time::Instant;

use tracing::span::{Attributes, Id};
use tracing::{Metadata, Subscriber};
use tracing_subscriber::layer::{Context, Layer};
use tracing_subscriber::registry::LookupSpan;

use super::Metrics;

/// Names of the spans that are steps.
pub const STEPS: [&str; 8] = ["observe", "validate", "plan", "apply", "touch", "ask", "promote", "report"];

/// Measures steps.
pub struct StepTimes(pub Arc<Metrics>);

/// When a span began.
struct Began(Instant);

/// Whether a span is a step of ours.
fn is_step(metadata: &Metadata<'_>) -> bool {
    metadata.is_span() && metadata.target().starts_with("postern_operator") && STEPS.contains(&metadata.name())
}

impl<S: Subscriber + for<'a> LookupSpan<'a>> Layer<S> for StepTimes {
    fn on_new_span(&self, attributes: &Attributes<'_>, id: &Id, context: Context<'_, S>) {
        if is_step(attributes.metadata())
            && let Some(span) = context.span(id)
        {
            span.extensions_mut().insert(Began(Instant::now()));
        }
    }

    fn on_close(&self, id: Id, context: Context<'_, S>) {
        if let Some(span) = context.span(&id)
            && let Some(Began(at)) = span.extensions().get::<Began>()
        {
            self.0.step(span.name(), at.elapsed());
        }
    }
}

#[cfg(test)]
mod tests {
    use tracing::error_span;
    use tracing_subscriber::layer::SubscriberExt;

    use super::{STEPS, StepTimes};
    use crate::metrics::alone;

    #[test]
    fn a_span_that_is_a_step_is_measured_and_no_other() {
        let metrics = alone();
        let subscriber = tracing_subscriber::registry().with(StepTimes(metrics.clone()));
        tracing::subscriber::with_default(subscriber, || {
            error_span!("plan").in_scope(|| ());
            error_span!("plan").in_scope(|| ());
            error_span!("turn").in_scope(|| ());
        });
        let counts = STEPS.map(|step| metrics.step_seconds.with_label_values(&[step]).get_sample_count());
        assert_eq!(counts, [0, 0, 2, 0, 0, 0, 0, 0]);
    }
}
