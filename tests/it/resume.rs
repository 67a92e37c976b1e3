//! Sessions that are resumed: by their ticket, under what it was given out under, and otherwise by a full handshake.

use std::fs;

use postern_tests::ca::LeafOptions;
use postern_tests::clients::Handshake;
use postern_tests::config::client_uri;
use postern_tests::gate::Gate;
use serde_json::{Value, json};
use time::{Duration, OffsetDateTime};

use crate::observed::{columns, metric, newest, status, wait_until};

const REQUEST: &str = "GET /orders HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n";
const VERSIONS: [&str; 2] = ["-tls1_3", "-tls1_2"];

/// How a document is changed.
type Edit = fn(&mut Value);

/// A listener of its own port, otherwise like the first.
fn two_listeners(document: &mut Value) {
    let mut second = document["policy"]["listeners"][0].clone();
    second["name"] = json!("second");
    document["policy"]["listeners"].as_array_mut().unwrap().push(second);
    let mut route = document["policy"]["routes"][0].clone();
    (route["name"], route["listener"]) = (json!("demo/second"), json!("second"));
    document["policy"]["routes"].as_array_mut().unwrap().push(route);
}

/// A call with a certificate at a listener: with the ticket that is kept, if there is one, and keeping the newest.
fn call(gate: &Gate, listener: &str, version: &str, certificate: Option<&str>) -> Handshake {
    let address = gate.sidecar.listener(listener).unwrap();
    let mut client = gate.openssl(certificate).unwrap().arg("-connect").arg(address.to_string()).arg(version);
    if gate.folder.file("session").exists() {
        client = client.arg("-sess_in").arg("session");
    }
    client.arg("-sess_out").arg("session").talk(REQUEST).unwrap()
}

fn is_resumed(handshake: &Handshake) -> bool {
    let (reused, new) = (handshake.output.contains("Reused, TLSv1."), handshake.output.contains("New, TLSv1."));
    assert_ne!(reused, new, "{handshake:?}");
    reused
}

fn forget(gate: &Gate) {
    fs::remove_file(gate.folder.file("session")).unwrap();
}

fn change(gate: &mut Gate, edit: impl FnOnce(&mut Value)) {
    let parts = |gate: &Gate| status(&gate.sidecar).parts;
    let before = parts(gate);
    edit(&mut gate.document);
    gate.folder.write_document(&gate.document).unwrap();
    wait_until("the change", || parts(gate) != before);
}

#[test]
fn a_ticket_resumes_and_the_row_says_who_it_is() {
    for version in VERSIONS {
        let gate = Gate::start().unwrap();
        let full = call(&gate, "gate", version, Some("billing"));
        assert_eq!((full.status(), is_resumed(&full)), (Some(200), false), "{version}");
        let shown = ["verdict", "identity", "bundle", "subject", "fingerprint", "serial", "tls_version"];
        let first = newest(&gate.sidecar, 1);
        assert_eq!(first["resumed"], json!(0), "{version}");
        for count in 2..5 {
            let again = call(&gate, "gate", version, None);
            assert_eq!((again.status(), is_resumed(&again)), (Some(200), true), "{version}");
            let row = newest(&gate.sidecar, count);
            assert_eq!(row["resumed"], json!(1), "{version}");
            assert_eq!(columns(&row, &shown), columns(&first, &shown), "{version}");
        }
        assert_eq!(metric(&gate.sidecar, "postern_handshakes_resumed_total"), 3, "{version}");
    }
}

#[test]
fn a_ticket_resumes_nothing_where_what_it_rests_on_has_changed() {
    let table: &[(&str, bool, Edit)] = &[
        ("a route", true, |document| document["policy"]["routes"][0]["rules"][0]["name"] = json!("other")),
        ("an identity", true, |document| document["identities"][0]["labels"] = json!({ "tier": "gold" })),
        ("endpoints", true, |document| document["endpoints"] = json!([{ "name": "more", "addresses": [] }])),
        ("a revocation", false, |document| {
            document["trust"]["revocations"]["identities"] = json!([{ "name": "demo/reports", "state": "Revoked" }]);
        }),
        ("a bundle", false, |document| document["trust"]["bundles"]["more"] = json!({ "roots": ["ca.pem"] })),
        ("the mode", false, |document| {
            document["policy"]["listeners"][0]["tls"]["clientAuth"] = json!("Optional");
        }),
        ("the listener's bundles", false, |document| {
            document["policy"]["listeners"][0]["tls"]["trust"] = json!(["ours", "more"]);
        }),
    ];
    for version in VERSIONS {
        let mut gate = Gate::start_with(|document| {
            document["trust"]["bundles"]["more"] = json!({ "roots": ["ca.pem"], "vouchesFor": { "commonName": true } });
        })
        .unwrap();
        for (what, resumes, edit) in table {
            let before = [call(&gate, "gate", version, Some("billing")), call(&gate, "gate", version, Some("billing"))];
            assert_eq!(before.map(|call| (call.status(), is_resumed(&call))).last(), Some(&(Some(200), true)));
            change(&mut gate, edit);
            let after = call(&gate, "gate", version, Some("billing"));
            assert_eq!((after.status(), is_resumed(&after)), (Some(200), *resumes), "{version}: {what}");
            forget(&gate);
        }
    }
}

#[test]
fn a_ticket_is_of_its_listener_process_and_certificate() {
    for version in VERSIONS {
        let mut gate = Gate::start_with(two_listeners).unwrap();
        let resumed = |gate: &Gate, listener: &str| {
            let handshake = call(gate, listener, version, Some("billing"));
            assert_eq!(handshake.status(), Some(200), "{version}");
            is_resumed(&handshake)
        };
        assert_eq!((resumed(&gate, "gate"), resumed(&gate, "gate")), (false, true), "{version}");
        assert!(!resumed(&gate, "second"), "{version}: another listener");
        let serial = status(&gate.sidecar).leaf_serial;
        gate.authority.issue(&LeafOptions::server("gate")).unwrap().write(gate.folder.path(), "server").unwrap();
        wait_until("the new certificate", || status(&gate.sidecar).leaf_serial != serial);
        assert!(!resumed(&gate, "second"), "{version}: another certificate of the gate");
        assert!(resumed(&gate, "second"), "{version}");
        gate.sidecar.terminate().unwrap();
        gate.sidecar.wait_exit().unwrap();
        gate.sidecar = gate.sidecar.launch().start_ready().unwrap();
        assert!(!resumed(&gate, "second"), "{version}: another process");
    }
}

#[test]
fn a_renewed_client_is_known_by_its_new_certificate() {
    for version in VERSIONS {
        let gate = Gate::start().unwrap();
        let client = || LeafOptions::client("billing", &client_uri("billing"));
        let expires = OffsetDateTime::now_utc() + Duration::seconds(3);
        let brief = gate.authority.issue(&LeafOptions { not_after: expires, ..client() }).unwrap();
        gate.keep("brief", &brief).unwrap();
        assert!(!is_resumed(&call(&gate, "gate", version, Some("brief"))), "{version}");
        assert!(is_resumed(&call(&gate, "gate", version, Some("brief"))), "{version}");
        wait_until("its end", || OffsetDateTime::now_utc() > expires + Duration::seconds(1));
        let renewed = gate.authority.issue(&client()).unwrap();
        gate.keep("brief", &renewed).unwrap();
        let handshake = call(&gate, "gate", version, Some("brief"));
        assert_eq!((handshake.status(), is_resumed(&handshake)), (Some(200), false), "{version}");
        let fingerprint = format!("sha256:{}", renewed.fingerprint().unwrap());
        assert_eq!(columns(&newest(&gate.sidecar, 3), &["fingerprint", "resumed"]), json!([fingerprint, 0]));
        // Without a certificate the stale ticket is worth nothing either.
        forget(&gate);
        assert_eq!(call(&gate, "gate", version, None).status(), None, "{version}");
    }
}

#[test]
fn who_showed_no_certificate_has_none_when_resumed() {
    let gate = Gate::start_with(|document| {
        document["policy"]["listeners"][0]["tls"]["clientAuth"] = json!("Optional");
    })
    .unwrap();
    for version in VERSIONS {
        let calls = [call(&gate, "gate", version, None), call(&gate, "gate", version, Some("billing"))];
        assert_eq!(calls.map(|call| (call.status(), is_resumed(&call))), [(Some(403), false), (Some(403), true)]);
        forget(&gate);
    }
}

#[test]
fn a_session_id_resumes_nothing() {
    let gate = Gate::start().unwrap();
    // Connects again and again, and offers the session it has each time.
    let client = gate.openssl(Some("billing")).unwrap().args(["-tls1_2", "-no_ticket", "-reconnect"]);
    let output = client.talk(REQUEST).unwrap().output;
    assert_eq!((output.matches("New, TLSv1.2").count(), output.matches("Reused,").count()), (6, 0), "{output}");
    assert!(output.contains("Session-ID: \n"), "none is given out: {output}");
}

#[test]
fn early_data_is_not_offered() {
    let gate = Gate::start().unwrap();
    let handshake = call(&gate, "gate", "-tls1_3", Some("billing"));
    assert!(handshake.output.contains("Max Early Data: 0"), "{}", handshake.output);
}
