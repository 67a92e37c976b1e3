//! Requests with curl over HTTP/1.1 and HTTP/2: what passes, what is refused and how, and the row of each.

use std::net::SocketAddr;

use postern_tests::ca::LeafOptions;
use postern_tests::clients::{Answer, Curl};
use postern_tests::config::{client_uri, known};
use postern_tests::gate::Gate;
use postern_tests::upstream::Upstream;
use serde_json::{Value, json};

use crate::observed::{columns, metric, newest, rows, wait_metric};

/// curl's flag, and the protocol as rows have it.
const PROTOCOLS: [(&str, &str); 2] = [("--http1.1", "HTTP/1.1"), ("--http2", "HTTP/2")];

/// Nothing listens on tcpmux, and nobody but root could.
const NOBODY_LISTENS: &str = "127.0.0.1:1";

const TEN_MIB: usize = 10 << 20;

/// A rule for the paths under one, for `demo/billing` unless `allow` says otherwise.
fn rule(path: &str, change: &Value, document: &Value) -> Value {
    let mut rule = json!({
        "name": path.trim_start_matches('/'),
        "matches": [{ "path": { "type": "PathPrefix", "value": path } }],
        "allow": [{ "identity": "demo/billing" }],
        "backends": document["policy"]["routes"][0]["rules"][0]["backends"].clone(),
    });
    for (key, value) in change.as_object().unwrap() {
        rule[key] = value.clone();
    }
    rule
}

fn set_rules(document: &mut Value, rules: &[(&str, Value)]) {
    let rules: Vec<_> = rules.iter().map(|(path, change)| rule(path, change, document)).collect();
    document["policy"]["routes"][0]["rules"] = json!(rules);
}

/// A gate with one rule for every path and method.
fn open_gate() -> Gate {
    Gate::start_with(|document| set_rules(document, &[("/", json!({ "name": "all" }))])).unwrap()
}

fn with(curl: Curl, arguments: &[&str]) -> Curl {
    arguments.iter().fold(curl, |curl, argument| curl.arg(*argument))
}

#[test]
fn allowed_requests_pass_and_are_recorded() {
    let gate = open_gate();
    let host = format!("localhost:{}", gate.sidecar.listener("gate").unwrap().port());
    let table: [(&str, &[&str], u16, u64); 9] = [
        ("GET", &[], 200, 0),
        ("GET", &["--get", "--data", "n=1"], 200, 0),
        ("POST", &["--data", "hello"], 200, 5),
        ("POST", &["--data", ""], 200, 0),
        ("POST", &["--data", "hello", "-H", "Transfer-Encoding: chunked"], 200, 5),
        ("PUT", &["--data", "hello", "--request", "PUT"], 200, 5),
        ("HEAD", &["--head"], 200, 0),
        ("DELETE", &["--request", "DELETE"], 200, 0),
        ("OPTIONS", &["--request", "OPTIONS"], 200, 0),
    ];
    let mut count = 0;
    for (flag, protocol) in PROTOCOLS {
        for (method, arguments, status, request_bytes) in table {
            let case = format!("{method} {arguments:?} {protocol}");
            let curl = with(gate.curl(Some("billing"), "/orders/7").unwrap().arg(flag), arguments);
            let answer = curl.call().unwrap();
            count += 1;
            assert_eq!((answer.exit_code, answer.status), (Some(0), Some(status)), "{case}: {answer:?}");
            assert_eq!(answer.version.as_deref(), Some(protocol), "{case}");
            if method != "HEAD" {
                let echo = answer.json().unwrap();
                let query = if arguments.contains(&"--get") { json!("n=1") } else { Value::Null };
                let shown = columns(&echo, &["method", "path", "query", "bodyBytes"]);
                assert_eq!(shown, json!([method, "/orders/7", query, request_bytes]), "{case}");
            }
            let row = newest(&gate.sidecar, count);
            let who = ["kind", "verdict", "reason", "identity", "listener", "route", "rule", "mode"];
            let expected = json!(["request", "allowed", null, "demo/billing", "gate", "demo/orders", "all", "Enforce"]);
            assert_eq!(columns(&row, &who), expected, "{case}");
            let what = ["protocol", "method", "host", "path", "status", "request_bytes", "response_bytes", "attempts"];
            let bytes = answer.body.len();
            let expected = json!([protocol, method, host, "/orders/7", status, request_bytes, bytes, 1]);
            assert_eq!(columns(&row, &what), expected, "{case}");
            assert_eq!(row["upstream"], json!(gate.upstream.address().to_string()), "{case}");
        }
    }
    assert_eq!(rows(&gate.sidecar, count).len(), count);
}

#[test]
fn statuses_of_the_application_pass_unchanged() {
    let gate = open_gate();
    let mut count = 0;
    for (flag, protocol) in PROTOCOLS {
        for status in [200, 201, 204, 206, 301, 304, 400, 403, 404, 418, 500, 503, 599] {
            let curl = gate.curl(Some("billing"), &format!("/status?code={status}")).unwrap().arg(flag);
            let answer = curl.call().unwrap();
            count += 1;
            let case = format!("{status} {protocol}");
            assert_eq!((answer.exit_code, answer.status), (Some(0), Some(status)), "{case}: {answer:?}");
            assert_eq!(answer.header("postern-reason"), None, "{case}");
            assert_eq!(answer.body.is_empty(), [204, 304].contains(&status), "{case}");
            let row = newest(&gate.sidecar, count);
            let shown = columns(&row, &["verdict", "reason", "status", "response_bytes"]);
            assert_eq!(shown, json!(["allowed", null, status, answer.body.len()]), "{case}");
        }
    }
}

#[test]
fn large_bodies_pass_whole() {
    let gate = open_gate();
    std::fs::write(gate.folder.file("large.bin"), vec![7; TEN_MIB]).unwrap();
    let mut count = 0;
    for (flag, protocol) in PROTOCOLS {
        let curl = gate.curl(Some("billing"), &format!("/bytes?n={TEN_MIB}")).unwrap().arg(flag);
        let answer = curl.call().unwrap();
        assert_eq!((answer.exit_code, answer.status), (Some(0), Some(200)), "{protocol}");
        assert!(answer.body == vec![0; TEN_MIB], "{protocol}: {} bytes", answer.body.len());
        count += 1;
        let row = newest(&gate.sidecar, count);
        assert_eq!(columns(&row, &["request_bytes", "response_bytes"]), json!([0, TEN_MIB]), "{protocol}");
        for header in ["X-Declared: yes", "Transfer-Encoding: chunked"] {
            let curl = gate.curl(Some("billing"), "/orders").unwrap().arg(flag);
            let answer = with(curl, &["--data-binary", "@large.bin", "-H", header]).call().unwrap();
            assert_eq!(answer.status, Some(200), "{protocol} {header}: {answer:?}");
            assert_eq!(answer.json().unwrap()["bodyBytes"], json!(TEN_MIB), "{protocol} {header}");
            count += 1;
            let row = newest(&gate.sidecar, count);
            assert_eq!(row["request_bytes"], json!(TEN_MIB), "{protocol} {header}");
        }
    }
}

/// Calls a pattern of URLs in one invocation, which reuses its connection: statuses, and connections made.
fn call_many(gate: &Gate, pattern: &str, arguments: &[&str]) -> (Vec<u16>, u32) {
    let curl = with(gate.curl(Some("billing"), pattern).unwrap(), arguments);
    let answer = with(curl, &["-o", "/dev/null", "-w", "%{http_code} %{num_connects}\\n"]).call().unwrap();
    assert_eq!(answer.exit_code, Some(0), "{answer:?}");
    let text = answer.text();
    let pairs = text.lines().map(|line| line.split_once(' ').unwrap());
    let (statuses, connects): (Vec<u16>, Vec<u32>) =
        pairs.map(|(status, connects)| (status.parse::<u16>().unwrap(), connects.parse::<u32>().unwrap())).unzip();
    (statuses, connects.iter().sum())
}

#[test]
fn requests_of_a_connection_share_one_connection_upstream() {
    for (flag, protocol) in PROTOCOLS {
        let gate = open_gate();
        assert_eq!(call_many(&gate, "/orders/[1-20]", &[flag]), (vec![200; 20], 1), "{protocol}");
        assert_eq!((gate.upstream.connections(), gate.upstream.requests()), (1, 20), "{protocol}");
        let all = rows(&gate.sidecar, 20);
        let made = all.iter().filter(|row| !row["connect_us"].is_null()).count();
        assert_eq!((all.len(), made), (20, 1), "{protocol}");
    }
}

#[test]
fn every_decision_is_a_row_and_a_count() {
    let gate = Gate::start().unwrap();
    let mut total = 0;
    for (certificate, verdict, reason) in [("billing", "allowed", ""), ("reports", "refused", "policy_not_allowed")] {
        for (flag, _) in PROTOCOLS {
            let curl = gate.curl(Some(certificate), "/orders/[1-100]").unwrap().arg(flag);
            let curl = with(curl, &["--parallel", "--parallel-max", "10", "-o", "/dev/null"]);
            assert_eq!(curl.call().unwrap().exit_code, Some(0));
            total += 100;
            let labels =
                format!(r#"listener="gate",route="demo/orders",rule="all",verdict="{verdict}",reason="{reason}""#);
            let counted = metric(&gate.sidecar, &format!("postern_requests_total{{{labels}}}"));
            assert_eq!(counted, if total % 200 == 0 { 200 } else { 100 }, "{labels}");
        }
    }
    let _all = rows(&gate.sidecar, total);
    let sum = gate.sidecar.launch().query("select sum(repeat) as decisions, count(distinct id) as ids from requests");
    assert_eq!(json!(sum.unwrap()), json!([{ "decisions": 400, "ids": 400 }]));
    wait_metric(&gate.sidecar, "postern_log_rows_written_total", 400);
}

/// Certificates beyond those of the harness: nobody's, two identities' at once, and a suspended one's.
fn keep_more(gate: &Gate) {
    let two = vec![client_uri("billing"), client_uri("reports")];
    let table = [
        ("stranger", LeafOptions::client("stranger", &client_uri("stranger"))),
        ("both", LeafOptions { uris: two, ..LeafOptions::client("both", "") }),
        ("paused", LeafOptions::client("paused", &client_uri("paused"))),
    ];
    for (name, leaf) in table {
        gate.keep(name, &gate.authority.issue(&leaf).unwrap()).unwrap();
    }
}

fn more_identities(document: &mut Value) {
    document["identities"].as_array_mut().unwrap().push(known("paused"));
    let states = &mut document["trust"]["revocations"]["identities"];
    states.as_array_mut().unwrap().push(json!({ "name": "demo/paused", "state": "Suspended" }));
}

#[test]
fn a_rule_lets_in_whom_it_names() {
    let gate = Gate::start_with(|document| {
        more_identities(document);
        let rules = [
            ("/anyone", json!({ "allow": [{ "anyone": {} }] })),
            ("/verified", json!({ "allow": [{ "verified": "ours" }] })),
            ("/billing", json!({})),
            ("/either", json!({ "allow": [{ "identity": "demo/billing" }, { "identity": "demo/reports" }] })),
            ("/audit", json!({ "mode": "Audit" })),
        ];
        set_rules(document, &rules);
    })
    .unwrap();
    keep_more(&gate);
    let paths = ["/anyone", "/verified", "/billing", "/either", "/audit"];
    let pass = "";
    let (not, no) = ("policy_not_allowed", "policy_no_identity");
    let (two, paused, revoked) = ("policy_ambiguous", "policy_identity_suspended", "policy_identity_revoked");
    let table = [
        ("billing", [pass, pass, pass, pass, pass]),
        ("reports", [pass, pass, not, pass, not]),
        ("stranger", [pass, pass, no, no, no]),
        ("both", [pass, pass, two, two, two]),
        // An order, not a rule under trial: no rule lets them in, those that only watch included.
        ("paused", [paused; 5]),
        ("mallory", [revoked; 5]),
    ];
    let mut count = 0;
    for (certificate, reasons) in table {
        for (path, reason) in paths.into_iter().zip(reasons) {
            let answer = gate.curl(Some(certificate), path).unwrap().call().unwrap();
            count += 1;
            let only_watched = path == "/audit" && ![pass, paused, revoked].contains(&reason);
            let (status, verdict) = match reason {
                "" => (200, "allowed"),
                _ if only_watched => (200, "would_refuse"),
                _ => (403, "refused"),
            };
            let case = format!("{certificate} {path}");
            assert_eq!(answer.status, Some(status), "{case}");
            let told = (status == 403).then_some(reason);
            assert_eq!(answer.header("postern-reason"), told, "{case}");
            let reason = if reason.is_empty() { Value::Null } else { json!(reason) };
            let mode = if path == "/audit" { "Audit" } else { "Enforce" };
            let row = newest(&gate.sidecar, count);
            let shown = columns(&row, &["verdict", "reason", "status", "mode", "rule"]);
            assert_eq!(shown, json!([verdict, reason, status, mode, path.trim_start_matches('/')]), "{case}");
        }
    }
}

/// What a request that does not get through asks for, and what it gets.
#[derive(Clone, Copy)]
struct Refusal {
    path: &'static str,
    arguments: &'static [&'static str],
    status: u16,
    reason: &'static str,
    /// Of the row: an allowed request may fail later.
    verdict: &'static str,
    /// How far the decision got.
    rule: Option<&'static str>,
}

const fn refusal(path: &'static str, arguments: &'static [&'static str], status: u16, reason: &'static str) -> Refusal {
    Refusal { path, arguments, status, reason, verdict: "refused", rule: None }
}

const fn at(rule: &'static str, verdict: &'static str, refusal: Refusal) -> Refusal {
    Refusal { verdict, rule: Some(rule), ..refusal }
}

const BIG: &[&str] = &["--data-binary", "@big.bin"];
const BIG_CHUNKED: &[&str] = &["--data-binary", "@big.bin", "-H", "Transfer-Encoding: chunked"];

const REFUSALS: [Refusal; 12] = [
    refusal("/orders", &["-H", "Host: other.example"], 404, "route_no_host"),
    refusal("/orders", &["-H", "Host: localhost.example"], 404, "route_no_host"),
    refusal("/orders", &["-H", "Host: user@localhost"], 400, "client_malformed"),
    refusal("/ordersheet", &[], 404, "route_no_path"),
    refusal("/", &[], 404, "route_no_path"),
    refusal("/orders", &["--request", "DELETE"], 405, "route_no_method"),
    refusal("/orders", &["--request", "get"], 405, "route_no_method"),
    at("missing", "allowed", refusal("/missing", &[], 500, "route_invalid")),
    at("empty", "allowed", refusal("/empty", &[], 503, "upstream_no_endpoint")),
    at("down", "allowed", refusal("/down", &[], 502, "upstream_connect")),
    at("close", "allowed", refusal("/close", &[], 502, "upstream_reset")),
    at("close", "allowed", refusal("/close", &["--data", "hello"], 502, "upstream_reset")),
];

const OVERSIZED: [Refusal; 2] = [
    at("orders", "refused", refusal("/orders", BIG, 413, "limit_body_size")),
    at("orders", "refused", refusal("/orders", BIG_CHUNKED, 413, "limit_body_size")),
];

#[test]
fn a_refusal_tells_its_reason_to_the_client_and_in_the_row() {
    let gate = Gate::start_with(|document| {
        let methods: Vec<_> = ["POST", "GET"]
            .map(|method| json!({ "method": method, "path": { "type": "PathPrefix", "value": "/orders" } }))
            .to_vec();
        let rules = [
            ("/orders", json!({ "matches": methods })),
            ("/close", json!({})),
            ("/missing", json!({ "backends": [{ "endpoints": "absent" }] })),
            ("/empty", json!({ "backends": [{ "endpoints": "empty" }] })),
            ("/down", json!({ "backends": [{ "address": NOBODY_LISTENS }] })),
        ];
        set_rules(document, &rules);
        document["endpoints"] = json!([{ "name": "empty", "addresses": [] }]);
        document["policy"]["limits"] = json!({ "maxRequestBodySize": "64Ki" });
    })
    .unwrap();
    std::fs::write(gate.folder.file("big.bin"), vec![7; (64 << 10) + 1]).unwrap();
    std::fs::write(gate.folder.file("just.bin"), vec![7; 64 << 10]).unwrap();
    let mut count = 0;
    for (flag, protocol) in PROTOCOLS {
        // curl 7.88 takes the end of an HTTP/2 stream that it still sends on for a failure, and shows no answer.
        for refusal in REFUSALS.iter().chain(&OVERSIZED) {
            let curl = gate.curl(Some("billing"), refusal.path).unwrap().arg(flag);
            let answer = with(curl, refusal.arguments).call().unwrap();
            count += 1;
            let case = format!("{} {:?} {protocol}", refusal.path, refusal.arguments);
            assert_refused(&case, &answer, refusal);
            let row = newest(&gate.sidecar, count);
            let shown = columns(&row, &["kind", "verdict", "reason", "status", "identity", "rule"]);
            let Refusal { verdict, reason, status, rule, .. } = refusal;
            assert_eq!(shown, json!(["request", verdict, reason, status, "demo/billing", rule]), "{case}");
        }
        let curl = gate.curl(Some("billing"), "/orders").unwrap().arg(flag).arg("--data-binary").arg("@just.bin");
        assert_eq!(curl.call().unwrap().status, Some(200), "{protocol}: a body of exactly the limit");
        count += 1;
    }
    assert_eq!(rows(&gate.sidecar, count).len(), count);
}

fn assert_refused(case: &str, answer: &Answer, refusal: &Refusal) {
    assert_eq!(answer.status, Some(refusal.status), "{case}: {answer:?}");
    assert_eq!(answer.header("postern-reason"), Some(refusal.reason), "{case}");
    let methods = (refusal.status == 405).then_some("GET, POST");
    assert_eq!(answer.header("allow"), methods, "{case}");
    assert_eq!(answer.header("content-type"), Some("application/json"), "{case}");
    assert_eq!(answer.text(), format!("{{\"reason\":\"{}\"}}\n", refusal.reason), "{case}");
}

#[test]
fn what_is_matched_is_what_the_upstream_sees() {
    let gate = open_gate();
    let table = [
        ("/orders//7/./a/../b", Some("/orders/7/b")),
        ("/%6frders/%7e", Some("/orders/~")),
        ("/a%2bb", Some("/a%2Bb")),
        ("/caf%c3%a9", Some("/caf%C3%A9")),
        ("/orders/", Some("/orders/")),
        ("/orders/..", Some("/")),
        ("/..", None),
        ("/orders/../../etc", None),
        ("/orders/%2e%2e/admin", None),
        ("/orders/%2E%2e", None),
        ("/orders/..;/admin", None),
        ("/orders%2fadmin", None),
        ("/orders%5cadmin", None),
        ("/orders\\admin", None),
        ("/orders%00", None),
        ("/orders%", None),
        ("/orders%zz", None),
        ("/%c0%ae%c0%ae/admin", None),
    ];
    let mut count = 0;
    for (flag, protocol) in PROTOCOLS {
        for (path, seen) in table {
            let curl = gate.curl(Some("billing"), &format!("{path}?q=%2e")).unwrap();
            let answer = curl.arg(flag).arg("--path-as-is").call().unwrap();
            count += 1;
            let row = newest(&gate.sidecar, count);
            let case = format!("{path} {protocol}");
            match seen {
                Some(seen) => {
                    assert_eq!(answer.status, Some(200), "{case}");
                    // A query is the application's own business.
                    let echo = columns(&answer.json().unwrap(), &["path", "query"]);
                    assert_eq!(echo, json!([seen, "q=%2e"]), "{case}");
                    assert_eq!(columns(&row, &["verdict", "path"]), json!(["allowed", seen]), "{case}");
                }
                None => {
                    assert_eq!(answer.status, Some(400), "{case}");
                    let shown = columns(&row, &["verdict", "reason", "path", "rule"]);
                    assert_eq!(shown, json!(["refused", "route_bad_path", path, null]), "{case}");
                }
            }
        }
    }
    assert_eq!(gate.upstream.requests(), 12);
}

#[test]
fn backends_are_used_in_turn_and_passed_over_while_they_are_down() {
    let other = Upstream::start().unwrap();
    let address = other.address();
    let gate = Gate::start_with(|document| {
        let first: SocketAddr =
            document["policy"]["routes"][0]["rules"][0]["backends"][0]["address"].as_str().unwrap().parse().unwrap();
        let set = |name: &str, addresses: &[String]| {
            let addresses: Vec<_> = addresses.iter().map(|address| json!({ "address": address })).collect();
            json!({ "name": name, "addresses": addresses })
        };
        let (first, second) = (first.to_string(), address.to_string());
        document["endpoints"] =
            json!([set("two", &[first.clone(), second]), set("one-down", &[NOBODY_LISTENS.to_owned(), first]),]);
        let backends = |name: &str| json!({ "backends": [{ "endpoints": name }] });
        set_rules(document, &[("/two", backends("two")), ("/one-down", backends("one-down"))]);
    })
    .unwrap();
    assert_eq!(call_many(&gate, "/two/[1-10]", &[]).0, vec![200; 10]);
    assert_eq!((gate.upstream.requests(), other.requests()), (5, 5));
    assert_eq!(call_many(&gate, "/one-down/[1-10]", &[]).0, vec![200; 10]);
    assert_eq!((gate.upstream.requests(), other.requests()), (15, 5));
    let attempts = rows(&gate.sidecar, 20).iter().map(|row| row["attempts"].as_u64().unwrap()).sum::<u64>();
    assert_eq!(attempts, 10 + 10 + 5, "every second request of the second rule was tried twice");
}

#[test]
fn a_rule_that_cannot_work_leaves_the_others_alone() {
    let gate = Gate::start_with(|document| {
        set_rules(document, &[("/broken", json!({ "backends": [{ "endpoints": "absent" }] })), ("/orders", json!({}))]);
    })
    .unwrap();
    for (path, status) in [("/broken", 500), ("/orders", 200), ("/broken", 500), ("/orders", 200)] {
        assert_eq!(gate.curl(Some("billing"), path).unwrap().call().unwrap().status, Some(status), "{path}");
    }
}
