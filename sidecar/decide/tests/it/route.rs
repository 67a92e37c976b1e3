//! Which rule a request falls under, through documents that are accepted and linked.

use http::Method;
use serde_json::{Value, json};
use sidecar_decide::Reason::{RouteNoHost, RouteNoMethod, RouteNoPath};
use sidecar_decide::route::canonical_host;
use sidecar_decide::{Reason, Snapshot};

use crate::fixture::{asked, found, route, routed};

/// The route of the rule that a request falls under.
fn find<'a>(snapshot: &'a Snapshot, listener: &str, host: &str, path: &str, method: &str) -> Result<&'a str, Reason> {
    let method = Method::from_bytes(method.as_bytes()).expect("a method");
    found(snapshot, listener, &asked(host, path, &method))
}

type Row<'a> = (&'a str, &'a str, &'a str, Result<&'a str, Reason>);

fn check(routes: &[Value], rows: &[Row<'_>]) {
    let snapshot = routed(&json!(routes));
    for (host, path, method, expected) in rows {
        assert_eq!(find(&snapshot, "main", host, path, method), *expected, "{method} {host} {path}");
    }
}

fn exact(path: &str) -> Value {
    json!({"path": {"type": "Exact", "value": path}})
}

fn prefix(path: &str) -> Value {
    json!({"path": {"type": "PathPrefix", "value": path}})
}

fn with_method(mut condition: Value, method: &str) -> Value {
    condition["method"] = json!(method);
    condition
}

#[test]
fn hosts_are_compared_without_case_port_and_root_dot() {
    let rows = [
        ("orders.shop", "orders.shop"),
        ("Orders.SHOP", "orders.shop"),
        ("orders.shop:8443", "orders.shop"),
        ("orders.shop:", "orders.shop"),
        ("orders.shop.", "orders.shop"),
        ("ORDERS.shop.:443", "orders.shop"),
        ("orders.shop..", "orders.shop."),
        ("orders.shop:1:2", "orders.shop:1"),
        ("10.0.0.1", "10.0.0.1"),
        ("10.0.0.1:8443", "10.0.0.1"),
        ("[::1]", "[::1]"),
        ("[::1]:8443", "[::1]"),
        ("[2001:DB8::1]", "[2001:db8::1]"),
        ("[2001:DB8::1]:443", "[2001:db8::1]"),
        ("[::1", "[:"),
        ("user@orders.shop", "user@orders.shop"),
        ("", ""),
        (".", ""),
        (":", ""),
        (":443", ""),
    ];
    for (host, canonical) in rows {
        assert_eq!(canonical_host(host), canonical, "{host:?}");
    }
}

#[test]
fn a_route_serves_its_hosts_and_no_other() {
    let rows: &[Row<'_>] = &[
        ("orders.shop", "/", "GET", Ok("named")),
        ("ORDERS.shop", "/", "GET", Ok("named")),
        ("orders.shop:8443", "/", "GET", Ok("named")),
        ("orders.shop.", "/", "GET", Ok("named")),
        ("Orders.Shop.:1", "/", "GET", Ok("named")),
        ("upper.shop", "/", "GET", Ok("named")),
        ("dotted.shop", "/", "GET", Ok("named")),
        ("10.1.2.3", "/", "GET", Ok("named")),
        ("10.1.2.3:80", "/", "GET", Ok("named")),
        ("[2001:db8::1]", "/", "GET", Ok("named")),
        ("[2001:DB8::1]:8443", "/", "GET", Ok("named")),
        ("2001:db8::1", "/", "GET", Err(RouteNoHost)),
        ("[2001:db8::2]", "/", "GET", Err(RouteNoHost)),
        ("orders.shop.evil", "/", "GET", Err(RouteNoHost)),
        ("evil.orders.shop", "/", "GET", Err(RouteNoHost)),
        ("evilorders.shop", "/", "GET", Err(RouteNoHost)),
        ("orders.shop..", "/", "GET", Err(RouteNoHost)),
        (".orders.shop", "/", "GET", Err(RouteNoHost)),
        ("orders.shop:1:2", "/", "GET", Err(RouteNoHost)),
        ("user@orders.shop", "/", "GET", Err(RouteNoHost)),
        ("orders.shop@evil", "/", "GET", Err(RouteNoHost)),
        ("orders", "/", "GET", Err(RouteNoHost)),
        ("", "/", "GET", Err(RouteNoHost)),
        (".", "/", "GET", Err(RouteNoHost)),
    ];
    let names = ["orders.shop", "UPPER.shop", "dotted.shop.", "10.1.2.3", "[2001:DB8::1]"];
    check(&[route("named", &json!(names), &json!([]))], rows);
}

#[test]
fn no_hostnames_means_any_host() {
    let rows: &[Row<'_>] = &[
        ("orders.shop", "/", "GET", Ok("any")),
        ("", "/", "GET", Ok("any")),
        ("[::1]:1", "/x/y", "DELETE", Ok("any")),
    ];
    check(&[route("any", &json!([]), &json!([]))], rows);
}

#[test]
fn exact_is_the_whole_path() {
    let rows: &[Row<'_>] = &[
        ("h", "/orders", "GET", Ok("exact")),
        ("h", "/orders/", "GET", Err(RouteNoPath)),
        ("h", "/orders/7", "GET", Err(RouteNoPath)),
        ("h", "/ordersheet", "GET", Err(RouteNoPath)),
        ("h", "/Orders", "GET", Err(RouteNoPath)),
        ("h", "/order", "GET", Err(RouteNoPath)),
        ("h", "/", "GET", Err(RouteNoPath)),
        ("h", "/with/", "GET", Ok("slash")),
        ("h", "/with", "GET", Err(RouteNoPath)),
    ];
    let routes = [
        route("exact", &json!(["h"]), &json!([exact("/orders")])),
        route("slash", &json!(["h"]), &json!([exact("/with/")])),
    ];
    check(&routes, rows);
    check(
        &[route("root", &json!([]), &json!([exact("/")]))],
        &[("h", "/", "GET", Ok("root")), ("h", "/a", "GET", Err(RouteNoPath))],
    );
}

#[test]
fn a_prefix_ends_between_segments() {
    let rows: &[Row<'_>] = &[
        ("h", "/orders", "GET", Ok("prefix")),
        ("h", "/orders/", "GET", Ok("prefix")),
        ("h", "/orders/7", "GET", Ok("prefix")),
        ("h", "/orders/7/lines/", "GET", Ok("prefix")),
        ("h", "/ordersheet", "GET", Err(RouteNoPath)),
        ("h", "/ordersheet/7", "GET", Err(RouteNoPath)),
        ("h", "/orders;v=1", "GET", Err(RouteNoPath)),
        ("h", "/order", "GET", Err(RouteNoPath)),
        ("h", "/x/orders", "GET", Err(RouteNoPath)),
        ("h", "/ORDERS", "GET", Err(RouteNoPath)),
        ("h", "/", "GET", Err(RouteNoPath)),
    ];
    check(&[route("prefix", &json!([]), &json!([prefix("/orders")]))], rows);
    // Gateway API: a trailing slash of the prefix has no meaning.
    check(&[route("prefix", &json!([]), &json!([prefix("/orders/")]))], rows);
    let root: &[Row<'_>] = &[("h", "/", "GET", Ok("root")), ("h", "/a/b/", "GET", Ok("root"))];
    check(&[route("root", &json!([]), &json!([prefix("/")]))], root);
    check(&[route("root", &json!([]), &json!([{}]))], root);
    check(&[route("root", &json!([]), &json!([]))], root);
}

#[test]
fn exact_goes_before_prefix_and_longer_before_shorter() {
    let routes = [
        route("root", &json!([]), &json!([prefix("/")])),
        route("short", &json!([]), &json!([prefix("/a")])),
        route("long", &json!([]), &json!([prefix("/a/b/c")])),
        route("whole", &json!([]), &json!([exact("/a/b")])),
        route("whole-slash", &json!([]), &json!([exact("/a/b/")])),
    ];
    check(
        &routes,
        &[
            ("h", "/", "GET", Ok("root")),
            ("h", "/z", "GET", Ok("root")),
            ("h", "/ab", "GET", Ok("root")),
            ("h", "/a", "GET", Ok("short")),
            ("h", "/a/", "GET", Ok("short")),
            ("h", "/a/b", "GET", Ok("whole")),
            ("h", "/a/b/", "GET", Ok("whole-slash")),
            ("h", "/a/b/x", "GET", Ok("short")),
            ("h", "/a/b/c", "GET", Ok("long")),
            ("h", "/a/b/c/", "GET", Ok("long")),
            ("h", "/a/b/c/d/e/f", "GET", Ok("long")),
            ("h", "/a/b/cd", "GET", Ok("short")),
        ],
    );
}

#[test]
fn a_match_with_a_method_goes_before_one_without() {
    let routes = [
        route("any-method", &json!([]), &json!([prefix("/a")])),
        route("get", &json!([]), &json!([with_method(prefix("/a"), "GET")])),
        route("get-again", &json!([]), &json!([with_method(prefix("/a"), "GET")])),
        route("any-again", &json!([]), &json!([prefix("/a")])),
        route("exact-put", &json!([]), &json!([with_method(exact("/a/x"), "PUT")])),
        route("purge", &json!([]), &json!([with_method(prefix("/a"), "PURGE")])),
    ];
    check(
        &routes,
        &[
            ("h", "/a", "GET", Ok("get")),
            ("h", "/a", "HEAD", Ok("any-method")),
            ("h", "/a", "POST", Ok("any-method")),
            ("h", "/a", "PURGE", Ok("purge")),
            ("h", "/a", "get", Ok("any-method")),
            ("h", "/a/x", "PUT", Ok("exact-put")),
            // The whole path has no rule for the method, a prefix of it has.
            ("h", "/a/x", "GET", Ok("get")),
            ("h", "/a/x", "DELETE", Ok("any-method")),
        ],
    );
}

#[test]
fn equal_matches_go_by_document_order() {
    let first = route("first", &json!(["h", "H"]), &json!([prefix("/a")]));
    let second = route("second", &json!(["h"]), &json!([prefix("/a/"), exact("/a")]));
    let rows: &[Row<'_>] = &[("h", "/a/b", "GET", Ok("first")), ("h", "/a", "GET", Ok("second"))];
    check(&[first.clone(), second.clone()], rows);
    let rows: &[Row<'_>] = &[("h", "/a/b", "GET", Ok("second")), ("h", "/a", "GET", Ok("second"))];
    check(&[second, first], rows);
    let get = |name: &str| route(name, &json!([]), &json!([with_method(prefix("/"), "GET")]));
    check(&[get("one"), get("two")], &[("h", "/", "GET", Ok("one"))]);
    check(&[get("two"), get("one")], &[("h", "/", "GET", Ok("two"))]);
}

#[test]
fn a_hosts_own_routes_go_before_those_for_any_host() {
    let routes = [
        route("any", &json!([]), &json!([exact("/own"), prefix("/any"), with_method(prefix("/both"), "GET")])),
        route("own", &json!(["h"]), &json!([prefix("/own"), with_method(prefix("/both"), "PUT")])),
    ];
    check(
        &routes,
        &[
            // Although the other match is of the whole path.
            ("h", "/own", "GET", Ok("own")),
            ("h", "/any", "GET", Ok("any")),
            ("h", "/both", "PUT", Ok("own")),
            ("h", "/both", "GET", Ok("any")),
            ("h", "/both", "POST", Err(RouteNoMethod)),
            ("h", "/none", "GET", Err(RouteNoPath)),
            ("other", "/own", "GET", Ok("any")),
            ("other", "/own/x", "GET", Err(RouteNoPath)),
            ("other", "/both", "PUT", Err(RouteNoMethod)),
        ],
    );
}

#[test]
fn the_reason_says_how_far_it_got() {
    let get = |path: &str| json!([with_method(prefix(path), "GET")]);
    // Without routes for any host.
    check(
        &[route("own", &json!(["h"]), &get("/a"))],
        &[
            ("h", "/a", "GET", Ok("own")),
            ("h", "/a", "PUT", Err(RouteNoMethod)),
            ("h", "/b", "PUT", Err(RouteNoPath)),
            ("other", "/a", "GET", Err(RouteNoHost)),
        ],
    );
    // The method is what is missing, whichever of the two has the path.
    check(
        &[route("own", &json!(["h"]), &get("/a")), route("any", &json!([]), &get("/b"))],
        &[
            ("h", "/a", "PUT", Err(RouteNoMethod)),
            ("h", "/b", "PUT", Err(RouteNoMethod)),
            ("h", "/c", "PUT", Err(RouteNoPath)),
            ("other", "/a", "GET", Err(RouteNoPath)),
            ("other", "/b", "PUT", Err(RouteNoMethod)),
        ],
    );
    check(&[], &[("h", "/", "GET", Err(RouteNoHost))]);
}

#[test]
fn a_method_that_none_asks_for_is_told_the_others() {
    let asking = |path: Value, method: &str| {
        let mut condition = path;
        condition["method"] = json!(method);
        condition
    };
    let template = |value: &str| json!({"path": {"type": "Template", "value": value}});
    let expression = |value: &str| json!({"path": {"type": "RegularExpression", "value": value}});
    let table = routed(&json!([
        route("own", &json!(["h"]), &json!([asking(exact("/a/b"), "PUT"), asking(exact("/a/b"), "GET")])),
        route("below", &json!(["*.test"]), &json!([asking(exact("/a/b"), "TRACE")])),
        route(
            "any",
            &json!([]),
            &json!([
                asking(prefix("/a"), "POST"),
                asking(prefix("/a"), "GET"),
                asking(template("/{x}/b"), "PATCH"),
                asking(expression("/a/[bc]"), "PURGE"),
                asking(exact("/z"), "DELETE"),
            ]),
        ),
    ]));
    let table = &table.listener("main").expect("a listener").table;
    let rows: &[(&str, &str, &[&str])] = &[
        ("h", "/a/b", &["GET", "PATCH", "POST", "PURGE", "PUT"]),
        ("H:8443", "/a/b", &["GET", "PATCH", "POST", "PURGE", "PUT"]),
        ("other", "/a/b", &["GET", "PATCH", "POST", "PURGE"]),
        ("x.test", "/a/b", &["GET", "PATCH", "POST", "PURGE", "TRACE"]),
        ("h", "/a/c", &["GET", "POST", "PURGE"]),
        ("h", "/z", &["DELETE"]),
        ("h", "/nowhere", &[]),
    ];
    for (host, path, methods) in rows {
        assert_eq!(table.methods(&asked(host, path, &Method::OPTIONS)), *methods, "{host}{path}");
    }
}

/// A rule must not be passed by spelling its path in another way that the application cannot tell from the first.
#[test]
fn an_escape_does_not_slip_past_a_rule() {
    let routes = [
        route("open", &json!([]), &json!([prefix("/")])),
        route("admin", &json!([]), &json!([prefix("/admin"), prefix("/caf%C3%A9")])),
        route("purge", &json!([]), &json!([exact("/orders:purge"), exact("/a%40b"), prefix("/x"), prefix("/x;y")])),
    ];
    let snapshot = routed(&json!(routes));
    let rows = [
        ("/admin", "admin"),
        ("/%61dmin", "admin"),
        ("/%61%64%6D%69%6e/x", "admin"),
        ("/caf%C3%A9", "admin"),
        ("/caf%c3%a9/x", "admin"),
        ("/caf\u{e9}", "admin"),
        ("/orders:purge", "purge"),
        ("/orders%3Apurge", "purge"),
        ("/%6Frders%3apurge", "purge"),
        ("/a@b", "purge"),
        ("/a%40b", "purge"),
        ("/x;y/z", "purge"),
        ("/x%3By/z", "purge"),
        ("/x%3by", "purge"),
        // Encoded twice is another text, and stays one.
        ("/%2561dmin", "open"),
        ("/orders%253Apurge", "open"),
        ("/x%2520;y", "open"),
        ("/x", "purge"),
    ];
    for (path, expected) in rows {
        let normal = sidecar_decide::path::normalise(path).expect("an accepted path");
        assert_eq!(find(&snapshot, "main", "h", &normal, "GET"), Ok(expected), "{path}");
    }
}

/// `find` asks for a normalised path; another one must find nothing worse than another rule.
#[test]
fn a_path_that_is_not_normal_is_no_danger() {
    check(
        &[route("open", &json!([]), &json!([prefix("/")]))],
        &[
            ("h", "/%", "GET", Ok("open")),
            ("h", "/%4", "GET", Ok("open")),
            ("h", "/%\u{e9}", "GET", Ok("open")),
            ("h", "/%3a%", "GET", Ok("open")),
            ("h", "", "GET", Ok("open")),
            ("h", "*", "OPTIONS", Err(RouteNoPath)),
        ],
    );
}

#[test]
fn listeners_have_routes_of_their_own() {
    let mut elsewhere = route("elsewhere", &json!(["h"]), &json!([]));
    elsewhere["listener"] = json!("other");
    let snapshot = routed(&json!([route("here", &json!(["h"]), &json!([prefix("/a")])), elsewhere]));
    let rows = [
        ("main", "/a", Ok("here")),
        ("main", "/b", Err(RouteNoPath)),
        ("other", "/a", Ok("elsewhere")),
        ("other", "/b", Ok("elsewhere")),
    ];
    for (listener, path, expected) in rows {
        assert_eq!(find(&snapshot, listener, "h", path, "GET"), expected, "{listener} {path}");
    }
}

/// A path of many short segments costs no more than the longest prefix of the document lets it.
#[test]
fn a_long_path_is_matched_in_one_pass() {
    let routes = [route("root", &json!([]), &json!([prefix("/")])), route("a", &json!([]), &json!([prefix("/a/a")]))];
    let snapshot = routed(&json!(routes));
    let long = "/a".repeat(1 << 19);
    assert_eq!(find(&snapshot, "main", "h", &long, "GET"), Ok("a"));
    let long = "/b".repeat(1 << 19);
    assert_eq!(find(&snapshot, "main", "h", &long, "GET"), Ok("root"));
}
