//! Connections to upstreams through the real gate: how many there are, who waits for them, and whose turn it is.

use std::process::Command;
use std::thread;
use std::time::Duration;

use postern_tests::clients::run;
use postern_tests::gate::Gate;
use postern_tests::upstream::Upstream;
use serde_json::{Value, json};

use crate::observed::{columns, metric, newest, rows, wait_metric, wait_until};

const OPEN: &str = "postern_upstream_connections_open";

/// A gate whose one rule lets `demo/billing` do everything, with this policy for its backends.
fn gate(policy: &Value) -> Gate {
    gate_with(policy, |_| {})
}

fn gate_with(policy: &Value, change: impl FnOnce(&mut Value)) -> Gate {
    Gate::start_with(|document| {
        document["version"] = json!("1.2");
        // Idle connections are each worker's own.
        document["settings"]["workers"] = json!(1);
        document["policy"]["routes"][0]["rules"][0]["matches"] = json!([]);
        document["policy"]["routes"][0]["backendPolicy"] = policy.clone();
        change(document);
    })
    .unwrap()
}

/// Calls a pattern of URLs in one invocation, one after the other on one connection: the statuses.
fn call_many(gate: &Gate, pattern: &str, arguments: &[&str]) -> Vec<u16> {
    let curl = gate.curl(Some("billing"), pattern).unwrap().arg("-o").arg("/dev/null").arg("-w").arg("%{http_code}\\n");
    let curl = arguments.iter().fold(curl, |curl, argument| curl.arg(*argument));
    curl.call().unwrap().text().lines().map(|line| line.parse().unwrap()).collect()
}

#[test]
fn requests_wait_for_a_connection_and_more_than_may_wait_are_refused() {
    let gate = gate(&json!({ "pool": { "maxConnections": 1, "maxPending": 1, "pendingTimeout": "60s" } }));
    thread::scope(|scope| {
        let slow = |ms: u32| {
            let gate = &gate;
            scope.spawn(move || call_many(gate, &format!("/slow?ms={ms}"), &[]))
        };
        let first = slow(3000);
        wait_until("the first", || gate.upstream.requests() == 1);
        let second = slow(0);
        wait_metric(&gate.sidecar, "postern_upstream_requests_pending", 1);
        assert_eq!(call_many(&gate, "/third", &[]), [503]);
        assert_eq!((first.join().unwrap(), second.join().unwrap()), (vec![200], vec![200]));
    });
    assert_eq!((gate.upstream.requests(), gate.upstream.connections()), (2, 1));
    let all = rows(&gate.sidecar, 3);
    let slow: Vec<_> = all.iter().filter(|row| row["path"] == "/slow").collect();
    assert_eq!((&slow[0]["queue_us"], &slow[1]["connect_us"]), (&Value::Null, &Value::Null), "{slow:?}");
    let [queue, duration] = ["queue_us", "duration_us"].map(|name| slow[1][name].as_u64().unwrap());
    // Until the first one's answer had come, which was all that it waited for.
    assert!(queue <= duration && queue * 2 > duration, "{slow:?}");
    let refused: Vec<_> = all.iter().filter(|row| row["path"] == "/third").collect();
    let shown: Vec<_> = refused.iter().map(|row| columns(row, &["verdict", "reason", "limiter", "status"])).collect();
    assert_eq!(shown, [json!(["allowed", "upstream_pool_full", "pool.maxPending", 503])]);
    wait_metric(&gate.sidecar, "postern_upstream_requests_pending", 0);
    gate.sidecar.has_decided(3).unwrap();
}

#[test]
fn a_request_that_has_waited_long_enough_is_refused() {
    let gate = gate(&json!({ "pool": { "maxConnections": 1, "pendingTimeout": "100ms" } }));
    thread::scope(|scope| {
        let first = scope.spawn(|| call_many(&gate, "/slow?ms=3000", &[]));
        wait_until("the first", || gate.upstream.requests() == 1);
        assert_eq!(call_many(&gate, "/orders", &[]), [503]);
        let row = newest(&gate.sidecar, 1);
        assert_eq!(
            columns(&row, &["reason", "limiter", "attempts"]),
            json!(["upstream_pool_full", "pool.maxConnections", 1])
        );
        let [queue, duration] = ["queue_us", "duration_us"].map(|name| row[name].as_u64().unwrap());
        assert!((100_000..=duration).contains(&queue), "{row}");
        assert_eq!(first.join().unwrap(), [200]);
    });
    gate.sidecar.has_decided(2).unwrap();
}

/// What one worker keeps idle is closed when a request of the other waits for it.
#[test]
fn workers_share_the_limit() {
    let pool = json!({ "pool": { "maxConnections": 1, "pendingTimeout": "60s" } });
    let gate = gate_with(&pool, |document| document["settings"]["workers"] = json!(2));
    for call in 0..20 {
        assert_eq!(call_many(&gate, "/orders/[1-2]", &[]), [200, 200], "call {call}");
    }
    assert_eq!(gate.upstream.requests(), 40);
    assert_eq!(metric(&gate.sidecar, OPEN), 1);
    assert!(gate.upstream.connections() > 1, "all calls came to the same worker");
    gate.sidecar.has_decided(40).unwrap();
}

/// Calls, and the connections they need.
#[test]
fn connections_are_kept_as_long_as_they_may() {
    let table = [
        (json!({}), 9, "/orders/[1-9]", 1),
        (json!({ "maxRequestsPerConnection": 3 }), 9, "/orders/[1-9]", 3),
        (json!({ "maxRequestsPerConnection": 1 }), 4, "/orders/[1-4]", 4),
        (json!({ "maxIdle": 0 }), 4, "/orders/[1-4]", 4),
        (json!({ "maxAge": "50ms" }), 3, "/slow?ms=60&n=[1-3]", 3),
    ];
    for (pool, calls, path, connections) in table {
        let gate = gate(&json!({ "pool": pool }));
        assert_eq!(call_many(&gate, path, &[]), vec![200; calls], "{pool}");
        assert_eq!(gate.upstream.connections(), connections, "{pool}");
        gate.sidecar.has_decided(calls as u64).unwrap();
    }
}

#[test]
fn an_idle_connection_is_closed_after_its_time() {
    let gate = gate(&json!({ "pool": { "idleTimeout": "100ms" } }));
    assert_eq!(call_many(&gate, "/orders/[1-2]", &[]), [200, 200]);
    assert_eq!(gate.upstream.connections(), 1);
    wait_metric(&gate.sidecar, OPEN, 0);
    assert_eq!(call_many(&gate, "/orders", &[]), [200]);
    assert_eq!(gate.upstream.connections(), 2);
}

/// A reload that says the same of the backends keeps their connections; one that says something else begins anew.
#[test]
fn a_reload_keeps_the_connections_of_what_stays() {
    let gate = gate(&json!({}));
    assert_eq!(call_many(&gate, "/orders", &[]), [200]);
    let mut document: Value = gate.document.clone();
    for (policy, connections) in [(json!({}), 1), (json!({ "pool": { "maxIdle": 3 } }), 2)] {
        document["policy"]["routes"][0]["backendPolicy"] = policy.clone();
        document["policy"]["limits"] = json!({ "maxConnections": 1000 + connections });
        let before = crate::observed::status(&gate.sidecar).parts.policy.loaded;
        gate.folder.write_document(&document).unwrap();
        wait_until("the reload", || crate::observed::status(&gate.sidecar).parts.policy.loaded != before);
        assert_eq!(call_many(&gate, "/orders", &[]), [200]);
        assert_eq!(gate.upstream.connections(), connections, "{policy}");
    }
    wait_metric(&gate.sidecar, OPEN, 1);
    gate.sidecar.has_decided(3).unwrap();
}

#[test]
fn weights_are_shares() {
    let other = Upstream::start().unwrap();
    let gate = gate_with(&json!({}), |document| {
        let rule = &mut document["policy"]["routes"][0]["rules"][0];
        rule["backends"][0]["weight"] = json!(3);
        rule["backends"].as_array_mut().unwrap().push(json!({ "address": other.address() }));
        rule["backends"].as_array_mut().unwrap().push(json!({ "address": "127.0.0.1:1", "weight": 0 }));
    });
    assert_eq!(call_many(&gate, "/orders/[1-40]", &[]), vec![200; 40]);
    assert_eq!((gate.upstream.requests(), other.requests()), (30, 10));
    gate.sidecar.has_decided(40).unwrap();
}

/// What one address has to do is known to all workers.
#[test]
fn the_less_busy_address_is_chosen() {
    let other = Upstream::start().unwrap();
    let gate = gate_with(&json!({ "loadBalancer": { "type": "LeastRequest" } }), |document| {
        document["settings"]["workers"] = json!(2);
        let first = document["policy"]["routes"][0]["rules"][0]["backends"][0]["address"].clone();
        document["endpoints"] =
            json!([{ "name": "two", "addresses": [{ "address": first }, { "address": other.address() }] }]);
        document["policy"]["routes"][0]["rules"][0]["backends"] = json!([{ "endpoints": "two" }]);
    });
    thread::scope(|scope| {
        let slow = scope.spawn(|| call_many(&gate, "/slow?ms=5000", &[]));
        wait_until("the slow one", || gate.upstream.requests() + other.requests() == 1);
        let (busy, idle) =
            if gate.upstream.requests() == 1 { (&gate.upstream, &other) } else { (&other, &gate.upstream) };
        for call in 1..=10 {
            assert_eq!(call_many(&gate, "/orders", &[]), [200]);
            assert_eq!((busy.requests(), idle.requests()), (1, call));
        }
        assert_eq!(slow.join().unwrap(), [200]);
    });
    gate.sidecar.has_decided(11).unwrap();
}

/// As many connections as there are requests at once, however many there are one after the other.
#[test]
fn connections_are_as_many_as_requests_at_once() {
    const REQUESTS: usize = 6000;
    let gate = gate_with(&json!({}), |document| {
        document["policy"]["listeners"] = json!([{ "name": "gate", "address": "127.0.0.1:0", "protocol": "HTTP" }]);
        document["policy"]["routes"][0]["hostnames"] = json!([]);
        document["policy"]["routes"][0]["rules"][0]["allow"] = json!([{ "anyone": {} }]);
    });
    let url = format!("http://127.0.0.1:{}/orders", gate.sidecar.listener("gate").unwrap().port());
    let mut command = Command::new("h2load");
    command.args(["-n", &REQUESTS.to_string(), "-c", "4", "-m", "16"]).arg(&url);
    let told = run(&mut command, b"", Duration::from_secs(120)).unwrap().text();
    assert!(told.contains(&format!("status codes: {REQUESTS} 2xx")), "{told}");
    let connections = gate.upstream.connections();
    assert!(connections <= 96, "{connections} connections for 64 requests at once");
}
