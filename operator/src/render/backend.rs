//! Where requests go, and how the connections there are used.

use std::net::{Ipv4Addr, SocketAddr};

use postern_crds::proxyroute::{self as spec, BackendTarget};
use postern_crds::trust::VouchesFor;
use sidecar_config::backend::{BackendPolicy, LoadBalancer, LoadBalancerType, PoolPolicy};
use sidecar_config::policy::Backend;
use sidecar_config::upstream::{BackendProtocol, BackendTls, BackendTlsMode};

use super::{Context, RenderError, duration, health, some_duration};
use crate::identity::trust::OUR_BUNDLE;
use crate::index::{ObjectName, ServicePort};

pub(super) fn backend(
    backend: &spec::BackendRef,
    place: &str,
    context: &mut Context<'_>,
) -> Result<Backend, RenderError> {
    let Some(target) = backend.target() else {
        return Err(RenderError::new(place, "write exactly one of localPort, name with port, and host with port"));
    };
    // All but the place, which `target` says.
    let spec::BackendRef { local_port: _, name: _, host: _, port: _, weight, protocol, tls } = backend;
    let rendered = Backend {
        address: None,
        endpoints: None,
        host: None,
        port: None,
        weight: *weight,
        protocol: match protocol {
            spec::BackendProtocol::Http => BackendProtocol::Http,
            spec::BackendProtocol::Http2 => BackendProtocol::Http2,
        },
        tls: tls.as_ref().map(|tls| backend_tls(tls, context)),
    };
    Ok(match target {
        BackendTarget::Local(port) => {
            Backend { address: Some(SocketAddr::from((Ipv4Addr::LOCALHOST, port))), ..rendered }
        }
        BackendTarget::Service { name, port } => {
            let service = ServicePort { service: ObjectName::new(context.namespace, name), port };
            Backend { endpoints: Some(service.to_string()), ..rendered }
        }
        BackendTarget::Host { host, port } => Backend { host: Some(host.to_owned()), port: Some(port), ..rendered },
    })
}

fn backend_tls(tls: &spec::BackendTls, context: &mut Context<'_>) -> BackendTls {
    let spec::BackendTls { mode, server_name, ca_certificate_refs, peers } = tls;
    let bundle = if ca_certificate_refs.is_empty() {
        OUR_BUNDLE.to_owned()
    } else {
        // Who names the authorities and the peers believes the ones about the others.
        let domains = peers.iter().filter_map(|peer| peer.strip_prefix("spiffe://")?.split('/').next());
        let vouches_for = VouchesFor { spiffe: domains.map(str::to_owned).collect(), common_name: false };
        context.needs.bundle(context.namespace, ca_certificate_refs, Some(&vouches_for))
    };
    BackendTls {
        mode: match mode {
            spec::BackendTlsMode::Simple => BackendTlsMode::Simple,
            spec::BackendTlsMode::Mutual => BackendTlsMode::Mutual,
        },
        server_name: server_name.clone(),
        trust: vec![bundle],
        peers: peers.clone(),
    }
}

pub(super) fn policy(policy: &spec::BackendPolicy, place: &str) -> Result<BackendPolicy, RenderError> {
    let spec::BackendPolicy { load_balancer, pool, health_check, outlier_detection } = policy;
    let kind = load_balancer.as_ref().map(|spec::LoadBalancer { kind }| match kind {
        spec::LoadBalancerType::RoundRobin => LoadBalancerType::RoundRobin,
        spec::LoadBalancerType::LeastRequest => LoadBalancerType::LeastRequest,
    });
    let pool = pool.as_ref().map(|pool| pool_policy(pool, &format!("{place}.pool")));
    let check = health_check.as_ref().map(|check| health::check(check, &format!("{place}.healthCheck")));
    let outlier = outlier_detection.as_ref();
    let outlier = outlier.map(|outlier| health::outlier(outlier, &format!("{place}.outlierDetection")));
    Ok(BackendPolicy {
        load_balancer: LoadBalancer { kind: kind.unwrap_or_default() },
        pool: pool.transpose()?.unwrap_or_default(),
        health_check: check.transpose()?,
        outlier_detection: outlier.transpose()?,
    })
}

fn pool_policy(pool: &spec::PoolPolicy, place: &str) -> Result<PoolPolicy, RenderError> {
    let spec::PoolPolicy {
        max_connections,
        max_pending,
        pending_timeout,
        connect_timeout,
        max_idle,
        idle_timeout,
        max_age,
        max_requests_per_connection,
    } = pool;
    Ok(PoolPolicy {
        max_connections: *max_connections,
        max_pending: *max_pending,
        pending_timeout: duration(pending_timeout, &format!("{place}.pendingTimeout"))?,
        connect_timeout: duration(connect_timeout, &format!("{place}.connectTimeout"))?,
        max_idle: *max_idle,
        idle_timeout: duration(idle_timeout, &format!("{place}.idleTimeout"))?,
        max_age: some_duration(max_age.as_ref(), &format!("{place}.maxAge"))?,
        max_requests_per_connection: *max_requests_per_connection,
    })
}
