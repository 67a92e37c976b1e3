//! The `/metrics` page: all cells added up into Prometheus' families at each scrape.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;

use prometheus::proto::{Bucket, Counter, Gauge, Histogram, LabelPair, Metric, MetricFamily, MetricType};
use prometheus::{Encoder, TextEncoder};
use sidecar_config::status::Status;

use super::cells::{BUCKETS_US, Handshakes, Registry, RequestCell};
use crate::log;
use crate::upstream::{Budget, EndpointState};

const MICROSECONDS_PER_SECOND: f64 = 1e6;

/// Where the numbers come from.
pub struct Sources<'a> {
    /// The workers' cells.
    pub requests: &'a Registry,
    /// Handshakes and connections.
    pub handshakes: &'a Handshakes,
    /// Connections to upstreams.
    pub upstreams: &'a Budget,
    /// The endpoints that are in use.
    pub endpoints: &'a [Arc<EndpointState>],
    /// The request log.
    pub log: &'a log::Stats,
    /// What is loaded.
    pub status: &'a Status,
    /// Most connections that may be open.
    pub connections_limit: usize,
    /// When the gate's own leaf expires, seconds since the epoch.
    pub leaf_not_after: Option<i64>,
}

/// The page, in Prometheus' text format.
///
/// # Errors
/// When a family cannot be encoded, which would be a fault of this module.
pub fn render(sources: &Sources<'_>) -> prometheus::Result<Vec<u8>> {
    let mut families = requests(sources.requests);
    families.extend(handshakes(sources));
    families.extend(request_log(sources.log));
    families.extend(state(sources));
    let mut page = Vec::new();
    // The encoder refuses a family without metrics.
    families.retain(|family| !family.get_metric().is_empty());
    TextEncoder::new().encode(&families, &mut page)?;
    Ok(page)
}

fn requests(registry: &Registry) -> Vec<MetricFamily> {
    let mut counts = BTreeMap::new();
    let mut durations: BTreeMap<_, Durations> = BTreeMap::new();
    registry.for_each(|labels, cell| {
        *counts.entry(labels.clone()).or_insert(0) += cell.count.load(Relaxed);
        let scope = [labels.listener.clone(), labels.route.clone(), labels.rule.clone()];
        durations.entry(scope).or_default().add(cell);
    });
    let counted = counts.into_iter().map(|(labels, count)| {
        let reason = labels.reason.map_or("", |reason| reason.code());
        let verdict = labels.verdict.name();
        let names = ["listener", "route", "rule", "verdict", "reason"];
        counter(&names, &[&labels.listener, &labels.route, &labels.rule, verdict, reason], count)
    });
    let counted = counted.collect();
    let timed = durations.into_iter().map(|([listener, route, rule], durations)| {
        let mut metric = labelled(&["listener", "route", "rule"], &[&listener, &route, &rule]);
        metric.set_histogram(durations.histogram());
        metric
    });
    vec![
        family("postern_requests_total", "Requests decided.", MetricType::COUNTER, counted),
        family(
            "postern_request_duration_seconds",
            "From a request's head to the end of its response.",
            MetricType::HISTOGRAM,
            timed.collect(),
        ),
    ]
}

#[derive(Default)]
struct Durations {
    count: u64,
    sum_us: u64,
    buckets: [u64; BUCKETS_US.len() + 1],
}

impl Durations {
    fn add(&mut self, cell: &RequestCell) {
        self.count += cell.count.load(Relaxed);
        self.sum_us += cell.sum_us.load(Relaxed);
        for (sum, bucket) in self.buckets.iter_mut().zip(&cell.buckets) {
            *sum += bucket.load(Relaxed);
        }
    }

    fn histogram(&self) -> Histogram {
        let mut cumulative = 0;
        let buckets = BUCKETS_US.iter().zip(&self.buckets).map(|(bound_us, count)| {
            cumulative += count;
            let mut bucket = Bucket::default();
            bucket.set_upper_bound(float(*bound_us) / MICROSECONDS_PER_SECOND);
            bucket.set_cumulative_count(cumulative);
            bucket
        });
        let buckets = buckets.collect();
        let mut histogram = Histogram::default();
        histogram.set_bucket(buckets);
        histogram.set_sample_count(self.count);
        histogram.set_sample_sum(float(self.sum_us) / MICROSECONDS_PER_SECOND);
        histogram
    }
}

fn handshakes(sources: &Sources<'_>) -> Vec<MetricFamily> {
    let (refused, completed) = sources.handshakes.read();
    let refused = refused.into_iter().map(|(labels, count)| {
        let reason = labels.reason.map_or("closed_before_first_byte", |reason| reason.code());
        counter(&["listener", "reason"], &[&labels.listener, reason], count)
    });
    let cut = sources.handshakes.read_cut().into_iter().map(|(labels, count)| {
        let reason = labels.reason.map_or("", |reason| reason.code());
        counter(&["listener", "reason"], &[&labels.listener, reason], count)
    });
    let cut = cut.collect();
    let help = "TLS handshakes and connections refused, by reason.";
    let refused = refused.collect();
    vec![
        family("postern_handshakes_refused_total", help, MetricType::COUNTER, refused),
        family("postern_connections_cut_total", "Open connections cut, by reason.", MetricType::COUNTER, cut),
        one_counter("postern_handshakes_completed_total", "TLS handshakes completed.", completed),
        one_counter(
            "postern_handshakes_resumed_total",
            "TLS handshakes completed that resumed a session.",
            sources.handshakes.resumed(),
        ),
        one_gauge("postern_connections_open", "Client connections open.", float_of(sources.handshakes.open())),
        one_gauge(
            "postern_upstream_connections_open",
            "Connections to upstreams open.",
            float_of(sources.upstreams.open()),
        ),
        one_gauge(
            "postern_upstream_connections_limit",
            "Connections to upstreams that may be open.",
            float_of(sources.upstreams.limit()),
        ),
        one_gauge(
            "postern_upstream_requests_pending",
            "Requests that wait for a connection to an upstream.",
            float_of(sources.endpoints.iter().map(|endpoint| endpoint.pending()).sum()),
        ),
        one_gauge(
            "postern_connections_limit",
            "Client connections that may be open.",
            float_of(sources.connections_limit),
        ),
    ]
}

fn request_log(stats: &log::Stats) -> Vec<MetricFamily> {
    let dropped =
        log::DropReason::ALL.map(|reason| counter(&["reason"], &[reason.name()], stats.rows_dropped(reason))).to_vec();
    vec![
        one_counter("postern_log_rows_written_total", "Rows committed to the request log.", stats.rows_written()),
        family("postern_log_rows_dropped_total", "Rows lost, by reason.", MetricType::COUNTER, dropped),
        one_counter(
            "postern_log_rows_pruned_total",
            "Rows deleted to keep the log within its size.",
            stats.rows_pruned(),
        ),
        one_counter(
            "postern_log_write_errors_total",
            "Attempts to open or write the log that failed.",
            stats.write_errors(),
        ),
        one_gauge("postern_log_queue_rows", "Rows waiting to be written.", float_of(stats.queue_depth())),
        one_gauge("postern_log_queue_limit", "Rows that may wait.", float_of(log::QUEUE_ROWS)),
        one_gauge(
            "postern_log_up",
            "Whether the log could be written last time.",
            f64::from(u8::from(stats.store_up())),
        ),
        one_gauge("postern_log_database_bytes", "Size of the log on disk.", float(stats.database_bytes())),
    ]
}

fn state(sources: &Sources<'_>) -> Vec<MetricFamily> {
    let parts = &sources.status.parts;
    let named = [
        ("trust", &parts.trust),
        ("identity", &parts.identity),
        ("identities", &parts.identities),
        ("policy", &parts.policy),
        ("endpoints", &parts.endpoints),
    ];
    let revisions = named.map(|(name, part)| gauge(&["part", "revision"], &[name, &part.loaded], 1.0)).to_vec();
    let refused =
        named.map(|(name, part)| gauge(&["part"], &[name], f64::from(u8::from(part.refused.is_some())))).to_vec();
    let build = gauge(&["version"], &[env!("CARGO_PKG_VERSION")], 1.0);
    let expiry = sources.leaf_not_after.map(|seconds| {
        let seconds = u64::try_from(seconds).unwrap_or(0);
        gauge(&[], &[], float(seconds))
    });
    let ready = f64::from(u8::from(sources.status.ready));
    let expiry_help = "When the gate's own certificate expires, in seconds since the epoch.";
    vec![
        family("postern_config_info", "Revision in use, by part of the configuration.", MetricType::GAUGE, revisions),
        family("postern_config_refused", "Whether the last offer of a part was refused.", MetricType::GAUGE, refused),
        family("postern_certificate_not_after_seconds", expiry_help, MetricType::GAUGE, expiry.into_iter().collect()),
        one_gauge("postern_ready", "Whether /readyz answers 200.", ready),
        family("postern_build_info", "This build.", MetricType::GAUGE, vec![build]),
    ]
}

fn family(name: &str, help: &str, kind: MetricType, metrics: Vec<Metric>) -> MetricFamily {
    let mut family = MetricFamily::default();
    family.set_name(name.to_owned());
    family.set_help(help.to_owned());
    family.set_field_type(kind);
    family.set_metric(metrics);
    family
}

fn one_counter(name: &str, help: &str, value: u64) -> MetricFamily {
    family(name, help, MetricType::COUNTER, vec![counter(&[], &[], value)])
}

fn one_gauge(name: &str, help: &str, value: f64) -> MetricFamily {
    family(name, help, MetricType::GAUGE, vec![gauge(&[], &[], value)])
}

fn counter(names: &[&str], values: &[&str], value: u64) -> Metric {
    let mut counter = Counter::default();
    counter.set_value(float(value));
    let mut metric = labelled(names, values);
    metric.set_counter(counter);
    metric
}

fn gauge(names: &[&str], values: &[&str], value: f64) -> Metric {
    let mut gauge = Gauge::default();
    gauge.set_value(value);
    let mut metric = labelled(names, values);
    metric.set_gauge(gauge);
    metric
}

fn labelled(names: &[&str], values: &[&str]) -> Metric {
    let labels = names.iter().zip(values).map(|(name, value)| {
        let mut label = LabelPair::default();
        label.set_name((*name).to_owned());
        label.set_value((*value).to_owned());
        label
    });
    Metric::from_label(labels.collect())
}

fn float_of(count: usize) -> f64 {
    float(count as u64)
}

#[expect(clippy::cast_precision_loss, reason = "Prometheus' numbers are 64-bit floats; counts are exact to 2^53")]
fn float(count: u64) -> f64 {
    count as f64
}
