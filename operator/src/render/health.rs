//! How backends are asked whether they are well, and when one is left out.

use postern_crds::proxyroute as spec;
use sidecar_config::health::{GrpcCheck, HealthCheck, HttpCheck, OutlierDetection, TcpCheck};

use super::{RenderError, duration};

pub(super) fn check(check: &spec::HealthCheck, place: &str) -> Result<HealthCheck, RenderError> {
    let spec::HealthCheck {
        http,
        tcp,
        grpc,
        interval,
        interval_jitter_percent,
        timeout,
        healthy_threshold,
        unhealthy_threshold,
    } = check;
    Ok(HealthCheck {
        http: http.as_ref().map(|spec::HttpCheck { path, host, expected_statuses }| HttpCheck {
            path: path.clone(),
            host: host.clone(),
            expected_statuses: expected_statuses.clone(),
        }),
        tcp: tcp.as_ref().map(|spec::TcpCheck {}| TcpCheck {}),
        grpc: grpc.as_ref().map(|spec::GrpcCheck { service }| GrpcCheck { service: service.clone() }),
        interval: duration(interval, &format!("{place}.interval"))?,
        interval_jitter_percent: *interval_jitter_percent,
        timeout: duration(timeout, &format!("{place}.timeout"))?,
        healthy_threshold: *healthy_threshold,
        unhealthy_threshold: *unhealthy_threshold,
    })
}

pub(super) fn outlier(outlier: &spec::OutlierDetection, place: &str) -> Result<OutlierDetection, RenderError> {
    let spec::OutlierDetection {
        consecutive_local_origin_failures,
        consecutive_gateway_errors,
        base_ejection_time,
        max_ejection_time,
        max_ejection_percent,
    } = outlier;
    Ok(OutlierDetection {
        consecutive_local_origin_failures: *consecutive_local_origin_failures,
        consecutive_gateway_errors: *consecutive_gateway_errors,
        base_ejection_time: duration(base_ejection_time, &format!("{place}.baseEjectionTime"))?,
        max_ejection_time: duration(max_ejection_time, &format!("{place}.maxEjectionTime"))?,
        max_ejection_percent: *max_ejection_percent,
    })
}
