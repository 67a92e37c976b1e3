//! What is wrong with identities: every problem with its exact place and words.

use serde_json::{Value, json};
use sidecar_config::Part;
use sidecar_config::identities::KnownIdentity;
use sidecar_decide::accept;

use crate::accept_problems::check;
use crate::fixture::read;

fn identities(document: Value, rows: &[(&str, &str)]) {
    let document: Vec<KnownIdentity> = read(document);
    check(accept::identities(&document), Part::Identities, rows);
}

#[test]
fn identities_and_their_names() {
    let known = |name: &str| json!({"name": name, "recognise": [{"bundle": "ours", "dnsName": "a"}]});
    identities(
        json!([known("a/b"), known("a/c"), known("a/b")]),
        &[("identities[2].name", "`a/b` is taken by an earlier identity; names are unique")],
    );
    identities(json!([known("")]), &[("identities[0].name", "is empty; give it a name")]);
    identities(
        json!([known("a\tb")]),
        &[("identities[0].name", "has '\\t' in it; leave out white space and control characters")],
    );
    identities(
        json!([known(&"x".repeat(317)), known(&"x".repeat(318))]),
        &[("identities[1].name", "is 318 bytes long; at most 317 are allowed")],
    );
    identities(
        json!([{"name": "a/b", "recognise": []}]),
        &[("identities[0].recognise", "is empty, so nobody would ever be this identity; add a recogniser")],
    );
}

#[test]
fn identities_and_their_recognisers() {
    let fields = "uri, dnsName, commonName, fingerprint, lfdi, sfdi, serial, spki";
    let count = |count: usize| format!("has {count} claims; write exactly one of {fields}");
    let fingerprint = |text: &str| format!("`{text}` is not a fingerprint; write `sha256:` and 64 hex digits");
    let lfdi = |text: &str| format!("`{text}` is not an LFDI; write 40 hex digits");
    let long = |text: &str, times: usize| text.repeat(times);
    let fingerprints = [
        String::new(),
        "sha256:".to_owned(),
        long("ab", 32),
        format!("sha256:{}", long("ab", 31)),
        format!("sha256:{}", long("ab", 33)),
        format!("sha256:{}a", long("ab", 31)),
        format!("sha256:{}g0", long("ab", 31)),
        format!("sha256:{}+1", long("ab", 31)),
        format!("SHA256:{}", long("ab", 32)),
        format!("sha1:{}", long("ab", 32)),
        format!("sha256:{}", long("ab:", 31) + "ab"),
    ];
    let mut rows: Vec<(Value, &str, String)> = vec![
        (json!({}), "", count(0)),
        (json!({"uri": "a", "dnsName": "b"}), "", count(2)),
        (json!({"uri": "a", "dnsName": "b", "commonName": "c", "lfdi": long("ab", 20)}), "", count(4)),
    ];
    rows.extend(fingerprints.iter().map(|text| (json!({"fingerprint": text}), ".fingerprint", fingerprint(text))));
    for text in [String::new(), long("ab", 19), long("ab", 21), long("g0", 20), long("\u{e9}", 20)] {
        rows.push((json!({"lfdi": text}), ".lfdi", lfdi(&text)));
    }
    rows.extend(bad_short_forms_and_serials());
    let spki = |text: &str| format!("`{text}` is not the digest of a public key; write `sha256:` and 64 hex digits");
    for text in [long("ab", 32), format!("sha256:{}", long("ab", 31)), format!("sha256:{}", long("g0", 32))] {
        rows.push((json!({"spki": text}), ".spki", spki(&text)));
    }
    for (mut recogniser, field, detail) in rows {
        recogniser["bundle"] = json!("ours");
        let good = json!({"bundle": "ours", "dnsName": "a"});
        let document = json!([{"name": "a/b", "recognise": [good, recogniser]}]);
        identities(document, &[(&format!("identities[0].recognise[1]{field}"), &detail)]);
    }
}

fn bad_short_forms_and_serials() -> Vec<(Value, &'static str, String)> {
    let form = "is not an SFDI; write 12 digits, zeros in front included";
    let sum = "is not an SFDI: its last digit does not make the sum of its digits a multiple of ten; compare them";
    let bits = "is not an SFDI: its first eleven digits are more than 36 bits hold; compare them";
    let short = [
        ("", form),
        ("16726121139", form),
        ("1672612113910", form),
        ("+16726121139", form),
        ("16726121139a", form),
        ("167261211390", sum),
        ("000000000001", sum),
        // 2^36 - 1 is the last, 2^36 is one too many.
        ("687194767366", bits),
        ("999999999991", bits),
    ];
    let short = short.map(|(text, why)| (json!({"sfdi": text}), ".sfdi", format!("`{text}` {why}")));
    let serials = ["", ":", "5", "5a0", "5a:1", "5a01:02", "5a:01:", ":5a", "0x5a", "5g", "5a 01", "-5a", "\u{e9}"];
    let remedy = "is not a serial number; write pairs of hex digits, such as `5a:01` or `5A01`";
    let serials = serials.map(|text| (json!({"serial": text}), ".serial", format!("`{text}` {remedy}")));
    short.into_iter().chain(serials).collect()
}

#[test]
fn labels() {
    let known =
        json!([{"name": "a", "labels": {"": "x", "a b": "x", "tier": ""}, "recognise": [{"bundle": "b", "uri": "c"}]}]);
    identities(
        known,
        &[
            ("identities[0].labels.", "the label is empty; give it a name"),
            ("identities[0].labels.a b", "the label has ' ' in it; leave out white space and control characters"),
        ],
    );
}
