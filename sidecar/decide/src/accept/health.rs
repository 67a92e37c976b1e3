//! Accepts when addresses are left out.

use http::uri::{Authority, PathAndQuery};
use sidecar_config::Duration;
use sidecar_config::health::{HealthCheck, HttpCheck, OutlierDetection};
use sidecar_config::policy::Route;
use sidecar_config::upstream::BackendProtocol;

use super::backend::{COUNT_MAX, TIME_MAX, check_range, check_time};
use crate::problem::Problems;

/// Shortest time between two checks: each is a connection of the thread that has other things to do too.
const INTERVAL_MIN: Duration = Duration::from_millis(100);
/// Shortest and longest time that a check takes: a few that wait long would keep all others from being made.
const TIMEOUTS: (Duration, Duration) = (Duration::from_millis(1), Duration::from_millis(60_000));
/// Most checks in a row: more are no answer to the question.
const THRESHOLD_MAX: u32 = 1000;
/// Longest name of a service.
const SERVICE_MAX_BYTES: usize = 1024;

pub(super) fn check_health(check: &HealthCheck, place: &str, problems: &mut Problems) {
    let kinds = [check.http.is_some(), check.tcp.is_some(), check.grpc.is_some()];
    match kinds.iter().filter(|is_there| **is_there).count() {
        0 => problems.add(place, "says not how; write exactly one of http, tcp and grpc"),
        1 => {}
        _ => problems.add(place, "has several ways; write exactly one of http, tcp and grpc"),
    }
    if let Some(grpc) = check.grpc.as_ref().filter(|grpc| grpc.service.len() > SERVICE_MAX_BYTES) {
        let detail = format_args!("is {} bytes long; at most {SERVICE_MAX_BYTES} are allowed", grpc.service.len());
        problems.add(format_args!("{place}.grpc.service"), detail);
    }
    if let Some(http) = &check.http {
        check_http(http, &format!("{place}.http"), problems);
    }
    let times = [("interval", check.interval, (INTERVAL_MIN, TIME_MAX)), ("timeout", check.timeout, TIMEOUTS)];
    for (field, time, range) in times {
        check_range(Some(time), range, "a duration", format_args!("{place}.{field}"), problems);
    }
    let counts = [
        ("intervalJitterPercent", check.interval_jitter_percent, (0, 100)),
        ("healthyThreshold", check.healthy_threshold, (1, THRESHOLD_MAX)),
        ("unhealthyThreshold", check.unhealthy_threshold, (1, THRESHOLD_MAX)),
    ];
    for (field, count, range) in counts {
        check_range(Some(count), range, "a number", format_args!("{place}.{field}"), problems);
    }
}

/// Where addresses are asked by gRPC, HTTP/2 is spoken with them.
pub(super) fn check_grpc_backends(route: &Route, place: &str, problems: &mut Problems) {
    if route.backend_policy.health_check.as_ref().is_none_or(|check| check.grpc.is_none()) {
        return;
    }
    for (index, rule) in route.rules.iter().enumerate() {
        let others = rule.backends.iter().enumerate().filter(|(_, backend)| backend.protocol != BackendProtocol::Http2);
        for (number, _) in others {
            let place = format_args!("{place}.rules[{index}].backends[{number}].protocol");
            problems.add(place, "is `HTTP`, and the route's health check is gRPC's; write `HTTP2`");
        }
    }
}

fn check_http(http: &HttpCheck, place: &str, problems: &mut Problems) {
    let is_path = http.path.starts_with('/') && !http.path.contains('#') && http.path.parse::<PathAndQuery>().is_ok();
    if !is_path {
        let detail = format_args!("`{}` is no path; write one such as `/healthz`", http.path);
        problems.add(format_args!("{place}.path"), detail);
    }
    if let Some(host) = http.host.as_ref().filter(|host| host.contains('@') || host.parse::<Authority>().is_err()) {
        let detail = format_args!("`{host}` is no host; write one such as `app.example.com` or `localhost:8080`");
        problems.add(format_args!("{place}.host"), detail);
    }
    if http.expected_statuses.is_empty() {
        problems.add(
            format_args!("{place}.expectedStatuses"),
            "is empty, so that no check passes; name a status, or leave it out",
        );
    }
    for (index, status) in http.expected_statuses.iter().enumerate() {
        let place = format_args!("{place}.expectedStatuses[{index}]");
        check_range(Some(*status), (200, 599), "a status", place, problems);
    }
}

pub(super) fn check_outlier(outlier: &OutlierDetection, place: &str, problems: &mut Problems) {
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
