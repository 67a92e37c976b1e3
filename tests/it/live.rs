//! Connections that are open obey: what would not be let in any more is cut, what rests on an old certificate moves on.

use std::io::Read;
use std::process::{Child, Command, Stdio};
use std::time::Instant;

use postern_tests::ca::{Authority, LeafOptions};
use postern_tests::config::client_uri;
use postern_tests::gate::Gate;
use serde_json::{Value, json};
use time::{Duration, OffsetDateTime};

use crate::observed::{columns, metric, rows, wait_until};
use crate::reload::KeepAlive;

/// How a document is changed.
type Edit = fn(&mut Value);

fn change(gate: &mut Gate, edit: impl FnOnce(&mut Value)) {
    edit(&mut gate.document);
    gate.folder.write_document(&gate.document).unwrap();
}

/// Rows of kind `cut`.
fn cuts(gate: &Gate) -> Vec<Value> {
    let rows = rows(&gate.sidecar, 0);
    rows.into_iter().filter(|row| row["kind"] == "cut").collect()
}

fn states(document: &mut Value) -> &mut Value {
    &mut document["trust"]["revocations"]["identities"]
}

#[test]
fn what_is_not_let_in_any_more_is_cut_and_nobody_else() {
    let table: &[(&str, Edit)] = &[
        ("policy_identity_revoked", |document| {
            *states(document) = json!([{ "name": "demo/billing", "state": "Revoked" }]);
        }),
        ("policy_identity_suspended", |document| {
            *states(document) = json!([{ "name": "demo/billing", "state": "Suspended" }]);
        }),
        ("policy_issued_too_early", |document| {
            *states(document) = json!([{ "name": "demo/billing", "acceptIssuedAfter": "2999-01-01T00:00:00Z" }]);
        }),
        ("tls_unknown_ca", |document| document["trust"]["bundles"]["partner"]["roots"] = json!(["ca.pem"])),
        ("tls_unknown_ca", |document| document["policy"]["listeners"][0]["tls"]["trust"] = json!(["ours"])),
    ];
    let partner = Authority::new("Partner authority").unwrap();
    for (number, (reason, edit)) in table.iter().enumerate() {
        let mut gate = Gate::start().unwrap();
        gate.folder.write("partner.pem", partner.root_pem()).unwrap();
        change(&mut gate, |document| {
            document["trust"]["bundles"]["partner"] = json!({ "roots": ["partner.pem"] });
            document["policy"]["listeners"][0]["tls"]["trust"] = json!(["ours", "partner"]);
            let recognise = document["identities"][0]["recognise"].as_array_mut().unwrap();
            recognise.push(json!({ "bundle": "partner", "uri": client_uri("billing") }));
            document["trust"]["bundles"]["partner"]["vouchesFor"] = json!({ "spiffe": ["demo.local"] });
        });
        gate.keep("theirs", &partner.issue(&LeafOptions::client("billing", &client_uri("billing"))).unwrap()).unwrap();
        wait_until("the partner", || gate.curl(Some("theirs"), "/orders").unwrap().call().unwrap().status == Some(200));
        let mut doomed = [KeepAlive::open(&gate, "theirs"), KeepAlive::open(&gate, "theirs")];
        let mut other = KeepAlive::open(&gate, "reports");
        doomed.iter_mut().for_each(|connection| assert_eq!(connection.ask("/orders"), 200));
        let others = other.ask("/orders");
        change(&mut gate, edit);
        for connection in &mut doomed {
            wait_until("the end", || connection.has_ended());
        }
        assert_eq!(other.ask("/orders"), others, "{number}");
        wait_until("two rows", || cuts(&gate).len() >= 2);
        let cut = cuts(&gate);
        let expected = json!(["refused", *reason, "CN=billing", "partner", "gate", "HTTP/1.1"]);
        for row in &cut {
            let shown = ["verdict", "reason", "subject", "bundle", "listener", "protocol"];
            assert_eq!(columns(row, &shown), expected, "{number}");
        }
        assert_eq!(cut.len(), 2, "{number}: {cut:?}");
        let series = format!("postern_connections_cut_total{{listener=\"gate\",reason=\"{reason}\"}}");
        assert_eq!(metric(&gate.sidecar, &series), 2, "{number}");
    }
}

#[test]
fn a_change_of_something_else_cuts_nobody() {
    let mut gate = Gate::start().unwrap();
    let mut connection = KeepAlive::open(&gate, "billing");
    assert_eq!(connection.ask("/orders"), 200);
    let edits: &[Edit] = &[
        |document| *states(document) = json!([{ "name": "demo/mallory", "state": "Suspended" }]),
        |document| document["trust"]["bundles"]["more"] = json!({ "roots": ["ca.pem"] }),
        |document| document["identities"][0]["labels"] = json!({ "tier": "gold" }),
        |document| document["policy"]["routes"][0]["rules"][0]["name"] = json!("other"),
    ];
    for (number, edit) in edits.iter().enumerate() {
        let loaded = |gate: &Gate| crate::observed::status(&gate.sidecar).parts;
        let before = loaded(&gate);
        change(&mut gate, edit);
        wait_until("the change", || loaded(&gate) != before);
        assert_eq!(connection.ask("/orders"), 200, "{number}");
    }
    assert_eq!(cuts(&gate), Vec::<Value>::new());
}

#[test]
fn a_response_under_way_breaks_off_with_its_connection() {
    for (flag, protocol) in [("--http1.1", "HTTP/1.1"), ("--http2", "HTTP/2")] {
        let mut gate = Gate::start().unwrap();
        // Too much for the buffers on the way, and nobody reads on.
        let curl = gate.curl(Some("billing"), "/bytes?n=1000000000").unwrap().arg(flag).arg("--limit-rate").arg("1M");
        let asked = gate.upstream.requests();
        let download = std::thread::spawn(move || curl.arg("-o").arg("/dev/null").call().unwrap());
        wait_until("the download", || gate.upstream.requests() > asked);
        change(&mut gate, |document| *states(document) = json!([{ "name": "demo/billing", "state": "Revoked" }]));
        let answer = download.join().unwrap();
        // curl's codes for a transfer that broke off: in TLS, in a stream of HTTP/2, before its length.
        assert!(matches!(answer.exit_code, Some(56 | 92 | 18)), "{flag}: {answer:?}");
        let found = rows(&gate.sidecar, 2);
        let shown: Vec<_> =
            found.iter().map(|row| columns(row, &["kind", "verdict", "reason", "status", "protocol"])).collect();
        let request = json!(["request", "allowed", "policy_identity_revoked", 200, protocol]);
        assert_eq!(shown, [request, json!(["cut", "refused", "policy_identity_revoked", null, protocol])], "{flag}");
        gate.sidecar.has_decided(2).unwrap();
    }
}

/// A client of HTTP/2 nobody here wrote, which prints the frames it gets.
fn nghttp(gate: &Gate, path: &str) -> Child {
    let port = gate.sidecar.listener("gate").unwrap().port();
    let mut command = Command::new("nghttp");
    command.args(["--verbose", "--null-out", "--no-verify-peer", "--cert=billing.pem", "--key=billing.key"]);
    command.arg(format!("https://localhost:{port}{path}")).current_dir(gate.folder.path());
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap()
}

#[test]
fn an_http2_client_is_told_with_goaway() {
    let mut gate = Gate::start().unwrap();
    let asked = gate.upstream.requests();
    let mut client = nghttp(&gate, "/slow?ms=60000");
    wait_until("the request", || gate.upstream.requests() > asked);
    change(&mut gate, |document| *states(document) = json!([{ "name": "demo/billing", "state": "Revoked" }]));
    let mut printed = String::new();
    client.stdout.take().unwrap().read_to_string(&mut printed).unwrap();
    client.wait().unwrap();
    assert!(printed.contains("recv GOAWAY frame"), "{printed}");
}

#[test]
fn a_client_certificate_that_expires_ends_its_connection() {
    let gate = Gate::start().unwrap();
    let expires = OffsetDateTime::now_utc() + Duration::seconds(3);
    let leaf = LeafOptions { not_after: expires, ..LeafOptions::client("billing", &client_uri("billing")) };
    gate.keep("brief", &gate.authority.issue(&leaf).unwrap()).unwrap();
    let mut brief = KeepAlive::open(&gate, "brief");
    let mut other = KeepAlive::open(&gate, "billing");
    assert_eq!((brief.ask("/orders"), other.ask("/orders")), (200, 200));
    wait_until("the end", || brief.has_ended());
    assert!(OffsetDateTime::now_utc() >= expires.replace_nanosecond(0).unwrap(), "not before it expires");
    let found = rows(&gate.sidecar, 3);
    let cut = found.iter().find(|row| row["kind"] == "cut").unwrap();
    assert_eq!(columns(cut, &["reason", "identity"]), json!(["tls_expired", "demo/billing"]));
    assert_eq!(other.ask("/orders"), 200);
}

#[test]
fn connections_move_to_a_new_certificate_of_the_gate() {
    let gate = Gate::start().unwrap();
    let server = |seconds| LeafOptions {
        not_after: OffsetDateTime::now_utc() + Duration::seconds(seconds),
        ..LeafOptions::server("gate")
    };
    let serial = || crate::observed::status(&gate.sidecar).leaf_serial;
    let replace = |seconds| {
        let before = serial();
        gate.authority.issue(&server(seconds)).unwrap().write(gate.folder.path(), "server").unwrap();
        wait_until("the new certificate", || serial() != before);
    };
    replace(8);
    // Two that hold on to the old certificate: one asks now and then, the other never again.
    let mut busy = KeepAlive::open(&gate, "billing");
    let mut idle = KeepAlive::open(&gate, "reports");
    assert_eq!(busy.ask("/orders"), 200);
    idle.ask("/orders");
    let asked = gate.upstream.requests();
    let mut stream = nghttp(&gate, "/slow?ms=60000");
    wait_until("the stream", || gate.upstream.requests() > asked);
    replace(3600);
    let began = Instant::now();
    wait_until("being told to move", || busy.ask_head("/orders").contains("\r\nconnection: close\r\n"));
    wait_until("the end", || busy.has_ended());
    assert!(began.elapsed().as_secs() < 8, "told before the old certificate expires");
    wait_until("the hard end", || idle.has_ended());
    let mut printed = String::new();
    stream.stdout.take().unwrap().read_to_string(&mut printed).unwrap();
    stream.wait().unwrap();
    assert!(printed.contains("recv GOAWAY frame"), "{printed}");
    wait_until("two rows", || cuts(&gate).len() == 2);
    let found = cuts(&gate);
    let mut shown: Vec<_> = found.iter().map(|row| columns(row, &["reason", "identity"]).to_string()).collect();
    shown.sort_unstable();
    let reason = "gate_certificate_expired";
    let expected = [json!([reason, "demo/billing"]).to_string(), json!([reason, "demo/reports"]).to_string()];
    assert_eq!(shown, expected);
    // What was opened with the new one goes on.
    let mut new = KeepAlive::open(&gate, "billing");
    assert_eq!((new.ask("/orders"), new.ask_head("/orders").contains("connection: close")), (200, false));
}
