//! Stopping: what is in flight finishes, nothing new begins, every row is written.

use std::process::ExitStatus;
use std::thread;

use postern_tests::clients::Answer;
use postern_tests::gate::Gate;
use serde_json::json;

use crate::observed::{columns, page, rows, wait_until};

/// Long enough to look at a draining gate from all sides, short enough to wait for.
const SLOW: &str = "/slow?ms=1500";

/// Begins a slow request, tells the gate to stop, does something while it drains, and waits for both to end.
fn drain_during_a_request(gate: &mut Gate, flag: &str, path: &str, look: impl FnOnce(&Gate)) -> (Answer, ExitStatus) {
    let curl = gate.curl(Some("billing"), path).unwrap().arg(flag);
    let asked = gate.upstream.requests();
    let slow = thread::spawn(move || curl.call().unwrap());
    wait_until("the slow request", || gate.upstream.requests() > asked);
    gate.sidecar.terminate().unwrap();
    look(gate);
    let answer = slow.join().unwrap();
    (answer, gate.sidecar.wait_exit().unwrap())
}

/// What the next start finds in the log.
fn rows_after_restart(gate: &mut Gate, count: usize) -> Vec<serde_json::Value> {
    gate.sidecar = gate.sidecar.launch().start_ready().unwrap();
    rows(&gate.sidecar, count)
}

#[test]
fn what_is_in_flight_finishes_and_nothing_new_begins() {
    for flag in ["--http1.1", "--http2"] {
        let mut gate = Gate::start().unwrap();
        let (answer, exit) = drain_during_a_request(&mut gate, flag, SLOW, |gate| {
            wait_until("draining", || page(&gate.sidecar, "/readyz").text() == "not ready: draining\n");
            assert_eq!(page(&gate.sidecar, "/readyz").status, Some(503), "{flag}");
            assert_eq!(page(&gate.sidecar, "/livez").status, Some(200), "{flag}");
            // curl's code for a connection that is refused.
            let refused = || gate.curl(Some("billing"), "/orders").unwrap().call().unwrap().exit_code == Some(7);
            wait_until("refused connections", refused);
        });
        assert_eq!((answer.exit_code, answer.status), (Some(0), Some(200)), "{flag}: {answer:?}");
        assert_eq!(exit.code(), Some(0), "{flag}");
        let stopped = gate.sidecar.lines().into_iter().find(|line| line.message() == "stopped").unwrap();
        assert_eq!(columns(&json!(stopped.fields), &["rows", "lost"])[1], json!(0), "{flag}");
        let found = rows_after_restart(&mut gate, 1);
        let slow = found.iter().find(|row| row["path"] == json!("/slow")).unwrap();
        assert_eq!(columns(slow, &["verdict", "reason", "status"]), json!(["allowed", null, 200]), "{flag}");
        assert!(found.iter().all(|row| row["kind"] == json!("request")), "no gap: {found:?}");
    }
}

#[test]
fn what_does_not_finish_in_time_is_cut_and_recorded() {
    for flag in ["--http1.1", "--http2"] {
        let mut gate = Gate::start_with(|document| document["settings"]["drainTimeout"] = json!("50ms")).unwrap();
        let (answer, exit) = drain_during_a_request(&mut gate, flag, "/slow?ms=60000", |_| {});
        assert_eq!((answer.status, exit.code()), (None, Some(0)), "{flag}");
        let found = rows_after_restart(&mut gate, 1);
        let shown: Vec<_> = found.iter().map(|row| columns(row, &["kind", "verdict", "reason", "path"])).collect();
        let request = json!(["request", "allowed", "gate_drain_timeout", "/slow"]);
        assert_eq!(shown, [request, json!(["cut", "refused", "gate_drain_timeout", null])], "{flag}");
    }
}

#[test]
fn all_rows_of_a_burst_are_written_before_the_end() {
    let mut gate = Gate::start_with(|document| document["settings"]["log"]["flushEvery"] = json!("10s")).unwrap();
    let curl = gate.curl(Some("billing"), "/orders/[1-300]").unwrap().arg("-o").arg("/dev/null");
    assert_eq!(curl.call().unwrap().exit_code, Some(0));
    gate.sidecar.terminate().unwrap();
    assert_eq!(gate.sidecar.wait_exit().unwrap().code(), Some(0));
    let stopped = gate.sidecar.lines().into_iter().find(|line| line.message() == "stopped").unwrap();
    assert_eq!(columns(&json!(stopped.fields), &["rows", "lost"]), json!([300, 0]));
    let found = rows_after_restart(&mut gate, 300);
    assert_eq!(found.len(), 300);
    assert!(found.iter().all(|row| row["kind"] == json!("request")));
}
