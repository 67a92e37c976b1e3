//! What the webhook counts and measures, and the page that Prometheus reads.

use std::fmt;
use std::time::Duration;

use postern_telemetry::page::Page;
use postern_telemetry::process;
use prometheus::{Histogram, HistogramOpts, IntCounter, IntCounterVec, Registry, TextEncoder};

use crate::metrics::{Made, Maker};

/// Where steps of a review's duration end, in seconds: from a pod that asks for nothing to the API server's patience.
const SECONDS: [f64; 8] = [0.001, 0.0025, 0.005, 0.01, 0.025, 0.1, 1.0, 10.0];
/// Results of reviews: what became of a pod, and why there was no answer.
const RESULTS: [&str; 8] =
    ["injected", "untouched", "refused", "unreadable", "too_large", "broken_off", "timeout", "not_found"];

/// Everything that is counted.
pub struct Metrics {
    registry: Registry,
    reviews: IntCounterVec,
    seconds: Histogram,
    failed_handshakes: IntCounter,
}

impl fmt::Debug for Metrics {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Metrics").finish_non_exhaustive()
    }
}

impl Metrics {
    /// Everything at nought.
    ///
    /// # Errors
    /// When two families have one name, which a test would have found.
    pub fn new() -> Made<Self> {
        let make = Maker::default();
        let reviews = make.counters(
            "postern_injector_reviews_total",
            "Reviews that have ended, by what became of the pod, or by why there was no answer.",
            &["result"],
        )?;
        // From the start at nought: a first failure is a change then.
        for result in RESULTS {
            reviews.with_label_values(&[result]);
        }
        let help = "Duration of a review, from its first byte to its answer.";
        let seconds = HistogramOpts::new("postern_injector_review_duration_seconds", help);
        Ok(Self {
            reviews,
            seconds: make.enter(Histogram::with_opts(seconds.buckets(SECONDS.to_vec())))?,
            failed_handshakes: make.enter(IntCounter::new(
                "postern_injector_handshakes_failed_total",
                "TLS handshakes that failed or did not end in time.",
            ))?,
            registry: make.into_registry(),
        })
    }

    /// A review has ended.
    pub(super) fn review(&self, result: &str, took: Duration) {
        self.reviews.with_label_values(&[result]).inc();
        self.seconds.observe(took.as_secs_f64());
    }

    /// A handshake has failed.
    pub(super) fn handshake_failed(&self) {
        self.failed_handshakes.inc();
    }

    /// The page, of this moment. `not_after` is when the certificate in use ends, if there is one.
    ///
    /// # Errors
    /// When a family cannot be written.
    pub(super) fn page(&self, not_after: Option<i64>) -> Made<String> {
        let mut page = Page::from(TextEncoder::new().encode_to_string(&self.registry.gather())?);
        if let Some(not_after) = not_after {
            let help = "When the webhook's own certificate ends, seconds since the epoch.";
            page.gauge("postern_injector_certificate_not_after_timestamp_seconds", help, not_after);
        }
        process::write(&mut page);
        Ok(page.into_text())
    }
}
