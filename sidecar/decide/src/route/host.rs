//! Hosts as routes compare them, and the names that stand for many.

use std::borrow::Cow;

/// The hosts of a route's entry; lower-case, without port and the root's dot.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum HostCondition<'a> {
    /// Any host.
    Any,
    /// This host.
    Exact(Cow<'a, str>),
    /// Every name that ends in a dot and this.
    Below(Cow<'a, str>),
}

impl<'a> HostCondition<'a> {
    /// Of an entry of `hostnames`.
    pub(crate) fn of(hostname: &'a str) -> Self {
        match hostname.strip_prefix("*.") {
            Some(parent) => Self::Below(canonical_host(parent)),
            None => Self::Exact(canonical_host(hostname)),
        }
    }
}

/// What a canonical host lies below, longest first: `b.c` and `c` of `a.b.c`.
pub(super) fn parents(host: &str) -> impl Iterator<Item = &str> {
    // A dot in front is no label in front.
    let name = if host.starts_with('.') { "" } else { host };
    name.match_indices('.').map(|(dot, _)| &name[dot + 1..])
}

/// A host as it is compared: lower-case, without port and without the root's dot (RFC 9110 §4.2.3, RFC 1034 §3.1).
#[must_use]
pub fn canonical_host(host: &str) -> Cow<'_, str> {
    let (name, _) = split_port(host);
    let name = name.strip_suffix('.').unwrap_or(name);
    if name.bytes().any(|byte| byte.is_ascii_uppercase()) {
        Cow::Owned(name.to_ascii_lowercase())
    } else {
        Cow::Borrowed(name)
    }
}

/// A host and its port, which is empty where there is none.
#[must_use]
pub fn split_port(host: &str) -> (&str, &str) {
    // A port is short, so that a search that is made for long texts would cost more.
    match host.bytes().rposition(|byte| byte == b':') {
        // The colon of a port stands behind the bracket of an IPv6 literal.
        Some(colon) if !host[colon..].contains(']') => (&host[..colon], &host[colon + 1..]),
        _ => (host, ""),
    }
}

/// Whether it is a host with at most a port (RFC 9110 §7.2), and nothing that somebody else could read otherwise.
#[must_use]
pub fn is_host(text: &str) -> bool {
    let (host, port) = split_port(text);
    let literal = host.strip_prefix('[').and_then(|host| host.strip_suffix(']'));
    let is_name = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_');
    let is_literal = |byte: u8| byte.is_ascii_hexdigit() || matches!(byte, b':' | b'.');
    let is_good = match literal {
        Some(literal) => literal.bytes().all(is_literal),
        None => host.bytes().all(is_name),
    };
    is_good && !host.is_empty() && port.len() <= 5 && port.bytes().all(|byte| byte.is_ascii_digit())
}
