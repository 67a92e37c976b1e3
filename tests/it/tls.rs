//! Handshakes with real clients: who gets through, and for who does not, the alert and the evidence in the row.

use std::io::{Read, Write};
use std::net::{Shutdown, TcpStream};
use std::process::Command;

use postern_tests::ca::{Authority, Issued, LeafOptions, Purpose, self_signed};
use postern_tests::clients::{Handshake, run};
use postern_tests::config::client_uri;
use postern_tests::gate::Gate;
use postern_tests::wait::PATIENCE;
use serde_json::{Value, json};
use sidecar_decide::Reason;

use crate::observed::{self, columns, metric, newest, wait_metric};

const REQUEST: &str = "GET /orders HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n";
const VERSIONS: [(&str, &str); 2] = [("-tls1_3", "TLSv1.3"), ("-tls1_2", "TLSv1.2")];

/// A gate that trusts two bundles, `ours` and `partner`, and lets in whom either has signed, to `/partner`.
struct Two {
    gate: Gate,
    partner: Authority,
}

impl Two {
    fn start() -> Self {
        let partner = Authority::new("Partner authority").unwrap();
        let gate = Gate::start().unwrap();
        gate.folder.write("partner.pem", partner.root_pem()).unwrap();
        let mut document = gate.document.clone();
        // It vouches for the same trust domain: what keeps its names apart from ours is the bundle alone.
        document["trust"]["bundles"]["partner"] =
            json!({ "roots": ["partner.pem"], "vouchesFor": { "spiffe": ["demo.local"] } });
        document["policy"]["listeners"][0]["tls"]["trust"] = json!(["ours", "partner"]);
        let Gate { mut sidecar, upstream, folder, authority, .. } = gate;
        folder.write_document(&document).unwrap();
        let launch = sidecar.launch().clone();
        // Killed, it would leave a gap in the log if it had come to open it.
        sidecar.terminate().unwrap();
        sidecar.wait_exit().unwrap();
        let sidecar = launch.start_ready().unwrap();
        Self { gate: Gate { sidecar, upstream, folder, authority, document }, partner }
    }
}

/// What comes of a client certificate.
enum Outcome {
    /// The handshake succeeds and the request is answered 200.
    Passes,
    Refused(Reason),
}

fn client(name: &str) -> LeafOptions {
    LeafOptions::client(name, &client_uri(name))
}

/// Every kind of certificate a client could present, and what comes of it.
fn certificates(two: &Two) -> Vec<(&'static str, Option<Issued>, Outcome)> {
    use Outcome::{Passes, Refused};
    let ours = &two.gate.authority;
    let issue = |leaf: LeafOptions| Some(ours.issue(&leaf).unwrap());
    let foreign = Authority::new("Foreign authority").unwrap();
    let namesake = Authority::new("Postern test authority").unwrap();
    let below = ours.intermediate("Issuing authority").unwrap();
    let billing = || client("billing");
    let a_ca = LeafOptions { is_ca: true, ..billing() };
    let without_intermediate = {
        let mut issued = below.issue(&billing()).unwrap();
        let end = "-----END CERTIFICATE-----\n";
        let leaf = issued.chain_pem.split_inclusive(end).next().unwrap().to_owned();
        issued.chain_pem = leaf;
        issued
    };
    vec![
        ("good", issue(billing()), Passes),
        ("none", None, Refused(Reason::TlsNoCertificate)),
        ("expired", issue(billing().expired()), Refused(Reason::TlsExpired)),
        ("not-yet-valid", issue(billing().not_yet_valid()), Refused(Reason::TlsNotYetValid)),
        ("foreign", Some(foreign.issue(&billing()).unwrap()), Refused(Reason::TlsUnknownCa)),
        ("self-signed", Some(self_signed(&billing()).unwrap()), Refused(Reason::TlsSelfSigned)),
        ("self-signed-ca", Some(self_signed(&a_ca).unwrap()), Refused(Reason::TlsSelfSigned)),
        ("a-ca-of-ours", issue(a_ca), Refused(Reason::TlsConstraint)),
        ("servers-purpose", issue(billing().with_purposes(&[Purpose::Server])), Refused(Reason::TlsWrongPurpose)),
        ("other-purpose", issue(billing().with_purposes(&[Purpose::CodeSigning])), Refused(Reason::TlsWrongPurpose)),
        ("both-purposes", issue(billing().with_purposes(&[Purpose::Server, Purpose::Client])), Passes),
        // RFC 5280 §4.2.1.12: without the extension a key may be used for any purpose.
        ("no-purpose", issue(billing().with_purposes(&[])), Passes),
        // webpki looks at a leaf's own dates before it looks for an issuer.
        ("expired-and-foreign", Some(foreign.issue(&billing().expired()).unwrap()), Refused(Reason::TlsExpired)),
        ("foreign-of-our-name", Some(namesake.issue(&billing()).unwrap()), Refused(Reason::TlsBadSignature)),
        ("bad-signature", Some(with_bad_signature(issue(billing()).unwrap())), Refused(Reason::TlsBadSignature)),
        ("below-an-intermediate", Some(below.issue(&billing()).unwrap()), Passes),
        ("intermediate-not-sent", Some(without_intermediate), Refused(Reason::TlsUnknownCa)),
    ]
}

/// Changes the last byte of a certificate, which belongs to its signature.
fn with_bad_signature(issued: Issued) -> Issued {
    let mut certificate_der = issued.certificate_der;
    *certificate_der.last_mut().unwrap() ^= 1;
    let mut command = Command::new("openssl");
    let finished = run(command.args(["x509", "-inform", "DER"]), &certificate_der, PATIENCE).unwrap();
    assert_eq!(finished.code, Some(0), "{}", finished.stderr);
    Issued { chain_pem: finished.text(), key_pem: issued.key_pem, certificate_der }
}

#[test]
fn every_kind_of_certificate_has_its_reason_its_alert_and_its_evidence() {
    let two = Two::start();
    let mut rows = 0;
    for (case, issued, outcome) in certificates(&two) {
        if let Some(issued) = &issued {
            two.gate.keep(case, issued).unwrap();
        }
        for (flag, version) in VERSIONS {
            let certificate = issued.as_ref().map(|_| case);
            let handshake = two.gate.openssl(certificate).unwrap().arg(flag).talk(REQUEST).unwrap();
            rows += 1;
            let row = newest(&two.gate.sidecar, rows);
            let case = format!("{case} {version}: {row}");
            match outcome {
                Outcome::Passes => assert_passed(&case, &handshake, &row, version),
                Outcome::Refused(reason) => assert_refused(&case, &handshake, &row, reason),
            }
            let presented = ["subject", "san", "issuer", "serial", "fingerprint"];
            assert_eq!(columns(&row, &presented), evidence(issued.as_ref()), "{case}");
        }
    }
    assert_eq!(observed::rows(&two.gate.sidecar, rows).len(), rows);
}

fn assert_passed(case: &str, handshake: &Handshake, row: &Value, version: &str) {
    assert_eq!((handshake.status(), handshake.alert()), (Some(200), None), "{case}");
    assert_eq!(
        columns(row, &["kind", "verdict", "reason", "identity", "bundle", "tls_version", "resumed", "sni"]),
        json!(["request", "allowed", null, "demo/billing", "ours", version, 0, "localhost"]),
        "{case}"
    );
}

fn assert_refused(case: &str, handshake: &Handshake, row: &Value, reason: Reason) {
    assert_eq!((handshake.status(), handshake.alert()), (None, reason.facts().alert), "{case}: {}", handshake.stderr);
    assert!(reason.facts().alert.is_some(), "{case}");
    assert_eq!(
        columns(row, &["kind", "verdict", "reason", "identity", "bundle", "listener", "sni", "status", "method"]),
        json!(["handshake", "refused", reason.code(), null, null, "gate", "localhost", null, null]),
        "{case}"
    );
}

/// What a row must say of a presented certificate, as openssl sees it: subject, names, issuer, serial and fingerprint.
fn evidence(issued: Option<&Issued>) -> Value {
    let Some(issued) = issued else { return json!([null, null, null, null, null]) };
    let name = |option: &str| openssl_name(issued, option);
    json!([
        name("-subject"),
        format!("URI:{}", client_uri("billing")),
        name("-issuer"),
        colons(&issued.serial().unwrap()),
        format!("sha256:{}", issued.fingerprint().unwrap()),
    ])
}

/// `CN=billing`, where openssl prints `subject=CN=billing`.
fn openssl_name(issued: &Issued, option: &str) -> String {
    let mut command = Command::new("openssl");
    command.args(["x509", "-noout", "-nameopt", "RFC2253", option]);
    let finished = run(&mut command, issued.chain_pem.as_bytes(), PATIENCE).unwrap();
    assert_eq!(finished.code, Some(0), "{}", finished.stderr);
    let text = finished.text();
    text.trim_end().split_once('=').unwrap().1.to_owned()
}

/// `5a01` as `5a:01`.
fn colons(hex: &str) -> String {
    hex.as_bytes().chunks(2).map(|pair| String::from_utf8_lossy(pair).into_owned()).collect::<Vec<_>>().join(":")
}

#[test]
fn a_partner_that_signs_one_of_our_names_is_let_in_as_nobody() {
    let two = Two::start();
    two.gate.keep("partners-billing", &two.partner.issue(&client("billing")).unwrap()).unwrap();
    two.gate.keep("ours", &two.gate.authority.issue(&client("billing")).unwrap()).unwrap();
    let table = [
        ("partners-billing", 403, json!(["request", "refused", "policy_no_identity", null, "partner", 403])),
        ("ours", 200, json!(["request", "allowed", null, "demo/billing", "ours", 200])),
    ];
    for (index, (certificate, status, expected)) in table.into_iter().enumerate() {
        let answer = two.gate.curl(Some(certificate), "/orders").unwrap().call().unwrap();
        assert_eq!(answer.status, Some(status), "{certificate}");
        let row = newest(&two.gate.sidecar, index + 1);
        let shown = ["kind", "verdict", "reason", "identity", "bundle", "status"];
        assert_eq!(columns(&row, &shown), expected, "{certificate}");
        assert_eq!(row["san"], json!(format!("URI:{}", client_uri("billing"))), "{certificate}");
    }
}

#[test]
fn what_is_no_handshake_is_a_refusal_without_evidence() {
    let gate = Gate::start().unwrap();
    let mut record_of_a_hello = vec![22, 3, 1, 0, 4, 1, 0, 0, 0];
    record_of_a_hello.extend([0; 64]);
    let table: [(&str, &[u8]); 3] = [
        ("plain HTTP", b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n"),
        ("garbage", &[0xff; 600]),
        ("an empty hello", &record_of_a_hello),
    ];
    for (index, (case, bytes)) in table.into_iter().enumerate() {
        let mut stream = TcpStream::connect(gate.sidecar.listener("gate").unwrap()).unwrap();
        stream.write_all(bytes).unwrap();
        stream.shutdown(Shutdown::Write).unwrap();
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer).unwrap();
        // RFC 8446 §5.1 and §6: a record of type alert, fatal.
        assert_eq!((answer.first(), answer.get(5)), (Some(&21), Some(&2)), "{case}: {answer:?}");
        let row = newest(&gate.sidecar, index + 1);
        let shown = ["kind", "verdict", "reason", "subject", "fingerprint", "tls_version", "sni"];
        assert_eq!(
            columns(&row, &shown),
            json!(["handshake", "refused", "tls_protocol", null, null, null, null]),
            "{case}"
        );
    }
    let series = r#"postern_handshakes_refused_total{listener="gate",reason="tls_protocol"}"#;
    assert_eq!(metric(&gate.sidecar, series), 3);
}

#[test]
fn a_connection_closed_before_its_first_byte_is_counted_and_no_row() {
    let gate = Gate::start().unwrap();
    drop(TcpStream::connect(gate.sidecar.listener("gate").unwrap()).unwrap());
    let series = r#"postern_handshakes_refused_total{listener="gate",reason="closed_before_first_byte"}"#;
    wait_metric(&gate.sidecar, series, 1);
    // The log keeps the order of decisions: had the closed connection a row, it would come before this one.
    assert_eq!(gate.curl(Some("billing"), "/orders").unwrap().call().unwrap().status, Some(200));
    let rows = observed::rows(&gate.sidecar, 1);
    assert_eq!(rows.len(), 1);
    assert_eq!(rows[0]["kind"], json!("request"));
}

#[test]
fn a_connection_closed_in_the_middle_of_its_first_message_is_a_row() {
    let gate = Gate::start().unwrap();
    let mut stream = TcpStream::connect(gate.sidecar.listener("gate").unwrap()).unwrap();
    stream.write_all(&[0x16, 3, 1, 0, 200, 1, 0]).unwrap();
    drop(stream);
    let rows = observed::rows(&gate.sidecar, 1);
    let shown = columns(&rows[0], &["kind", "verdict", "reason", "status"]);
    assert_eq!(shown, json!(["handshake", "refused", "client_closed", null]));
}

/// Alert of a version that is not accepted (RFC 8446 §6.2).
const PROTOCOL_VERSION: u8 = 70;
/// Alert where no application protocol is shared (RFC 7301 §3.2).
const NO_APPLICATION_PROTOCOL: u8 = 120;
/// Alert where nothing else in the hello fits. rustls sends it to TLS 1.1 too, whose hello names no signature algorithms:
/// it looks for those before the version.
const HANDSHAKE_FAILURE: u8 = 40;

#[test]
fn versions_suites_and_protocols_must_be_shared() {
    let at_least_13 = |document: &mut Value| document["policy"]["listeners"][0]["tls"]["minVersion"] = json!("1.3");
    let (any, only_13) = (Gate::start().unwrap(), Gate::start_with(at_least_13).unwrap());
    // OpenSSL itself does not offer TLS 1.1 above this security level.
    let old: &[&str] = &["-tls1_1", "-cipher", "DEFAULT:@SECLEVEL=0"];
    let weak: &[&str] = &["-tls1_2", "-cipher", "AES128-SHA"];
    let refused = |alert| Err(alert);
    let table = [
        ("TLS 1.1", &any, old, refused(HANDSHAKE_FAILURE)),
        ("TLS 1.2 without forward secrecy", &any, weak, refused(HANDSHAKE_FAILURE)),
        ("TLS 1.2", &any, &["-tls1_2"][..], Ok("TLSv1.2")),
        ("TLS 1.2 where 1.3 is the least", &only_13, &["-tls1_2"][..], refused(PROTOCOL_VERSION)),
        ("TLS 1.3 where 1.3 is the least", &only_13, &["-tls1_3"][..], Ok("TLSv1.3")),
        ("a foreign protocol", &any, &["-alpn", "spdy/3"][..], refused(NO_APPLICATION_PROTOCOL)),
        ("HTTP/1.1", &any, &["-alpn", "http/1.1"][..], Ok("TLSv1.3")),
        ("no protocol named", &any, &[][..], Ok("TLSv1.3")),
    ];
    let mut counts = [0, 0];
    for (case, gate, arguments, expected) in table {
        let client = gate.openssl(Some("billing")).unwrap();
        let client = arguments.iter().fold(client, |client, argument| client.arg(*argument));
        let handshake = client.talk(REQUEST).unwrap();
        let count = &mut counts[usize::from(std::ptr::eq(gate, &raw const only_13))];
        *count += 1;
        let row = newest(&gate.sidecar, *count);
        let shown = columns(&row, &["kind", "verdict", "reason", "tls_version", "protocol"]);
        match expected {
            Ok(version) => {
                assert_eq!((handshake.status(), handshake.alert()), (Some(200), None), "{case}: {handshake:?}");
                assert_eq!(shown, json!(["request", "allowed", null, version, "HTTP/1.1"]), "{case}");
            }
            Err(alert) => {
                assert_eq!((handshake.status(), handshake.alert()), (None, Some(alert)), "{case}: {handshake:?}");
                let expected = json!(["handshake", "refused", "tls_nothing_in_common", null, null]);
                assert_eq!(shown, expected, "{case}");
            }
        }
    }
}

#[test]
fn curl_is_served_in_the_protocol_it_asks_for() {
    let gate = Gate::start().unwrap();
    let table = [("--http2", "HTTP/2"), ("--http1.1", "HTTP/1.1"), ("--no-alpn", "HTTP/1.1")];
    for (index, (flag, protocol)) in table.into_iter().enumerate() {
        let answer = gate.curl(Some("billing"), "/orders").unwrap().arg(flag).call().unwrap();
        assert_eq!((answer.status, answer.version.as_deref()), (Some(200), Some(protocol)), "{flag}");
        let row = newest(&gate.sidecar, index + 1);
        assert_eq!(columns(&row, &["protocol", "tls_version"]), json!([protocol, "TLSv1.3"]), "{flag}");
    }
}

#[test]
fn a_client_that_does_not_accept_the_gate_is_recorded() {
    let gate = Gate::start().unwrap();
    gate.folder.write("other.pem", Authority::new("Another authority").unwrap().root_pem()).unwrap();
    for (index, (flag, _)) in VERSIONS.into_iter().enumerate() {
        let client = postern_tests::clients::OpensslClient::new(gate.sidecar.listener("gate").unwrap());
        let client = client.folder(gate.folder.path()).authority("other.pem").certificate("billing").arg(flag);
        assert_eq!(client.talk(REQUEST).unwrap().status(), None, "{flag}");
        let row = newest(&gate.sidecar, index + 1);
        let shown = columns(&row, &["kind", "verdict", "reason", "identity", "sni"]);
        assert_eq!(shown, json!(["handshake", "refused", "tls_client_alert", null, "localhost"]), "{flag}");
    }
}

#[test]
fn a_certificate_may_be_optional_or_never_asked_for() {
    let with = |client_auth: &'static str| {
        move |document: &mut Value| {
            document["policy"]["listeners"][0]["tls"]["clientAuth"] = json!(client_auth);
            let rule = |path: &str, allow: Value| {
                json!({
                    "name": path, "matches": [{ "path": { "type": "Exact", "value": path } }], "allow": [allow],
                    "backends": document["policy"]["routes"][0]["rules"][0]["backends"].clone(),
                })
            };
            let rules = [
                rule("/anyone", json!({ "anyone": {} })),
                rule("/verified", json!({ "verified": "ours" })),
                rule("/billing", json!({ "identity": "demo/billing" })),
            ];
            document["policy"]["routes"][0]["rules"] = json!(rules);
        }
    };
    let (optional, never) = (Gate::start_with(with("Optional")).unwrap(), Gate::start_with(with("None")).unwrap());
    let billing = Some("billing");
    let none = json!("policy_no_certificate");
    let table = [
        (&optional, None, "/anyone", 200, json!([null, null, null])),
        (&optional, None, "/verified", 403, json!([none, null, null])),
        (&optional, None, "/billing", 403, json!([none, null, null])),
        (&optional, billing, "/anyone", 200, json!([null, "demo/billing", "ours"])),
        (&optional, billing, "/verified", 200, json!([null, "demo/billing", "ours"])),
        (&optional, billing, "/billing", 200, json!([null, "demo/billing", "ours"])),
        (&never, billing, "/anyone", 200, json!([null, null, null])),
        (&never, billing, "/verified", 403, json!([none, null, null])),
        (&never, billing, "/billing", 403, json!([none, null, null])),
    ];
    let mut counts = [0, 0];
    for (gate, certificate, path, status, expected) in table {
        let case = format!("{certificate:?} {path}");
        assert_eq!(gate.curl(certificate, path).unwrap().call().unwrap().status, Some(status), "{case}");
        let count = &mut counts[usize::from(std::ptr::eq(gate, &raw const never))];
        *count += 1;
        let row = newest(&gate.sidecar, *count);
        assert_eq!(columns(&row, &["reason", "identity", "bundle"]), expected, "{case}");
    }
    // Optional is not lenient: a certificate that is presented must verify.
    optional.keep("expired", &optional.authority.issue(&client("billing").expired()).unwrap()).unwrap();
    let refused = optional.openssl(Some("expired")).unwrap().talk(REQUEST).unwrap();
    assert_eq!((refused.status(), refused.alert()), (None, Reason::TlsExpired.facts().alert));
}

#[test]
fn connections_above_the_limit_are_closed_and_recorded() {
    let gate = Gate::start_with(|document| document["policy"]["limits"] = json!({ "maxConnections": 1 })).unwrap();
    let address = gate.sidecar.listener("gate").unwrap();
    let held = TcpStream::connect(address).unwrap();
    wait_metric(&gate.sidecar, "postern_connections_open", 1);
    let mut answer = Vec::new();
    let read = TcpStream::connect(address).unwrap().read_to_end(&mut answer);
    assert_eq!((read.ok(), answer.as_slice()), (Some(0), &[][..]));
    let row = newest(&gate.sidecar, 1);
    let shown = columns(&row, &["kind", "verdict", "reason", "listener"]);
    assert_eq!(shown, json!(["connection", "refused", "limit_connections", "gate"]));
    drop(held);
    wait_metric(&gate.sidecar, "postern_connections_open", 0);
    assert_eq!(gate.curl(Some("billing"), "/orders").unwrap().call().unwrap().status, Some(200));
}
