//! Accepts how a route's backends are used.

use std::fmt::Display;

use sidecar_config::Duration;
use sidecar_config::backend::{BackendPolicy, PoolPolicy};

use super::health::{check_health, check_outlier};
use crate::problem::Problems;

/// Most of anything that is counted here; the file limit is far below.
pub(super) const COUNT_MAX: u32 = 1_000_000;
/// Longest of these times: what waits longer waits for nothing.
pub(super) const TIME_MAX: Duration = Duration::from_millis(24 * 3_600_000);

pub(super) fn check_backend_policy(policy: &BackendPolicy, place: &str, problems: &mut Problems) {
    check_pool(&policy.pool, &format!("{place}.pool"), problems);
    if let Some(check) = &policy.health_check {
        check_health(check, &format!("{place}.healthCheck"), problems);
    }
    if let Some(outlier) = &policy.outlier_detection {
        check_outlier(outlier, &format!("{place}.outlierDetection"), problems);
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
pub(super) fn check_time(time: Option<Duration>, place: impl Display, problems: &mut Problems) {
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
