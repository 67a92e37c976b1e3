//! What finding a rule costs among few routes and among many, in instructions: run it under `valgrind --tool=callgrind`
//! twice, with and without lookups; the difference is theirs.
//!
//! `route_cost ROUTES LOOKUPS`: routes of every kind of host and path, asked for the first and the last of each.
#![expect(clippy::expect_used, reason = "an example says what it expects by unwrapping")]

use http::{HeaderMap, Method};
use serde_json::{Value, json};
use sidecar_decide::route::Request;
use sidecar_decide::{Parts, Snapshot, accept, link};

/// Kinds of routes; each has its host and its path.
const KINDS: usize = 4;

/// The route of a number, and a request for it. The kinds take turns, so that many routes have all of them.
fn route(number: usize) -> (Value, String, String) {
    let own = format!("service-{number}.example.com");
    let (hostname, host, kind, value, path) = match number % KINDS {
        0 => (own.clone(), own, "Exact", format!("/v1/orders/{number}"), format!("/v1/orders/{number}")),
        1 => (own.clone(), own, "PathPrefix", format!("/v1/files/{number}"), format!("/v1/files/{number}/a/b")),
        // These share their hosts, so that their trees grow with the routes.
        2 => (
            "*.many.example.com".to_owned(),
            "a.many.example.com".to_owned(),
            "Template",
            format!("/v1/of-{number}/{{id}}/lines"),
            format!("/v1/of-{number}/7/lines"),
        ),
        _ => (
            "shop.example.com".to_owned(),
            "shop.example.com".to_owned(),
            "PathPrefix",
            format!("/v1/shop-{number}"),
            format!("/v1/shop-{number}/a/b"),
        ),
    };
    let rules = json!([{
        "name": "rule",
        "matches": [{"path": {"type": kind, "value": value}, "method": "GET"}],
        "allow": [{"anyone": {}}],
        "backends": [{"address": "127.0.0.1:8080"}],
    }]);
    let document =
        json!({"name": format!("shop/{number}"), "listener": "gate", "hostnames": [hostname], "rules": rules});
    (document, host, path)
}

fn snapshot(routes: &[Value]) -> Snapshot {
    let listener = json!({"name": "gate", "address": "127.0.0.1:8443", "protocol": "HTTPS", "tls": {}});
    let document = serde_json::from_value(json!({"listeners": [listener], "routes": routes})).expect("a document");
    let policy = accept::policy(&document).expect("a good document");
    let (snapshot, _) = link(&Parts { policy: Some(policy.into()), ..Parts::default() });
    snapshot
}

fn main() {
    let mut arguments = std::env::args().skip(1).map(|text| text.parse::<usize>().expect("a number"));
    let (routes, lookups) = (arguments.next().unwrap_or(10), arguments.next().unwrap_or(10_000));
    let made: Vec<_> = (0..routes).map(route).collect();
    let documents: Vec<_> = made.iter().map(|(document, ..)| document.clone()).collect();
    let snapshot = snapshot(&documents);
    let table = &snapshot.listener("gate").expect("the listener").table;
    let asked: Vec<_> = made[..KINDS].iter().chain(&made[routes - KINDS..]).collect();
    let headers = HeaderMap::new();
    let mut found = 0;
    for (_, host, path) in asked.iter().cycle().take(lookups) {
        let request = Request { host, path, method: &Method::GET, headers: &headers, query: None };
        found += usize::from(table.find(&request).is_ok());
    }
    assert_eq!(found, lookups, "every request falls under a route");
}
