//! What the gate offers: protocols, suites and groups as sslscan sees them, and what is chosen among them.

use std::fs;
use std::process::Command;
use std::time::Duration;

use postern_tests::ca::LeafOptions;
use postern_tests::clients::{OpensslClient, run};
use postern_tests::config::client_uri;
use postern_tests::gate::Gate;
use rustls::crypto::aws_lc_rs::kx_group;
use rustls::crypto::{ActiveKeyExchange, SupportedKxGroup};
use rustls::{NamedGroup, SupportedProtocolVersion};
use serde_json::json;

use crate::observed::{columns, newest, status, wait_until};
use crate::rustls_client::{self, Offer};

const REQUEST: &str = "GET /orders HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n";

/// Committed: what is offered changes when somebody decides so, and not when a library is newer. `UPDATE=1` writes it.
const GOLDEN: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/it/golden/offers.txt");

/// Probes of what is not supported wait for answers that do not come.
const SCAN: Duration = Duration::from_secs(60);

#[test]
fn what_sslscan_finds_is_the_committed_list() {
    let gate = gate_with_two_keys();
    let address = gate.sidecar.listener("gate").unwrap().to_string();
    let found = ["localhost", "rsa.example"].map(|name| {
        let mut command = Command::new("sslscan");
        command.args(["--no-colour", "--no-heartbleed", "--xml=-", &format!("--sni-name={name}"), &address]);
        let scan = run(&mut command, b"", SCAN).unwrap();
        format!("name {name}\n{}", summary(&scan.text()))
    });
    if std::env::var_os("UPDATE").is_some_and(|update| update == "1") {
        fs::write(GOLDEN, found.concat()).unwrap();
    }
    assert_eq!(found.concat(), fs::read_to_string(GOLDEN).unwrap());
}

/// A gate with an ECDSA certificate, and one with an RSA key for `rsa.example`; clients may come without one.
fn gate_with_two_keys() -> Gate {
    let mut gate =
        Gate::start_with(|document| document["policy"]["listeners"][0]["tls"]["clientAuth"] = json!("Optional"))
            .unwrap();
    let mut command = Command::new("openssl");
    command.current_dir(gate.folder.path());
    command.args(["req", "-x509", "-newkey", "rsa:2048", "-nodes", "-keyout", "rsa.key", "-out", "rsa.pem"]);
    command.args(["-subj", "/CN=rsa", "-addext", "subjectAltName=DNS:rsa.example", "-days", "1"]);
    assert_eq!(run(&mut command, b"", SCAN).unwrap().code, Some(0));
    let before = status(&gate.sidecar).parts.identity.loaded;
    gate.document["identity"]["certificates"] = json!([{ "chain": "rsa.pem", "key": "rsa.key" }]);
    gate.folder.write_document(&gate.document).unwrap();
    wait_until("another identity", || status(&gate.sidecar).parts.identity.loaded != before);
    gate
}

/// One line for each protocol, suite and group, in sslscan's order, which is the gate's for suites.
fn summary(xml: &str) -> String {
    let attribute = |line: &str, name: &str| {
        let (_, rest) = line.split_once(&format!(" {name}=\""))?;
        Some(rest.split('"').next()?.to_owned())
    };
    let words = |line: &str, names: &[&str]| -> String {
        names.iter().filter_map(|name| attribute(line, name)).collect::<Vec<_>>().join(" ")
    };
    let mut summary = String::new();
    for line in xml.lines().map(str::trim) {
        let words = match line.split(' ').next() {
            Some("<protocol") => words(line, &["type", "version", "enabled"]),
            Some("<renegotiation") => words(line, &["supported", "secure"]),
            Some("<compression") => words(line, &["supported"]),
            Some("<cipher") => words(line, &["status", "sslversion", "cipher", "curve"]),
            Some("<group") => words(line, &["sslversion", "name"]),
            _ => continue,
        };
        let kind = line.trim_start_matches('<').split(' ').next().unwrap();
        summary.push_str(&format!("{kind} {words}\n"));
    }
    summary
}

#[test]
fn the_gates_order_wins() {
    let gate = Gate::start().unwrap();
    let rows = [
        ("-tls1_3", "-ciphersuites", "TLS_AES_128_GCM_SHA256:TLS_AES_256_GCM_SHA384", "TLS_AES_256_GCM_SHA384"),
        ("-tls1_3", "-ciphersuites", "TLS_AES_256_GCM_SHA384:TLS_AES_128_GCM_SHA256", "TLS_AES_256_GCM_SHA384"),
        (
            "-tls1_2",
            "-cipher",
            "ECDHE-ECDSA-AES128-GCM-SHA256:ECDHE-ECDSA-AES256-GCM-SHA384",
            "TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384",
        ),
        (
            "-tls1_2",
            "-cipher",
            "ECDHE-ECDSA-AES256-GCM-SHA384:ECDHE-ECDSA-AES128-GCM-SHA256",
            "TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384",
        ),
    ];
    for (index, (version, option, order, chosen)) in rows.into_iter().enumerate() {
        let client = gate.openssl(Some("billing")).unwrap().arg(version).arg(option).arg(order);
        assert_eq!(client.talk(REQUEST).unwrap().status(), Some(200), "{order}");
        let row = newest(&gate.sidecar, index + 1);
        assert_eq!(columns(&row, &["reason", "cipher"]), json!([null, chosen]), "{order}");
    }
}

#[test]
fn the_hybrid_group_is_agreed_on_with_whoever_has_it() {
    let gate = Gate::start().unwrap();
    let (hybrid, x25519, p256) = (kx_group::X25519MLKEM768, kx_group::X25519, kx_group::SECP256R1);
    let (both, older) = (rustls::ALL_VERSIONS, ONLY_TLS12);
    let rows = [
        (both, vec![hybrid, x25519, p256], NamedGroup::X25519MLKEM768),
        (both, vec![hybrid, p256], NamedGroup::X25519MLKEM768),
        // It has sent a share of another one, and is asked for one of this.
        (both, vec![x25519, hybrid], NamedGroup::X25519MLKEM768),
        (both, vec![p256, x25519, hybrid], NamedGroup::X25519MLKEM768),
        // Among the others the client's order counts.
        (both, vec![x25519, p256], NamedGroup::X25519),
        (both, vec![p256, x25519], NamedGroup::secp256r1),
        (both, vec![p256], NamedGroup::secp256r1),
        // TLS 1.2 has no hybrid group, whoever names it.
        (older, vec![&NAMED_ANYWHERE, p256], NamedGroup::secp256r1),
        (older, vec![x25519, p256], NamedGroup::X25519),
    ];
    let leaf = LeafOptions::client("billing", &client_uri("billing"));
    let leaf = gate.authority.issue(&leaf).unwrap();
    for (versions, groups, expected) in rows {
        let case = format!("{groups:?}");
        let certificate = Some((leaf.certificate_der.clone(), leaf.key_pem.clone()));
        let seen = rustls_client::talk(&gate, "gate", Offer { versions, groups, certificate });
        assert_eq!((seen.group, seen.answer.as_str()), (Some(expected), "HTTP/1.1 200 OK"), "{case}");
    }
}

static ONLY_TLS12: &[&SupportedProtocolVersion] = &[&rustls::version::TLS12];
static NAMED_ANYWHERE: Anywhere = Anywhere(kx_group::X25519MLKEM768);

/// A group that a client names in every version.
#[derive(Debug)]
struct Anywhere(&'static dyn SupportedKxGroup);

impl SupportedKxGroup for Anywhere {
    fn start(&self) -> Result<Box<dyn ActiveKeyExchange>, rustls::Error> {
        self.0.start()
    }

    fn name(&self) -> NamedGroup {
        self.0.name()
    }
}

/// Early data can be played again by whoever has seen it (RFC 8446 §8).
#[test]
fn no_early_data_is_taken() {
    let gate = Gate::start().unwrap();
    let client = |arguments: &[&str]| -> String {
        let client = gate.openssl(Some("billing")).unwrap().arg("-tls1_3");
        let handshake =
            arguments.iter().fold(client, |client: OpensslClient, argument| client.arg(*argument)).talk(REQUEST);
        handshake.unwrap().output
    };
    client(&["-sess_out", "session.pem"]);
    gate.folder.write("early.txt", REQUEST).unwrap();
    let resumed = client(&["-sess_in", "session.pem", "-early_data", "early.txt"]);
    assert!(resumed.contains("Reused, TLSv1.3"), "{resumed}");
    assert!(resumed.contains("Early data was not sent"), "{resumed}");
    let mut command = Command::new("openssl");
    command.args(["sess_id", "-noout", "-text", "-in", "session.pem"]).current_dir(gate.folder.path());
    let session = run(&mut command, b"", SCAN).unwrap().text();
    assert!(session.contains("Max Early Data: 0"), "{session}");
}
