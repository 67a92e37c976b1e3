//! Requests whose connection to the upstream ends under them, and how long a request may take: what goes again, what
//! does not, and what the row says.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::thread;
use std::time::{Duration, Instant};

use postern_tests::gate::Gate;
use postern_tests::nginx::Nginx;
use serde_json::{Value, json};

use crate::observed::{columns, newest, rows, wait_metric};

/// A gate whose one rule lets `demo/billing` do everything at this address.
fn gate(address: SocketAddr, change: impl FnOnce(&mut Value)) -> Gate {
    Gate::start_with(|document| {
        document["version"] = json!("1.2");
        // Idle connections are each worker's own.
        document["settings"]["workers"] = json!(1);
        document["policy"]["routes"][0]["rules"][0]["matches"] = json!([]);
        document["policy"]["routes"][0]["rules"][0]["backends"] = json!([{ "address": address }]);
        change(document);
    })
    .unwrap()
}

/// nginx closes a connection after so many requests, or when it was idle, and does not wait for the gate to know.
#[test]
fn no_request_fails_that_nginx_did_not_take() {
    const CALLS: usize = 3000;
    for directives in ["keepalive_requests 50;", "keepalive_timeout 1ms;"] {
        let nginx = Nginx::start(directives).unwrap();
        let gate = gate(nginx.address(), |document| document["settings"]["workers"] = json!(2));
        for arguments in [&["--http1.1"][..], &["--http2", "--parallel", "--parallel-max", "20"]] {
            let curl = gate.curl(Some("billing"), &format!("/orders/[1-{CALLS}]")).unwrap().arg("-o").arg("/dev/null");
            let curl = arguments.iter().fold(curl, |curl, argument| curl.arg(*argument));
            let answer = curl.arg("-w").arg("%{http_code}\\n").call().unwrap();
            assert_eq!(answer.text(), "200\n".repeat(CALLS), "{directives} {arguments:?}");
        }
        let counted = gate.sidecar.launch();
        rows(&gate.sidecar, 2 * CALLS);
        let failed = counted.query("select * from requests where reason is not null or status <> 200").unwrap();
        assert_eq!(failed, Vec::<Value>::new(), "{directives}");
        gate.sidecar.has_decided(2 * CALLS as u64).unwrap();
    }
}

/// What an upstream does with the requests of its connections, in order: each entry is a connection, each of its bytes
/// a request. `a` answers; `c` reads it and closes; `p` answers with a part of a head and closes.
fn scripted(script: &'static [&'static str]) -> (SocketAddr, thread::JoinHandle<()>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let serving = thread::spawn(move || {
        for connection in script {
            let (mut stream, _) = listener.accept().unwrap();
            stream.set_read_timeout(Some(Duration::from_secs(60))).unwrap();
            for step in connection.bytes() {
                read_request(&mut stream);
                match step {
                    b'a' => stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok").unwrap(),
                    b'p' => stream.write_all(b"HTTP/1.1 2").unwrap(),
                    _ => {}
                }
            }
        }
    });
    (address, serving)
}

/// Reads a request with its body, whose length is declared.
fn read_request(stream: &mut TcpStream) {
    let mut request = Vec::new();
    let mut byte = [0];
    while !request.ends_with(b"\r\n\r\n") {
        stream.read_exact(&mut byte).unwrap();
        request.push(byte[0]);
    }
    let head = String::from_utf8(request).unwrap().to_ascii_lowercase();
    let length = head.lines().find_map(|line| line.strip_prefix("content-length: ")?.parse::<usize>().ok());
    let mut body = vec![0; length.unwrap_or(0)];
    stream.read_exact(&mut body).unwrap();
}

#[test]
fn what_goes_again_when_a_connection_ends() {
    /// The upstream, curl's arguments for the last call, its status, reason and tries.
    type Row = (&'static str, &'static [&'static str], &'static [&'static str], u16, Option<&'static str>, u64);
    let lost = Some("upstream_reset");
    let table: [Row; 10] = [
        ("a used connection ends", &["ac", "a"], &[], 200, None, 2),
        ("HEAD", &["ac", "a"], &["--head"], 200, None, 2),
        ("PUT without a body", &["ac", "a"], &["-X", "PUT"], 200, None, 2),
        ("DELETE", &["ac", "a"], &["-X", "DELETE"], 200, None, 2),
        ("POST is not idempotent", &["ac"], &["-X", "POST"], 502, lost, 1),
        ("PATCH is not", &["ac"], &["-X", "PATCH"], 502, lost, 1),
        ("PUT whose body was sent", &["ac"], &["-X", "PUT", "--data", "hello"], 502, lost, 1),
        ("an answer had begun", &["ap"], &[], 502, lost, 1),
        ("once and no more", &["ac", "c"], &[], 502, lost, 2),
        ("the used connection is closed before", &["a", "a"], &["-X", "POST"], 200, None, 1),
    ];
    for (case, script, arguments, status, reason, attempts) in table {
        let (address, serving) = scripted(script);
        let gate = gate(address, |document| {
            if case.starts_with("the used") {
                document["policy"]["routes"][0]["backendPolicy"] = json!({ "pool": { "idleTimeout": "2s" } });
            }
        });
        assert_eq!(gate.curl(Some("billing"), "/first").unwrap().call().unwrap().status, Some(200), "{case}");
        if case.starts_with("the used") {
            wait_metric(&gate.sidecar, "postern_upstream_connections_open", 0);
        }
        let curl = gate.curl(Some("billing"), "/orders").unwrap();
        let answer = arguments.iter().fold(curl, |curl, argument| curl.arg(*argument)).call().unwrap();
        assert_eq!(answer.status, Some(status), "{case}: {answer:?}");
        let row = newest(&gate.sidecar, 2);
        let shown = columns(&row, &["path", "verdict", "reason", "status", "attempts"]);
        assert_eq!(shown, json!(["/orders", "allowed", reason, status, attempts]), "{case}");
        gate.sidecar.has_decided(2).unwrap();
        drop(gate);
        serving.join().unwrap();
    }
}

/// A new connection that ends without an answer may have done what it was asked.
#[test]
fn what_was_sent_on_a_new_connection_does_not_go_again() {
    let (address, serving) = scripted(&["c"]);
    let gate = gate(address, |_| {});
    assert_eq!(gate.curl(Some("billing"), "/orders").unwrap().call().unwrap().status, Some(502));
    let row = newest(&gate.sidecar, 1);
    assert_eq!(columns(&row, &["reason", "attempts"]), json!(["upstream_reset", 1]));
    serving.join().unwrap();
    gate.sidecar.has_decided(1).unwrap();
}

/// An address that takes connections and never answers: its accept queue is all there is of it.
fn silent() -> TcpListener {
    TcpListener::bind("127.0.0.1:0").unwrap()
}

#[test]
fn a_request_takes_no_longer_than_it_may() {
    let table = [
        (json!({ "request": "200ms" }), "upstream_timeout"),
        (json!({ "backendRequest": "200ms" }), "upstream_timeout"),
        (json!({ "request": "60s", "backendRequest": "200ms" }), "upstream_timeout"),
    ];
    for (timeouts, reason) in table {
        for flag in ["--http1.1", "--http2"] {
            let silent = silent();
            let gate = gate(silent.local_addr().unwrap(), |document| {
                document["policy"]["routes"][0]["rules"][0]["timeouts"] = timeouts.clone();
            });
            let begun = Instant::now();
            let answer = gate.curl(Some("billing"), "/orders").unwrap().arg(flag).call().unwrap();
            assert_eq!(
                (answer.status, answer.header("postern-reason")),
                (Some(504), Some(reason)),
                "{timeouts} {flag}"
            );
            assert!(begun.elapsed() >= Duration::from_millis(200) && begun.elapsed() < Duration::from_secs(30));
            let row = newest(&gate.sidecar, 1);
            assert_eq!(columns(&row, &["reason", "status", "attempts"]), json!([reason, 504, 1]), "{timeouts} {flag}");
            gate.sidecar.has_decided(1).unwrap();
        }
    }
}

/// A response whose head has come and whose body does not end breaks off, and the row says both.
#[test]
fn a_body_ends_in_time_too() {
    for field in ["request", "backendRequest"] {
        for flag in ["--http1.1", "--http2"] {
            let upstream = TcpListener::bind("127.0.0.1:0").unwrap();
            let address = upstream.local_addr().unwrap();
            let serving = thread::spawn(move || {
                let (mut stream, _) = upstream.accept().unwrap();
                read_request(&mut stream);
                stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nonly").unwrap();
                // Until the gate closes it.
                let _ = stream.read(&mut [0]);
            });
            let gate = gate(address, |document| {
                document["policy"]["routes"][0]["rules"][0]["timeouts"] = json!({ field: "300ms" });
            });
            let answer = gate.curl(Some("billing"), "/orders").unwrap().arg(flag).call().unwrap();
            assert_eq!((answer.status, answer.text().as_str()), (Some(200), "only"), "{field} {flag}");
            assert_ne!(answer.exit_code, Some(0), "{field} {flag}");
            let row = newest(&gate.sidecar, 1);
            let shown = columns(&row, &["verdict", "reason", "status", "response_bytes"]);
            assert_eq!(shown, json!(["allowed", "upstream_timeout", 200, 4]), "{field} {flag}");
            serving.join().unwrap();
            gate.sidecar.has_decided(1).unwrap();
        }
    }
}

/// `0s` is any time, and what ends in time is not touched.
#[test]
fn what_ends_in_time_is_not_touched() {
    for timeouts in [json!({ "request": "0s" }), json!({ "request": "60s", "backendRequest": "50s" })] {
        let gate = Gate::start_with(|document| {
            document["version"] = json!("1.2");
            document["policy"]["routes"][0]["rules"][0]["timeouts"] = timeouts.clone();
        })
        .unwrap();
        let answer = gate.curl(Some("billing"), "/slow?ms=500").unwrap().call().unwrap();
        assert_eq!(answer.status, Some(200), "{timeouts}");
    }
}
