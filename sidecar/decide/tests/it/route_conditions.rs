//! Conditions on headers and on the query.

use http::{HeaderMap, HeaderName, HeaderValue, Method};
use serde_json::{Value, json};
use sidecar_decide::Reason::{self, RouteNoHost, RouteNoMatch, RouteNoMethod, RouteNoPath};
use sidecar_decide::route::Request;

use crate::fixture::{asked, found, route, routed};

/// A list of fields, in order and as often as they come.
fn fields(list: &[(&str, &str)]) -> HeaderMap {
    let field = |(name, value): &(&str, &str)| {
        let name = HeaderName::from_bytes(name.as_bytes()).expect("a field's name");
        (name, HeaderValue::from_bytes(value.as_bytes()).expect("a field's value"))
    };
    let mut headers = HeaderMap::new();
    for (name, value) in list.iter().map(field) {
        headers.append(name, value);
    }
    headers
}

fn header(name: &str, value: &str) -> Value {
    json!({"headers": [{"name": name, "value": value}]})
}

fn header_pattern(name: &str, value: &str) -> Value {
    json!({"headers": [{"name": name, "value": value, "type": "RegularExpression"}]})
}

fn query(name: &str, value: &str) -> Value {
    json!({"queryParams": [{"name": name, "value": value}]})
}

fn query_pattern(name: &str, value: &str) -> Value {
    json!({"queryParams": [{"name": name, "value": value, "type": "RegularExpression"}]})
}

/// Whether a request of these fields and query meets a match's conditions.
fn holds(condition: &Value, headers: &[(&str, &str)], query: Option<&str>) -> bool {
    let snapshot = routed(&json!([route("it", &json!([]), &json!([condition]))]));
    let headers = fields(headers);
    let request = Request { headers: &headers, query, ..asked("h", "/", &Method::GET) };
    let found = found(&snapshot, "main", &request);
    assert!([Ok("it"), Err(RouteNoMatch)].contains(&found), "{found:?}");
    found.is_ok()
}

/// A condition, the fields of a request, and whether they meet it.
type HeaderRow<'a> = (&'a Value, &'a [(&'a str, &'a str)], bool);

/// Host, path, method, value of field `a`, and the route that is found.
type FoundRow<'a> = (&'a str, &'a str, &'a str, &'a str, Result<&'a str, Reason>);

#[test]
fn headers() {
    let exact = header("X-Tenant", "a");
    let listed = header("x-list", "a,b");
    let cookie = header("Cookie", "a=1; b=2");
    let expression = header_pattern("x-version", "v[0-9]+");
    let two = json!({"headers": [{"name": "a", "value": "1"}, {"name": "b", "value": "2", "type": "Exact"}]});
    let rows: &[HeaderRow<'_>] = &[
        (&exact, &[("x-tenant", "a")], true),
        (&exact, &[("X-TENANT", "a"), ("other", "b")], true),
        (&exact, &[], false),
        (&exact, &[("x-tenant", "A")], false),
        (&exact, &[("x-tenant", "ab")], false),
        (&exact, &[("x-tenant", "")], false),
        (&exact, &[("x-tenant2", "a")], false),
        // Joined: a second line is not overlooked.
        (&exact, &[("x-tenant", "a"), ("x-tenant", "b")], false),
        (&exact, &[("x-tenant", "a"), ("x-tenant", "a")], false),
        (&listed, &[("x-list", "a"), ("x-list", "b")], true),
        (&listed, &[("x-list", "a,b")], true),
        (&listed, &[("x-list", "a, b")], false),
        (&listed, &[("x-list", "b"), ("x-list", "a")], false),
        (&cookie, &[("cookie", "a=1"), ("cookie", "b=2")], true),
        (&cookie, &[("cookie", "a=1; b=2")], true),
        (&cookie, &[("cookie", "a=1,b=2")], false),
        (&expression, &[("x-version", "v12")], true),
        (&expression, &[("x-version", "v12x")], false),
        (&expression, &[("x-version", "av12")], false),
        (&expression, &[("x-version", "v1"), ("x-version", "v2")], false),
        (&expression, &[], false),
        // All of them must hold.
        (&two, &[("a", "1"), ("b", "2")], true),
        (&two, &[("a", "1")], false),
        (&two, &[("b", "2")], false),
        (&two, &[("a", "1"), ("b", "1")], false),
    ];
    for (condition, headers, expected) in rows {
        assert_eq!(holds(condition, headers, None), *expected, "{condition} {headers:?}");
    }
}

/// What `Connection` names is taken out on the way upstream, so that no rule may rest on it.
#[test]
fn a_header_that_is_not_forwarded_matches_nothing() {
    let condition = header("x-role", "admin");
    let rows: &[(&[&str], bool)] = &[
        (&["close"], true),
        (&["x-roles"], true),
        (&["x-role"], false),
        (&["close, X-Role"], false),
        (&["close", "keep-alive ,\tx-role ,te"], false),
    ];
    for (connection, expected) in rows {
        let lines = connection.iter().map(|value| ("connection", *value));
        let headers: Vec<_> = [("x-role", "admin")].into_iter().chain(lines).collect();
        assert_eq!(holds(&condition, &headers, None), *expected, "{connection:?}");
    }
}

/// An expression reads bytes; a value in no encoding is still a value.
#[test]
fn a_header_of_any_bytes_is_matched() {
    let snapshot = routed(&json!([route("it", &json!([]), &json!([header_pattern("x-a", "a.b")]))]));
    let mut headers = HeaderMap::new();
    headers.insert("x-a", HeaderValue::from_bytes(b"a\xffb").expect("a field's value"));
    let request = Request { headers: &headers, ..asked("h", "/", &Method::GET) };
    assert_eq!(found(&snapshot, "main", &request), Ok("it"));
}

#[test]
fn queries() {
    let plain = query("a", "1");
    let spaced = query("the name", "caf\u{e9} & co");
    let empty = query("flag", "");
    let expression = query_pattern("page", "[0-9]{1,3}");
    let rows: &[(&Value, Option<&str>, bool)] = &[
        (&plain, Some("a=1"), true),
        (&plain, Some("b=2&a=1"), true),
        (&plain, Some("&&a=1&"), true),
        (&plain, None, false),
        (&plain, Some(""), false),
        (&plain, Some("a=2"), false),
        (&plain, Some("A=1"), false),
        (&plain, Some("a=11"), false),
        (&plain, Some("a"), false),
        (&plain, Some("aa=1"), false),
        // The first occurrence counts.
        (&plain, Some("a=1&a=2"), true),
        (&plain, Some("a=2&a=1"), false),
        (&plain, Some("a&a=1"), false),
        // Escapes are the bytes they stand for, in names too.
        (&plain, Some("%61=%31"), true),
        (&plain, Some("%61=2&a=1"), false),
        (&plain, Some("a=%2531"), false),
        (&plain, Some("a==1"), false),
        // A semicolon separates nothing.
        (&plain, Some("b=2;a=1"), false),
        (&query("b", "2;a=1"), Some("b=2;a=1"), true),
        (&spaced, Some("the+name=caf%C3%A9+%26+co"), true),
        (&spaced, Some("the%20name=caf%c3%a9%20%26%20co"), true),
        (&spaced, Some("the%2Bname=caf%C3%A9+%26+co"), false),
        // A percent sign that encodes nothing is itself.
        (&query("p", "100%"), Some("p=100%"), true),
        (&query("p", "%zz%4"), Some("p=%zz%4"), true),
        (&query("p", "+"), Some("p=%2B"), true),
        (&empty, Some("flag"), true),
        (&empty, Some("flag="), true),
        (&empty, Some("flag=0"), false),
        (&empty, Some("x"), false),
        (&query("a", "b=c"), Some("a=b=c"), true),
        (&expression, Some("page=12"), true),
        (&expression, Some("page=%312"), true),
        (&expression, Some("page=1234"), false),
        (&expression, Some("page="), false),
        (&expression, Some(""), false),
    ];
    for (condition, query, expected) in rows {
        assert_eq!(holds(condition, &[], *query), *expected, "{condition} {query:?}");
    }
}

/// Gateway API: path, then method, then number of headers, then of parameters, then the order.
#[test]
fn more_conditions_go_first() {
    let both = json!({"headers": [{"name": "a", "value": "1"}], "queryParams": [{"name": "q", "value": "1"}]});
    let two = json!({"headers": [{"name": "a", "value": "1"}, {"name": "b", "value": "1"}]});
    let get = json!({"method": "GET"});
    let exact = json!({"path": {"type": "Exact", "value": "/x"}});
    let routes = [
        route("none", &json!([]), &json!([{}])),
        route("query", &json!([]), &json!([query("q", "1")])),
        route("header", &json!([]), &json!([header("a", "1")])),
        route("again", &json!([]), &json!([header("a", "1")])),
        route("both", &json!([]), &json!([both])),
        route("two", &json!([]), &json!([two])),
    ];
    let more = [route("get", &json!([]), &json!([get])), route("exact", &json!([]), &json!([exact]))];
    let all: Vec<_> = routes.iter().chain(&more).cloned().collect();
    let a: &[(&str, &str)] = &[("a", "1")];
    let ab: &[(&str, &str)] = &[("a", "1"), ("b", "1")];
    let rows = [
        (&routes[..], "/", &[][..], None, "none"),
        (&routes[..], "/", &[][..], Some("q=1"), "query"),
        (&routes[..], "/", a, None, "header"),
        (&routes[..], "/", a, Some("q=1"), "both"),
        (&routes[..], "/", ab, Some("q=1"), "two"),
        (&all[..], "/", ab, Some("q=1"), "get"),
        (&all[..], "/x", ab, Some("q=1"), "exact"),
    ];
    for (routes, path, headers, query, expected) in rows {
        let snapshot = routed(&json!(routes));
        let headers = fields(headers);
        let request = Request { headers: &headers, query, ..asked("h", path, &Method::GET) };
        assert_eq!(found(&snapshot, "main", &request), Ok(expected), "{path} {headers:?} {query:?}");
    }
}

/// The next candidate is tried when a condition does not hold, down to another kind of path and another host.
#[test]
fn a_condition_that_does_not_hold_hides_none_behind_it() {
    let on = |kind: &str, path: &str, value: &str| json!({"path": {"type": kind, "value": path}, "method": "GET", "headers": [{"name": "a", "value": value}]});
    let routes = [
        route("exact", &json!(["h"]), &json!([on("Exact", "/x/y", "exact")])),
        route("template", &json!(["h"]), &json!([on("Template", "/x/{y}", "template")])),
        route("prefix", &json!(["h"]), &json!([on("PathPrefix", "/x", "prefix")])),
        route("pattern", &json!(["h"]), &json!([on("RegularExpression", "/x/.", "pattern")])),
        route("any", &json!([]), &json!([on("Exact", "/x/y", "any")])),
    ];
    let snapshot = routed(&json!(routes));
    let rows: [FoundRow<'_>; 12] = [
        ("h", "/x/y", "GET", "exact", Ok("exact")),
        ("h", "/x/y", "GET", "template", Ok("template")),
        ("h", "/x/y", "GET", "prefix", Ok("prefix")),
        ("h", "/x/y", "GET", "pattern", Ok("pattern")),
        ("h", "/x/y", "GET", "any", Ok("any")),
        ("other", "/x/y", "GET", "any", Ok("any")),
        ("other", "/x/y", "GET", "exact", Err(RouteNoMatch)),
        // How far it got.
        ("h", "/x/y", "GET", "none", Err(RouteNoMatch)),
        ("h", "/x/y", "PUT", "exact", Err(RouteNoMethod)),
        ("h", "/z", "PUT", "exact", Err(RouteNoPath)),
        ("other", "/x", "GET", "any", Err(RouteNoPath)),
        ("h", "/x/other", "GET", "pattern", Err(RouteNoMatch)),
    ];
    for (host, path, method, value, expected) in rows {
        let headers = fields(&[("a", value)]);
        let method = Method::from_bytes(method.as_bytes()).expect("a method");
        let request = Request { headers: &headers, ..asked(host, path, &method) };
        assert_eq!(found(&snapshot, "main", &request), expected, "{method} {host} {path} {value}");
    }
    let own = routed(&json!([&routes[0]]));
    assert_eq!(found(&own, "main", &asked("other", "/x/y", &Method::GET)), Err(RouteNoHost));
}
