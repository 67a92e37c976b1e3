//! What the operator counts and measures, and the page that Prometheus reads.

mod certificates;
mod steps;

use std::collections::HashMap;
use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use postern_telemetry::page::Page;
use postern_telemetry::{SpanStats, process};
use prometheus::{
    Histogram, HistogramOpts, HistogramVec, IntCounter, IntCounterVec, IntGauge, IntGaugeVec, Opts, Registry,
    TextEncoder,
};
use tokio::time::Instant;

pub use self::steps::{STEPS, StepTimes};
use crate::index::{Index, ObjectName};
use crate::limits::CHANGES_KNOWN;
use crate::queue::{Key, Queue};

/// Where steps end, in seconds: from a look at maps in memory to the longest that a turn may take.
const SECONDS: [f64; 13] = [0.0005, 0.002, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 10.0, 30.0];
/// The same from a change to its being loaded: a second is aimed at, and a rollout takes minutes.
const PROGRAMMED_SECONDS: [f64; 11] = [0.1, 0.25, 0.5, 1.0, 2.0, 3.0, 5.0, 10.0, 30.0, 60.0, 300.0];

/// What kind of page it is (Prometheus' text format).
pub(crate) const PAGE: &str = "text/plain; version=0.0.4; charset=utf-8";

/// Everything that is counted. One of a process.
pub struct Metrics {
    registry: Registry,
    turns: IntCounterVec,
    turn_seconds: HistogramVec,
    step_seconds: HistogramVec,
    queue_wait: HistogramVec,
    queue_depth: IntGaugeVec,
    requests: IntCounterVec,
    requests_at_once: IntGaugeVec,
    touches: IntCounter,
    events: IntCounterVec,
    programmed: Histogram,
    /// The newest generation of each route, and since when it is waited for.
    changes: Mutex<HashMap<ObjectName, (i64, Option<Instant>)>>,
    certificates: IntGaugeVec,
    overdue: IntGauge,
    leader: IntGauge,
    without_sidecar: IntGaugeVec,
    watches: IntGaugeVec,
    watch_errors: IntCounterVec,
    /// Of traces, where there are any.
    traces: Option<Arc<SpanStats>>,
}

impl fmt::Debug for Metrics {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Metrics").finish_non_exhaustive()
    }
}

/// A family, or all of them.
pub(crate) type Made<T> = Result<T, prometheus::Error>;

/// Makes families and remembers them for the page.
#[derive(Default)]
pub(crate) struct Maker(Registry);

impl Maker {
    pub(crate) fn enter<T: prometheus::core::Collector + Clone + 'static>(&self, family: Made<T>) -> Made<T> {
        let family = family?;
        self.0.register(Box::new(family.clone()))?;
        Ok(family)
    }

    pub(crate) fn counters(&self, name: &str, help: &str, labels: &[&str]) -> Made<IntCounterVec> {
        self.enter(IntCounterVec::new(Opts::new(name, help), labels))
    }

    fn gauge(&self, name: &str, help: &str) -> Made<IntGauge> {
        self.enter(IntGauge::new(name, help))
    }

    fn gauges(&self, name: &str, help: &str, labels: &[&str]) -> Made<IntGaugeVec> {
        self.enter(IntGaugeVec::new(Opts::new(name, help), labels))
    }

    fn seconds(&self, name: &str, help: &str, labels: &[&str]) -> Made<HistogramVec> {
        self.enter(HistogramVec::new(HistogramOpts::new(name, help).buckets(SECONDS.to_vec()), labels))
    }

    pub(crate) fn into_registry(self) -> Registry {
        self.0
    }

    fn programmed(&self) -> Made<Histogram> {
        let help = "Time from a route's change being seen to Programmed being true of it.";
        let family = HistogramOpts::new("postern_operator_programmed_seconds", help);
        self.enter(Histogram::with_opts(family.buckets(PROGRAMMED_SECONDS.to_vec())))
    }

    fn requests_at_once(&self) -> Made<IntGaugeVec> {
        let help = "Requests to the API server that are under way, and that wait until fewer are; watches and the Lease aside.";
        self.gauges("postern_operator_api_requests_at_once", help, &["state"])
    }
}

impl Metrics {
    /// Everything at nought.
    ///
    /// # Errors
    /// When two families have one name, which a test would have found.
    pub fn new() -> Made<Self> {
        let make = Maker::default();
        Ok(Self {
            turns: make.counters(
                "postern_operator_turns_total",
                "Turns that ended, by what they were about and how they ended.",
                &["kind", "outcome"],
            )?,
            turn_seconds: make.seconds("postern_operator_turn_duration_seconds", "Duration of a turn.", &["kind"])?,
            step_seconds: make.seconds(
                "postern_operator_step_duration_seconds",
                "Duration of a step of a turn.",
                &["step"],
            )?,
            queue_wait: make.seconds(
                "postern_operator_queue_wait_seconds",
                "How long a turn that was due waited for somebody to take it.",
                &["lane"],
            )?,
            queue_depth: make.gauges(
                "postern_operator_queue_depth",
                "Turns that are due, under way, or wait for their time.",
                &["state"],
            )?,
            requests: make.counters(
                "postern_operator_api_requests_total",
                "Requests to the API server, by resource, verb and what came of them.",
                &["resource", "verb", "outcome"],
            )?,
            requests_at_once: make.requests_at_once()?,
            touches: make.enter(IntCounter::new(
                "postern_operator_touches_total",
                "Pods whose kubelet was told to look at once.",
            ))?,
            events: make.counters(
                "postern_operator_events_total",
                "Events that were published, were known already, could not be, or were dropped because too many waited.",
                &["outcome"],
            )?,
            programmed: make.programmed()?,
            changes: Mutex::default(),
            certificates: make.gauges(
                "postern_operator_certificates",
                "Certificates in place, by whose they are and the whole days that they are valid for.",
                &["of", "days_left"],
            )?,
            overdue: make.gauge(
                "postern_operator_certificates_overdue",
                "Clients who wait for a certificate, or have one that should have been made anew long before.",
            )?,
            leader: make
                .gauge("postern_operator_leader", "Whether this process leads: 1, or 0 while another one does.")?,
            without_sidecar: make.gauges(
                "postern_operator_pods_without_sidecar",
                "Pods that should have a sidecar and have none, an old one, or one of no workload.",
                &["reason"],
            )?,
            watches: make.gauges(
                "postern_operator_watches",
                "Watches of objects, by kind and whether they have seen everything and are not failing.",
                &["kind", "state"],
            )?,
            watch_errors: make.counters(
                "postern_operator_watch_errors_total",
                "Times that a watch failed and was begun anew.",
                &["kind"],
            )?,
            traces: None,
            registry: make.into_registry(),
        })
    }

    /// The same, where turns are traced.
    #[must_use]
    pub fn with_traces(self) -> Self {
        Self { traces: Some(Arc::default()), ..self }
    }

    /// What counts spans.
    pub(crate) fn traces(&self) -> Option<&Arc<SpanStats>> {
        self.traces.as_ref()
    }

    /// A turn has ended.
    pub(crate) fn turn(&self, key: &Key, outcome: &str, took: Duration) {
        self.turns.with_label_values(&[key.kind(), outcome]).inc();
        self.turn_seconds.with_label_values(&[key.kind()]).observe(took.as_secs_f64());
    }

    /// A turn that was due has been taken.
    pub(crate) fn waited(&self, lane: &str, waited: Duration) {
        self.queue_wait.with_label_values(&[lane]).observe(waited.as_secs_f64());
    }

    fn step(&self, step: &str, took: Duration) {
        self.step_seconds.with_label_values(&[step]).observe(took.as_secs_f64());
    }

    #[cfg(test)]
    pub(crate) fn counted_at_once(&self, state: &str) -> i64 {
        self.requests_at_once.with_label_values(&[state]).get()
    }

    /// A request that waits for its turn, or is under way, until the result is dropped.
    pub(crate) fn at_once(&self, state: &str) -> AtOnce {
        let count = self.requests_at_once.with_label_values(&[state]);
        count.inc();
        AtOnce(count)
    }

    /// A request to the API server has been answered, or not.
    pub(crate) fn request(&self, resource: &str, verb: &str, outcome: &str) {
        self.requests.with_label_values(&[resource, verb, outcome]).inc();
        if (resource, verb, outcome) == ("pods/status", "patch", "ok") {
            self.touches.inc();
        }
    }

    /// What became of an event.
    pub(crate) fn event(&self, outcome: &str) {
        self.events.with_label_values(&[outcome]).inc();
    }

    /// A route was seen: as it was already, or as it has just become. Then it is waited for that everybody has it.
    pub(crate) fn route_seen(&self, route: &ObjectName, generation: i64, is_change: bool) {
        let mut changes = self.changes.lock().unwrap_or_else(PoisonError::into_inner);
        // News of a status are of a generation that is known.
        let is_known = changes.get(route).is_some_and(|(known, _)| *known >= generation);
        if !is_known && (changes.len() < CHANGES_KNOWN || changes.contains_key(route)) {
            changes.insert(route.clone(), (generation, is_change.then(Instant::now)));
        }
    }

    /// A route is gone, and nobody waits for it any more.
    pub(crate) fn route_gone(&self, route: &ObjectName) {
        self.changes.lock().unwrap_or_else(PoisonError::into_inner).remove(route);
    }

    /// Programmed is true of a route of this generation.
    pub(crate) fn route_programmed(&self, route: &ObjectName, generation: i64) {
        let mut changes = self.changes.lock().unwrap_or_else(PoisonError::into_inner);
        // It counts once: that a pod comes later is no change of the route.
        let waiting = changes.get_mut(route).filter(|(known, _)| *known <= generation);
        if let Some(at) = waiting.and_then(|(_, since)| since.take()) {
            self.programmed.observe(at.elapsed().as_secs_f64());
        }
    }

    /// Whether this process leads.
    pub(crate) fn set_leader(&self, leads: bool) {
        self.leader.set(i64::from(leads));
    }

    /// How many pods were found that should have a sidecar, and by one of the reasons have not.
    pub(crate) fn set_pods_without_sidecar(&self, reason: &str, count: usize) {
        self.without_sidecar.with_label_values(&[reason]).set(number(count));
    }

    /// A watch failed.
    pub(crate) fn watch_failed(&self, kind: &str) {
        self.watch_errors.with_label_values(&[kind]).inc();
    }

    /// The page, of this moment.
    ///
    /// # Errors
    /// When a family cannot be written.
    pub(crate) fn page(&self, index: &Index, queue: &Queue, now: i64) -> Made<String> {
        let depth = queue.depth();
        for (state, count) in [("due", depth.due), ("running", depth.running), ("later", depth.later)] {
            self.queue_depth.with_label_values(&[state]).set(number(count));
        }
        self.watches.reset();
        for ((kind, state), count) in index.watches() {
            self.watches.with_label_values(&[kind, state]).set(number(count));
        }
        for ((of, days), count) in certificates::count(index, now) {
            self.certificates.with_label_values(&[of, days]).set(number(count));
        }
        self.overdue.set(number(certificates::overdue(index, now)));
        let mut page = Page::from(TextEncoder::new().encode_to_string(&self.registry.gather())?);
        if let Some(traces) = &self.traces {
            traces.write(&mut page, "postern_operator");
        }
        process::write(&mut page);
        Ok(page.into_text())
    }
}

/// One request among those of its state.
pub(crate) struct AtOnce(IntGauge);

impl Drop for AtOnce {
    fn drop(&mut self) {
        self.0.dec();
    }
}

fn number(count: usize) -> i64 {
    i64::try_from(count).unwrap_or(i64::MAX)
}

/// For a test or a part that counts for nobody.
#[cfg(test)]
pub(crate) fn alone() -> Arc<Metrics> {
    Arc::new(Metrics::new().expect("names that are each another"))
}

#[cfg(test)]
mod tests {
    use super::alone;
    use crate::index::ObjectName;

    #[test]
    fn the_time_to_programmed_counts_once_and_from_the_first_sight() {
        let metrics = alone();
        let route = ObjectName::new("shop", "orders");
        metrics.route_programmed(&route, 1);
        assert_eq!(metrics.programmed.get_sample_count(), 0, "nobody has changed it");
        metrics.route_seen(&route, 1, false);
        metrics.route_programmed(&route, 1);
        assert_eq!(metrics.programmed.get_sample_count(), 0, "it was so before");
        metrics.route_seen(&route, 2, true);
        metrics.route_seen(&route, 2, true);
        metrics.route_programmed(&route, 1);
        assert_eq!(metrics.programmed.get_sample_count(), 0, "what is programmed is older");
        metrics.route_programmed(&route, 2);
        metrics.route_seen(&route, 2, true);
        metrics.route_programmed(&route, 2);
        assert_eq!(metrics.programmed.get_sample_count(), 1);
        metrics.route_seen(&route, 3, true);
        metrics.route_gone(&route);
        metrics.route_programmed(&route, 3);
        assert_eq!(metrics.programmed.get_sample_count(), 1);
    }
}
