//! Addresses that fail are left out for a while: how they have to fail, for how long, and what becomes of the requests.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener};
use std::thread;

use postern_tests::gate::Gate;
use postern_tests::nginx::Nginx;
use postern_tests::upstream::Upstream;
use serde_json::{Value, json};

use crate::observed::{columns, metric, newest, rows, wait_metric};

const EJECTED: &str = "postern_upstream_endpoints{state=\"ejected\"}";
const REFUSED: &str = "postern_upstream_ejections_refused_total";

fn ejections(gate: &Gate, failure: &str) -> u64 {
    metric(&gate.sidecar, &format!("postern_upstream_ejections_total{{failure=\"{failure}\"}}"))
}

/// A gate whose one rule lets `demo/billing` do everything at these addresses; without any, at its upstream.
fn gate(outlier: &Value, addresses: &[SocketAddr]) -> Gate {
    gate_with(outlier, addresses, |_| {})
}

fn gate_with(outlier: &Value, addresses: &[SocketAddr], change: impl FnOnce(&mut Value)) -> Gate {
    Gate::start_with(|document| {
        document["version"] = json!("1.3");
        // Turns are each worker's own.
        document["settings"]["workers"] = json!(1);
        let route = &mut document["policy"]["routes"][0];
        route["rules"][0]["matches"] = json!([]);
        route["backendPolicy"] = json!({ "outlierDetection": outlier });
        if !addresses.is_empty() {
            route["rules"][0]["backends"] = addresses.iter().map(|address| json!({ "address": address })).collect();
        }
        change(document);
    })
    .unwrap()
}

/// Calls a pattern of URLs one after the other on one connection: the statuses.
fn call(gate: &Gate, pattern: &str) -> Vec<u16> {
    let curl = gate.curl(Some("billing"), pattern).unwrap().arg("-o").arg("/dev/null").arg("-w").arg("%{http_code}\\n");
    curl.call().unwrap().text().lines().map(|line| line.parse().unwrap()).collect()
}

/// An address where nobody listens.
fn nowhere() -> SocketAddr {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap()
}

/// An upstream that begins each answer, and breaks off.
fn broken() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = stream.unwrap();
            let _request = stream.read(&mut [0; 4096]);
            let _gone = stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nhello");
        }
    });
    address
}

#[test]
fn an_address_that_fails_is_left_out_and_comes_back() {
    let good = Upstream::start().unwrap();
    let bad = nowhere();
    let outlier = json!({ "consecutiveLocalOriginFailures": 2, "baseEjectionTime": "2s", "maxEjectionTime": "2s" });
    let gate = gate(&outlier, &[bad, good.address()]);
    // Each second request has its turn there first, and goes on to the other.
    assert_eq!(call(&gate, "/orders/[1-4]"), [200; 4]);
    assert_eq!((ejections(&gate, "local_origin"), metric(&gate.sidecar, EJECTED)), (1, 1));
    assert_eq!(metric(&gate.sidecar, "postern_upstream_endpoints{state=\"usable\"}"), 1);
    assert_eq!(call(&gate, "/orders/[5-10]"), [200; 6]);
    let tries: Vec<_> = rows(&gate.sidecar, 10).iter().map(|row| row["attempts"].as_u64().unwrap()).collect();
    assert_eq!(tries, [2, 1, 2, 1, 1, 1, 1, 1, 1, 1]);
    let told = gate.sidecar.wait_for("the ejection", |line| line.message() == "an upstream is ejected").unwrap();
    assert_eq!((told.text("address"), told.text("failure")), (Some(&*bad.to_string()), Some("local_origin")));
    // It runs again, and is found when its time is over.
    let back = TcpListener::bind(bad).unwrap();
    wait_metric(&gate.sidecar, EJECTED, 0);
    thread::scope(|scope| {
        scope.spawn(|| {
            let (mut stream, _) = back.accept().unwrap();
            let _request = stream.read(&mut [0; 4096]);
            stream.write_all(b"HTTP/1.1 204 No Content\r\n\r\n").unwrap();
        });
        let mut found = call(&gate, "/orders/[11-12]");
        found.sort_unstable();
        assert_eq!(found, [200, 204]);
    });
}

/// Ways to fail, each at an upstream that is the only one and may be ejected all the same.
#[test]
fn what_counts_as_a_failure() {
    /// Where it goes, the path, the statuses of four calls, the reason of the third, and who asked the upstream.
    type Row = (&'static str, &'static str, [u16; 4], Option<&'static str>, &'static str);
    let table: [Row; 8] = [
        ("nowhere", "/orders", [502, 502, 503, 503], Some("upstream_ejected"), "local_origin"),
        ("broken", "/orders", [200, 200, 503, 503], Some("upstream_ejected"), "interrupted"),
        ("upstream", "/close", [502, 502, 503, 503], Some("upstream_ejected"), "local_origin"),
        ("upstream", "/slow?ms=60000", [504, 504, 503, 503], Some("upstream_ejected"), "local_origin"),
        ("upstream", "/status?code=502", [502, 502, 503, 503], Some("upstream_ejected"), "gateway_error"),
        ("upstream", "/status?code=504", [504, 504, 503, 503], Some("upstream_ejected"), "gateway_error"),
        ("upstream", "/status?code=500", [500; 4], None, ""),
        ("upstream", "/status?code=404", [404; 4], None, ""),
    ];
    let outlier = json!({
        "consecutiveLocalOriginFailures": 2, "consecutiveGatewayErrors": 2, "maxEjectionPercent": 100,
        "baseEjectionTime": "1h", "maxEjectionTime": "1h",
    });
    for (place, path, statuses, reason, failure) in table {
        let addresses = match place {
            "nowhere" => vec![nowhere()],
            "broken" => vec![broken()],
            _ => vec![],
        };
        let gate = gate_with(&outlier, &addresses, |document| {
            if path.starts_with("/slow") {
                document["policy"]["routes"][0]["rules"][0]["timeouts"] = json!({ "backendRequest": "100ms" });
            }
        });
        let found: Vec<_> = (0..4).flat_map(|_| call(&gate, path)).collect();
        assert_eq!(found, statuses, "{place} {path}");
        let all = rows(&gate.sidecar, 4);
        let attempts = u64::from(reason.is_none());
        let shown = columns(&all[2], &["verdict", "reason", "status", "attempts"]);
        assert_eq!(shown, json!(["allowed", reason, statuses[2], attempts]), "{place} {path}");
        for known in ["local_origin", "gateway_error", "interrupted"] {
            assert_eq!(ejections(&gate, known), u64::from(known == failure), "{place} {path} {known}");
        }
    }
}

/// By default nobody is ejected whom nobody stands in for.
#[test]
fn the_only_address_stays() {
    let gate = gate(&json!({ "consecutiveLocalOriginFailures": 2 }), &[]);
    for round in 1..=3 {
        assert_eq!([call(&gate, "/close"), call(&gate, "/close")].concat(), [502; 2]);
        assert_eq!((metric(&gate.sidecar, REFUSED), metric(&gate.sidecar, EJECTED)), (round, 0));
    }
    assert_eq!(call(&gate, "/orders"), [200]);
}

/// Two of two are ejected, each under a rule where another stands in for it. The rule that has these two only goes on.
#[test]
fn where_some_must_stay_and_none_has_all_are_used() {
    let (one, two) = (Upstream::start().unwrap(), Upstream::start().unwrap());
    let outlier = json!({ "consecutiveLocalOriginFailures": 1, "baseEjectionTime": "1h", "maxEjectionTime": "1h" });
    let gate = gate_with(&outlier, &[], |document| {
        let rule = document["policy"]["routes"][0]["rules"][0].clone();
        let with = |name: &str, upstreams: &[SocketAddr]| {
            let mut rule = rule.clone();
            rule["name"] = json!(name);
            rule["matches"] = json!([{ "headers": [{ "name": "rule", "value": name }] }]);
            rule["backends"] = upstreams.iter().map(|address| json!({ "address": address })).collect();
            rule
        };
        let third = nowhere();
        document["policy"]["routes"][0]["rules"] = json!([
            with("one", &[one.address(), third]),
            with("two", &[two.address(), third]),
            with("both", &[one.address(), two.address()]),
        ]);
    });
    let call = |rule: &str, path: &str| {
        let curl = gate.curl(Some("billing"), path).unwrap().arg("-H").arg(format!("rule: {rule}"));
        curl.call().unwrap().status.unwrap()
    };
    assert_eq!((call("one", "/close"), call("two", "/close")), (502, 502));
    assert_eq!(metric(&gate.sidecar, EJECTED), 2);
    assert_eq!([(); 4].map(|()| call("both", "/orders")), [200; 4]);
    assert_eq!((one.requests(), two.requests()), (3, 3));
}

/// An application that closes idle connections, or those that served long enough, has not failed.
#[test]
fn what_ends_as_connections_do_is_no_failure() {
    const CALLS: usize = 1000;
    let nginx = Nginx::start("keepalive_requests 7;").unwrap();
    let outlier = json!({ "consecutiveLocalOriginFailures": 1, "maxEjectionPercent": 100 });
    let gate = gate(&outlier, &[nginx.address()]);
    assert_eq!(call(&gate, &format!("/orders/[1-{CALLS}]")), vec![200; CALLS]);
    assert_eq!(ejections(&gate, "local_origin"), 0);
    assert_eq!(columns(&newest(&gate.sidecar, CALLS), &["reason"]), json!([null]));
}

/// One that may not go again fails then. The address has not.
#[test]
fn a_used_connection_that_ends_in_silence_is_no_failure() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = stream.unwrap();
            let _first = stream.read(&mut [0; 4096]);
            stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok").unwrap();
            let _second = stream.read(&mut [0; 4096]);
        }
    });
    let gate = gate(&json!({ "consecutiveLocalOriginFailures": 1, "maxEjectionPercent": 100 }), &[address]);
    for round in 1..=2 {
        assert_eq!(call(&gate, "/orders"), [200]);
        let post = gate.curl(Some("billing"), "/orders").unwrap().arg("-X").arg("POST").call().unwrap();
        assert_eq!(post.status, Some(502));
        assert_eq!(columns(&newest(&gate.sidecar, 2 * round), &["reason"]), json!(["upstream_reset"]));
    }
    assert_eq!(ejections(&gate, "local_origin"), 0);
}
