//! TLS to upstreams through the real gate: who a server must be, what the gate shows of itself, which sessions are resumed.

use postern_tests::ca::{Authority, Issued, LeafOptions, Purpose};
use postern_tests::gate::Gate;
use postern_tests::nginx::Nginx;
use postern_tests::tls_server::TlsServer;
use serde_json::{Value, json};

use crate::observed::{columns, newest, status, wait_until};

/// What nginx tells of a connection: whether its client was verified, the name it asked for, whether it resumed a session.
const TELL: &str = "location = /tell { return 200 \"$ssl_client_verify,$ssl_server_name,$ssl_session_reused\"; }";

/// A server certificate for `orders.test`, which is also a service account's.
fn orders() -> LeafOptions {
    LeafOptions {
        common_name: "orders".to_owned(),
        uris: vec!["spiffe://demo.local/ns/shop/sa/orders".to_owned()],
        dns_names: vec!["orders.test".to_owned()],
        purposes: vec![Purpose::Server],
        ..LeafOptions::default()
    }
}

/// nginx with `<stem>.pem` of the gate's folder, more directives, and an answer for `/tell`.
fn nginx(gate: &Gate, stem: &str, directives: &str) -> Nginx {
    let folder = gate.folder.path().display();
    let certificate = format!("ssl_certificate {folder}/{stem}.pem; ssl_certificate_key {folder}/{stem}.key;");
    Nginx::listening("ssl", &format!("{certificate} {directives} {TELL}")).unwrap()
}

/// nginx that verifies clients which have a certificate.
fn asking(gate: &Gate, stem: &str) -> Nginx {
    let ask = format!("ssl_verify_client optional; ssl_client_certificate {}/ca.pem;", gate.folder.path().display());
    nginx(gate, stem, &ask)
}

/// Changes a running gate's document and waits until all of it is served.
fn change(gate: &Gate, document: &Value) {
    let before = status(&gate.sidecar).parts;
    gate.folder.write_document(document).unwrap();
    wait_until("the reload", || {
        let now = status(&gate.sidecar).parts;
        now.policy.loaded != before.policy.loaded || now.trust.loaded != before.trust.loaded
    });
}

/// The gate's document, where requests go to this backend.
fn to(gate: &Gate, backend: &Value) -> Value {
    let mut document = gate.document.clone();
    document["version"] = json!("1.3");
    document["settings"]["workers"] = json!(1);
    document["policy"]["routes"][0]["rules"][0]["backends"] = json!([backend]);
    document
}

/// A backend that is known by its name.
fn by_name(address: &dyn std::fmt::Display) -> Value {
    json!({ "address": address.to_string(), "tls": { "serverName": "orders.test", "trust": ["ours"] } })
}

/// What `/tell` answers, and the newest row's reason and status.
fn ask(gate: &Gate, calls: &mut usize) -> (String, Value) {
    let answer = gate.curl(Some("billing"), "/tell").unwrap().call().unwrap();
    *calls += 1;
    (answer.text(), columns(&newest(&gate.sidecar, *calls), &["reason", "status"]))
}

#[test]
fn servers_are_asked_for_their_name_and_shown_what_they_may_see() {
    let gate = Gate::start().unwrap();
    gate.keep("orders", &gate.authority.issue(&orders()).unwrap()).unwrap();
    let upstream = asking(&gate, "orders");
    let table = [
        (json!({ "serverName": "orders.test", "trust": ["ours"] }), "NONE,orders.test,."),
        (json!({ "serverName": "orders.test", "trust": ["ours"], "mode": "Mutual" }), "SUCCESS,orders.test,."),
        (json!({ "peers": ["spiffe://demo.local/ns/shop/sa/orders"], "trust": ["ours"] }), "NONE,,."),
        (json!({ "peers": ["spiffe://demo.local/ns/shop/*"], "trust": ["ours"] }), "NONE,,."),
        // A name is only what is asked for where peers say who it is.
        (
            json!({ "peers": ["spiffe://demo.local/*"], "serverName": "any.test", "trust": ["ours"], "mode": "Mutual" }),
            "SUCCESS,any.test,.",
        ),
    ];
    let mut calls = 0;
    for (tls, told) in table {
        change(&gate, &to(&gate, &json!({ "address": upstream.address(), "tls": tls })));
        assert_eq!(ask(&gate, &mut calls), (told.to_owned(), json!([null, 200])), "{tls}");
    }
}

#[test]
fn every_server_that_is_not_the_right_one_has_its_reason() {
    let gate = Gate::start().unwrap();
    let issue = |leaf: &LeafOptions| gate.authority.issue(leaf).unwrap();
    let foreign = Authority::new("Foreign").unwrap();
    let revoked = LeafOptions { serial: Some(vec![0x5a, 0x01]), ..orders() };
    let table: [(&str, Issued, &str); 6] = [
        ("foreign", foreign.issue(&orders()).unwrap(), "upstream_tls_untrusted"),
        ("client", issue(&orders().with_purposes(&[Purpose::Client])), "upstream_tls_untrusted"),
        ("expired", issue(&orders().expired()), "upstream_tls_expired"),
        ("early", issue(&orders().not_yet_valid()), "upstream_tls_expired"),
        ("revoked", issue(&revoked), "upstream_tls_revoked"),
        ("named", issue(&LeafOptions { dns_names: vec!["other.test".to_owned()], ..orders() }), "upstream_tls_peer"),
    ];
    let mut calls = 0;
    let mut refused = |backend: &Value, reason: &str| {
        let mut document = to(&gate, backend);
        document["trust"]["revocations"]["serials"] = json!([{ "bundle": "ours", "serial": "5a:01" }]);
        change(&gate, &document);
        let (body, row) = ask(&gate, &mut calls);
        assert_eq!((body, row), (format!("{{\"reason\":\"{reason}\"}}\n"), json!([reason, 502])), "{backend}");
    };
    for (stem, certificate, reason) in table {
        gate.keep(stem, &certificate).unwrap();
        refused(&by_name(&nginx(&gate, stem, "").address()), reason);
    }
    gate.keep("orders", &issue(&orders())).unwrap();
    // Without TLS, with another service account's name, and where the gate is asked to show what it does not.
    refused(&by_name(&gate.upstream.address()), "upstream_tls");
    let good = nginx(&gate, "orders", "");
    let tls = json!({ "peers": ["spiffe://demo.local/ns/shop/sa/other"], "trust": ["ours"] });
    refused(&json!({ "address": good.address(), "tls": tls }), "upstream_tls_peer");
    for version in ["-tls1_2", "-tls1_3"] {
        let demand = ["-Verify", "1", "-verify_return_error", "-CAfile", "ca.pem", version];
        let server = TlsServer::start(gate.folder.path(), "orders", &demand).unwrap();
        refused(&by_name(&server.address()), "upstream_tls_refused");
    }
}

/// A session is resumed while what it was verified under holds, and not any more when trust has changed.
#[test]
fn sessions_are_resumed_under_the_trust_that_verified_them() {
    let gate = Gate::start().unwrap();
    gate.keep("orders", &gate.authority.issue(&orders()).unwrap()).unwrap();
    for version in ["TLSv1.2", "TLSv1.3"] {
        let upstream = nginx(&gate, "orders", &format!("ssl_protocols {version}; ssl_session_cache shared:tests:1m;"));
        let mut document = to(&gate, &by_name(&upstream.address()));
        document["policy"]["routes"][0]["backendPolicy"] = json!({ "pool": { "maxRequestsPerConnection": 1 } });
        change(&gate, &document);
        let told = || gate.curl(Some("billing"), "/tell").unwrap().call().unwrap().text();
        let three = || [told(), told(), told()];
        assert_eq!(three(), ["NONE,orders.test,.", "NONE,orders.test,r", "NONE,orders.test,r"], "{version}");
        document["trust"]["revocations"]["serials"] = json!([{ "bundle": "ours", "serial": "5a:01" }]);
        change(&gate, &document);
        assert_eq!(three(), ["NONE,orders.test,.", "NONE,orders.test,r", "NONE,orders.test,r"], "{version}");
        document["trust"]["revocations"]["serials"] = json!([]);
        change(&gate, &document);
    }
}
