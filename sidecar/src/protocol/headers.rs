//! Fields that belong to one connection and must not cross the gate (RFC 9110 §7.6.1).

use http::header::{CONNECTION, COOKIE, HOST, HeaderMap, HeaderName, HeaderValue, TE, TRANSFER_ENCODING, UPGRADE};

/// The fixed list, in the order of [`place`]. `Connection` and `TE` are asked for by their places in it.
static FIXED: [HeaderName; 6] = [
    CONNECTION,
    TE,
    HeaderName::from_static("keep-alive"),
    HeaderName::from_static("proxy-connection"),
    TRANSFER_ENCODING,
    UPGRADE,
];

/// Removes what is between two neighbours only: the fixed list, and whatever `Connection` names. And `other`, because to
/// look for one name more costs least here.
///
/// `TE: trailers` survives, because gRPC requires it end to end (RFC 9110 §10.1.4 lets a proxy pass it on).
pub fn strip_hop_by_hop(headers: &mut HeaderMap, other: &HeaderName) {
    // Most messages have none or one of them. Comparing the names that are there is cheaper than looking for each that
    // may be, because a lookup hashes its name.
    let mut found = [false; FIXED.len()];
    let (mut has_other, other) = (false, other.as_str());
    for name in headers.keys() {
        let name = name.as_str();
        if let Some(place) = place(name) {
            found[place] = true;
        }
        has_other |= name == other;
    }
    if has_other {
        headers.remove(other);
    }
    let [has_connection, has_te, ..] = found;
    let named = if has_connection { named_by_connection(headers) } else { Vec::new() };
    let takes_trailers = has_te && names(headers, &TE, "trailers");
    for name in FIXED.iter().zip(found).filter_map(|(name, is_there)| is_there.then_some(name)).chain(&named) {
        headers.remove(name);
    }
    if takes_trailers {
        headers.insert(TE, HeaderValue::from_static("trailers"));
    }
}

/// Which of the fixed list a name is. Spelled out, most names are told from all of these by their length.
fn place(name: &str) -> Option<usize> {
    match name {
        "connection" => Some(0),
        "te" => Some(1),
        "keep-alive" => Some(2),
        "proxy-connection" => Some(3),
        "transfer-encoding" => Some(4),
        "upgrade" => Some(5),
        _ => None,
    }
}

/// Whether a field that is a list of names has this one, in whatever case.
pub(super) fn names(headers: &HeaderMap, field: &HeaderName, name: &str) -> bool {
    let values = headers.get_all(field).iter().filter_map(|value| value.to_str().ok());
    values.flat_map(|value| value.split(',')).any(|named| named.trim().eq_ignore_ascii_case(name))
}

/// What `Connection` names beside the fixed list.
fn named_by_connection(headers: &HeaderMap) -> Vec<HeaderName> {
    headers
        .get_all(CONNECTION)
        .iter()
        // What it says nearly always.
        .filter(|value| *value != "keep-alive" && *value != "close")
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .map(str::trim)
        // Nearly always it is one of these, and they need not become a name to be known.
        .filter(|token| !FIXED.iter().any(|fixed| token.eq_ignore_ascii_case(fixed.as_str())))
        .filter(|token| !token.eq_ignore_ascii_case("close"))
        .filter_map(|token| token.parse().ok())
        // What frames the message and says whom it is for is no client's to take away.
        .filter(|name| *name != HOST && *name != http::header::CONTENT_LENGTH)
        .collect()
}

/// Sets the one `Host` an upstream sees, and joins cookie crumbs (RFC 9113 §8.2.3).
pub fn upstream_host(headers: &mut HeaderMap, host: &str) {
    // HTTP/1.1 clients say it in the field already.
    if headers.get(HOST).is_none_or(|value| value != host)
        && let Ok(value) = HeaderValue::from_str(host)
    {
        headers.insert(HOST, value);
    }
    let mut crumbs = headers.get_all(COOKIE).iter();
    if let (Some(first), Some(second)) = (crumbs.next(), crumbs.next()) {
        let mut joined = first.as_bytes().to_vec();
        for crumb in [second].into_iter().chain(crumbs) {
            joined.extend_from_slice(b"; ");
            joined.extend_from_slice(crumb.as_bytes());
        }
        if let Ok(value) = HeaderValue::from_bytes(&joined) {
            headers.insert(COOKIE, value);
        }
    }
}

#[cfg(test)]
mod tests {
    use http::header::HeaderName;

    use super::{FIXED, place};

    #[test]
    fn each_of_the_fixed_list_has_its_place() {
        let places: Vec<_> = FIXED.iter().map(HeaderName::as_str).map(place).collect();
        assert_eq!(places, (0..FIXED.len()).map(Some).collect::<Vec<_>>());
    }
}
