//! Wildcard hosts, templates and regular expressions, and what goes first.

use http::Method;
use serde_json::{Value, json};
use sidecar_decide::Reason::{self, RouteNoHost, RouteNoMethod, RouteNoPath};

use crate::fixture::{asked, found, route, routed};

type Row<'a> = (&'a str, Result<&'a str, Reason>);

fn condition(kind: &str, value: &str) -> Value {
    json!({"path": {"type": kind, "value": value}})
}

fn template(value: &str) -> Value {
    condition("Template", value)
}

fn pattern(value: &str) -> Value {
    condition("RegularExpression", value)
}

fn with_method(mut condition: Value, method: &str) -> Value {
    condition["method"] = json!(method);
    condition
}

/// A route for any host, named like the value of its first match.
fn named(matches: &[Value]) -> Value {
    let name = matches[0]["path"]["value"].as_str().expect("a match with a path");
    route(name, &json!([]), &json!(matches))
}

fn check_paths(routes: &[Value], rows: &[Row<'_>]) {
    let snapshot = routed(&json!(routes));
    for (path, expected) in rows {
        assert_eq!(found(&snapshot, "main", &asked("h", path, &Method::GET)), *expected, "{path}");
    }
}

fn check_hosts(routes: &[Value], rows: &[Row<'_>]) {
    let snapshot = routed(&json!(routes));
    for (host, expected) in rows {
        assert_eq!(found(&snapshot, "main", &asked(host, "/", &Method::GET)), *expected, "{host}");
    }
}

#[test]
fn a_wildcard_is_every_name_below_one() {
    let rows = [
        ("a.example.com", Ok("wild")),
        ("A.Example.COM:8443", Ok("wild")),
        ("a.example.com.", Ok("wild")),
        ("a.b.c.example.com", Ok("wild")),
        ("example.com", Err(RouteNoHost)),
        (".example.com", Err(RouteNoHost)),
        ("aexample.com", Err(RouteNoHost)),
        ("a.example.com.evil", Err(RouteNoHost)),
        ("a.example.org", Err(RouteNoHost)),
        ("com", Err(RouteNoHost)),
        ("*.example.com", Ok("wild")),
        ("", Err(RouteNoHost)),
        (".", Err(RouteNoHost)),
    ];
    check_hosts(&[route("wild", &json!(["*.example.com"]), &json!([]))], &rows);
    check_hosts(&[route("wild", &json!(["*.Example.COM."]), &json!([]))], &rows);
}

#[test]
fn an_exact_host_goes_before_a_longer_wildcard_before_any_host() {
    let routes = [
        route("any", &json!([]), &json!([])),
        route("short", &json!(["*.com"]), &json!([])),
        route("long", &json!(["*.b.com"]), &json!([])),
        route("exact", &json!(["a.b.com"]), &json!([])),
    ];
    let rows = [
        ("a.b.com", Ok("exact")),
        ("x.b.com", Ok("long")),
        ("x.a.b.com", Ok("long")),
        ("b.com", Ok("short")),
        ("com", Ok("any")),
        ("org", Ok("any")),
    ];
    check_hosts(&routes, &rows);
}

/// As for exact hosts: a host that comes first and does not fit hides none behind it.
#[test]
fn a_wildcard_hides_nothing_behind_it() {
    let routes = [
        route("any", &json!([]), &json!([condition("PathPrefix", "/any")])),
        route("short", &json!(["*.com"]), &json!([condition("PathPrefix", "/short"), condition("Exact", "/both")])),
        route("long", &json!(["*.b.com"]), &json!([with_method(condition("PathPrefix", "/both"), "PUT")])),
        route("exact", &json!(["a.b.com"]), &json!([condition("PathPrefix", "/exact")])),
    ];
    let snapshot = routed(&json!(routes));
    let rows = [
        ("a.b.com", "/exact", Ok("exact")),
        ("a.b.com", "/both", Ok("short")),
        ("a.b.com", "/both/x", Err(RouteNoMethod)),
        ("a.b.com", "/short", Ok("short")),
        ("a.b.com", "/any", Ok("any")),
        ("x.b.com", "/exact", Err(RouteNoPath)),
        ("org", "/short", Err(RouteNoPath)),
    ];
    for (host, path, expected) in rows {
        assert_eq!(found(&snapshot, "main", &asked(host, path, &Method::GET)), expected, "{host} {path}");
    }
}

/// A host of very many labels costs no more than the longest wildcard of the document lets it.
#[test]
fn a_long_host_is_matched_in_one_pass() {
    let snapshot = routed(&json!([route("wild", &json!(["*.example.com"]), &json!([]))]));
    for (host, expected) in
        [("a.".repeat(1 << 19) + "example.com", Ok("wild")), ("a.".repeat(1 << 19), Err(RouteNoHost))]
    {
        assert_eq!(found(&snapshot, "main", &asked(&host, "/", &Method::GET)), expected);
    }
}

#[test]
fn a_parameter_is_one_segment() {
    let rows = [
        ("/orders/7", Ok("/orders/{id}")),
        ("/orders/a%20b", Ok("/orders/{id}")),
        ("/orders", Err(RouteNoPath)),
        ("/orders/", Err(RouteNoPath)),
        ("/orders/7/", Err(RouteNoPath)),
        ("/orders/7/lines", Ok("/orders/{id}/lines")),
        ("/orders/7/lines/", Err(RouteNoPath)),
        ("/orders/7/8", Err(RouteNoPath)),
        ("/Orders/7", Err(RouteNoPath)),
        ("/slash/7/", Ok("/slash/{id}/")),
        ("/slash/7", Err(RouteNoPath)),
        ("/fixed/path", Ok("/fixed/path")),
        ("/fixed/{path}", Err(RouteNoPath)),
        ("/x:y/7", Ok("/x%3Ay/{id}")),
        ("/x%3Ay/7", Ok("/x%3Ay/{id}")),
        ("/%7Bid%7D/7", Ok("/%7Bid%7D/{id}")),
        ("", Err(RouteNoPath)),
        ("*", Err(RouteNoPath)),
    ];
    let templates =
        ["/orders/{id}", "/orders/{id}/lines", "/slash/{id}/", "/fixed/path", "/x%3Ay/{id}", "/%7Bid%7D/{id}"];
    check_paths(&templates.map(|value| named(&[template(value)])), &rows);
}

#[test]
fn a_rest_is_all_that_is_left() {
    let rows = [
        ("/files/a", Ok("/files/{rest...}")),
        ("/files/a/b/c/", Ok("/files/{rest...}")),
        ("/files/", Ok("/files/{rest...}")),
        ("/files", Err(RouteNoPath)),
        ("/filesystem", Err(RouteNoPath)),
        ("/7/of/a/b", Ok("/{id}/of/{rest...}")),
        ("/7/of", Err(RouteNoPath)),
        ("//of/a", Err(RouteNoPath)),
    ];
    check_paths(&["/files/{rest...}", "/{id}/of/{rest...}"].map(|value| named(&[template(value)])), &rows);
    let rows = [("/", Ok("/{all...}")), ("/a", Ok("/{all...}")), ("/a/b/", Ok("/{all...}"))];
    check_paths(&[named(&[template("/{all...}")])], &rows);
}

#[test]
fn among_templates_more_literal_segments_go_first() {
    let templates = [
        "/{a...}",
        "/{a}",
        "/{a}/{b}/{c}",
        "/orders/{b}/{c}",
        "/{a}/lines/{c}",
        "/{a}/lines/last",
        "/orders/{rest...}",
        "/orders/{id}/{rest...}",
        "/orders/{id}",
    ];
    let rows = [
        ("/", Ok("/{a...}")),
        ("/x", Ok("/{a}")),
        ("/x/y", Ok("/{a...}")),
        ("/x/y/z", Ok("/{a}/{b}/{c}")),
        ("/orders/y/z", Ok("/orders/{b}/{c}")),
        ("/x/lines/z", Ok("/{a}/lines/{c}")),
        // As many literals: the document's order.
        ("/orders/lines/z", Ok("/orders/{b}/{c}")),
        // Although the first segment is literal in another.
        ("/orders/lines/last", Ok("/{a}/lines/last")),
        // As many literals: one that ends goes before a rest, and a longer one before a shorter.
        ("/orders/7", Ok("/orders/{id}")),
        ("/orders/7/8/9", Ok("/orders/{id}/{rest...}")),
        ("/orders/", Ok("/orders/{rest...}")),
        ("/orders", Ok("/{a}")),
    ];
    let routes = templates.map(|value| named(&[template(value)]));
    check_paths(&routes, &rows);
    let mut reversed = routes;
    reversed.reverse();
    check_paths(&reversed, &[("/orders/lines/z", Ok("/{a}/lines/{c}")), ("/orders/lines/last", Ok("/{a}/lines/last"))]);
}

#[test]
fn a_template_that_does_not_fit_hides_none_behind_it() {
    let put = |value: &str| named(&[with_method(template(value), "PUT")]);
    let routes = [
        put("/orders/{id}/lines"),
        named(&[template("/orders/{id}/{what}")]),
        put("/{a}/{b}"),
        named(&[condition("PathPrefix", "/shop")]),
    ];
    let rows = [
        ("/orders/7/lines", Ok("/orders/{id}/{what}")),
        ("/shop/7", Ok("/shop")),
        ("/a/b", Err(RouteNoMethod)),
        ("/a/b/c", Err(RouteNoPath)),
    ];
    check_paths(&routes, &rows);
}

#[test]
fn an_expression_matches_the_whole_path() {
    let rows = [
        ("/orders/7", Ok("/orders/[0-9]+")),
        ("/orders/", Err(RouteNoPath)),
        ("/orders/7/", Err(RouteNoPath)),
        ("/x/orders/7", Err(RouteNoPath)),
        ("/orders/7\n", Err(RouteNoPath)),
        ("/a", Ok("/a|/ab")),
        ("/ab", Ok("/a|/ab")),
        ("/abc", Err(RouteNoPath)),
        ("/SHOUT", Ok(r"(?i)/shout(/\w+)?")),
        ("/shout/Now", Ok(r"(?i)/shout(/\w+)?")),
        ("/x:y", Ok("/x:y")),
        ("/x%3Ay", Ok("/x:y")),
        ("/caf%C3%A9", Ok("/caf%C3%A9")),
    ];
    let expressions = ["/orders/[0-9]+", "/a|/ab", r"(?i)/shout(/\w+)?", "/x:y", "/caf%C3%A9"];
    check_paths(&expressions.map(|value| named(&[pattern(value)])), &rows);
}

/// A path that is too long for an expression matches none, however it ends.
#[test]
fn an_expression_reads_no_more_than_it_may() {
    let rows =
        [("/".to_owned() + &"a".repeat(4095), Ok("/a+")), ("/".to_owned() + &"a".repeat(4096), Err(RouteNoPath))];
    for (path, expected) in &rows {
        check_paths(&[named(&[pattern("/a+")])], &[(path.as_str(), *expected)]);
    }
}

#[test]
fn exact_template_prefix_expression_in_this_order() {
    let exact = named(&[condition("Exact", "/a/b")]);
    let template = named(&[template("/{x}/b")]);
    let prefix = named(&[condition("PathPrefix", "/a")]);
    let pattern = named(&[pattern("/.*")]);
    let rows =
        [("/a/b", Ok("/a/b")), ("/x/b", Ok("/{x}/b")), ("/a/c", Ok("/a")), ("/a", Ok("/a")), ("/x/c", Ok("/.*"))];
    let mut routes = [pattern, prefix, template, exact];
    check_paths(&routes, &rows);
    routes.reverse();
    check_paths(&routes, &rows);
    check_paths(&routes[1..], &[("/a/b", Ok("/{x}/b"))]);
    check_paths(&routes[2..], &[("/a/b", Ok("/a"))]);
    check_paths(&routes[3..], &[("/a/b", Ok("/.*"))]);
}

#[test]
fn among_expressions_the_method_goes_before_the_order() {
    let routes = [
        named(&[pattern("/a.*")]),
        named(&[with_method(pattern("/.*"), "GET")]),
        named(&[with_method(pattern("/.+"), "GET")]),
        named(&[with_method(pattern("/z.*"), "PUT"), pattern("/b.*")]),
    ];
    let rows = [("/a", Ok("/.*")), ("/b", Ok("/.*")), ("/z", Ok("/.*"))];
    check_paths(&routes, &rows);
    check_paths(&routes[3..], &[("/b", Ok("/z.*")), ("/z", Err(RouteNoMethod)), ("/c", Err(RouteNoPath))]);
}
