//! What is set for all routes of a workload.

use postern_crds::proxyroute::{Forwarding as ForwardingSpec, Limits as LimitsSpec};
use sidecar_config::policy::{Forwarding, Limits};

use super::{RenderError, duration};

pub(super) fn limits(spec: &LimitsSpec) -> Result<Limits, RenderError> {
    let LimitsSpec {
        max_connections,
        max_request_body_size,
        max_pending_requests,
        pending_timeout,
        max_streams,
        max_tunnels,
    } = spec;
    let size = max_request_body_size.as_str().parse();
    Ok(Limits {
        max_connections: *max_connections,
        max_request_body_size: size
            .map_err(|error: String| RenderError::new("spec.limits.maxRequestBodySize", error))?,
        max_pending_requests: *max_pending_requests,
        pending_timeout: duration(pending_timeout, "spec.limits.pendingTimeout")?,
        max_streams: *max_streams,
        max_tunnels: *max_tunnels,
    })
}

pub(super) fn forwarding(spec: &ForwardingSpec) -> Forwarding {
    let ForwardingSpec { trusted_hops } = spec;
    Forwarding { trusted_hops: *trusted_hops }
}
