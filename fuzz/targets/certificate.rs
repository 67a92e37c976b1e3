//! Any bytes as a client's certificate: its facts are told, bounded and consistent, or it is refused.
#![no_main]

use std::sync::Arc;

use libfuzzer_sys::fuzz_target;
use serde_json::json;
use sidecar_decide::{Certificate, CertificateFacts, Files, Parts, Who, accept, link};

/// Bytes of a printed name, with the ellipsis behind it.
const NAME_MAX_BYTES: usize = 1024 + '…'.len_utf8();

fuzz_target!(|der: &[u8]| {
    let read = CertificateFacts::of(der);
    assert_eq!(Certificate::from_der(der.to_vec()).map(|certificate| certificate.facts), read);
    let Ok(facts) = read else { return };
    for name in [&facts.subject, &facts.issuer, &facts.san] {
        assert!(name.len() <= NAME_MAX_BYTES, "{} bytes", name.len());
    }
    assert!(facts.fingerprint().contains(&facts.lfdi_hex()));
    assert_eq!(facts.sfdi_digits().len(), 12);
    assert!(facts.serial.split(':').all(|byte| byte.len() == 2) || facts.serial.is_empty(), "{}", facts.serial);
    assert!(facts.dns_names.iter().all(|name| !name.bytes().any(|byte| byte.is_ascii_uppercase())));
    recognised(&facts);
});

/// What a row says of a certificate recognises it.
fn recognised(facts: &CertificateFacts) {
    let claims = json!([
        {"bundle": "ours", "fingerprint": facts.fingerprint()},
        {"bundle": "ours", "spki": facts.spki_fingerprint()},
        {"bundle": "ours", "lfdi": facts.lfdi_hex()},
        {"bundle": "ours", "sfdi": facts.sfdi_digits()},
    ]);
    let identities: Vec<_> = serde_json::from_value(json!([{"name": "one", "recognise": claims}])).expect("a document");
    let trust = serde_json::from_value(json!({"bundles": {"ours": {"roots": ["ca.pem"]}}})).expect("a document");
    let mut files = Files::default();
    let root = Certificate { der: vec![0], facts: CertificateFacts { is_ca: true, ..facts.clone() } };
    files.certificates.insert("ca.pem".to_owned(), Ok(vec![root]));
    let parts = Parts {
        trust: Some(Arc::new(accept::trust(&trust, &files).expect("a good part"))),
        identities: Some(Arc::new(accept::identities(&identities).expect("a good part"))),
        ..Parts::default()
    };
    let (snapshot, problems) = link(&parts);
    assert_eq!(problems, []);
    assert_eq!(snapshot.directory.resolve(facts, vec![0]).who, Who::Known(0));
}
