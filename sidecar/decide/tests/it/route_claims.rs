//! What two routes ask for alike.

use serde_json::{Value, json};
use sidecar_config::policy::Route;
use sidecar_decide::route::claims;

use crate::fixture::{read, route};

fn words(hostnames: &Value, matches: &Value) -> Vec<String> {
    let route: Route = read(route("any", hostnames, matches));
    claims(&route).map(|(_, claim)| claim.to_string()).collect()
}

/// What one match is called.
fn word(condition: &Value) -> String {
    words(&json!([]), &json!([condition])).remove(0)
}

#[test]
fn every_host_and_match_is_a_claim() {
    let matches = json!([{"path": {"type": "Exact", "value": "/a"}, "method": "GET"}, {}]);
    let expected = [
        "GET Exact `/a` of `a.example`",
        "GET Exact `/a` of `*.b.example`",
        "any method PathPrefix `/` of `a.example`",
        "any method PathPrefix `/` of `*.b.example`",
    ];
    assert_eq!(words(&json!(["A.example.", "*.B.example"]), &matches), expected);
    assert_eq!(words(&json!([]), &json!([])), ["any method PathPrefix `/` of any host"]);
}

#[test]
fn what_matches_the_same_is_the_same_claim() {
    let path = |kind: &str, value: &str| json!({"path": {"type": kind, "value": value}});
    let headers = |headers: Value| json!({"headers": headers});
    let exact = |name: &str, value: &str| json!({"name": name, "value": value});
    let pattern = |name: &str, value: &str| json!({"name": name, "type": "RegularExpression", "value": value});
    let rows = [
        (path("PathPrefix", "/a/"), path("PathPrefix", "/a"), true),
        (path("PathPrefix", "/"), json!({}), true),
        (path("Exact", "/a"), path("Exact", "/a/"), false),
        (path("Exact", "/a"), path("PathPrefix", "/a"), false),
        (path("Exact", "/a%2Cb"), path("Exact", "/a,b"), true),
        (path("Template", "/a/{id}"), path("Template", "/a/{name}"), true),
        (path("Template", "/a/{rest...}"), path("Template", "/a/{all...}"), true),
        (path("Template", "/a/{id}"), path("Template", "/a/{id...}"), false),
        (json!({"method": "GET"}), json!({}), false),
        (
            headers(json!([exact("X-A", "1"), exact("b", "2")])),
            headers(json!([exact("B", "2"), exact("x-a", "1")])),
            true,
        ),
        (headers(json!([exact("x-a", "1")])), headers(json!([pattern("x-a", "1")])), false),
        (headers(json!([exact("x-a", "1")])), json!({"queryParams": [exact("x-a", "1")]}), false),
        (json!({"messageType": "Time"}), json!({"messageType": "Time"}), true),
        (json!({"messageType": "Time"}), json!({"messageType": "json"}), false),
        (json!({"messageType": "Time"}), json!({}), false),
        (json!({"queryParams": [exact("A", "1")]}), json!({"queryParams": [exact("a", "1")]}), false),
    ];
    for (one, other, is_same) in rows {
        assert_eq!(word(&one) == word(&other), is_same, "{one} and {other}");
    }
}
