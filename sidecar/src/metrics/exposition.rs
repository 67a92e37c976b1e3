//! The `/metrics` page: all cells added up into Prometheus' families at each scrape.

use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use postern_postgres::Failure;
use postern_telemetry::page::{Kind, Page};
use postern_telemetry::{SpanStats, process};
use sidecar_config::status::Status;

use super::handshakes::Handshakes;
use super::registry::Registry;
use super::{traffic, upstreams};
use crate::config::{KeepStats, Reloads};
use crate::dns::Lookups;
use crate::health::{Checks, Ejections};
use crate::limit::{Limits, UnderWay};
use crate::limits::{HANDSHAKES_PER_WORKER, METRIC_SERIES};
use crate::log;
use crate::memory::Trims;
use crate::upstream::{Budget, EndpointState};

/// Where the numbers come from.
pub struct Sources<'a> {
    /// The workers' cells.
    pub counted: &'a Registry,
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
    /// Bytes that it may take.
    pub log_bytes: u64,
    /// Lookups of names.
    pub lookups: &'a Lookups,
    /// Memory given back.
    pub trims: &'a Trims,
    /// Traces, where there are any.
    pub traces: Option<&'a SpanStats>,
    /// The state directory.
    pub kept: &'a KeepStats,
    /// What is loaded.
    pub status: &'a Status,
    /// What is under way.
    pub under_way: &'a UnderWay,
    /// The bounds on what clients may take.
    pub limits: &'a Limits,
    /// When the first of the gate's own leaves expires, seconds since the epoch.
    pub leaf_not_after: Option<i64>,
    /// When the first certificate of a bundle expires, seconds since the epoch, by the bundle's name.
    pub bundle_expiries: Vec<(Arc<str>, i64)>,
    /// What became of the offers of every part.
    pub reloads: [Reloads; 5],
    /// Connections of the status port and of the admin socket whose time was over.
    pub admin_cut: [u64; 2],
    /// When the first revocation list of a bundle must be replaced, seconds since the epoch, by the bundle's name.
    pub crl_next_updates: Vec<(Arc<str>, i64)>,
}

/// The page, in Prometheus' text format.
pub fn render(sources: &Sources<'_>) -> Vec<u8> {
    let mut page = Page::default();
    traffic::write(&mut page, &sources.counted.read());
    connections(&mut page, sources);
    upstreams::write(&mut page, sources.endpoints, (sources.ejections, sources.checks));
    upstreams::write_names(&mut page, sources.lookups);
    under_way(&mut page, sources);
    request_log(&mut page, sources.log, sources.log_bytes);
    if let Some(stats) = sources.traces {
        stats.write(&mut page, "postern");
    }
    state(&mut page, sources);
    state_directory(&mut page, sources);
    admin(&mut page, sources);
    memory(&mut page, sources.trims, sources.limits.memory);
    series(&mut page, sources.counted);
    process::write(&mut page);
    page.into_text().into_bytes()
}

fn connections(page: &mut Page, sources: &Sources<'_>) {
    let Sources { handshakes, upstreams, endpoints, limits, .. } = sources;
    page.counter("postern_handshakes_completed_total", "TLS handshakes completed.", handshakes.completed());
    let help = "TLS handshakes completed that resumed a session.";
    page.counter("postern_handshakes_resumed_total", help, handshakes.resumed());
    let help = "Chains of clients, verified or known.";
    let mut chains = page.family(Kind::Counter, "postern_client_chains_total", help);
    for (result, count) in ["verified", "known"].into_iter().zip(handshakes.chains()) {
        chains.series(&[("result", result)], count);
    }
    page.gauge("postern_connections_open", "Client connections open.", handshakes.open());
    page.gauge("postern_connections_limit", "Client connections that may be open.", limits.connections);
    page.gauge("postern_upstream_connections_open", "Connections to upstreams open.", upstreams.open());
    let help = "Connections to upstreams that may be open.";
    page.gauge("postern_upstream_connections_limit", help, upstreams.limit());
    let pending: usize = endpoints.iter().map(|endpoint| endpoint.pending()).sum();
    let help = "Requests that wait for a connection to an upstream.";
    page.gauge("postern_upstream_requests_pending", help, pending);
}

fn under_way(page: &mut Page, sources: &Sources<'_>) {
    let (now, limits, workers) = (sources.under_way, &sources.limits, sources.counted.workers());
    page.gauge("postern_requests_pending", "Requests that wait for their response's head.", now.pending.count());
    page.gauge("postern_requests_pending_limit", "Requests that may wait for it.", limits.pending.limit);
    page.gauge("postern_handshakes_open", "TLS handshakes under way.", now.handshakes.taken());
    let help = "TLS handshakes that may be under way, of all workers.";
    page.gauge("postern_handshakes_limit", help, workers * HANDSHAKES_PER_WORKER);
    page.gauge("postern_streams_open", "Requests and connections being passed on.", now.streams.taken());
    let help = "Tunnels that are open, and requests that ask for one.";
    page.gauge("postern_tunnels_open", help, now.tunnels.taken());
    page.gauge("postern_tunnels_limit", "Tunnels that may be open.", limits.tunnels);
    let help = "Requests and connections that may be passed on at once.";
    page.gauge("postern_streams_limit", help, limits.streams);
    page.gauge("postern_workers", "Threads that serve connections.", workers);
}

fn request_log(page: &mut Page, stats: &log::Stats, limit: u64) {
    page.counter("postern_log_rows_written_total", "Rows committed to the request log.", stats.rows_written());
    let help = "Decisions that are in no row, by reason.";
    let mut dropped = page.family(Kind::Counter, "postern_log_rows_dropped_total", help);
    for reason in log::DropReason::ALL {
        dropped.series(&[("reason", reason.name())], stats.rows_dropped(reason));
    }
    let help = "Decisions that are in no row, because only a part of what is allowed is to be.";
    page.counter("postern_log_rows_sampled_away_total", help, stats.rows_sampled_away());
    let help = "What was to be captured and is not in its row as it should be, by reason.";
    let mut lost = page.family(Kind::Counter, "postern_log_captures_lost_total", help);
    for reason in log::CaptureLoss::ALL {
        lost.series(&[("reason", reason.name())], stats.captures_lost(reason));
    }
    let help = "Rows deleted to keep the log within its size and age.";
    let mut pruned = page.family(Kind::Counter, "postern_log_rows_pruned_total", help);
    for reason in log::PruneReason::ALL {
        pruned.series(&[("reason", reason.name())], stats.rows_pruned(reason));
    }
    let help = "Attempts to open or write the log that failed.";
    page.counter("postern_log_write_errors_total", help, stats.write_errors());
    let help = "Damaged files of the log that were set aside.";
    page.counter("postern_log_files_set_aside_total", help, stats.files_set_aside());
    page.gauge("postern_log_queue_rows", "Rows waiting to be written.", stats.queue_depth());
    page.gauge("postern_log_queue_limit", "Rows that may wait.", log::QUEUE_ROWS);
    let help = "Refused handshakes and connections counted to be written as one row with others.";
    page.gauge("postern_log_refusals_held", help, stats.refusals_held());
    let help = "Whether the log could be written last time.";
    page.gauge("postern_log_up", help, u8::from(stats.store_up()));
    page.gauge("postern_log_database_bytes", "Size of the log on disk.", stats.database_bytes());
    page.gauge("postern_log_database_limit_bytes", "Size that the log may have.", limit);
    let mut segments = page.family(Kind::Gauge, "postern_log_segments", "Closed files of the log.");
    for form in log::SegmentForm::ALL {
        segments.series(&[("form", form.name())], stats.segments(form).0);
    }
    let mut bytes = page.family(Kind::Gauge, "postern_log_segment_bytes", "Size of the closed files of the log.");
    for form in log::SegmentForm::ALL {
        bytes.series(&[("form", form.name())], stats.segments(form).1);
    }
    let help = "Bodies that a route's rows were to keep and that are in none, by reason.";
    let mut missed = page.family(Kind::Counter, "postern_log_bodies_missed_total", help);
    for reason in log::Missed::ALL {
        missed.series(&[("reason", reason.name())], stats.bodies.missed(reason));
    }
    let help = "Bytes of bodies that are held until their rows are written.";
    page.gauge("postern_log_bodies_held_bytes", help, stats.bodies.held_bytes());
    page.gauge("postern_log_bodies_held_limit_bytes", "Bytes of bodies that may be held.", log::BODIES_BYTES);
    if stats.ship.is_on() {
        shipping(page, stats);
    }
}

fn shipping(page: &mut Page, stats: &log::Stats) {
    let ship = &stats.ship;
    page.counter("postern_log_ship_rows_total", "Rows that Postgres has taken.", ship.sent());
    page.counter("postern_log_ship_rows_known_total", "Rows that were sent and that Postgres had.", ship.known());
    let help = "Rows that will never be in Postgres, by reason.";
    let mut lost = page.family(Kind::Counter, "postern_log_ship_rows_dropped_total", help);
    for reason in log::Lost::ALL {
        lost.series(&[("reason", reason.name())], ship.lost(reason));
    }
    let help = "Tries to send rows to Postgres that failed, by reason.";
    let mut failures = page.family(Kind::Counter, "postern_log_ship_failures_total", help);
    for failure in Failure::ALL {
        failures.series(&[("reason", failure.name())], ship.failures(failure));
    }
    page.gauge("postern_log_ship_up", "Whether rows could be sent to Postgres last time.", u8::from(ship.is_up()));
    let help = "Rows of the log that are still to be sent to Postgres.";
    page.gauge("postern_log_ship_backlog_rows", help, ship.backlog_rows(stats));
    page.gauge("postern_log_ship_backlog_bytes", "Bytes of the log that these rows take.", ship.backlog_bytes());
    let help = "Age of the oldest row that is still to be sent.";
    page.gauge("postern_log_ship_backlog_age_seconds", help, ship.backlog_age_seconds(SystemTime::now()));
    let help = "When the newest row was decided that Postgres has, in seconds since the epoch.";
    page.gauge("postern_log_ship_watermark_seconds", help, ship.watermark_seconds());
}

fn state(page: &mut Page, sources: &Sources<'_>) {
    let named = sources.status.parts.named();
    let help = "Revision in use, by part of the configuration.";
    let mut revisions = page.family(Kind::Gauge, "postern_config_info", help);
    for (name, part) in named {
        revisions.series(&[("part", name), ("revision", &part.loaded)], 1);
    }
    let help = "Whether the last offer of a part was refused.";
    let mut refused = page.family(Kind::Gauge, "postern_config_refused", help);
    for (name, part) in named {
        refused.series(&[("part", name)], u8::from(part.refused.is_some()));
    }
    reloads(page, sources);
    expiries(page, sources);
    page.gauge("postern_ready", "Whether /readyz answers 200.", u8::from(sources.status.ready));
    let mut build = page.family(Kind::Gauge, "postern_build_info", "This build.");
    build.series(&[("version", env!("CARGO_PKG_VERSION"))], 1);
}

fn reloads(page: &mut Page, sources: &Sources<'_>) {
    let named = || sources.status.parts.named().into_iter().map(|(name, _)| name).zip(sources.reloads);
    let help = "Offers of a part of the configuration, by what became of them.";
    let mut family = page.family(Kind::Counter, "postern_config_reloads_total", help);
    for (name, reloads) in named() {
        family.series(&[("part", name), ("result", "accepted")], reloads.accepted);
        family.series(&[("part", name), ("result", "refused")], reloads.refused);
    }
    let help = "When a part was accepted last, in seconds since the epoch.";
    let mut family = page.family(Kind::Gauge, "postern_config_last_reload_success_timestamp_seconds", help);
    for (name, reloads) in named() {
        let since = reloads.last_accepted.and_then(|time| time.duration_since(UNIX_EPOCH).ok());
        if let Some(since) = since {
            family.series(&[("part", name)], since.as_secs());
        }
    }
}

/// When something expires, and not how long that is from now: the difference is the alert's to make, at its own moment.
fn expiries(page: &mut Page, sources: &Sources<'_>) {
    if let Some(seconds) = sources.leaf_not_after {
        let help = "When the first of the gate's own certificates expires, in seconds since the epoch.";
        page.gauge("postern_certificate_not_after_timestamp_seconds", help, seconds);
    }
    let by_bundle = [
        (
            "postern_trust_not_after_timestamp_seconds",
            "When the first root or intermediate of a bundle expires, in seconds since the epoch.",
            &sources.bundle_expiries,
        ),
        (
            "postern_crl_next_update_timestamp_seconds",
            "When the first revocation list of a bundle must be replaced, in seconds since the epoch.",
            &sources.crl_next_updates,
        ),
    ];
    for (name, help, times) in by_bundle {
        let mut family = page.family(Kind::Gauge, name, help);
        for (bundle, seconds) in times {
            family.series(&[("bundle", bundle)], seconds);
        }
    }
}

fn state_directory(page: &mut Page, sources: &Sources<'_>) {
    let help = "Whether a part in use comes from the state directory.";
    let mut kept = page.family(Kind::Gauge, "postern_config_kept", help);
    for (name, part) in sources.status.parts.named() {
        kept.series(&[("part", name)], u8::from(part.kept_since.is_some()));
    }
    let help = "Parts and settings whose accepted content is not in the state directory yet.";
    page.gauge("postern_state_unsaved", help, sources.kept.unsaved());
    let help = "Attempts to write to the state directory that failed.";
    page.counter("postern_state_write_errors_total", help, sources.kept.errors());
}

fn admin(page: &mut Page, sources: &Sources<'_>) {
    let help = "Connections to the status port and the admin socket that were ended because their time was over.";
    let mut cut = page.family(Kind::Counter, "postern_admin_connections_cut_total", help);
    for (on, count) in ["status_port", "admin_socket"].into_iter().zip(sources.admin_cut) {
        cut.series(&[("listener", on)], count);
    }
}

fn memory(page: &mut Page, trims: &Trims, limit: Option<u64>) {
    let help = "Memory that the process may take, of its control groups; 0 without a limit.";
    page.gauge("postern_memory_limit_bytes", help, limit.unwrap_or(0));
    let help = "Times that memory was given back after a burst of connections.";
    page.counter("postern_memory_trims_total", help, trims.count());
    let help = "How long it took to give memory back.";
    page.counter("postern_memory_trim_seconds_total", help, trims.time().as_secs_f64());
}

fn series(page: &mut Page, counted: &Registry) {
    page.gauge("postern_metrics_series", "Series about rules, listeners and backends.", counted.series());
    page.gauge("postern_metrics_series_limit", "Series about them that may be.", METRIC_SERIES);
    let help = "Rules, outcomes and histograms that are counted under `other`, for want of series.";
    page.counter("postern_metrics_series_refused_total", help, counted.refused());
}
