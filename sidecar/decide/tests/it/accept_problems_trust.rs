//! What is wrong with trust, and with the certificate of a gate: every problem with its exact place and words.

use serde_json::{Value, json};
use sidecar_config::Part;
use sidecar_decide::accept;

use crate::accept_problems::{check, trust};
use crate::fixture::{files, read, root, trust_document};

/// A trust part of one bundle `b`.
fn bundle(bundle: &Value, rows: &[(&str, &str)]) {
    trust(json!({"bundles": {"b": bundle}}), rows);
}

#[test]
fn trust_bundles() {
    bundle(
        &json!({"roots": []}),
        &[("trust.bundles.b.roots", "is empty; name at least one PEM file with a root certificate")],
    );
    bundle(&json!({"roots": ["ours.pem", "absent.pem"]}), &[("trust.bundles.b.roots[1]", "`absent.pem` was not read")]);
    bundle(
        &json!({"roots": ["empty.pem"]}),
        &[("trust.bundles.b.roots[0]", "`empty.pem` holds no certificate; put PEM blocks `BEGIN CERTIFICATE` into it")],
    );
    bundle(
        &json!({"roots": ["torn.pem"]}),
        &[("trust.bundles.b.roots[0]", "`torn.pem` ends in the middle of a block")],
    );
    bundle(
        &json!({"roots": ["ours.pem", "not-ca.pem"]}),
        &[(
            "trust.bundles.b.roots",
            "`CN=device` is not a CA (basicConstraints CA:TRUE is missing); only CA certificates can be roots",
        )],
    );
    trust(
        json!({"bundles": {"": {"roots": ["ours.pem"]}, "a b": {"roots": ["ours.pem"]}}}),
        &[
            ("trust.bundles.", "the name is empty; give it a name"),
            ("trust.bundles.a b", "the name has ' ' in it; leave out white space and control characters"),
        ],
    );
}

#[test]
fn trust_domains() {
    for (domain, good) in [
        ("demo.local", true),
        ("d", true),
        ("", false),
        ("Demo.local", false),
        ("spiffe://demo.local", false),
        ("demo.local/ns", false),
        ("demo.local:443", false),
    ] {
        let document = json!({"roots": ["ours.pem"], "vouchesFor": {"spiffe": ["first.local", domain]}});
        if good {
            let accepted = accept::trust(&read(json!({"bundles": {"b": document}})), &files());
            assert_eq!(accepted.expect("a good document").bundles[0].vouches_for.spiffe, ["first.local", domain]);
        } else {
            let detail = format!(
                "`{domain}` is not a trust domain; write its name alone and in lower case, such as `demo.local`"
            );
            bundle(&document, &[("trust.bundles.b.vouchesFor.spiffe[1]", &detail)]);
        }
    }
}

#[test]
fn trust_revocations() {
    let states = json!([
        {"name": "a/b", "state": "Suspended"}, {"name": "a/c", "state": "Revoked"}, {"name": "a/b", "state": "Revoked"},
    ]);
    trust(
        trust_document(&states),
        &[("trust.revocations.identities[2].name", "`a/b` is listed twice; keep one entry")],
    );
}

#[test]
fn trust_revocations_since_1_1() {
    let mut document = trust_document(&json!([{"name": "a/b"}, {"name": "a/c", "state": "Revoked"}]));
    document["revocations"]["serials"] = json!([
        {"bundle": "ours", "serial": "5a01"},
        {"bundle": "ours", "serial": "5A:01"},
        {"bundle": "absent", "serial": "5a:01"},
        {"bundle": "ours", "serial": "5a:1"},
        {"bundle": "Ours", "serial": ""},
    ]);
    let serial = "is not a serial number; write pairs of hex digits, such as `5a:01` or `5A01`";
    trust(
        document,
        &[
            (
                "trust.revocations.identities[0]",
                "has neither state nor acceptIssuedAfter, so nothing is revoked; write at least one",
            ),
            ("trust.revocations.serials[2].bundle", "there is no bundle `absent`; name one of trust.bundles"),
            ("trust.revocations.serials[3].serial", &format!("`5a:1` {serial}")),
            ("trust.revocations.serials[4].bundle", "there is no bundle `Ours`; name one of trust.bundles"),
            ("trust.revocations.serials[4].serial", &format!("`` {serial}")),
        ],
    );
}

#[test]
fn trust_with_intermediates() {
    let with = |intermediates: Value| json!({"roots": ["ours.pem"], "intermediates": intermediates});
    let place = "trust.bundles.b.intermediates";
    bundle(
        &with(json!(["not-ca.pem", "absent.pem"])),
        &[
            ("trust.bundles.b.intermediates[1]", "`absent.pem` was not read"),
            (
                place,
                "`CN=device` is not a CA (basicConstraints CA:TRUE is missing); only CA certificates can be intermediates",
            ),
        ],
    );
    bundle(&with(json!(vec!["partner.pem"; 65])), &[(place, "are 65; at most 64 are allowed")]);
}

#[test]
fn trust_with_revocation_lists() {
    let with = |lists: Value| json!({"roots": ["ours.pem"], "crls": lists});
    let place = |index: usize| format!("trust.bundles.b.crls[{index}]");
    let advice =
        "is signed by no root or intermediate of this bundle; add the certificate of its issuer to `intermediates`";
    bundle(
        &with(json!(["ours.crl", "partner.crl", "stray.crl", "empty.crl", "torn.crl", "absent.crl"])),
        &[
            (&place(1), &format!("the list of `CN=partner` in `partner.crl` {advice}")),
            (&place(2), &format!("the list of `CN=ours` in `stray.crl` {advice}")),
            (
                &place(3),
                "`empty.crl` holds no revocation list; put PEM blocks `BEGIN X509 CRL` or one DER list into it",
            ),
            (&place(4), "`torn.crl`: not a list"),
            (&place(5), "`absent.crl` was not read"),
        ],
    );
    let mut files = files();
    let mut root = root("ours", 0xa0);
    root.facts.signs_crls = false;
    files.certificates.insert("ours.pem".to_owned(), Ok(vec![root]));
    check(
        accept::trust(&read(json!({"bundles": {"b": with(json!(["ours.crl"]))}})), &files),
        Part::Trust,
        &[(
            &place(0),
            "the list in `ours.crl` is signed by `CN=ours`, whose key usage does not include cRLSign; have its certificate \
             issued with it",
        )],
    );
}

#[test]
fn identity() {
    let key = "is not the key of `CN=server` in `server.pem`; \
               write the chain with its leaf first, and the key that leaf was issued for";
    let no_certificate = "`empty.pem` holds no certificate; put PEM blocks `BEGIN CERTIFICATE` into it";
    type Row<'a> = (&'a str, &'a str, &'a [(&'a str, &'a str)]);
    let rows: &[Row<'_>] = &[
        ("server.pem", "other.key", &[("identity.key", key)]),
        ("server.pem", "torn.key", &[("identity.key", "`torn.key` holds no private key")]),
        ("server.pem", "absent.key", &[("identity.key", "`absent.key` was not read")]),
        ("absent.pem", "server.key", &[("identity.chain", "`absent.pem` was not read")]),
        ("torn.pem", "server.key", &[("identity.chain", "`torn.pem` ends in the middle of a block")]),
        ("empty.pem", "server.key", &[("identity.chain", no_certificate)]),
        (
            "empty.pem",
            "torn.key",
            &[("identity.chain", no_certificate), ("identity.key", "`torn.key` holds no private key")],
        ),
    ];
    for (chain, key, problems) in rows {
        let document = read(json!({"chain": chain, "key": key}));
        check(accept::identity(&document, &files()), Part::Identity, problems);
    }
}

/// One pair that is wrong refuses the part: what is in use stays in use together.
#[test]
fn identity_with_more_certificates() {
    let pair = |chain: &str, key: &str| json!({"chain": chain, "key": key});
    let with =
        |certificates: Value| read(json!({"chain": "server.pem", "key": "server.key", "certificates": certificates}));
    let advice = "write the chain with its leaf first, and the key that leaf was issued for";
    let refused = |certificates: Value, problems: &[(&str, &str)]| {
        check(accept::identity(&with(certificates), &files()), Part::Identity, problems);
    };
    refused(
        json!([pair("shop.pem", "shop.key"), pair("shop.pem", "server.key"), pair("absent.pem", "torn.key")]),
        &[
            ("identity.certificates[1].key", &format!("is not the key of `CN=shop` in `shop.pem`; {advice}")),
            ("identity.certificates[2].chain", "`absent.pem` was not read"),
            ("identity.certificates[2].key", "`torn.key` holds no private key"),
        ],
    );
    refused(
        json!([pair("server.pem", "server.key")]),
        &[(
            "identity.certificates[0].chain",
            "has neither DNS nor IP subject alternative names, so no client could ask for it; issue it with the names \
             it is for",
        )],
    );
    let named = |name: &str| {
        let mut pair = pair("server.pem", "server.key");
        pair["name"] = json!(name);
        pair
    };
    assert!(
        accept::identity(&with(json!([named("a/web")])), &files()).is_ok(),
        "a listener shows it, whatever it says"
    );
    refused(
        json!([named("a/web"), named("a web"), named("a/web")]),
        &[
            ("identity.certificates[1].name", "has ' ' in it; leave out white space and control characters"),
            ("identity.certificates[2].name", "`a/web` is taken by an earlier certificate; names are unique"),
        ],
    );
    let many = |count| Value::from(vec![pair("shop.pem", "shop.key"); count]);
    assert!(accept::identity(&with(many(64)), &files()).is_ok());
    refused(
        many(65),
        &[("identity.certificates", "are 65; at most 64 are allowed: put several names into one certificate")],
    );
}
