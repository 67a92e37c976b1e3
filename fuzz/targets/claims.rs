//! Any text as a claim of an identity, and any two as what a rule allows and what a certificate says.
#![no_main]

use std::sync::{Arc, LazyLock};

use libfuzzer_sys::arbitrary::{self, Arbitrary};
use libfuzzer_sys::fuzz_target;
use postern_fuzz::root;
use serde_json::json;
use sidecar_config::trust::Trust;
use sidecar_decide::{CertificateFacts, Files, Parts, Verdict, accept, link};

#[derive(Debug, Arbitrary)]
struct Input<'a> {
    field: u8,
    claim: &'a str,
    allowed: &'a str,
    /// What stands behind it in the certificate.
    below: &'a str,
}

const FIELDS: [&str; 8] = ["uri", "dnsName", "commonName", "fingerprint", "lfdi", "sfdi", "serial", "spki"];

fuzz_target!(|input: Input<'_>| {
    let field = FIELDS[usize::from(input.field) % FIELDS.len()];
    claim(field, input.claim);
    let uri = format!("{}{}", input.allowed.strip_suffix("/*").unwrap_or(input.allowed), input.below);
    for uri in [uri.as_str(), input.allowed, input.below] {
        pattern(input.allowed, uri);
    }
});

fn claim(field: &str, text: &str) {
    let identities: Vec<_> =
        serde_json::from_value(json!([{"name": "one", "recognise": [{"bundle": "ours", field: text}]}]))
            .expect("a document");
    let is_accepted = accept::identities(&identities).is_ok();
    let is_hex = |text: &str| text.bytes().all(|byte| byte.is_ascii_hexdigit());
    let is_sha256 = text.strip_prefix("sha256:").is_some_and(|digits| digits.len() == 64 && is_hex(digits));
    match field {
        "fingerprint" | "spki" => assert_eq!(is_accepted, is_sha256),
        "lfdi" => assert_eq!(is_accepted, text.len() == 40 && is_hex(text)),
        "sfdi" if is_accepted => {
            let sum: u32 = text.chars().map(|digit| digit.to_digit(10).expect("a digit")).sum();
            assert_eq!((text.len(), sum % 10), (12, 0), "{text}");
        }
        "serial" if is_accepted => assert!(is_hex(&text.replace(':', "")), "{text}"),
        _ => {}
    }
}

/// Compares the answer with what the words of the contract say.
fn pattern(allowed: &str, uri: &str) {
    let policy = json!({
        "listeners": [{"name": "gate", "address": "127.0.0.1:8443", "protocol": "HTTPS", "tls": {}}],
        "routes": [{"name": "one", "listener": "gate", "rules": [{
            "name": "rule", "allow": [{"spiffe": allowed}], "backends": [{"address": "127.0.0.1:8080"}],
        }]}],
    });
    let accepted = accept::policy(&serde_json::from_value(policy).expect("a document"));
    let (id, is_below) = allowed.strip_suffix("/*").map_or((allowed, false), |id| (id, true));
    assert_eq!(accepted.is_ok(), is_id(id), "{allowed}");
    let Ok(policy) = accepted else { return };
    let domain = id["spiffe://".len()..].split('/').next().expect("a first part");
    let trust = json!({"bundles": {"ours": {"roots": ["ca.pem"], "vouchesFor": {"spiffe": [domain]}}}});
    let trust: Trust = serde_json::from_value(trust).expect("a document");
    let trust = accept::trust(&trust, &FILES).expect("a good part");
    let parts = Parts { trust: Some(Arc::new(trust)), policy: Some(Arc::new(policy)), ..Parts::default() };
    let (snapshot, problems) = link(&parts);
    assert_eq!(problems, []);
    let caller = snapshot.directory.resolve(&CertificateFacts { uris: vec![uri.to_owned()], ..root().facts }, vec![0]);
    let is_allowed = snapshot.decide(&snapshot.rules[0], &caller).verdict == Verdict::Allowed;
    let matches = if is_below { uri.strip_prefix(id).is_some_and(|rest| rest.starts_with('/')) } else { uri == id };
    assert_eq!(is_allowed, matches && is_id(uri), "{allowed} and {uri}");
}

/// SPIFFE-ID section 2, and no escapes.
fn is_id(text: &str) -> bool {
    let Some(rest) = text.strip_prefix("spiffe://") else { return false };
    let mut parts = rest.split('/');
    let domain = parts.next().unwrap_or_default();
    let in_domain = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || b".-_".contains(&byte);
    let in_segment = |byte: u8| byte.is_ascii_alphanumeric() || b".-_".contains(&byte);
    let is_segment = |segment: &str| !["", ".", ".."].contains(&segment) && segment.bytes().all(in_segment);
    text.len() <= 2048 && !domain.is_empty() && domain.bytes().all(in_domain) && parts.all(is_segment)
}

static FILES: LazyLock<Files> = LazyLock::new(|| {
    let mut files = Files::default();
    files.certificates.insert("ca.pem".to_owned(), Ok(vec![root()]));
    files
});
