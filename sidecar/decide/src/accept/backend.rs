//! Accepts how a route's backends are used.

use std::fmt::Display;

use sidecar_config::Duration;
use sidecar_config::backend::{BackendPolicy, OutlierDetection, PoolPolicy};

use crate::problem::Problems;

/// Most of anything that is counted here; the file limit is far below.
const COUNT_MAX: u32 = 1_000_000;
/// Longest of these times: what waits longer waits for nothing.
pub(super) const TIME_MAX: Duration = Duration::from_millis(24 * 3_600_000);

pub(super) fn check_backend_policy(policy: &BackendPolicy, place: &str, problems: &mut Problems) {
    check_pool(&policy.pool, &format!("{place}.pool"), problems);
    if let Some(outlier) = &policy.outlier_detection {
        check_outlier(outlier, &format!("{place}.outlierDetection"), problems);
    }
}

fn check_outlier(outlier: &OutlierDetection, place: &str, problems: &mut Problems) {
    let counts = [
        ("consecutiveLocalOriginFailures", Some(outlier.consecutive_local_origin_failures), COUNT_MAX),
        ("consecutiveGatewayErrors", outlier.consecutive_gateway_errors, COUNT_MAX),
        ("maxEjectionPercent", Some(outlier.max_ejection_percent), 100),
    ];
    for (field, count, most) in counts {
        check_range(count, (1, most), "a number", format_args!("{place}.{field}"), problems);
    }
    let (base, most) = (outlier.base_ejection_time, outlier.max_ejection_time);
    check_time(Some(base), format_args!("{place}.baseEjectionTime"), problems);
    check_time(Some(most), format_args!("{place}.maxEjectionTime"), problems);
    if most < base {
        let detail = format_args!("is {most}, shorter than baseEjectionTime, {base}; write the same or a longer time");
        problems.add(format_args!("{place}.maxEjectionTime"), detail);
    }
}

fn check_pool(pool: &PoolPolicy, place: &str, problems: &mut Problems) {
    let counts = [
        ("maxConnections", Some(pool.max_connections), 1),
        ("maxPending", Some(pool.max_pending), 0),
        ("maxIdle", Some(pool.max_idle), 0),
        ("maxRequestsPerConnection", pool.max_requests_per_connection, 1),
    ];
    for (field, count, least) in counts {
        check_range(count, (least, COUNT_MAX), "a number", format_args!("{place}.{field}"), problems);
    }
    let times = [
        ("pendingTimeout", Some(pool.pending_timeout)),
        ("connectTimeout", Some(pool.connect_timeout)),
        ("idleTimeout", Some(pool.idle_timeout)),
        ("maxAge", pool.max_age),
    ];
    for (field, time) in times {
        check_time(time, format_args!("{place}.{field}"), problems);
    }
}

/// A length of time that something takes at most.
fn check_time(time: Option<Duration>, place: impl Display, problems: &mut Problems) {
    check_range(time, (Duration::from_millis(1), TIME_MAX), "a duration", place, problems);
}

pub(super) fn check_range<T: PartialOrd + Display>(
    value: Option<T>,
    (least, most): (T, T),
    what: &str,
    place: impl Display,
    problems: &mut Problems,
) {
    if let Some(value) = value
        && (value < least || value > most)
    {
        problems.add(place, format_args!("is {value}; write {what} from {least} to {most}"));
    }
}
