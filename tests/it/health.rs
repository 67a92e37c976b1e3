//! Addresses that are asked whether they are well: how, how often, and what becomes of requests where they are not.

use std::fs;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::mpsc;
use std::thread;

use postern_tests::ca::{LeafOptions, Purpose};
use postern_tests::gate::Gate;
use postern_tests::grpc_health::GrpcServer;
use postern_tests::nginx::Nginx;
use postern_tests::upstream::Upstream;
use serde_json::{Value, json};

use crate::observed::{columns, metric, newest, rows, status, wait_metric, wait_until};

const UNHEALTHY: &str = "postern_upstream_endpoints{state=\"unhealthy\"}";
const USABLE: &str = "postern_upstream_endpoints{state=\"usable\"}";
const PASSED: &str = "postern_upstream_health_checks_total{result=\"passed\"}";
const FAILED: &str = "postern_upstream_health_checks_total{result=\"failed\"}";

/// A gate whose one rule lets `demo/billing` do everything at these addresses, which are checked so.
fn gate(check: &Value, addresses: &[SocketAddr]) -> Gate {
    gate_with(check, |document| {
        let addresses = addresses.iter().map(|address| json!({ "address": address }));
        document["policy"]["routes"][0]["rules"][0]["backends"] = addresses.collect();
    })
}

fn gate_with(check: &Value, change: impl FnOnce(&mut Value)) -> Gate {
    Gate::start_with(|document| {
        document["version"] = json!("1.3");
        document["policy"]["routes"][0]["rules"][0]["matches"] = json!([]);
        document["policy"]["routes"][0]["backendPolicy"] = json!({ "healthCheck": check });
        change(document);
    })
    .unwrap()
}

fn call(gate: &Gate) -> u16 {
    gate.curl(Some("billing"), "/orders").unwrap().call().unwrap().status.unwrap()
}

fn listen() -> (TcpListener, SocketAddr) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    (listener, address)
}

/// A listener that answers each request with this, and tells what it was asked.
fn answering(answer: &'static str) -> (SocketAddr, mpsc::Receiver<String>) {
    let (listener, address) = listen();
    let (told, asked) = mpsc::channel();
    thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = stream.unwrap();
            let mut head = [0; 4096];
            let read = stream.read(&mut head).unwrap_or(0);
            let _gone = stream.write_all(answer.as_bytes());
            let _nobody = told.send(String::from_utf8_lossy(&head[..read]).into_owned());
        }
    });
    (address, asked)
}

#[test]
fn an_address_that_is_not_well_gets_nothing_until_it_is() {
    let folder = tempfile::tempdir().unwrap();
    let well = folder.path().join("well");
    fs::write(&well, "yes").unwrap();
    let root = folder.path().display();
    let switched = Nginx::start(&format!("root {root}; location = /healthz {{ try_files /well =503; }}")).unwrap();
    let other = Upstream::start().unwrap();
    let http = json!({ "path": "/healthz" });
    let gate = gate(&json!({ "http": http, "interval": "100ms" }), &[switched.address(), other.address()]);
    let used = |from: usize, calls: usize| {
        assert_eq!((0..calls).map(|_| call(&gate)).collect::<Vec<_>>(), vec![200; calls]);
        let all = rows(&gate.sidecar, from + calls);
        // Checks are no rows.
        assert_eq!(all.len(), from + calls);
        let upstream = |row: &Value| row["upstream"].as_str().unwrap().parse().unwrap();
        let mut used: Vec<SocketAddr> = all[from..].iter().map(upstream).collect();
        used.sort_unstable();
        used.dedup();
        used
    };
    let mut both = vec![switched.address(), other.address()];
    both.sort_unstable();
    wait_until("a check of each", || metric(&gate.sidecar, PASSED) >= 2);
    assert_eq!((metric(&gate.sidecar, USABLE), metric(&gate.sidecar, UNHEALTHY)), (2, 0));
    assert_eq!(used(0, 8), both);
    fs::remove_file(&well).unwrap();
    wait_metric(&gate.sidecar, UNHEALTHY, 1);
    assert_eq!(used(8, 4), [other.address()]);
    let told = gate.sidecar.wait_for("the change", |line| line.message() == "an upstream is unhealthy").unwrap();
    assert_eq!((told.text("address"), told.text("why")), (Some(&*switched.address().to_string()), Some("status 503")));
    fs::write(&well, "again").unwrap();
    wait_metric(&gate.sidecar, UNHEALTHY, 0);
    assert_eq!(used(12, 8), both);
    for to in ["healthy", "unhealthy"] {
        assert_eq!(metric(&gate.sidecar, &format!("postern_upstream_health_changes_total{{to=\"{to}\"}}")), 1, "{to}");
    }
}

#[test]
fn where_nobody_is_well_requests_are_refused() {
    let http = json!({ "path": "/status?code=500" });
    let gate = gate_with(&json!({ "http": http, "interval": "1h" }), |_| {});
    // The first check decides.
    wait_metric(&gate.sidecar, UNHEALTHY, 1);
    assert_eq!(call(&gate), 503);
    let shown = columns(&newest(&gate.sidecar, 1), &["verdict", "reason", "status", "attempts", "upstream"]);
    assert_eq!(shown, json!(["allowed", "upstream_unhealthy", 503, 0, null]));
    assert_eq!((gate.upstream.requests(), metric(&gate.sidecar, FAILED)), (1, 1));
}

/// What passes and what does not, with what is asked.
#[test]
fn how_an_address_is_asked() {
    /// The check, the answer, the request's target and host, and why it failed.
    type Row = (Value, &'static str, &'static str, Option<&'static str>, Option<&'static str>);
    let table: [Row; 6] = [
        (json!({ "path": "/" }), "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n", "/", None, None),
        (json!({ "path": "/a?b=c" }), "HTTP/1.1 200 OK\r\n\r\nuntil the end", "/a?b=c", None, None),
        (json!({ "path": "/", "host": "app:81" }), "HTTP/1.1 200 OK\r\n\r\n", "/", Some("app:81"), None),
        (json!({ "path": "/" }), "HTTP/1.1 204 No Content\r\n\r\n", "/", None, Some("status 204")),
        (json!({ "path": "/", "expectedStatuses": [200, 204] }), "HTTP/1.1 204 No Content\r\n\r\n", "/", None, None),
        (json!({ "path": "/" }), "hello\r\n\r\n", "/", None, Some("no answer: invalid HTTP version parsed")),
    ];
    for (http, answer, target, host, why) in table {
        let (address, asked) = answering(answer);
        let gate = gate(&json!({ "http": http, "interval": "1h" }), &[address]);
        wait_metric(&gate.sidecar, if why.is_some() { FAILED } else { PASSED }, 1);
        let head = asked.recv().unwrap();
        let host = host.map_or_else(|| address.to_string(), str::to_owned);
        let agent = concat!("postern-health/", env!("CARGO_PKG_VERSION"));
        let expected =
            format!("GET {target} HTTP/1.1\r\nhost: {host}\r\nuser-agent: {agent}\r\nconnection: close\r\n\r\n");
        assert_eq!(head, expected);
        assert_eq!(metric(&gate.sidecar, UNHEALTHY), u64::from(why.is_some()), "{answer}");
        if let Some(why) = why {
            let told = gate.sidecar.wait_for("why", |line| line.message() == "an upstream is unhealthy").unwrap();
            assert_eq!(told.text("why"), Some(why));
        }
    }
}

#[test]
fn a_connection_is_a_check_too() {
    let (listener, address) = listen();
    let gate = gate(&json!({ "tcp": {}, "interval": "100ms" }), &[address]);
    wait_until("checks", || metric(&gate.sidecar, PASSED) > 0);
    drop(listener);
    wait_metric(&gate.sidecar, UNHEALTHY, 1);
    assert_eq!(call(&gate), 503);
    let _again = TcpListener::bind(address).unwrap();
    wait_metric(&gate.sidecar, UNHEALTHY, 0);
}

#[test]
fn an_answer_that_does_not_come_is_waited_for_so_long() {
    // Taken by the kernel, and by nobody else.
    let (_listener, address) = listen();
    let gate = gate(&json!({ "http": { "path": "/" }, "timeout": "50ms", "interval": "1h" }), &[address]);
    let told = gate.sidecar.wait_for("why", |line| line.message() == "an upstream is unhealthy").unwrap();
    assert_eq!(told.text("why"), Some("no answer within 50ms"));
}

/// Checks go over the TLS that requests go over, with what the gate shows of itself, and after a change over the new one.
#[test]
fn checks_go_over_the_same_tls() {
    let gate = Gate::start().unwrap();
    let server = LeafOptions {
        common_name: "orders".to_owned(),
        dns_names: vec!["orders.test".to_owned()],
        purposes: vec![Purpose::Server],
        ..LeafOptions::default()
    };
    gate.keep("orders", &gate.authority.issue(&server).unwrap()).unwrap();
    let folder = gate.folder.path().display();
    let files = format!("ssl_certificate {folder}/orders.pem; ssl_certificate_key {folder}/orders.key;");
    let ask = format!("ssl_verify_client optional; ssl_client_certificate {folder}/ca.pem;");
    let answer = "location = /healthz { if ($ssl_client_verify != SUCCESS) { return 403; } return 200; }";
    let upstream = Nginx::listening("ssl", &format!("{files} {ask} {answer}")).unwrap();
    let mutual = |name: &str| json!({ "serverName": name, "trust": ["ours"], "mode": "Mutual" });
    let simple = json!({ "serverName": "orders.test", "trust": ["ours"] });
    let table = [
        (mutual("orders.test"), None),
        (simple, Some("status 403")),
        (mutual("other.test"), Some("TLS: upstream_tls_peer")),
    ];
    for (tls, why) in table {
        let mut document = gate.document.clone();
        document["version"] = json!("1.3");
        let route = &mut document["policy"]["routes"][0];
        route["rules"][0]["backends"] = json!([{ "address": upstream.address(), "tls": tls }]);
        route["backendPolicy"]["healthCheck"] = json!({ "http": { "path": "/healthz" }, "interval": "1h" });
        let (passed, failed) = (metric(&gate.sidecar, PASSED), metric(&gate.sidecar, FAILED));
        gate.folder.write_document(&document).unwrap();
        let is_passed = why.is_none();
        wait_metric(&gate.sidecar, PASSED, passed + u64::from(is_passed));
        wait_metric(&gate.sidecar, FAILED, failed + u64::from(!is_passed));
        wait_metric(&gate.sidecar, UNHEALTHY, u64::from(!is_passed));
        if let Some(why) = why {
            gate.sidecar.wait_for(why, |line| line.text("why") == Some(why)).unwrap();
        }
    }
}

/// Each service says how it is, and the server as a whole does; one that it does not know is not well.
#[test]
fn grpc_says_itself_how_it_is() {
    let mut server = GrpcServer::start().unwrap();
    let of = |service: &str| {
        gate_with(&json!({ "grpc": { "service": service }, "interval": "100ms" }), |document| {
            let backend = json!({ "address": server.address(), "protocol": "HTTP2" });
            document["policy"]["routes"][0]["rules"][0]["backends"] = json!([backend]);
        })
    };
    let whole = of("");
    wait_until("a check", || metric(&whole.sidecar, PASSED) > 0);
    let orders = of("orders");
    let why = |why: &str| {
        let wanted = |line: &postern_tests::process::LogLine| line.text("why") == Some(why);
        orders.sidecar.wait_for(why, wanted).unwrap();
        wait_metric(&orders.sidecar, UNHEALTHY, 1);
    };
    // NOT_FOUND
    why("gRPC: grpc-status 5");
    server.say("SERVING").unwrap();
    wait_metric(&orders.sidecar, UNHEALTHY, 0);
    server.say("NOT_SERVING").unwrap();
    why("gRPC: not serving");
    assert_eq!((metric(&whole.sidecar, FAILED), metric(&whole.sidecar, UNHEALTHY)), (0, 0));
    // One that does not speak gRPC.
    let other = gate_with(&json!({ "grpc": {}, "interval": "1h" }), |document| {
        document["policy"]["routes"][0]["rules"][0]["backends"][0]["protocol"] = json!("HTTP2");
    });
    wait_metric(&other.sidecar, UNHEALTHY, 1);
}

/// Four workers, two routes, one address used alike: one check, which takes nothing from traffic.
#[test]
fn an_address_is_asked_once_whoever_uses_it() {
    let check = json!({ "http": { "path": "/healthz" }, "interval": "1h" });
    let gate = gate_with(&check, |document| {
        document["settings"]["workers"] = json!(4);
        let mut other = document["policy"]["routes"][0].clone();
        other["name"] = json!("demo/other");
        other["hostnames"] = json!(["other"]);
        document["policy"]["routes"].as_array_mut().unwrap().push(other);
        document["policy"]["limits"] = json!({ "maxStreams": 1, "maxPendingRequests": 1 });
    });
    wait_metric(&gate.sidecar, PASSED, 1);
    assert_eq!((gate.upstream.requests(), gate.upstream.connections()), (1, 1));
    assert_eq!(metric(&gate.sidecar, "postern_upstream_connections_open"), 0);
    assert_eq!(call(&gate), 200);
    assert_eq!((gate.upstream.requests(), rows(&gate.sidecar, 1).len()), (2, 1));
    assert_eq!((metric(&gate.sidecar, PASSED), metric(&gate.sidecar, USABLE)), (1, 1));
}

#[test]
fn checks_end_with_their_endpoint() {
    let check = json!({ "http": { "path": "/healthz" }, "interval": "100ms" });
    let gate = gate_with(&check, |_| {});
    wait_until("checks", || gate.upstream.requests() > 10);
    let mut document = gate.document.clone();
    document["policy"]["routes"][0]["backendPolicy"] = json!({});
    let before = status(&gate.sidecar).parts.policy.loaded;
    gate.folder.write_document(&document).unwrap();
    wait_until("the reload", || status(&gate.sidecar).parts.policy.loaded != before);
    // The last one may be under way.
    wait_until("its end", || {
        let before = gate.upstream.requests();
        call(&gate) == 200 && gate.upstream.requests() == before + 1
    });
    let checks = gate.upstream.requests();
    assert_eq!([(); 10].map(|()| call(&gate)), [200; 10]);
    assert_eq!(gate.upstream.requests(), checks + 10);
}

/// Forty addresses that take connections and never answer: sixteen are asked, the others wait, and traffic goes on.
#[test]
fn so_many_are_asked_at_once() {
    const AT_ONCE: usize = 16;
    let listener = TcpListener::bind("0.0.0.0:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    let (told, asked) = mpsc::channel::<TcpStream>();
    thread::spawn(move || listener.incoming().try_for_each(|stream| told.send(stream.unwrap())));
    let check = json!({ "http": { "path": "/" }, "timeout": "1m" });
    let gate = gate_with(&check, |document| {
        let rule = &mut document["policy"]["routes"][0]["rules"][0];
        let silent = (1..=40).map(|host| json!({ "address": format!("127.0.1.{host}:{port}"), "weight": 0 }));
        let all: Vec<_> = rule["backends"].as_array().unwrap().iter().cloned().chain(silent).collect();
        rule["backends"] = json!(all);
    });
    let mut kept: Vec<TcpStream> = asked.iter().take(AT_ONCE).collect();
    assert_eq!([(); 5].map(|()| call(&gate)), [200; 5]);
    assert!(asked.try_recv().is_err(), "more than {AT_ONCE} are asked at once");
    // One that ends makes room for the next.
    drop(kept.pop());
    kept.push(asked.recv().unwrap());
}
