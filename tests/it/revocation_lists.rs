//! Revocation lists and intermediates of a bundle, with real clients.

use std::fs;

use postern_tests::ca::{Authority, Issued, LeafOptions, RevocationList, openssl_fact};
use postern_tests::config::client_uri;
use postern_tests::gate::Gate;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use serde_json::{Value, json};
use sidecar_config::status::{PartStatus, Parts};
use sidecar_decide::Reason;

use crate::observed::{columns, metric, newest, status, wait_until};
use crate::reload::KeepAlive;
use crate::rustls_client::{self, Offer};

const REQUEST: &str = "GET /orders HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n";
const HOUR: i64 = 60;

/// A gate whose clients come from an authority below its root. The client `billing` sends its certificate alone.
struct Below {
    gate: Gate,
    issuing: Authority,
    billing: Issued,
    rows: usize,
}

impl Below {
    fn start() -> Self {
        let gate = Gate::start().unwrap();
        let issuing = gate.authority.intermediate("Issuing authority").unwrap();
        let mut billing = issuing.issue(&LeafOptions::client("billing", &client_uri("billing"))).unwrap();
        billing.chain_pem = billing.chain_pem.split_inclusive("-----END CERTIFICATE-----\n").next().unwrap().to_owned();
        gate.keep("billing", &billing).unwrap();
        gate.folder.write("issuing.pem", &issuing.certificate_pem()).unwrap();
        Self { gate, issuing, billing, rows: 0 }
    }

    /// Adds fields to the bundle and waits until they are loaded.
    fn load(&mut self, fields: &Value) {
        let before = status(&self.gate.sidecar).parts.trust.loaded;
        let bundle = &mut self.gate.document["trust"]["bundles"]["ours"];
        bundle.as_object_mut().unwrap().extend(fields.as_object().unwrap().clone());
        self.gate.folder.write_document(&self.gate.document).unwrap();
        wait_until("another trust", || status(&self.gate.sidecar).parts.trust.loaded != before);
    }

    /// A handshake of `billing`: it is answered, or refused with this reason and its alert.
    fn expect(&mut self, case: &str, expected: Option<Reason>) {
        for flag in ["-tls1_3", "-tls1_2"] {
            let handshake = self.gate.openssl(Some("billing")).unwrap().arg(flag).talk(REQUEST).unwrap();
            self.rows += 1;
            let row = newest(&self.gate.sidecar, self.rows);
            let shown = columns(&row, &["kind", "verdict", "reason", "subject"]);
            let (answer, alert, row) = match expected {
                None => (Some(200), None, json!(["request", "allowed", null, "CN=billing"])),
                Some(reason) => {
                    (None, reason.facts().alert, json!(["handshake", "refused", reason.code(), "CN=billing"]))
                }
            };
            assert_eq!((handshake.status(), handshake.alert(), shown), (answer, alert, row), "{case} {flag}");
        }
    }

    fn serial(&self) -> String {
        self.billing.serial().unwrap()
    }
}

#[test]
fn a_client_that_sends_only_its_own_certificate_is_known_by_the_bundles_intermediates() {
    let mut below = Below::start();
    below.expect("alone", Some(Reason::TlsUnknownCa));
    below.load(&json!({ "intermediates": ["issuing.pem"] }));
    below.expect("with the intermediate", None);
    // Clients that choose their certificate by its issuer are told that name too.
    let handshake = below.gate.openssl(None).unwrap().talk(REQUEST).unwrap();
    let (_, names) = handshake.output.split_once("Acceptable client certificate CA names\n").unwrap();
    let names: Vec<_> = names.lines().take(2).collect();
    assert_eq!(names, ["CN = Postern test authority", "CN = Issuing authority"]);
}

#[test]
fn what_a_list_names_is_refused() {
    let mut below = Below::start();
    let root = &below.gate.authority;
    let above = openssl_fact(&below.issuing.certificate_pem(), "-serial").unwrap();
    let another = vec!["01".to_owned()];
    let lists: [(&str, RevocationList, Option<Reason>); 4] = [
        ("another of the issuer's", below.issuing.revocation_list(&another, HOUR).unwrap(), None),
        ("the client's", below.issuing.revocation_list(&[below.serial()], HOUR).unwrap(), Some(Reason::TlsRevoked)),
        // The same number, and another authority's.
        ("the root's of that number", root.revocation_list(&[below.serial()], HOUR).unwrap(), None),
        ("the authority above", root.revocation_list(&[above], HOUR).unwrap(), Some(Reason::TlsRevoked)),
    ];
    for (index, (case, list, expected)) in lists.into_iter().enumerate() {
        for (form, bytes) in [("pem", list.pem.into_bytes()), ("der", list.der)] {
            let name = format!("{index}.{form}");
            fs::write(below.gate.folder.file(&name), bytes).unwrap();
            below.load(&json!({ "intermediates": ["issuing.pem"], "crls": [name] }));
            below.expect(&format!("{case} {form}"), expected);
        }
    }
    let handshakes = |reason| format!(r#"postern_handshakes_refused_total{{listener="gate",reason="{reason}"}}"#);
    assert_eq!(metric(&below.gate.sidecar, &handshakes("tls_revoked")), 8);
}

#[test]
fn a_list_that_is_too_old_refuses_its_clients() {
    let mut below = Below::start();
    let old = below.issuing.revocation_list(&[], -1).unwrap();
    let names_it = below.issuing.revocation_list(&[below.serial()], -1).unwrap();
    below.gate.folder.write("old.crl", &old.pem).unwrap();
    below.gate.folder.write("names.crl", &names_it.pem).unwrap();
    below.load(&json!({ "intermediates": ["issuing.pem"], "crls": ["old.crl"] }));
    below.expect("old", Some(Reason::TlsCrlExpired));
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_secs();
    let due = metric(&below.gate.sidecar, r#"postern_crl_next_update_timestamp_seconds{bundle="ours"}"#);
    assert!((now - 600..now).contains(&due), "{due} {now}");
    // Who is listed is revoked, however old the list.
    below.load(&json!({ "crls": ["names.crl"] }));
    below.expect("old, and named", Some(Reason::TlsRevoked));
    // The next one may lie beside the last.
    let new = below.issuing.revocation_list(&[], HOUR).unwrap();
    below.gate.folder.write("new.crl", &new.pem).unwrap();
    below.load(&json!({ "crls": ["names.crl", "new.crl"] }));
    below.expect("a new one beside it", None);
}

#[test]
fn a_list_of_somebody_else_is_refused() {
    let namesake = Authority::new("Postern test authority").unwrap();
    let root = Authority::new("Foreign authority").unwrap();
    let mut torn = root.revocation_list(&[], HOUR).unwrap();
    torn.der.truncate(40);
    let mut below = Below::start();
    let mut forged = below.issuing.revocation_list(&[], HOUR).unwrap();
    *forged.der.last_mut().unwrap() ^= 1;
    let before = status(&below.gate.sidecar).parts.trust.loaded;
    let nobody = |issuer: &str| {
        format!(
            "`trust.bundles.ours.crls[0]`: the list of `CN={issuer}` in `a.crl` is signed by no root or intermediate of this bundle; \
             add the certificate of its issuer to `intermediates`"
        )
    };
    let rows = [
        (namesake.revocation_list(&[], HOUR).unwrap().der, nobody("Postern test authority")),
        (root.revocation_list(&[], HOUR).unwrap().der, nobody("Foreign authority")),
        (forged.der, nobody("Issuing authority")),
        (torn.der, "`trust.bundles.ours.crls[0]`: `a.crl`: not a certificate revocation list: ".to_owned()),
        (Vec::new(), "`trust.bundles.ours.crls[0]`: `a.crl` holds no revocation list; ".to_owned()),
    ];
    let bundle = &mut below.gate.document["trust"]["bundles"]["ours"];
    (bundle["intermediates"], bundle["crls"]) = (json!(["issuing.pem"]), json!(["a.crl"]));
    below.gate.folder.write_document(&below.gate.document).unwrap();
    for (bytes, expected) in rows {
        fs::write(below.gate.folder.file(".a"), bytes).unwrap();
        fs::rename(below.gate.folder.file(".a"), below.gate.folder.file("a.crl")).unwrap();
        wait_until(&expected, || {
            let why = status(&below.gate.sidecar).parts.trust.why.unwrap_or_default();
            // Told messages are cut at 256 bytes.
            !why.is_empty() && (expected.starts_with(why.trim_end_matches('…')) || why.starts_with(&expected))
        });
    }
    assert_eq!(status(&below.gate.sidecar).parts.trust.loaded, before);
}

#[test]
fn a_list_that_is_gone_revokes_still() {
    let mut below = Below::start();
    let list = below.issuing.revocation_list(&[below.serial()], HOUR).unwrap();
    below.gate.folder.write("a.crl", &list.pem).unwrap();
    below.load(&json!({ "intermediates": ["issuing.pem"], "crls": ["a.crl"] }));
    for emptied in [false, true] {
        if emptied {
            below.gate.folder.write("a.crl", "").unwrap();
        } else {
            fs::remove_file(below.gate.folder.file("a.crl")).unwrap();
        }
        wait_until("refused", || status(&below.gate.sidecar).parts.trust.refused.is_some());
        below.expect("gone", Some(Reason::TlsRevoked));
    }
}

#[test]
fn an_entry_that_appears_cuts_what_is_open() {
    let mut below = Below::start();
    let none = below.issuing.revocation_list(&[], HOUR).unwrap();
    below.gate.folder.write("a.crl", &none.pem).unwrap();
    below.load(&json!({ "intermediates": ["issuing.pem"], "crls": ["a.crl"] }));
    let mut connection = KeepAlive::open(&below.gate, "billing");
    assert_eq!(connection.ask("/orders"), 200);
    let names_it = below.issuing.revocation_list(&[below.serial()], 2 * HOUR).unwrap();
    below.gate.folder.write("a.crl", &names_it.pem).unwrap();
    let row = newest(&below.gate.sidecar, 2);
    let shown = columns(&row, &["kind", "verdict", "reason", "subject"]);
    assert_eq!(shown, json!(["cut", "refused", "policy_certificate_revoked", "CN=billing"]));
}

/// Chains are remembered: what is verified once is not verified again under the same trust, and never beyond it.
#[test]
fn a_known_chain_is_known_under_one_trust_only() {
    let mut gate = Gate::start_with(|document| document["settings"]["workers"] = json!(1)).unwrap();
    let chains = |gate: &Gate| {
        let count = |result| metric(&gate.sidecar, &format!("postern_client_chains_total{{result=\"{result}\"}}"));
        (count("verified"), count("known"))
    };
    let shake =
        |gate: &Gate, certificate: &str| gate.openssl(Some(certificate)).unwrap().talk(REQUEST).unwrap().alert();
    assert_eq!((shake(&gate, "billing"), chains(&gate)), (None, (1, 0)));
    assert_eq!((shake(&gate, "billing"), chains(&gate)), (None, (1, 1)));
    assert_eq!((shake(&gate, "reports"), chains(&gate)), (None, (2, 1)));
    // Another key for a known certificate is found out all the same.
    let billing = gate.folder.file("billing.pem");
    let pem = fs::read_to_string(billing).unwrap();
    let der = CertificateDer::from_pem_slice(pem.as_bytes()).unwrap().to_vec();
    let key = fs::read_to_string(gate.folder.file("reports.key")).unwrap();
    let stolen = Offer { certificate: Some((der, key)), ..Offer::default() };
    assert_eq!(rustls_client::talk(&gate, "gate", stolen).alert, Reason::TlsBadSignature.facts().alert);
    let load = |gate: &mut Gate, part: fn(&Parts) -> &PartStatus, change: &dyn Fn(&mut Value)| {
        let before = part(&status(&gate.sidecar).parts).loaded.clone();
        change(&mut gate.document);
        gate.folder.write_document(&gate.document).unwrap();
        wait_until("another revision", || part(&status(&gate.sidecar).parts).loaded != before);
    };
    load(&mut gate, |parts| &parts.policy, &|document| document["policy"]["limits"] = json!({ "maxConnections": 9 }));
    assert_eq!((shake(&gate, "billing"), chains(&gate)), (None, (2, 2)));
    load(&mut gate, |parts| &parts.trust, &|document| {
        document["trust"]["revocations"]["serials"] = json!([{ "bundle": "ours", "serial": "01" }]);
    });
    assert_eq!((shake(&gate, "billing"), chains(&gate)), (None, (3, 2)));
    let serial = openssl_fact(&pem, "-serial").unwrap();
    load(&mut gate, |parts| &parts.trust, &|document| {
        document["trust"]["revocations"]["serials"] = json!([{ "bundle": "ours", "serial": serial }]);
    });
    assert_eq!((shake(&gate, "billing"), chains(&gate)), (Reason::TlsRevoked.facts().alert, (3, 2)));
}
