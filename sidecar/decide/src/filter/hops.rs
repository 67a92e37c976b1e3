//! How a request came to the gate, told to the application; what proxies in front of the gate said of it, if they are
//! trusted.

use std::net::{IpAddr, SocketAddr};

use http::header::{HOST, HeaderMap, HeaderName, HeaderValue};
use sidecar_config::filters::Scheme;

use crate::route::is_host;

static X_FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");
static X_FORWARDED_HOST: HeaderName = HeaderName::from_static("x-forwarded-host");
static X_FORWARDED_PROTO: HeaderName = HeaderName::from_static("x-forwarded-proto");

/// How a request came in.
#[derive(Clone, Copy, Debug)]
pub struct Arrival {
    /// Whether it came over TLS.
    pub is_tls: bool,
    /// How many proxies in front of the gate are believed, the peer being the first.
    pub trusted_hops: u8,
}

/// Who is at the other end of a connection, as all of its requests tell it.
#[derive(Clone, Debug)]
pub struct PeerAddress(HeaderValue);

impl PeerAddress {
    /// Of an address.
    #[must_use]
    pub fn of(address: IpAddr) -> Self {
        // A dual-stack socket shows IPv4 clients so. No address has a byte that a field cannot have.
        let text = HeaderValue::try_from(address.to_canonical().to_string());
        Self(text.unwrap_or_else(|_| HeaderValue::from_static("unknown")))
    }
}

/// Writes `x-forwarded-for`, `x-forwarded-proto` and `x-forwarded-host` into a head whose `Host` is the client's.
///
/// Each of N trusted proxies appended the address of whom it heard the request from, so the last N addresses are theirs
/// to say; what stands before them is the client's word, and goes. The peer's address is always there, last.
pub fn write_hops(headers: &mut HeaderMap, arrival: &Arrival, peer: &PeerAddress) {
    let addresses = forwarded_for(headers, arrival, peer);
    headers.insert(&X_FORWARDED_FOR, addresses);
    let scheme = match client_scheme(headers, arrival) {
        Scheme::Http => "http",
        Scheme::Https => "https",
    };
    headers.insert(&X_FORWARDED_PROTO, HeaderValue::from_static(scheme));
    if client_host(headers, arrival).is_none() {
        match headers.get(HOST).cloned() {
            Some(host) => drop(headers.insert(&X_FORWARDED_HOST, host)),
            None => drop(headers.remove(&X_FORWARDED_HOST)),
        }
    }
}

/// The scheme that the client used: a trusted proxy's word for it, or the connection's.
pub(super) fn client_scheme(headers: &HeaderMap, arrival: &Arrival) -> Scheme {
    match told(headers, &X_FORWARDED_PROTO, arrival) {
        Some(b"http") => Scheme::Http,
        Some(b"https") => Scheme::Https,
        _ if arrival.is_tls => Scheme::Https,
        _ => Scheme::Http,
    }
}

/// The host that the client asked for, where a trusted proxy says it.
pub(super) fn client_host<'a>(headers: &'a HeaderMap, arrival: &Arrival) -> Option<&'a str> {
    let host = std::str::from_utf8(told(headers, &X_FORWARDED_HOST, arrival)?).ok()?;
    is_host(host).then_some(host)
}

fn told<'a>(headers: &'a HeaderMap, name: &HeaderName, arrival: &Arrival) -> Option<&'a [u8]> {
    if arrival.trusted_hops == 0 {
        return None;
    }
    single(headers, name).map(HeaderValue::as_bytes)
}

fn forwarded_for(headers: &HeaderMap, arrival: &Arrival, peer: &PeerAddress) -> HeaderValue {
    if arrival.trusted_hops == 0 {
        return peer.0.clone();
    }
    let lines: Vec<&str> =
        headers.get_all(&X_FORWARDED_FOR).iter().map(|line| line.to_str().unwrap_or_default()).collect();
    let said = lines.iter().rev().flat_map(|line| line.rsplit(','));
    let said = said.take(usize::from(arrival.trusted_hops)).map_while(address);
    let said: Vec<String> = said.map(|address| address.to_string()).collect();
    let mut addresses = Vec::new();
    for address in said.iter().rev() {
        addresses.extend_from_slice(address.as_bytes());
        addresses.extend_from_slice(b", ");
    }
    addresses.extend_from_slice(peer.0.as_bytes());
    HeaderValue::try_from(addresses).unwrap_or_else(|_| peer.0.clone())
}

/// An address, which some proxies write with a port.
fn address(text: &str) -> Option<IpAddr> {
    let text = text.trim_matches([' ', '\t']);
    let alone = text.strip_prefix('[').and_then(|text| text.strip_suffix(']')).unwrap_or(text);
    alone.parse().ok().or_else(|| text.parse().ok().map(|address: SocketAddr| address.ip()))
}

/// The one line of a field.
pub(super) fn single<'a>(headers: &'a HeaderMap, name: &HeaderName) -> Option<&'a HeaderValue> {
    let mut lines = headers.get_all(name).iter();
    match (lines.next(), lines.next()) {
        (Some(line), None) => Some(line),
        _ => None,
    }
}
