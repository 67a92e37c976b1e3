//! What the `/metrics` page says of endpoints: how many are used, and how often some were left out.

use std::sync::Arc;

use prometheus::proto::{MetricFamily, MetricType};

use super::exposition::{counter, family, float_of, gauge, one_counter};
use crate::health::{Checks, Ejections, Failure};
use crate::upstream::{Condition, EndpointReport, EndpointState};

/// The families of these endpoints.
pub(super) fn families(
    endpoints: &[Arc<EndpointState>],
    (ejections, checks): (&Ejections, &Checks),
) -> Vec<MetricFamily> {
    let mut counts = [("usable", 0), ("ejected", 0), ("unhealthy", 0)];
    for endpoint in endpoints {
        counts[place(&endpoint.report())].1 += 1;
    }
    let states = counts.map(|(state, count)| gauge(&["state"], &[state], float_of(count)));
    let done = Failure::ALL.map(|failure| counter(&["failure"], &[failure.name()], ejections.done(failure)));
    let results = checks.results().map(|(result, count)| counter(&["result"], &[result], count));
    let changes = checks.changes().map(|(to, count)| counter(&["to"], &[to], count));
    let changes_help = "Endpoints that ceased to pass their health checks, or pass them again.";
    let done_help = "Endpoints that were ejected, by what they failed with.";
    vec![
        family(
            "postern_upstream_endpoints",
            "Endpoints, by whether they are used.",
            MetricType::GAUGE,
            states.to_vec(),
        ),
        family("postern_upstream_ejections_total", done_help, MetricType::COUNTER, done.to_vec()),
        one_counter(
            "postern_upstream_ejections_refused_total",
            "Endpoints that failed too often and were not ejected, because as many others were as may be.",
            ejections.refused(),
        ),
        family("postern_upstream_health_checks_total", "Health checks.", MetricType::COUNTER, results.to_vec()),
        family("postern_upstream_health_changes_total", changes_help, MetricType::COUNTER, changes.to_vec()),
    ]
}

fn place(endpoint: &EndpointReport) -> usize {
    match endpoint.condition {
        Condition::Usable | Condition::Unchecked => 0,
        Condition::Ejected(_) => 1,
        Condition::Unhealthy => 2,
    }
}
