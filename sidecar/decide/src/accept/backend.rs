//! Accepts how a route's backends are used.

use std::fmt::Display;
use std::net::IpAddr;

use sidecar_config::Duration;
use sidecar_config::backend::{BackendPolicy, PoolPolicy};
use sidecar_config::policy::Backend;
use sidecar_config::upstream::BackendTls;

use super::health::{check_health, check_outlier};
use crate::problem::Problems;
use crate::spiffe::Pattern;

/// Most of anything that is counted here; the file limit is far below.
pub(super) const COUNT_MAX: u32 = 1_000_000;
/// Longest of these times: what waits longer waits for nothing.
pub(super) const TIME_MAX: Duration = Duration::from_millis(24 * 3_600_000);

/// Largest share of a backend, as in Gateway API.
const WEIGHT_MAX: u32 = 1_000_000;

/// Checks one backend of a rule.
pub(super) fn check_backend(backend: &Backend, place: &str, problems: &mut Problems) {
    if let Some(error) = address_error(backend) {
        problems.add(place, error);
    }
    check_range(Some(backend.weight), (0, WEIGHT_MAX), "a number", format_args!("{place}.weight"), problems);
    if let Some(tls) = &backend.tls {
        check_tls(tls, &format!("{place}.tls"), problems);
    }
}

fn address_error(backend: &Backend) -> Option<String> {
    let ways = [backend.address.is_some(), backend.endpoints.is_some(), backend.host.is_some()];
    match (ways.iter().filter(|is_there| **is_there).count(), &backend.address, &backend.host) {
        (0, ..) => Some("has neither address nor endpoints nor host; write exactly one".to_owned()),
        (1, Some(address), _) if address.port() == 0 => Some(format!("{address} has no port; write `address:port`")),
        (1, _, Some(host)) => host_error(host, backend.port),
        (1, ..) if backend.port.is_some() => Some("has a port without a host; leave it out".to_owned()),
        (1, ..) => None,
        _ => Some("has several of address, endpoints and host; write exactly one".to_owned()),
    }
}

/// Why a name cannot be looked up (RFC 1035 §2.3.4, with the underscores that services have), if it cannot.
fn host_error(host: &str, port: Option<u16>) -> Option<String> {
    let is_label = |label: &str| {
        (1..=63).contains(&label.len())
            && label.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_'))
    };
    if host.parse::<IpAddr>().is_ok() {
        return Some(format!("host `{host}` is an address; write it as `address`, with its port"));
    }
    let name = host.strip_suffix('.').unwrap_or(host);
    if name.len() > 253 || !name.split('.').all(is_label) {
        let advice = "write one such as `app.example.com`, without scheme and port";
        return Some(format!("`{host}` is not a host name; {advice}"));
    }
    match port {
        Some(1..) => None,
        Some(0) | None => Some(format!("host `{host}` has no port; write `port`, from 1 to 65535")),
    }
}

/// Nothing may be left out by which the server is known: encryption to anybody protects nobody.
fn check_tls(tls: &BackendTls, place: &str, problems: &mut Problems) {
    if tls.trust.is_empty() {
        let advice = "is empty; name the bundles of part trust that the server's certificate may come from";
        problems.add(format_args!("{place}.trust"), advice);
    }
    if tls.server_name.is_none() && tls.peers.is_empty() {
        let advice =
            "says neither serverName nor peers, so that any server of its bundles would do; write who it must be";
        problems.add(place, advice);
    }
    if let Some(name) = tls.server_name.as_deref().filter(|name| !is_server_name(name)) {
        let advice = "is no server's name; write the one its certificate has, such as `orders.shop.example`";
        problems.add(format_args!("{place}.serverName"), format_args!("`{name}` {advice}"));
    }
    for (index, peer) in tls.peers.iter().enumerate().filter(|(_, peer)| Pattern::parse(peer).is_none()) {
        let advice = "is not a SPIFFE ID; write one such as `spiffe://demo.local/ns/shop/sa/orders`, \
                      or end it in `/*` for all below it";
        problems.add(format_args!("{place}.peers[{index}]"), format_args!("`{peer}` {advice}"));
    }
}

/// Whether it can be asked for (RFC 6066 §3) and found in a certificate: a name of labels, without a dot at its end. An
/// address is none.
fn is_server_name(name: &str) -> bool {
    let is_inner = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_');
    let is_label = |label: &str| {
        (1..=63).contains(&label.len())
            && label.bytes().all(is_inner)
            && !label.starts_with('-')
            && !label.ends_with('-')
    };
    // No name ends in a number (RFC 3696 §2), but every IPv4 address does.
    let is_number = |label: &str| label.bytes().all(|byte| byte.is_ascii_digit());
    name.len() <= 253 && name.split('.').all(is_label) && !name.rsplit('.').next().is_some_and(is_number)
}

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
