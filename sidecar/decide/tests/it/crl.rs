//! Revocation lists: what they say, alone and together.

use std::collections::HashSet;
use std::sync::Arc;

use rcgen::{
    BasicConstraints, CertificateParams, CertificateRevocationListParams, CrlDistributionPoint,
    CrlIssuingDistributionPoint, DistinguishedName, DnType, IsCa, Issuer, KeyIdMethod, KeyPair, KeyUsagePurpose,
    RevokedCertParams, SerialNumber, date_time_ymd,
};
use serde_json::json;
use sha2::{Digest, Sha256};
use sidecar_decide::snapshot::Bundle;
use sidecar_decide::{Files, RevocationList, accept};

use crate::fixture::{list, read, root};

/// A bundle of two roots, with these lists.
fn bundle(lists: Vec<RevocationList>) -> Bundle {
    let mut files = Files::default();
    files.certificates.insert("ca.pem".to_owned(), Ok(vec![root("a", 1), root("b", 2)]));
    files.revocation_lists.insert("ca.crl".to_owned(), Ok(lists));
    let document = read(json!({"bundles": {"b": {"roots": ["ca.pem"], "crls": ["ca.crl"]}}}));
    accept::trust(&document, &files).expect("a good document").bundles.remove(0)
}

fn revoking(issuer: u8, serials: &[&[u8]], updates: (i64, i64), scope: Option<u8>) -> RevocationList {
    RevocationList {
        issuer_sum: [issuer; 32],
        serials: Arc::new(serials.iter().map(|serial| Box::from(*serial)).collect()),
        this_update: updates.0,
        next_update: updates.1,
        scope: scope.map(|scope| vec![scope]),
        ..list("a", &[1])
    }
}

#[test]
fn lists_are_asked_by_issuer_and_serial_number() {
    let lists = vec![
        revoking(1, &[&[5], &[0xff, 1]], (10, 100), None),
        // An older one of the same authority: what it revoked and the younger does not is not revoked.
        revoking(1, &[&[6]], (9, 50), None),
        // Parts of an authority's certificates count together.
        revoking(2, &[&[7]], (10, 80), Some(1)),
        revoking(2, &[&[8]], (10, 90), Some(2)),
    ];
    // The order in which they are written does not matter.
    for lists in [lists.clone(), lists.into_iter().rev().collect()] {
        let listed = bundle(lists).listed;
        let rows: [(u8, &[u8], bool); 11] = [
            (1, &[5], true),
            (1, &[0, 5], true),
            (1, &[0, 0xff, 1], true),
            (1, &[0xff, 1], true),
            (1, &[0xff], false),
            (1, &[6], false),
            (1, &[], false),
            (2, &[7], true),
            (2, &[8], true),
            (2, &[5], false),
            (3, &[5], false),
        ];
        for (issuer, serial, expected) in rows {
            assert_eq!(listed.contains(&[issuer; 32], serial), expected, "{issuer} {serial:?}");
        }
        let until = [1, 2, 3].map(|issuer| listed.believed_until(&[issuer; 32]));
        assert_eq!((until, listed.next_update()), ([Some(100), Some(80), None], Some(80)));
    }
    assert_eq!(bundle(Vec::from([list("a", &[2])])).listed.next_update(), Some(1));
}

#[test]
fn a_list_is_read_as_it_is_written() {
    let mut parameters = CertificateParams::default();
    parameters.distinguished_name = DistinguishedName::new();
    parameters.distinguished_name.push(DnType::CommonName, "authority");
    parameters.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    parameters.key_usages = vec![KeyUsagePurpose::CrlSign];
    let issuer = Issuer::new(parameters, KeyPair::generate().expect("a key"));
    let revoked = |serial: &[u8]| RevokedCertParams {
        serial_number: SerialNumber::from_slice(serial),
        revocation_time: date_time_ymd(2026, 1, 1),
        reason_code: None,
        invalidity_date: None,
    };
    let distribution_point = CrlDistributionPoint { uris: vec!["http://authority/1.crl".to_owned()] };
    let written = CertificateRevocationListParams {
        this_update: date_time_ymd(2026, 1, 2),
        next_update: date_time_ymd(2026, 1, 3),
        crl_number: SerialNumber::from_slice(&[7]),
        issuing_distribution_point: Some(CrlIssuingDistributionPoint { distribution_point, scope: None }),
        revoked_certs: vec![revoked(&[1]), revoked(&[0x80, 2])],
        key_identifier_method: KeyIdMethod::Sha256,
    };
    let der = written.signed_by(&issuer).expect("a list").der().to_vec();
    let read = RevocationList::from_der(&der).expect("a list");
    assert_eq!((read.issuer.as_str(), read.scope.is_some()), ("CN=authority", true));
    assert_eq!((read.this_update, read.next_update), (1_767_312_000, 1_767_398_400));
    let serials: HashSet<Box<[u8]>> = HashSet::from([[1].as_slice().into(), [0x80, 2].as_slice().into()]);
    assert_eq!((&*read.serials, read.signers.len()), (&serials, 0));
    // Set of one attribute of type 2.5.4.3 (X.520) with a UTF8String.
    let name = [&[0x31, 0x12, 0x30, 0x10, 6, 3, 0x55, 4, 3, 0x0c, 9][..], b"authority"].concat();
    assert_eq!(read.issuer_sum, *Sha256::digest(name));
    let torn = [(&der[..der.len() - 1], "torn"), (&[&der[..], &[0]].concat(), "a byte more"), (b"", "nothing")];
    for (bytes, case) in torn {
        let error = RevocationList::from_der(bytes).expect_err(case).to_string();
        assert!(error.starts_with("not a certificate revocation list: "), "{case}: {error}");
    }
}
