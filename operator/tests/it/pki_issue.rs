//! Leaves, as openssl and the sidecar read them.

use postern_operator::pki::authority::{Issuer, Root};
use postern_operator::pki::fresh;
use postern_operator::pki::issue::{
    BACKDATED_SECONDS, IssueError, POD_MIN_SECONDS, POD_SECONDS, Request, Serial, Usage, leaf,
};
use postern_operator::pki::key::{Algorithm, PrivateKey};
use postern_operator::pki::rotate::renewal_time;

use crate::pki_fixture::{
    DAY, NOW, issued, key, line_after, made, names, openssl, request, settings, text_of, verifies,
};

const ALGORITHMS: [Algorithm; 6] = [
    Algorithm::EcdsaP256,
    Algorithm::EcdsaP384,
    Algorithm::Ed25519,
    Algorithm::Rsa2048,
    Algorithm::Rsa3072,
    Algorithm::Rsa4096,
];

#[test]
fn what_is_issued_verifies_with_openssl_whatever_the_keys_are() {
    for authority in [Algorithm::EcdsaP256, Algorithm::Ed25519, Algorithm::Rsa2048] {
        let made = made(authority);
        for algorithm in ALGORITHMS {
            let (leaf, key) = issued(&made.issuer, &request(), algorithm);
            let verified = verifies(&made.issuer.roots_pem(), &leaf.chain_pem, "sslclient", NOW);
            verified.unwrap_or_else(|error| panic!("{authority:?} signs {algorithm:?}: {error}"));
            let wrong_purpose = verifies(&made.issuer.roots_pem(), &leaf.chain_pem, "sslserver", NOW);
            assert!(wrong_purpose.is_err(), "a client's certificate is no server's");
            // The key is read by openssl, and is the certificate's.
            let from_key = openssl("pkey -in {key} -pubout", &[("key", key.pem().as_bytes())]).unwrap();
            let chain = leaf.chain_pem.as_bytes();
            assert_eq!(from_key, openssl("x509 -in {c} -noout -pubkey", &[("c", chain)]).unwrap());
            assert_eq!(PrivateKey::from_pem(key.pem().as_bytes()).unwrap().spki(), key.spki());
        }
    }
}

#[test]
fn a_clients_certificate_says_what_it_should() {
    let made = made(Algorithm::default());
    let (leaf, _) = issued(&made.issuer, &request(), Algorithm::default());
    let text = text_of(leaf.chain_pem.as_bytes());
    let own = "URI:spiffe://demo.local/ns/shop/client/billing";
    let names = format!("{own}, DNS:billing.shop.svc, DNS:billing.shop.svc.cluster.local");
    assert_eq!(line_after(&text, "X509v3 Subject Alternative Name"), names);
    assert_eq!(line_after(&text, "X509v3 Extended Key Usage"), "TLS Web Client Authentication");
    assert_eq!(line_after(&text, "X509v3 Key Usage: critical"), "Digital Signature");
    assert_eq!(line_after(&text, "X509v3 Basic Constraints: critical"), "CA:FALSE");
    assert!(text.contains("Subject: CN = billing"), "{text}");
    assert!(text.contains("Version: 3"), "{text}");
    // The sidecar reads the same.
    let facts = &leaf.certificate.facts;
    assert_eq!(facts.san, names);
    assert_eq!(facts.uris, ["spiffe://demo.local/ns/shop/client/billing"]);
    assert_eq!((facts.not_before, facts.not_after), (NOW - BACKDATED_SECONDS, NOW + 90 * DAY));
    assert_eq!(facts.common_name.as_deref(), Some("billing"));
    let fingerprint = openssl("x509 -noout -sha256 -fingerprint -in {c}", &[("c", leaf.chain_pem.as_bytes())]).unwrap();
    let hex = fingerprint.trim().rsplit('=').next().unwrap().replace(':', "").to_lowercase();
    assert_eq!(facts.lfdi_hex(), hex[..40]);
    // 36 bits as digits, and one more that makes the sum of all a multiple of ten.
    let sfdi = facts.sfdi_digits();
    assert_eq!(sfdi[..11].parse::<u64>().unwrap(), u64::from_str_radix(&hex[..9], 16).unwrap());
    assert_eq!(sfdi.bytes().map(|digit| u32::from(digit - b'0')).sum::<u32>() % 10, 0);
}

#[test]
fn a_pods_certificate_is_for_both_sides_and_a_day() {
    let made = made(Algorithm::default());
    let dns_names = vec!["b.shop.svc".into(), "a.shop.svc".into(), "b.shop.svc".into()];
    let request = Request::pod(&names(), "shop", "orders", dns_names, POD_SECONDS);
    let (leaf, _) = issued(&made.issuer, &request, Algorithm::default());
    for purpose in ["sslclient", "sslserver"] {
        verifies(&made.issuer.roots_pem(), &leaf.chain_pem, purpose, NOW).unwrap();
    }
    let text = text_of(leaf.chain_pem.as_bytes());
    let names = "URI:spiffe://demo.local/ns/shop/sa/orders, DNS:a.shop.svc, DNS:b.shop.svc";
    // Without a subject the alternative names are critical (RFC 5280 §4.1.2.6).
    assert_eq!(line_after(&text, "X509v3 Subject Alternative Name: critical"), names);
    let facts = &leaf.certificate.facts;
    assert_eq!((facts.not_before, facts.not_after), (NOW - BACKDATED_SECONDS, NOW + POD_SECONDS));
    assert!(verifies(&made.issuer.roots_pem(), &leaf.chain_pem, "sslserver", NOW + POD_SECONDS + 1).is_err());
}

/// Else two thirds of its life would be over before it was made, and it would be made anew without end.
#[test]
fn a_certificate_of_a_minute_is_not_old_when_it_is_made() {
    let made = made(Algorithm::default());
    let request = Request::pod(&names(), "shop", "orders", Vec::new(), POD_MIN_SECONDS);
    let (leaf, _) = issued(&made.issuer, &request, Algorithm::default());
    let facts = &leaf.certificate.facts;
    assert_eq!((facts.not_before, facts.not_after), (NOW - POD_MIN_SECONDS, NOW + POD_MIN_SECONDS));
    let at = renewal_time(&leaf.certificate, "shop/orders", None);
    assert!((NOW + 10..=NOW + 20).contains(&at), "renewed after {} s", at - NOW);
}

#[test]
fn an_rsa_key_may_encipher_keys() {
    let made = made(Algorithm::default());
    let (leaf, _) = issued(&made.issuer, &request(), Algorithm::Rsa2048);
    let text = text_of(leaf.chain_pem.as_bytes());
    assert_eq!(line_after(&text, "X509v3 Key Usage: critical"), "Digital Signature, Key Encipherment");
}

#[test]
fn serial_numbers_are_positive_and_written_as_they_are_read() {
    let made = made(Algorithm::default());
    let rows: [([u8; 16], &str); 4] = [
        ([0xff; 16], "ff:ff:ff:ff:ff:ff:ff:ff:ff:ff:ff:ff:ff:ff:ff:ff"),
        ([0; 16], "01"),
        ([0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0x80, 0, 7], "80:00:07"),
        ([0x01; 16], "01:01:01:01:01:01:01:01:01:01:01:01:01:01:01:01"),
    ];
    for (bytes, text) in rows {
        let serial = Serial::from_random(bytes);
        assert_eq!(serial.to_string(), text);
        let public = key(Algorithm::default()).public();
        let leaf = leaf(&made.issuer, &request(), &public, serial, NOW).unwrap();
        assert_eq!(leaf.certificate.facts.serial, text);
        let read = openssl("x509 -noout -serial -in {c}", &[("c", leaf.chain_pem.as_bytes())]).unwrap();
        assert_eq!(read.trim().to_lowercase(), format!("serial={}", text.replace(':', "")));
    }
    let drawn: std::collections::BTreeSet<_> = (0..1000).map(|_| fresh::serial().unwrap().to_string()).collect();
    assert_eq!(drawn.len(), 1000);
}

#[test]
fn no_leaf_outlives_its_issuer() {
    let made = made(Algorithm::default());
    let end = made.issuer.not_after();
    let long = Request { duration_seconds: 30 * 365 * DAY, ..request() };
    let (longest, _) = issued(&made.issuer, &long, Algorithm::default());
    assert_eq!(longest.certificate.facts.not_after, end);
    let late = |now| {
        let public = key(Algorithm::default()).public();
        leaf(&made.issuer, &long, &public, fresh::serial().unwrap(), now).map(|leaf| leaf.certificate)
    };
    assert_eq!(late(end - 3600).unwrap().facts.not_after, end);
    assert_eq!(late(end - 599), Err(IssueError::IssuerEnds(599)));
    // An intermediate that was made to end with its root.
    let root = Root::read(&made.root_files, NOW).unwrap();
    let long = postern_operator::pki::authority::AuthoritySettings {
        intermediate_seconds: 40 * 365 * DAY,
        ..settings(Algorithm::default())
    };
    let files = root.make_intermediate(&long, &key(Algorithm::default()), fresh::serial().unwrap(), NOW).unwrap();
    let issuer = Issuer::read(&files, &root, NOW).unwrap();
    assert_eq!(issuer.not_after(), root.certificates()[0].facts.not_after);
}

#[test]
fn a_certificate_is_not_issued_to_be_refused() {
    let made = made(Algorithm::default());
    let issue = |from| {
        let request = Request { accept_issued_after: Some(from), ..request() };
        let public = key(Algorithm::default()).public();
        leaf(&made.issuer, &request, &public, fresh::serial().unwrap(), NOW)
            .map(|leaf| leaf.certificate.facts.not_before)
    };
    assert_eq!(issue(NOW - DAY), Ok(NOW - BACKDATED_SECONDS));
    // Backdating would make it one of those that are refused.
    assert_eq!(issue(NOW - 10), Ok(NOW - 10));
    assert_eq!(issue(NOW), Ok(NOW));
    assert_eq!(issue(NOW + 1), Err(IssueError::TooEarly));
}

#[test]
fn what_cannot_be_written_is_refused() {
    let made = made(Algorithm::default());
    let mut request = Request { usage: Usage::Both, ..request() };
    request.names.dns_names = vec!["müller.shop.svc".into()];
    let public = key(Algorithm::default()).public();
    let error = leaf(&made.issuer, &request, &public, fresh::serial().unwrap(), NOW).unwrap_err();
    assert_eq!(error, IssueError::Name("müller.shop.svc".into()));
}
