//! Every way in which a handshake fails: the reason in the row, and the alert that a real client sees.

use std::collections::BTreeSet;
use std::io::{Read, Write};
use std::net::{Shutdown, TcpStream};
use std::process::Command;

use postern_tests::ca::{Authority, Issued, LeafOptions, Purpose, self_signed};
use postern_tests::clients::{OpensslClient, run};
use postern_tests::config::client_uri;
use postern_tests::gate::Gate;
use postern_tests::wait::PATIENCE;
use serde_json::{Value, json};
use sidecar_decide::Reason;

use crate::observed::{columns, newest, status, wait_until};
use crate::rustls_client::{self, Offer};

const REQUEST: &str = "GET /orders HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n";
// Alerts that do not follow from the reason (RFC 8446 §6.2, RFC 7301 §3.2).
const HANDSHAKE_FAILURE: u8 = 40;
const DECODE_ERROR: u8 = 50;
const NO_APPLICATION_PROTOCOL: u8 = 120;

/// What a client does.
enum Client {
    /// openssl with this certificate and these arguments.
    Openssl(Option<&'static str>, &'static [&'static str]),
    /// openssl at the listener that refuses unknown names.
    Asks(&'static str),
    /// openssl that does not know the gate's authority.
    Distrusts,
    /// rustls with a DER certificate, signing with somebody's key.
    Presents(Vec<u8>, String),
    /// These bytes, then the end of what it sends.
    Sends(Vec<u8>),
    /// These bytes, then it waits.
    SendsAndWaits(Vec<u8>),
}

/// A client, the reason in its row, and the alert it sees.
type Row = (&'static str, Client, Reason, Option<u8>);

fn client(name: &str) -> LeafOptions {
    LeafOptions::client(name, &client_uri("billing"))
}

/// A gate with a second bundle whose revocation list is too old, a revoked serial number, and a listener that refuses
/// unknown names; and the certificates of all rows.
fn gate() -> Gate {
    let mut gate = Gate::start_with(|document| {
        let mut strict = document["policy"]["listeners"][0].clone();
        (strict["name"], strict["tls"]["unknownServerName"]) = (json!("strict"), json!("Refuse"));
        document["policy"]["listeners"].as_array_mut().unwrap().push(strict);
    })
    .unwrap();
    let ours = Authority::new("Signing authority").unwrap();
    let stale = Authority::new("Stale authority").unwrap();
    let foreign = Authority::new("Foreign authority").unwrap();
    let namesake = Authority::new("Signing authority").unwrap();
    let issued: [(&str, Issued); 12] = [
        ("foreign", foreign.issue(&client("foreign")).unwrap()),
        ("self-signed", self_signed(&client("self-signed")).unwrap()),
        ("self-signed-ca", self_signed(&LeafOptions { is_ca: true, ..client("self-signed-ca") }).unwrap()),
        ("a-ca", ours.issue(&LeafOptions { is_ca: true, ..client("a-ca") }).unwrap()),
        ("expired", ours.issue(&client("expired").expired()).unwrap()),
        ("early", ours.issue(&client("early").not_yet_valid()).unwrap()),
        ("revoked", ours.issue(&LeafOptions { serial: Some(vec![0x5a, 1]), ..client("revoked") }).unwrap()),
        ("listed", ours.issue(&LeafOptions { serial: Some(vec![0x5a, 2]), ..client("listed") }).unwrap()),
        ("stale", stale.issue(&client("stale")).unwrap()),
        ("servers", ours.issue(&client("servers").with_purposes(&[Purpose::Server])).unwrap()),
        ("odd", ours.issue(&LeafOptions { is_odd: true, ..client("odd") }).unwrap()),
        ("namesakes", namesake.issue(&client("namesakes")).unwrap()),
    ];
    for (name, issued) in &issued {
        gate.keep(name, issued).unwrap();
    }
    gate.folder.write("signing.pem", ours.root_pem()).unwrap();
    gate.folder.write("signing.key", &ours.key_pem()).unwrap();
    gate.folder.write("signing.crl", &ours.revocation_list(&["5a02".to_owned()], 60).unwrap().pem).unwrap();
    gate.folder.write("stale-ca.pem", stale.root_pem()).unwrap();
    gate.folder.write("stale-ca.crl", &stale.revocation_list(&[], -1).unwrap().pem).unwrap();
    gate.folder.write("foreign.root", foreign.root_pem()).unwrap();
    let before = status(&gate.sidecar).parts.trust.loaded;
    let bundle = |name: &str| json!({ "roots": [format!("{name}.pem")], "crls": [format!("{name}.crl")] });
    gate.document["trust"]["bundles"]["signing"] = bundle("signing");
    gate.document["trust"]["bundles"]["stale"] = bundle("stale-ca");
    gate.document["trust"]["revocations"]["serials"] = json!([{ "bundle": "signing", "serial": "5a01" }]);
    for listener in gate.document["policy"]["listeners"].as_array_mut().unwrap() {
        listener["tls"]["trust"] = json!(["ours", "signing", "stale"]);
    }
    gate.folder.write_document(&gate.document).unwrap();
    wait_until("another trust", || status(&gate.sidecar).parts.trust.loaded != before);
    gate
}

/// A certificate that openssl signs with the authority's key: rcgen makes none of these.
fn weak(gate: &Gate, name: &str, key: &[&str], digest: &str) {
    let file = |ending: &str| format!("{name}.{ending}");
    let openssl = |arguments: &[&str]| {
        let mut command = Command::new("openssl");
        let finished = run(command.args(arguments).current_dir(gate.folder.path()), b"", PATIENCE).unwrap();
        assert_eq!(finished.code, Some(0), "{arguments:?}: {}", finished.stderr);
    };
    openssl(&[&["genpkey", "-out", &file("key"), "-algorithm"], key].concat());
    openssl(&["req", "-new", "-key", &file("key"), "-subj", &format!("/CN={name}"), "-out", &file("csr")]);
    gate.folder.write(&file("ext"), "extendedKeyUsage=clientAuth\n").unwrap();
    let authority = ["x509", "-req", "-CA", "signing.pem", "-CAkey", "signing.key", "-set_serial", "7", "-days", "1"];
    openssl(&[&authority[..], &["-in", &file("csr"), "-extfile", &file("ext"), digest, "-out", &file("pem")]].concat());
}

/// The DER bytes of a certificate that openssl made.
fn der(gate: &Gate, name: &str) -> Vec<u8> {
    let mut command = Command::new("openssl");
    let arguments = ["x509", "-outform", "DER", "-in", &format!("{name}.pem")];
    run(command.args(arguments).current_dir(gate.folder.path()), b"", PATIENCE).unwrap().stdout
}

/// What the certificate or the name is refused for.
fn certificates(gate: &Gate) -> Vec<Row> {
    use Client::{Asks, Openssl, Presents};
    use Reason as R;
    let curve = |name: &'static str| ["EC", "-pkeyopt", name];
    weak(gate, "sha1", &curve("ec_paramgen_curve:P-256"), "-sha1");
    weak(gate, "short", &["RSA", "-pkeyopt", "rsa_keygen_bits:1024"], "-sha256");
    weak(gate, "p224", &curve("ec_paramgen_curve:secp224r1"), "-sha256");
    weak(gate, "brainpool", &curve("ec_paramgen_curve:brainpoolP256r1"), "-sha256");
    let key = |name: &str| std::fs::read_to_string(gate.folder.file(&format!("{name}.key"))).unwrap();
    let presents = |name: &str, signing: &str| Presents(der(gate, name), key(signing));
    let of_reason = |case, client, reason: Reason| (case, client, reason, reason.facts().alert);
    let mut torn = der(gate, "expired");
    torn.truncate(100);
    vec![
        of_reason("no certificate", Openssl(None, &[]), R::TlsNoCertificate),
        of_reason("another authority's", Openssl(Some("foreign"), &[]), R::TlsUnknownCa),
        of_reason("self-signed", Openssl(Some("self-signed"), &[]), R::TlsSelfSigned),
        of_reason("a self-signed authority", Openssl(Some("self-signed-ca"), &[]), R::TlsSelfSigned),
        of_reason("an authority of ours", Openssl(Some("a-ca"), &[]), R::TlsConstraint),
        of_reason("expired", Openssl(Some("expired"), &[]), R::TlsExpired),
        of_reason("not yet valid", Openssl(Some("early"), &[]), R::TlsNotYetValid),
        of_reason("a revoked serial number", Openssl(Some("revoked"), &[]), R::TlsRevoked),
        of_reason("in a revocation list", Openssl(Some("listed"), &[]), R::TlsRevoked),
        of_reason("a list that is too old", Openssl(Some("stale"), &[]), R::TlsCrlExpired),
        of_reason("a server's", Openssl(Some("servers"), &[]), R::TlsWrongPurpose),
        of_reason("another authority of that name", Openssl(Some("namesakes"), &[]), R::TlsBadSignature),
        of_reason("another's key", presents("servers-client", "billing"), R::TlsBadSignature),
        of_reason("a critical extension", Openssl(Some("odd"), &[]), R::TlsUnsupportedExtension),
        of_reason("signed with SHA-1", presents("sha1", "sha1"), R::TlsWeak),
        of_reason("RSA of 1024 bits", presents("short", "rsa"), R::TlsWeak),
        of_reason("a key on secp224r1", presents("p224", "billing"), R::TlsWeak),
        of_reason("a key on brainpoolP256r1", presents("brainpool", "billing"), R::TlsWeak),
        of_reason("half a certificate", Presents(torn, key("billing")), R::TlsMalformed),
        of_reason("an unknown name", Asks("other.example"), R::TlsUnknownSni),
    ]
}

/// What is refused before there is a certificate.
fn hellos() -> Vec<Row> {
    use Client::{Distrusts, Openssl, Sends, SendsAndWaits};
    use Reason as R;
    // OpenSSL itself offers the old and the weak only below its own level of security.
    let old_10: &[&str] = &["-tls1", "-cipher", "DEFAULT:@SECLEVEL=0"];
    let old_11: &[&str] = &["-tls1_1", "-cipher", "DEFAULT:@SECLEVEL=0"];
    let billing = Some("billing");
    let hello = |bytes: &[u8]| [&[22, 3, 1, 0, u8::try_from(bytes.len()).unwrap()], bytes].concat();
    vec![
        (
            "a group that the gate lacks",
            Openssl(billing, &["-groups", "P-521"]),
            R::TlsNothingInCommon,
            Some(HANDSHAKE_FAILURE),
        ),
        ("TLS 1.0", Openssl(billing, old_10), R::TlsNothingInCommon, Some(HANDSHAKE_FAILURE)),
        ("TLS 1.1", Openssl(billing, old_11), R::TlsNothingInCommon, Some(HANDSHAKE_FAILURE)),
        (
            "no suite in common",
            Openssl(billing, &["-tls1_2", "-cipher", "AES128-SHA"]),
            R::TlsNothingInCommon,
            Some(HANDSHAKE_FAILURE),
        ),
        (
            "no protocol in common",
            Openssl(billing, &["-alpn", "spdy/3"]),
            R::TlsNothingInCommon,
            Some(NO_APPLICATION_PROTOCOL),
        ),
        ("HTTP", Sends(REQUEST.as_bytes().to_vec()), R::TlsProtocol, Some(DECODE_ERROR)),
        ("no record", Sends(vec![0xff; 600]), R::TlsProtocol, Some(DECODE_ERROR)),
        (
            "an SSLv2 hello",
            Sends([&[0x80, 0x2e, 1, 0, 2, 0, 0x15, 0, 0, 0, 0x10][..], &[7; 37]].concat()),
            R::TlsProtocol,
            Some(DECODE_ERROR),
        ),
        // rustls says nothing to who begins with what belongs behind a handshake.
        ("a record of data", Sends(vec![23, 3, 3, 0, 1, 0]), R::TlsProtocol, None),
        ("a hello without content", Sends(hello(&[1, 0, 0, 0])), R::TlsProtocol, Some(DECODE_ERROR)),
        ("an alert in place of a hello", Sends(vec![21, 3, 3, 0, 2, 2, 80]), R::TlsProtocol, None),
        ("a client that does not accept the gate", Distrusts, R::TlsClientAlert, None),
        ("half a hello, and the end", Sends(vec![22, 3, 1, 0, 200, 1, 0]), R::ClientClosed, None),
        ("half a hello, and silence", SendsAndWaits(vec![22, 3, 1, 0, 200, 1, 0]), R::TlsTimeout, None),
    ]
}

impl Client {
    /// Does it, and returns the alert that came back.
    fn run(self, gate: &Gate) -> Option<u8> {
        match self {
            Self::Openssl(certificate, arguments) => {
                let client = gate.openssl(certificate).unwrap();
                arguments.iter().fold(client, |client, argument| client.arg(*argument)).talk(REQUEST).unwrap().alert()
            }
            Self::Asks(name) => {
                let client = OpensslClient::new(gate.sidecar.listener("strict").unwrap()).asking_for(Some(name));
                client.talk(REQUEST).unwrap().alert()
            }
            Self::Distrusts => {
                let client = OpensslClient::new(gate.sidecar.listener("gate").unwrap());
                client.folder(gate.folder.path()).authority("foreign.root").talk(REQUEST).unwrap().alert()
            }
            Self::Presents(certificate, key) => {
                let offer = Offer { certificate: Some((certificate, key)), ..Offer::default() };
                let seen = rustls_client::talk(gate, "gate", offer);
                assert_eq!(seen.answer, "");
                seen.alert
            }
            Self::Sends(bytes) => send(gate, &bytes, true),
            Self::SendsAndWaits(bytes) => send(gate, &bytes, false),
        }
    }
}

/// Sends bytes and reads to the end: the alert in a plain record (RFC 8446 §5.1), if there is one.
fn send(gate: &Gate, bytes: &[u8], ends: bool) -> Option<u8> {
    let mut stream = TcpStream::connect(gate.sidecar.listener("gate").unwrap()).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    stream.write_all(bytes).unwrap();
    if ends {
        stream.shutdown(Shutdown::Write).unwrap();
    }
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).unwrap();
    match answer.as_slice() {
        [21, 3, _, 0, 2, 2, alert] => Some(*alert),
        [] => None,
        other => panic!("no alert: {other:?}"),
    }
}

#[test]
fn every_failed_handshake_has_its_reason_its_alert_and_its_row() {
    let gate = gate();
    let client_of_ours = |name: &str| gate.authority.issue(&client(name)).unwrap();
    gate.keep("servers-client", &client_of_ours("servers-client")).unwrap();
    let mut command = Command::new("openssl");
    let rsa = ["genpkey", "-algorithm", "RSA", "-pkeyopt", "rsa_keygen_bits:2048"];
    gate.folder.write("rsa.key", &run(command.args(rsa), b"", PATIENCE).unwrap().text()).unwrap();
    let mut covered = BTreeSet::new();
    for (index, (case, client, reason, alert)) in certificates(&gate).into_iter().chain(hellos()).enumerate() {
        let presented = match &client {
            Client::Openssl(Some(name), _) if reason.facts().alert.is_some() => json!(format!("CN={name}")),
            _ => Value::Null,
        };
        let has_evidence = matches!(client, Client::Presents(..)) && reason != Reason::TlsMalformed;
        covered.insert(reason);
        let seen = client.run(&gate);
        assert_eq!(seen, alert, "{case}: {}", newest(&gate.sidecar, index + 1));
        let row = newest(&gate.sidecar, index + 1);
        let shown = ["kind", "verdict", "reason", "identity", "bundle", "method", "status"];
        let expected = json!(["handshake", "refused", reason.code(), null, null, null, null]);
        assert_eq!(columns(&row, &shown), expected, "{case}");
        if !has_evidence {
            assert_eq!(row["subject"], presented, "{case}");
        } else {
            assert!(row["fingerprint"].is_string(), "{case}");
        }
    }
    gate.sidecar.has_decided(34).unwrap();
    let of_handshakes = |reason: &Reason| reason.code().starts_with("tls_");
    let all: BTreeSet<_> = Reason::ALL.into_iter().filter(of_handshakes).chain([Reason::ClientClosed]).collect();
    assert_eq!(covered, all);
}

/// A test of its own, because it takes its time beside the other.
#[test]
fn silence_is_refused_in_time() {
    let gate = Gate::start().unwrap();
    assert_eq!(Client::SendsAndWaits(Vec::new()).run(&gate), None);
    let row = newest(&gate.sidecar, 1);
    let shown = columns(&row, &["kind", "verdict", "reason", "sni"]);
    assert_eq!(shown, json!(["handshake", "refused", Reason::TlsTimeout.code(), null]));
    assert!((10_000_000..13_000_000).contains(&row["duration_us"].as_u64().unwrap()), "{row}");
    gate.sidecar.has_decided(1).unwrap();
}
