//! Too much at once: what the gate holds back, what it refuses, and that a new client always gets an answer.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use postern_tests::clients::Answer;
use postern_tests::gate::Gate;
use serde_json::{Value, json};

use crate::listeners::{application, echo, forwarding, script};
use crate::observed::{columns, metric, page, rows, wait_metric};
use crate::reload::KeepAlive;

/// An application that answers `/free` at once, begins an answer to `/stream` and does not end it, and answers nothing
/// else as long as somebody waits.
pub(crate) fn stubborn() -> SocketAddr {
    application(|mut stream: TcpStream| {
        loop {
            let mut head = Vec::new();
            while !head.ends_with(b"\r\n\r\n") {
                let mut byte = [0];
                match stream.read(&mut byte) {
                    Ok(1) => head.push(byte[0]),
                    _ => return,
                }
            }
            let answer: &[u8] = match head.split(|byte| *byte == b' ').nth(1) {
                Some(b"/free") => b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok",
                Some(path) if path.starts_with(b"/stream") => {
                    b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1\r\nx\r\n"
                }
                _ => b"",
            };
            if stream.write_all(answer).is_err() {
                return;
            }
        }
    })
}

fn gate(limits: &Value) -> Gate {
    Gate::start_with(|document| {
        document["version"] = json!("1.2");
        document["settings"]["workers"] = json!(2);
        document["policy"]["limits"] = limits.clone();
        document["policy"]["routes"][0]["rules"][0]["backends"] = json!([{ "address": stubborn() }]);
    })
    .unwrap()
}

/// Asks for many things at once, over HTTP/2, until the thread's answer is dropped with the gate.
fn ask_many(gate: &Gate, path: &str, count: usize) -> JoinHandle<Answer> {
    let curl = gate.curl(Some("billing"), &format!("{path}/[1-{count}]")).unwrap();
    let curl = curl.arg("--http2").arg("--parallel").arg("--parallel-max").arg(count.to_string());
    let curl = curl.arg("--no-progress-meter").arg("-o").arg("/dev/null").arg("--max-time").arg("12");
    thread::spawn(move || curl.call().unwrap())
}

/// How a new client fares: status, reason, and how long it took.
fn new_client(gate: &Gate, flag: &str) -> (Option<u16>, Option<String>, Duration) {
    let begun = Instant::now();
    let answer = gate.curl(Some("billing"), "/free").unwrap().arg(flag).call().unwrap();
    (answer.status, answer.header("postern-reason").map(str::to_owned), begun.elapsed())
}

#[test]
fn a_new_client_is_answered_whatever_is_stuck() {
    const STUCK: usize = 200;
    let gate = gate(&json!({ "maxPendingRequests": STUCK }));
    let streams = [ask_many(&gate, "/stream", 250), ask_many(&gate, "/stream", 250)];
    wait_metric(&gate.sidecar, "postern_streams_open", 500);
    wait_metric(&gate.sidecar, "postern_requests_pending", 0);
    // Open streams are none of the limit's.
    let (status, _, took) = new_client(&gate, "--http2");
    assert_eq!(status, Some(200));
    assert!(took < Duration::from_secs(2), "{took:?}");
    let stuck = ask_many(&gate, "/stuck", STUCK);
    wait_metric(&gate.sidecar, "postern_requests_pending", STUCK as u64);
    for flag in ["--http1.1", "--http2"] {
        let (status, reason, took) = new_client(&gate, flag);
        assert_eq!((status, reason.as_deref()), (Some(503), Some("limit_pending")), "{flag}");
        assert!(took < Duration::from_secs(2), "{flag}: {took:?}");
    }
    assert_eq!(metric(&gate.sidecar, "postern_streams_open"), 500 + STUCK as u64);
    assert_eq!(page(&gate.sidecar, "/readyz").status, Some(200), "the status port is not concerned");
    let refused: Vec<_> = rows(&gate.sidecar, 3).into_iter().filter(|row| row["reason"] == "limit_pending").collect();
    for row in &refused {
        let shown = columns(row, &["kind", "verdict", "route", "identity", "path", "status", "attempts"]);
        assert_eq!(shown, json!(["request", "refused", "demo/orders", "demo/billing", "/free", 503, 0]));
    }
    assert_eq!(refused.len(), 2);
    // They give up after their time, and all is as before.
    stuck.join().unwrap();
    wait_metric(&gate.sidecar, "postern_requests_pending", 0);
    assert_eq!(new_client(&gate, "--http2").0, Some(200));
    streams.into_iter().for_each(|streams| drop(streams.join().unwrap()));
    wait_metric(&gate.sidecar, "postern_streams_open", 0);
    gate.sidecar.has_decided(504 + STUCK as u64).unwrap();
}

#[test]
fn a_burst_is_held_back_and_served() {
    let gate = gate(&json!({ "maxPendingRequests": 1, "pendingTimeout": "10s" }));
    let stuck = gate.curl(Some("billing"), "/stuck").unwrap().arg("--max-time").arg("1");
    let stuck = thread::spawn(move || stuck.call().unwrap());
    wait_metric(&gate.sidecar, "postern_requests_pending", 1);
    // It waits until the one before gives up.
    let (status, _, _) = new_client(&gate, "--http2");
    assert_eq!((status, stuck.join().unwrap().exit_code), (Some(200), Some(28)), "curl's code for a time that is up");
    assert!(rows(&gate.sidecar, 2).iter().all(|row| row["verdict"] == "allowed"));
    gate.sidecar.has_decided(2).unwrap();
}

#[test]
fn a_request_that_waits_for_its_turn_says_so() {
    let gate = gate(&json!({ "maxPendingRequests": 1, "pendingTimeout": "10s" }));
    let mut open = KeepAlive::open(&gate, "billing");
    assert_eq!(open.ask("/free"), 200);
    assert_eq!(columns(&rows(&gate.sidecar, 1)[0], &["queue_us"]), json!([null]), "nobody was before it");
    let stuck = gate.curl(Some("billing"), "/stuck").unwrap().arg("--max-time").arg("1");
    let stuck = thread::spawn(move || stuck.call().unwrap());
    wait_metric(&gate.sidecar, "postern_requests_pending", 1);
    let begun = Instant::now();
    assert_eq!(open.ask("/free"), 200);
    let took = begun.elapsed();
    stuck.join().unwrap();
    let all = rows(&gate.sidecar, 3);
    let waited = all.iter().rfind(|row| row["path"] == "/free").unwrap();
    let [queue, duration] = ["queue_us", "duration_us"].map(|name| waited[name].as_u64().unwrap());
    assert!(0 < queue && queue <= duration && u128::from(duration) <= took.as_micros(), "{took:?} {waited}");
    // Nearly all of it: the application answers at once.
    assert!(queue * 2 > duration, "{waited}");
    gate.sidecar.has_decided(3).unwrap();
}

#[test]
fn streams_have_a_limit_of_their_own() {
    let gate = gate(&json!({ "maxStreams": 3 }));
    let streams = ask_many(&gate, "/stream", 3);
    wait_metric(&gate.sidecar, "postern_streams_open", 3);
    let (status, reason, _) = new_client(&gate, "--http2");
    assert_eq!((status, reason.as_deref()), (Some(503), Some("limit_streams")));
    let row = &rows(&gate.sidecar, 1)[0];
    assert_eq!(columns(row, &["verdict", "reason", "status"]), json!(["refused", "limit_streams", 503]));
    assert_eq!(row["limiter"], "limits.maxStreams");
    drop(streams);
}

#[test]
fn forwarded_connections_are_streams() {
    let gate = forwarding(application(echo), |document| {
        document["policy"]["limits"] = json!({ "maxStreams": 1 });
    });
    let text = "first = Tls(ADDRESS)\nfirst.send(b'x')\nprint(first.read())\nprint(how_it_ends(Tls(ADDRESS).read_all))\nfirst.end()\nprint(first.read_all())\n";
    assert_eq!(script(&gate, text), "b'x'\ncut short\nb'total 1'\n");
    let shown = rows(&gate.sidecar, 2).into_iter().map(|row| columns(&row, &["kind", "verdict", "reason"]).to_string());
    let mut shown: Vec<_> = shown.collect();
    shown.sort();
    let expected = [json!(["connection", "allowed", null]), json!(["connection", "refused", "limit_streams"])];
    assert_eq!(shown, expected.map(|row| row.to_string()));
    gate.sidecar.has_decided(2).unwrap();
}

#[test]
fn handshakes_wait_their_turn() {
    const TURNS: usize = 512;
    const MORE: usize = 20;
    let gate = Gate::start_with(|document| document["settings"]["workers"] = json!(1)).unwrap();
    let address = gate.sidecar.listener("gate").unwrap();
    // One byte of a hello and no more.
    let begin = || {
        let mut stream = TcpStream::connect(address).unwrap();
        stream.write_all(&[22]).unwrap();
        stream
    };
    let stalled: Vec<_> = (0..TURNS + MORE).map(|_| begin()).collect();
    wait_metric(&gate.sidecar, "postern_handshakes_open", TURNS as u64);
    assert_eq!(metric(&gate.sidecar, "postern_handshakes_limit"), TURNS as u64);
    let refused = |labels: &str| format!(r#"postern_handshakes_refused_total{{listener="gate",reason={labels}}}"#);
    wait_metric(&gate.sidecar, &refused(r#""limit_handshakes",limiter="handshakes""#), MORE as u64);
    let late = refused(r#""tls_timeout""#);
    assert_eq!(metric(&gate.sidecar, &late), 0);
    wait_metric(&gate.sidecar, &late, TURNS as u64);
    wait_metric(&gate.sidecar, "postern_handshakes_open", 0);
    drop(stalled);
    assert_eq!(gate.curl(Some("billing"), "/orders").unwrap().call().unwrap().status, Some(200));
    gate.sidecar.has_decided((TURNS + MORE + 1) as u64).unwrap();
}
