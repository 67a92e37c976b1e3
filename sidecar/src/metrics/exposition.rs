//! The `/metrics` page: all cells added up into Prometheus' families at each scrape.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;

use prometheus::proto::{Bucket, Counter, Gauge, Histogram, LabelPair, Metric, MetricFamily, MetricType};
use prometheus::{Encoder, TextEncoder};
use sidecar_config::policy::Limits;
use sidecar_config::status::Status;

use super::cells::{BUCKETS_US, Handshakes, Registry, RequestCell};
use super::upstreams;
use crate::config::KeepStats;
use crate::health::{Checks, Ejections};
use crate::limit::UnderWay;
use crate::limits::HANDSHAKES_PER_WORKER;
use crate::log;
use crate::telemetry::{SpanDrop, SpanStats};
use crate::upstream::{Budget, EndpointState};

const MICROSECONDS_PER_SECOND: f64 = 1e6;

/// Where the numbers come from.
pub struct Sources<'a> {
    /// The workers' cells.
    pub requests: &'a Registry,
    /// Their cells for connections that are passed on as they are.
    pub connections: &'a Registry,
    /// Their cells for tunnels.
    pub tunnels: &'a Registry,
    /// Handshakes and connections.
    pub handshakes: &'a Handshakes,
    /// Connections to upstreams.
    pub upstreams: &'a Budget,
    /// The endpoints that are in use.
    pub endpoints: &'a [Arc<EndpointState>],
    /// Counts of those that were left out.
    pub ejections: &'a Ejections,
    /// Counts of their checks.
    pub checks: &'a Checks,
    /// The request log.
    pub log: &'a log::Stats,
    /// Traces, where there are any.
    pub traces: Option<&'a SpanStats>,
    /// The state directory.
    pub kept: &'a KeepStats,
    /// What is loaded.
    pub status: &'a Status,
    /// What is under way.
    pub under_way: &'a UnderWay,
    /// Workers.
    pub workers: usize,
    /// The bounds that the configuration sets.
    pub limits: Limits,
    /// When the first of the gate's own leaves expires, seconds since the epoch.
    pub leaf_not_after: Option<i64>,
    /// When the first revocation list of a bundle must be replaced, seconds since the epoch, by the bundle's name.
    pub crl_next_updates: Vec<(Arc<str>, i64)>,
}

/// The page, in Prometheus' text format.
///
/// # Errors
/// When a family cannot be encoded, which would be a fault of this module.
pub fn render(sources: &Sources<'_>) -> prometheus::Result<Vec<u8>> {
    let mut families = vec![
        decided(sources.requests, "postern_requests_total", "Requests decided."),
        durations(sources.requests),
        decided(sources.connections, "postern_forwarded_connections_total", "Connections of TLS listeners decided."),
        decided(sources.tunnels, "postern_tunnels_total", "Requests that were upgraded, when their tunnel has ended."),
    ];
    families.extend(handshakes(sources));
    families.extend(upstreams::families(sources.endpoints, (sources.ejections, sources.checks)));
    families.extend(under_way(sources));
    families.extend(request_log(sources.log));
    families.extend(sources.traces.map(traces).unwrap_or_default());
    families.extend(state(sources));
    families.extend(state_directory(sources));
    let mut page = Vec::new();
    // The encoder refuses a family without metrics.
    families.retain(|family| !family.get_metric().is_empty());
    TextEncoder::new().encode(&families, &mut page)?;
    Ok(page)
}

fn decided(registry: &Registry, name: &str, help: &str) -> MetricFamily {
    let mut counts = BTreeMap::new();
    registry.for_each(|labels, cell| *counts.entry(labels.clone()).or_insert(0) += cell.count.load(Relaxed));
    let counted = counts.into_iter().map(|(labels, count)| {
        let reason = labels.reason.map_or("", |reason| reason.code());
        let verdict = labels.verdict.name();
        let names = ["listener", "route", "rule", "verdict", "reason"];
        counter(&names, &[&labels.listener, &labels.route, &labels.rule, verdict, reason], count)
    });
    family(name, help, MetricType::COUNTER, counted.collect())
}

fn durations(registry: &Registry) -> MetricFamily {
    let mut durations: BTreeMap<_, Durations> = BTreeMap::new();
    registry.for_each(|labels, cell| {
        let scope = [labels.listener.clone(), labels.route.clone(), labels.rule.clone()];
        durations.entry(scope).or_default().add(cell);
    });
    let timed = durations.into_iter().map(|([listener, route, rule], durations)| {
        let mut metric = labelled(&["listener", "route", "rule"], &[&listener, &route, &rule]);
        metric.set_histogram(durations.histogram());
        metric
    });
    let help = "From a request's head to the end of its response.";
    family("postern_request_duration_seconds", help, MetricType::HISTOGRAM, timed.collect())
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
    let chains = ["verified", "known"].into_iter().zip(sources.handshakes.chains());
    let chains = chains.map(|(result, count)| counter(&["result"], &[result], count)).collect();
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
        family("postern_client_chains_total", "Chains of clients, verified or known.", MetricType::COUNTER, chains),
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
            f64::from(sources.limits.max_connections),
        ),
    ]
}

fn under_way(sources: &Sources<'_>) -> Vec<MetricFamily> {
    let (now, limits) = (sources.under_way, &sources.limits);
    vec![
        one_gauge(
            "postern_requests_pending",
            "Requests that wait for their response's head.",
            float_of(now.pending.count()),
        ),
        one_gauge(
            "postern_requests_pending_limit",
            "Requests that may wait for it.",
            f64::from(limits.max_pending_requests),
        ),
        one_gauge("postern_handshakes_open", "TLS handshakes under way.", float_of(now.handshakes.taken())),
        one_gauge(
            "postern_handshakes_limit",
            "TLS handshakes that may be under way, of all workers.",
            float_of(sources.workers * HANDSHAKES_PER_WORKER),
        ),
        one_gauge(
            "postern_tunnels_open",
            "Requests that were upgraded, while bytes pass.",
            float_of(now.tunnels.taken()),
        ),
        one_gauge("postern_streams_open", "Requests and connections being passed on.", float_of(now.streams.taken())),
        one_gauge(
            "postern_streams_limit",
            "Requests and connections that may be passed on at once.",
            f64::from(limits.max_streams),
        ),
    ]
}

fn traces(stats: &SpanStats) -> Vec<MetricFamily> {
    let dropped = SpanDrop::ALL.map(|reason| counter(&["reason"], &[reason.name()], stats.dropped(reason))).to_vec();
    vec![
        one_counter("postern_trace_spans_exported_total", "Spans that the collector took.", stats.exported()),
        family("postern_trace_spans_dropped_total", "Spans that nobody got, by reason.", MetricType::COUNTER, dropped),
    ]
}

fn request_log(stats: &log::Stats) -> Vec<MetricFamily> {
    let dropped =
        log::DropReason::ALL.map(|reason| counter(&["reason"], &[reason.name()], stats.rows_dropped(reason))).to_vec();
    vec![
        one_counter("postern_log_rows_written_total", "Rows committed to the request log.", stats.rows_written()),
        family(
            "postern_log_rows_dropped_total",
            "Decisions that are in no row, by reason.",
            MetricType::COUNTER,
            dropped,
        ),
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
        one_counter(
            "postern_log_files_set_aside_total",
            "Damaged log files that were set aside, and new ones begun.",
            stats.files_set_aside(),
        ),
        one_gauge("postern_log_queue_rows", "Rows waiting to be written.", float_of(stats.queue_depth())),
        one_gauge(
            "postern_log_refusals_held",
            "Refused handshakes and connections counted to be written as one row with others.",
            float(stats.refusals_held()),
        ),
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
    let named = sources.status.parts.named();
    let revisions = named.map(|(name, part)| gauge(&["part", "revision"], &[name, &part.loaded], 1.0)).to_vec();
    let refused =
        named.map(|(name, part)| gauge(&["part"], &[name], f64::from(u8::from(part.refused.is_some())))).to_vec();
    let build = gauge(&["version"], &[env!("CARGO_PKG_VERSION")], 1.0);
    let expiry = sources.leaf_not_after.map(|seconds| {
        let seconds = u64::try_from(seconds).unwrap_or(0);
        gauge(&[], &[], float(seconds))
    });
    let lists = sources.crl_next_updates.iter().map(|(bundle, seconds)| {
        let seconds = u64::try_from(*seconds).unwrap_or(0);
        gauge(&["bundle"], &[&**bundle], float(seconds))
    });
    let lists_help = "When the first revocation list of a bundle must be replaced, in seconds since the epoch.";
    let ready = f64::from(u8::from(sources.status.ready));
    let expiry_help = "When the first of the gate's own certificates expires, in seconds since the epoch.";
    vec![
        family("postern_config_info", "Revision in use, by part of the configuration.", MetricType::GAUGE, revisions),
        family("postern_config_refused", "Whether the last offer of a part was refused.", MetricType::GAUGE, refused),
        family("postern_certificate_not_after_seconds", expiry_help, MetricType::GAUGE, expiry.into_iter().collect()),
        family("postern_crl_next_update_seconds", lists_help, MetricType::GAUGE, lists.collect()),
        one_gauge("postern_ready", "Whether /readyz answers 200.", ready),
        family("postern_build_info", "This build.", MetricType::GAUGE, vec![build]),
    ]
}

fn state_directory(sources: &Sources<'_>) -> Vec<MetricFamily> {
    let kept = sources.status.parts.named();
    let kept = kept.map(|(name, part)| gauge(&["part"], &[name], f64::from(u8::from(part.kept_since.is_some()))));
    let help = "Whether a part in use comes from the state directory.";
    vec![
        family("postern_config_kept", help, MetricType::GAUGE, kept.to_vec()),
        one_gauge(
            "postern_state_unsaved",
            "Parts and settings whose accepted content is not in the state directory yet.",
            float_of(sources.kept.unsaved()),
        ),
        one_counter(
            "postern_state_write_errors_total",
            "Attempts to write to the state directory that failed.",
            sources.kept.errors(),
        ),
    ]
}

pub(super) fn family(name: &str, help: &str, kind: MetricType, metrics: Vec<Metric>) -> MetricFamily {
    let mut family = MetricFamily::default();
    family.set_name(name.to_owned());
    family.set_help(help.to_owned());
    family.set_field_type(kind);
    family.set_metric(metrics);
    family
}

pub(super) fn one_counter(name: &str, help: &str, value: u64) -> MetricFamily {
    family(name, help, MetricType::COUNTER, vec![counter(&[], &[], value)])
}

fn one_gauge(name: &str, help: &str, value: f64) -> MetricFamily {
    family(name, help, MetricType::GAUGE, vec![gauge(&[], &[], value)])
}

pub(super) fn counter(names: &[&str], values: &[&str], value: u64) -> Metric {
    let mut counter = Counter::default();
    counter.set_value(float(value));
    let mut metric = labelled(names, values);
    metric.set_counter(counter);
    metric
}

pub(super) fn gauge(names: &[&str], values: &[&str], value: f64) -> Metric {
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

pub(super) fn float_of(count: usize) -> f64 {
    float(count as u64)
}

#[expect(clippy::cast_precision_loss, reason = "Prometheus' numbers are 64-bit floats; counts are exact to 2^53")]
fn float(count: u64) -> f64 {
    count as f64
}
