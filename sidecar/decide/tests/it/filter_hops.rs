//! How a request came, as the application is told: by the gate, or by proxies that are trusted.

use http::header::{HeaderMap, HeaderName, HeaderValue};
use sidecar_decide::filter::{Arrival, PeerAddress, RequestId, Uuid7, trace_context, write_hops};

fn head(fields: &[(&'static str, &'static str)]) -> HeaderMap {
    let mut headers = HeaderMap::new();
    for (name, value) in fields {
        headers.append(HeaderName::from_static(name), HeaderValue::from_static(value));
    }
    headers
}

/// All values of a field.
fn all<'h>(headers: &'h HeaderMap, name: &str) -> Vec<&'h str> {
    headers.get_all(name).iter().map(|value| value.to_str().expect("text")).collect()
}

#[test]
fn addresses_are_believed_as_far_as_proxies_are_trusted() {
    const PEER: &str = "192.0.2.9";
    let table: [(u8, &[&'static str], &str); 14] = [
        (0, &[], "192.0.2.9"),
        (0, &["203.0.113.1"], "192.0.2.9"),
        (1, &[], "192.0.2.9"),
        (1, &["203.0.113.1"], "203.0.113.1, 192.0.2.9"),
        // The first was written by the client.
        (1, &["198.51.100.66, 203.0.113.1"], "203.0.113.1, 192.0.2.9"),
        (2, &["198.51.100.66, 203.0.113.1,10.0.0.1"], "203.0.113.1, 10.0.0.1, 192.0.2.9"),
        // Two lines are one list (RFC 9110 §5.3).
        (2, &["198.51.100.66, 203.0.113.1", "10.0.0.1"], "203.0.113.1, 10.0.0.1, 192.0.2.9"),
        (16, &["203.0.113.1, 10.0.0.1"], "203.0.113.1, 10.0.0.1, 192.0.2.9"),
        // What is no address ends what can be believed.
        (3, &["203.0.113.1, unknown, 10.0.0.1"], "10.0.0.1, 192.0.2.9"),
        (1, &["203.0.113.1, "], "192.0.2.9"),
        (1, &["evil\""], "192.0.2.9"),
        (1, &["203.0.113.1:4711"], "203.0.113.1, 192.0.2.9"),
        (1, &["[2001:db8::1]:4711"], "2001:db8::1, 192.0.2.9"),
        (1, &["[2001:db8::1]"], "2001:db8::1, 192.0.2.9"),
    ];
    for (trusted_hops, lines, expected) in table {
        let lines: Vec<_> = lines.iter().map(|line| ("x-forwarded-for", *line)).collect();
        let mut headers = head(&lines);
        write_hops(&mut headers, &Arrival { is_tls: true, trusted_hops }, &PeerAddress::of(PEER.parse().unwrap()));
        assert_eq!(all(&headers, "x-forwarded-for"), [expected], "{trusted_hops} {lines:?}");
    }
    let mut headers = head(&[]);
    let peer = PeerAddress::of("::ffff:192.0.2.9".parse().unwrap());
    write_hops(&mut headers, &Arrival { is_tls: true, trusted_hops: 0 }, &peer);
    assert_eq!(all(&headers, "x-forwarded-for"), [PEER], "an IPv4 client of a socket for both");
}

#[test]
fn scheme_and_host_are_the_gates_own_unless_a_proxy_is_trusted() {
    type Fields = &'static [(&'static str, &'static str)];
    let table: [(u8, bool, Fields, [&str; 2]); 8] = [
        (0, true, &[], ["https", "gate.example"]),
        (0, false, &[], ["http", "gate.example"]),
        (0, true, &[("x-forwarded-proto", "http"), ("x-forwarded-host", "a")], ["https", "gate.example"]),
        (
            1,
            false,
            &[("x-forwarded-proto", "https"), ("x-forwarded-host", "a.example:8443")],
            ["https", "a.example:8443"],
        ),
        (1, true, &[], ["https", "gate.example"]),
        (1, true, &[("x-forwarded-proto", "ftp"), ("x-forwarded-host", "a b")], ["https", "gate.example"]),
        (1, true, &[("x-forwarded-proto", "http, https"), ("x-forwarded-host", "")], ["https", "gate.example"]),
        (1, true, &[("x-forwarded-proto", "http"), ("x-forwarded-proto", "http")], ["https", "gate.example"]),
    ];
    for (trusted_hops, is_tls, fields, expected) in table {
        let mut headers = head(fields);
        headers.insert("host", HeaderValue::from_static("gate.example"));
        write_hops(&mut headers, &Arrival { is_tls, trusted_hops }, &PeerAddress::of([192, 0, 2, 9].into()));
        let written = [all(&headers, "x-forwarded-proto"), all(&headers, "x-forwarded-host")];
        assert_eq!(written, expected.map(|value| vec![value]), "{trusted_hops} {fields:?}");
    }
}

#[test]
fn a_request_has_one_id() {
    const FRESH: &str = "00000000-0000-7000-8000-000000000007";
    const LONG: &str = "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa";
    assert_eq!(LONG.len(), 129);
    let table: [(u8, &[&'static str], &str); 8] = [
        (0, &[], FRESH),
        (0, &["theirs"], FRESH),
        (1, &[], FRESH),
        (1, &["theirs-1.2:3/4+5="], "theirs-1.2:3/4+5="),
        (1, &["one", "two"], FRESH),
        (1, &[""], FRESH),
        (1, &["a b"], FRESH),
        (1, &[LONG], FRESH),
    ];
    for (trusted_hops, lines, expected) in table {
        let lines: Vec<_> = lines.iter().map(|line| ("x-request-id", *line)).collect();
        let headers = head(&lines);
        let id = RequestId::of(&headers, trusted_hops, || Uuid7::new(0, 7));
        assert_eq!(id.to_string(), expected, "{trusted_hops} {lines:?}");
        assert_eq!(id.header().unwrap(), expected, "{trusted_hops} {lines:?}");
    }
}

#[test]
fn a_trace_passes_where_everybody_reads_it_alike() {
    const ID: &str = "0af7651916cd43dd8448eb211c80319c";
    let table = [
        ("00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01", true),
        ("01-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01-more", true),
        ("00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01-more", false),
        ("00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-00", true),
        ("ff-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01", false),
        ("00-0AF7651916CD43DD8448EB211C80319C-b7ad6b7169203331-01", false),
        ("00-00000000000000000000000000000000-b7ad6b7169203331-01", false),
        ("00-0af7651916cd43dd8448eb211c80319c-0000000000000000-01", false),
        ("00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331", false),
        ("", false),
    ];
    for (traceparent, good) in table {
        let mut headers = head(&[("traceparent", traceparent), ("tracestate", "a=b")]);
        let context = trace_context(&mut headers);
        let flags = if traceparent.ends_with("-00") { "00" } else { "01" };
        let written = good.then(|| format!("00-{ID}-b7ad6b7169203331-{flags}"));
        assert_eq!(
            context.and_then(|context| context.header()),
            written.map(|text| text.parse().unwrap()),
            "{traceparent}"
        );
        assert_eq!(context.map(|context| context.is_sampled()), good.then_some(flags == "01"), "{traceparent}");
        let kept = if good { 1 } else { 0 };
        assert_eq!([all(&headers, "traceparent").len(), all(&headers, "tracestate").len()], [kept; 2], "{traceparent}");
    }
    let one = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
    let mut headers = head(&[("traceparent", one), ("traceparent", one)]);
    assert_eq!((trace_context(&mut headers), headers.len()), (None, 0), "twice is not once");
}
