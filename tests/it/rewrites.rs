//! Redirects and rewrites, with real clients.

use postern_tests::gate::Gate;
use serde_json::{Value, json};

use crate::observed::{columns, newest, rows};

const PROTOCOLS: [&str; 2] = ["--http1.1", "--http2"];

/// A gate whose rules are these, with an `allow` and backends where they have none of their own.
fn gate(rules: Value) -> Gate {
    Gate::start_with(|document| {
        document["version"] = json!("1.3");
        let route = &mut document["policy"]["routes"][0];
        let usual = route["rules"][0].clone();
        route["rules"] = rules;
        for rule in route["rules"].as_array_mut().unwrap() {
            let is_redirect = rule["filters"][0].get("requestRedirect").is_some();
            for field in if is_redirect { &["allow"][..] } else { &["allow", "backends"] } {
                if rule[field].is_null() {
                    rule[field] = usual[field].clone();
                }
            }
        }
    })
    .unwrap()
}

fn rule(name: &str, prefix: &str, filter: &Value) -> Value {
    json!({ "name": name, "matches": [{ "path": { "type": "PathPrefix", "value": prefix } }], "filters": [filter] })
}

/// What the application was asked for.
fn asked(echo: &Value) -> [String; 3] {
    let seen = |name: &str| {
        let fields = echo["headers"].as_array().unwrap().iter().filter(|pair| pair[0] == name);
        fields.map(|pair| pair[1].as_str().unwrap()).collect::<Vec<_>>().join("|")
    };
    let query = echo["query"].as_str().map(|query| format!("?{query}")).unwrap_or_default();
    [format!("{}{query}", echo["path"].as_str().unwrap()), seen("host"), seen("x-forwarded-host")]
}

#[test]
fn a_redirect_is_the_gates_answer_and_the_application_is_not_asked() {
    let redirect = |to: Value| json!({ "requestRedirect": to });
    let mut moved = rule(
        "moved",
        "/old",
        &redirect(json!({ "path": { "type": "ReplacePrefixMatch", "value": "/new" }, "statusCode": 308 })),
    );
    let headers = json!({ "responseHeaderModifier": { "set": [{ "name": "Cache-Control", "value": "no-store" }] } });
    moved["filters"].as_array_mut().unwrap().push(headers);
    let mut trial = rule("trial", "/trial", &redirect(json!({ "hostname": "new.example", "scheme": "https" })));
    trial["mode"] = json!("Audit");
    let gate = gate(json!([moved, trial]));
    let port = gate.sidecar.listener("gate").unwrap().port();
    let moved = format!("https://localhost:{port}/new/a%2Bb?c=%0d%0a");
    let table = [
        ("billing", "/old/%61%2bb?c=%0d%0a", 308, "moved", Some(moved.as_str()), ("allowed", None)),
        ("reports", "/old", 403, "moved", None, ("refused", Some("policy_not_allowed"))),
        (
            "reports",
            "/trial",
            302,
            "trial",
            Some("https://new.example/trial"),
            ("would_refuse", Some("policy_not_allowed")),
        ),
        ("billing", "/old/%2e%2e/a", 400, "", None, ("refused", Some("route_bad_path"))),
    ];
    let mut count = 0;
    for protocol in PROTOCOLS {
        for (who, path, status, rule, location, (verdict, reason)) in &table {
            let answer = gate.curl(Some(who), path).unwrap().arg(protocol).arg("--path-as-is").call().unwrap();
            let case = format!("{protocol} {who} {path}");
            assert_eq!((answer.status, answer.header("location")), (Some(*status), *location), "{case}");
            assert!(location.is_none() || answer.body.is_empty(), "{case}");
            count += 1;
            let row = newest(&gate.sidecar, count);
            assert_eq!(
                columns(&row, &["verdict", "reason", "status", "attempts"]),
                json!([verdict, reason, status, 0])
            );
            assert_eq!((row["rule"].as_str().unwrap_or_default(), row["upstream"].is_null()), (*rule, true), "{case}");
            assert_eq!(row["request_id"].as_str(), answer.header("x-request-id"), "{case}");
            let cached = location.filter(|_| *rule == "moved").map(|_| "no-store");
            assert_eq!(answer.header("cache-control"), cached, "{case}");
        }
        // Two on one connection, and nobody reads their bodies.
        let curl = gate.curl(Some("billing"), "/old/x").unwrap().arg(protocol);
        let body = "a".repeat(100_000);
        let posted = curl.arg("--data").arg(body).arg(format!("https://localhost:{port}/old/y")).call().unwrap();
        assert_eq!(posted.status, Some(308), "{protocol}: a body that nobody reads");
        count += 2;
        let rows = rows(&gate.sidecar, count);
        let last = rows[count - 2..].iter().map(|row| columns(row, &["path", "status"]));
        assert_eq!(last.collect::<Vec<_>>(), [json!(["/old/y", 308]), json!(["/old/x", 308])], "{protocol}");
    }
    assert_eq!(gate.upstream.requests(), 0);
}

#[test]
fn what_is_rewritten_is_what_the_application_is_asked_for() {
    let rewrite = |to: Value| json!({ "urlRewrite": to });
    let prefix = |value: &str| json!({ "type": "ReplacePrefixMatch", "value": value });
    let gate = gate(json!([
        rule("prefix", "/api", &rewrite(json!({ "path": prefix("/v2/") }))),
        rule("cut", "/cut", &rewrite(json!({ "path": prefix("") }))),
        rule(
            "whole",
            "/all",
            &rewrite(json!({ "hostname": "orders.internal", "path": { "type": "ReplaceFullPath", "value": "/one" } }))
        ),
        rule("host", "/host", &rewrite(json!({ "hostname": "orders.internal" }))),
    ]));
    let own = format!("localhost:{}", gate.sidecar.listener("gate").unwrap().port());
    let table = [
        ("/api/a?b=c&d", "/api/a", "/v2/a?b=c&d", own.as_str()),
        ("/api", "/api", "/v2", &own),
        ("/api/", "/api/", "/v2/", &own),
        ("/x/../api//%61%2fb", "/x/../api//%61%2fb", "", ""),
        ("/x/../api//%61%2bb", "/api/a%2Bb", "/v2/a%2Bb", &own),
        ("/cut", "/cut", "/", &own),
        ("/cut/a/../../cut/b", "/cut/b", "/b", &own),
        ("/cut//a", "/cut/a", "/a", &own),
        ("/all/a/b?c", "/all/a/b", "/one?c", "orders.internal"),
        ("/host/a", "/host/a", "/host/a", "orders.internal"),
    ];
    let mut count = 0;
    for protocol in PROTOCOLS {
        for (path, matched, target, host) in table {
            let answer = gate.curl(Some("billing"), path).unwrap().arg(protocol).arg("--path-as-is").call().unwrap();
            let case = format!("{protocol} {path}");
            count += 1;
            if target.is_empty() {
                assert_eq!(
                    (answer.status, answer.header("postern-reason")),
                    (Some(400), Some("route_bad_path")),
                    "{case}"
                );
                continue;
            }
            assert_eq!(answer.status, Some(200), "{case}: {answer:?}");
            assert_eq!(asked(&answer.json().unwrap()), [target, host, &own], "{case}");
            let row = newest(&gate.sidecar, count);
            assert_eq!((row["path"].as_str(), row["host"].as_str()), (Some(matched), Some(own.as_str())), "{case}");
        }
    }
}
