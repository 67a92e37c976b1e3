//! What the `/metrics` page says of endpoints: how many are used, and how often some were left out.

use std::sync::Arc;

use postern_telemetry::page::{Kind, Page};

use crate::dns::Lookups;
use crate::health::{Checks, Ejections, Failure};
use crate::upstream::{Condition, EndpointReport, EndpointState};

/// Writes the families of these endpoints.
pub(super) fn write(page: &mut Page, endpoints: &[Arc<EndpointState>], (ejections, checks): (&Ejections, &Checks)) {
    let mut counts = [("usable", 0_usize), ("ejected", 0), ("unhealthy", 0)];
    for endpoint in endpoints {
        counts[place(&endpoint.report())].1 += 1;
    }
    let mut states = page.family(Kind::Gauge, "postern_upstream_endpoints", "Endpoints, by whether they are used.");
    for (state, count) in counts {
        states.series(&[("state", state)], count);
    }
    let help = "Endpoints that were ejected, by what they failed with.";
    let mut done = page.family(Kind::Counter, "postern_upstream_ejections_total", help);
    for failure in Failure::ALL {
        done.series(&[("failure", failure.name())], ejections.done(failure));
    }
    let help = "Endpoints that failed too often and were not ejected, because as many others were as may be.";
    page.counter("postern_upstream_ejections_refused_total", help, ejections.refused());
    let mut results = page.family(Kind::Counter, "postern_upstream_health_checks_total", "Health checks.");
    for (result, count) in checks.results() {
        results.series(&[("result", result)], count);
    }
    let help = "Endpoints that ceased to pass their health checks, or pass them again.";
    let mut changes = page.family(Kind::Counter, "postern_upstream_health_changes_total", help);
    for (to, count) in checks.changes() {
        changes.series(&[("to", to)], count);
    }
}

pub(super) fn write_names(page: &mut Page, lookups: &Lookups) {
    let help = "Lookups of names of upstreams.";
    let mut results = page.family(Kind::Counter, "postern_dns_lookups_total", help);
    for (result, count) in lookups.results() {
        results.series(&[("result", result)], count);
    }
    let help = "Names of upstreams, by how well they are known.";
    let mut names = page.family(Kind::Gauge, "postern_dns_names", help);
    for (state, count) in lookups.names() {
        names.series(&[("state", state)], count);
    }
}

fn place(endpoint: &EndpointReport) -> usize {
    match endpoint.condition {
        Condition::Usable | Condition::Unchecked => 0,
        Condition::Ejected(_) => 1,
        Condition::Unhealthy => 2,
    }
}
