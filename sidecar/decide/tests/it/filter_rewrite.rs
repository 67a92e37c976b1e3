//! Other paths and other places, as Gateway API has them.

use std::borrow::Cow;
use std::sync::Arc;

use http::HeaderMap;
use http::header::{HeaderName, HeaderValue};
use serde_json::{Value, json};
use sidecar_decide::filter::{Arrival, Came, Filters};
use sidecar_decide::{Parts, accept, link, path};

use crate::fixture::{listener, read, rule};

/// What a rule with one filter and the match of one prefix does.
fn filters(filter: &Value, prefix: &str) -> Filters {
    let matches = json!([{"path": {"type": "PathPrefix", "value": prefix}}]);
    let mut rule = rule("r", &matches, &json!([{"anyone": {}}]));
    rule["filters"] = json!([filter]);
    if filter.get("requestRedirect").is_some() {
        rule["backends"] = json!([]);
    }
    let route = json!({"name": "a/b", "listener": "main", "rules": [rule]});
    let document = json!({"listeners": [listener("main", 8443)], "routes": [route]});
    let policy = Some(Arc::new(accept::policy(&read(document)).expect("a good policy")));
    let (mut snapshot, _) = link(&Parts { policy, ..Parts::default() });
    snapshot.rules.remove(0).filters
}

fn rewritten(kind: &str, value: &str, prefix: &str, path: &str) -> String {
    let filter = json!({"urlRewrite": {"path": {"type": kind, "value": value}}});
    filters(&filter, prefix).path.expect("a path").apply(path)
}

/// The first eleven rows are the table of `ReplacePrefixMatch` in the reference of Gateway API (`HTTPPathModifier`).
#[test]
fn prefixes_are_replaced_by_segments() {
    let table = [
        ("/foo/bar", "/foo", "/xyz", "/xyz/bar"),
        ("/foo/bar", "/foo", "/xyz/", "/xyz/bar"),
        ("/foo/bar", "/foo/", "/xyz", "/xyz/bar"),
        ("/foo/bar", "/foo/", "/xyz/", "/xyz/bar"),
        ("/foo", "/foo", "/xyz", "/xyz"),
        ("/foo/", "/foo", "/xyz", "/xyz/"),
        ("/foo/bar", "/foo", "", "/bar"),
        ("/foo/", "/foo", "", "/"),
        ("/foo", "/foo", "", "/"),
        ("/foo/", "/foo", "/", "/"),
        ("/foo", "/foo", "/", "/"),
        ("/foo/bar/", "/foo", "/xyz", "/xyz/bar/"),
        ("/foo/bar", "/foo/bar", "/xyz/abc", "/xyz/abc"),
        ("/foo/bar/baz", "/foo/bar", "/x", "/x/baz"),
        ("/foo/bar", "/", "/xyz", "/xyz/foo/bar"),
        ("/", "/", "/xyz", "/xyz/"),
        ("/foo", "/", "", "/foo"),
        // Matched without regard to how delimiters are written, so that bytes of the prefix would not be found.
        ("/a%2Bb/c", "/a+b", "/xyz", "/xyz/c"),
        ("/a+b/c%3B", "/a%2Bb", "/%C3%A9", "/%C3%A9/c%3B"),
    ];
    for (path, prefix, value, expected) in table {
        assert_eq!(rewritten("ReplacePrefixMatch", value, prefix, path), expected, "{path} {prefix} {value:?}");
        let filter = json!({"requestRedirect": {"path": {"type": "ReplacePrefixMatch", "value": value}}});
        assert_eq!(filters(&filter, prefix).path.expect("a path").apply(path), expected, "a redirect, too");
    }
    for path in ["/foo", "/foo/", "/foo/bar"] {
        assert_eq!(rewritten("ReplaceFullPath", "/xyz/", "/foo", path), "/xyz/");
    }
}

/// What was matched was normal, and what is put in its place is: so is what comes of both.
#[test]
fn what_is_rewritten_is_normal() {
    let paths = ["/foo", "/foo/", "/foo/a", "/foo/a/", "/foo/%2B;a=1/b", "/foo/...", "/foo/%C3%A9/~"];
    for value in ["", "/", "/x", "/x/", "/x/y", "/x/%2B", "/...", "/x;v=1"] {
        for path in paths {
            assert!(matches!(path::normalise(path), Ok(Cow::Borrowed(_))), "{path}");
            let other = rewritten("ReplacePrefixMatch", value, "/foo", path);
            assert_eq!(path::normalise(&other).expect("a path"), other, "{path} {value:?}");
            assert!(matches!(path::normalise(&other), Ok(Cow::Borrowed(_))), "{path} {value:?}");
        }
    }
}

fn location(filter: &Value, trusted_hops: u8, is_tls: bool, host: &str, target: &str) -> String {
    let filters = filters(&json!({ "requestRedirect": filter }), "/");
    let mut headers = HeaderMap::new();
    for (name, value) in [("x-forwarded-proto", "http"), ("x-forwarded-host", "shop.example:8080")] {
        headers.insert(HeaderName::from_static(name), HeaderValue::from_static(value));
    }
    let arrival = Arrival { is_tls, trusted_hops };
    let location = filters.redirect.expect("a redirect").location(&arrival, &Came { headers: &headers, host }, target);
    let location = location.expect("a location");
    location.to_str().expect("text").to_owned()
}

#[test]
fn a_redirect_leads_there() {
    let https = json!({"scheme": "https"});
    let host = json!({"hostname": "b.example"});
    let table = [
        // A scheme brings its own port (Gateway API, `HTTPRequestRedirectFilter.port`).
        (&https, 0, false, "a.example", "/x?y=1", "https://a.example/x?y=1"),
        (&https, 0, false, "a.example:8080", "/x", "https://a.example/x"),
        (&json!({"scheme": "http"}), 0, true, "a.example:8443", "/", "http://a.example/"),
        (&json!({"scheme": "https", "port": 443}), 0, false, "a.example", "/", "https://a.example/"),
        (&json!({"scheme": "https", "port": 80}), 0, false, "a.example", "/", "https://a.example:80/"),
        (&json!({"scheme": "http", "port": 80}), 0, false, "a.example", "/", "http://a.example/"),
        (&json!({"scheme": "https", "port": 8443}), 0, false, "a.example:8080", "/", "https://a.example:8443/"),
        // Without one it stays as the client came.
        (&host, 0, true, "a.example", "/", "https://b.example/"),
        (&host, 0, true, "a.example:8443", "/", "https://b.example:8443/"),
        (&host, 0, true, "a.example:443", "/", "https://b.example/"),
        (&host, 0, false, "a.example:80", "/", "http://b.example/"),
        (&host, 0, false, "[::1]:8080", "/", "http://b.example:8080/"),
        (&json!({"port": 9000}), 0, true, "[::1]", "/", "https://[::1]:9000/"),
        (&json!({"port": 9000}), 0, true, "[::1]:1", "/", "https://[::1]:9000/"),
        (&json!({"port": 443}), 0, true, "a:", "/", "https://a/"),
        // Who is trusted knows better how the client came.
        (&json!({"port": 9000}), 1, true, "a.example", "/", "http://shop.example:9000/"),
        (&host, 1, true, "a.example", "/", "http://b.example:8080/"),
        // What a query may hold, and a URI may not.
        (&https, 0, true, "a", "/x?a=\"<>&b={}&c=%zz'", "https://a/x?a=%22%3C%3E&b=%7B%7D&c=%zz'"),
        (&https, 0, true, "a", "/x?é", "https://a/x?%C3%A9"),
        (&https, 0, true, "a", "/x?a\r\nb: c", "https://a/x?a%0D%0Ab:%20c"),
    ];
    for (filter, trusted_hops, is_tls, host, target, expected) in table {
        let found = location(filter, trusted_hops, is_tls, host, target);
        assert_eq!(found, expected, "{filter} {trusted_hops} {is_tls} {host} {target}");
    }
}
