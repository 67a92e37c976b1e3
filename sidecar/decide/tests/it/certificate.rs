//! What a certificate says: certificates made here, and one that `openssl` printed.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, DnValue, IsCa, Issuer, KeyPair, PublicKeyData,
    SanType, SerialNumber, date_time_ymd,
};
use sha2::{Digest, Sha256};
use sidecar_decide::certificate::{sfdi_of, sfdi_of_hex};
use sidecar_decide::{Certificate, CertificateFacts};

use crate::fixture::facts;

/// Made once by `openssl req -x509` (version 3.0); everything expected of it is what `openssl x509` prints.
const FROZEN: &str = "\
    3082022d308201d3a003020102021100f1e2d3c4b5a69788796a5b4c3d2e1f00300a06082a8648ce3d0403023034310b300906035504\
    061302464931133011060355040a0c0a4578616d706c65204f793110300e06035504030c0762696c6c696e673020170d323631313231\
    3032323431335a180f32313236313032383032323431335a3034310b300906035504061302464931133011060355040a0c0a4578616d\
    706c65204f793110300e06035504030c0762696c6c696e673059301306072a8648ce3d020106082a8648ce3d03010703420004649c15\
    031b54ca1607454e77c91691c6969d3b98c7575d767e4cd7765612b5b81719337fb89810a3caaa1b6a916d321f8cd1d05812d1069124\
    f6fe6a0cd973d0a381c33081c0301d0603551d0e04160414f8c58d33801843db13972e9c12d7058ef6785bc4301f0603551d23041830\
    168014f8c58d33801843db13972e9c12d7058ef6785bc430700603551d1104693067862a7370696666653a2f2f64656d6f2e6c6f6361\
    6c2f6e732f73686f702f636c69656e742f62696c6c696e67821042696c6c696e672e53686f702e737663810f6f7073406578616d706c\
    652e636f6d87040a000001871020010db8000000000000000000000001300c0603551d130101ff04023000300a06082a8648ce3d0403\
    02034800304502200fb937a370f47ef1f8eea6324c119be6ac6eeb43e4ec2f3504b0c4c71e601c2102210083cadfda74b9bafadd6115\
    c92927f9048e5577dc5ab6120bfc473777ed44736a\
";

fn name(entries: &[(DnType, &str)]) -> DistinguishedName {
    let mut name = DistinguishedName::new();
    entries.iter().for_each(|(kind, value)| name.push(kind.clone(), DnValue::Utf8String((*value).to_owned())));
    name
}

/// Parameters of a certificate of this common name and nothing else.
fn params(common_name: &str) -> CertificateParams {
    let mut params = CertificateParams::default();
    params.distinguished_name = name(&[(DnType::CommonName, common_name)]);
    params
}

/// Facts of a certificate that differs in something.
fn changed(change: impl FnOnce(&mut CertificateParams)) -> CertificateFacts {
    let mut params = params("x");
    change(&mut params);
    self_signed(&params)
}

fn self_signed(params: &CertificateParams) -> CertificateFacts {
    let key = KeyPair::generate().expect("a key");
    let certificate = params.self_signed(&key).expect("a certificate");
    CertificateFacts::of(certificate.der()).expect("its facts")
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn unhex(text: &str) -> Vec<u8> {
    let byte = |at: usize| u8::from_str_radix(&text[at..at + 2], 16).expect("two hex digits");
    (0..text.len()).step_by(2).map(byte).collect()
}

fn ascii(text: &str) -> rcgen::string::Ia5String {
    text.try_into().expect("an ASCII name")
}

#[test]
fn facts_are_those_that_openssl_prints() {
    let facts = CertificateFacts::of(&unhex(FROZEN)).expect("its facts");
    let spki = "2539cea8aeecb53174d96c25bd4f4d80a8a8a98b62aeb8e5e39789e4b24fab09";
    let printed = "593f9e1108e725acddb613fd0d0cc45f72d072bad5b2e1acaffb055e153b7b1b";
    assert_eq!(facts.fingerprint(), format!("sha256:{printed}"));
    assert_eq!(facts.spki_fingerprint(), format!("sha256:{spki}"));
    assert_eq!(facts.lfdi_hex(), "593f9e1108e725acddb613fd0d0cc45f72d072ba");
    assert_eq!(facts.serial, "f1:e2:d3:c4:b5:a6:97:88:79:6a:5b:4c:3d:2e:1f:00");
    assert_eq!((facts.not_before, facts.not_after), (1_795_227_853, 4_948_827_853));
    assert_eq!(facts.subject, "C=FI, O=Example Oy, CN=billing");
    assert_eq!(facts.issuer, facts.subject);
    assert_eq!(facts.common_name.as_deref(), Some("billing"));
    assert_eq!(facts.uris, ["spiffe://demo.local/ns/shop/client/billing"]);
    assert_eq!(facts.dns_names, ["billing.shop.svc"]);
    assert_eq!(
        facts.san,
        "URI:spiffe://demo.local/ns/shop/client/billing, DNS:Billing.Shop.svc, email:ops@example.com, \
         IP:10.0.0.1, IP:2001:db8::1"
    );
    assert_eq!((facts.self_issued, facts.is_ca), (true, false));
}

#[test]
fn digests_are_over_the_whole_encoding_and_the_whole_key() {
    let key = KeyPair::generate().expect("a key");
    let der = params("billing").self_signed(&key).expect("a certificate").der().to_vec();
    let certificate = Certificate::from_der(der.clone()).expect("a certificate");
    assert_eq!(certificate.facts, CertificateFacts::of(&der).expect("its facts"));
    assert_eq!(certificate.der, der);
    let digest: [u8; 32] = Sha256::digest(&der).into();
    assert_eq!(certificate.facts.sha256, digest);
    assert_eq!(certificate.facts.fingerprint(), format!("sha256:{}", hex(&digest)));
    assert_eq!(certificate.facts.lfdi().as_slice(), &digest[..20]);
    assert_eq!(certificate.facts.lfdi_hex(), hex(&digest[..20]));
    assert_eq!(certificate.facts.spki, key.subject_public_key_info());
    let spki = Sha256::digest(key.subject_public_key_info());
    assert_eq!(certificate.facts.spki_fingerprint(), format!("sha256:{}", hex(&spki)));
}

#[test]
fn subject_and_issuer_are_two_names() {
    let key = KeyPair::generate().expect("a key");
    let mut ca = params("Root");
    ca.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let issuer = Issuer::from_params(&ca, &key);
    let leaf_key = KeyPair::generate().expect("a key");
    let mut leaf = params("billing");
    leaf.distinguished_name = name(&[(DnType::OrganizationName, "Example"), (DnType::CommonName, "billing")]);
    leaf.not_before = date_time_ymd(2026, 1, 2);
    leaf.not_after = date_time_ymd(2027, 1, 2);
    let signed = leaf.signed_by(&leaf_key, &issuer).expect("a certificate");
    let facts = CertificateFacts::of(signed.der()).expect("its facts");
    assert_eq!((facts.subject.as_str(), facts.issuer.as_str()), ("O=Example, CN=billing", "CN=Root"));
    assert_eq!((facts.not_before, facts.not_after), (1_767_312_000, 1_798_848_000));
    assert_eq!((facts.self_issued, facts.is_ca), (false, false));
    let root = self_signed(&ca);
    assert_eq!((root.subject.as_str(), root.issuer.as_str()), ("CN=Root", "CN=Root"));
    assert_eq!((root.self_issued, root.is_ca), (true, true));
}

#[test]
fn being_a_ca_is_what_basic_constraints_say() {
    let rows = [
        (IsCa::NoCa, false),
        (IsCa::ExplicitNoCa, false),
        (IsCa::Ca(BasicConstraints::Unconstrained), true),
        (IsCa::Ca(BasicConstraints::Constrained(0)), true),
    ];
    for (is_ca, expected) in rows {
        let facts = changed(|params| params.is_ca = is_ca);
        assert_eq!(facts.is_ca, expected, "{is_ca:?}");
    }
}

#[test]
fn serials_are_printed_without_their_sign_byte() {
    let rows: &[(&[u8], &str)] = &[
        (&[0x5a, 0x01], "5a:01"),
        (&[0x01], "01"),
        (&[0x7f], "7f"),
        (&[0x80], "80"),
        (&[0xff, 0x00, 0x0a], "ff:00:0a"),
        (&[0x00], "00"),
    ];
    for (serial, printed) in rows {
        let facts = changed(|params| params.serial_number = Some(SerialNumber::from_slice(serial)));
        assert_eq!(facts.serial, *printed);
    }
}

#[test]
fn alternative_names_keep_their_kinds() {
    let san = |names: Vec<SanType>| changed(|params| params.subject_alt_names = names);
    let facts = san(Vec::new());
    assert_eq!((facts.uris, facts.dns_names, facts.san), (Vec::new(), Vec::new(), String::new()));
    let facts = san(vec![
        SanType::DnsName(ascii("Front.SHOP.svc")),
        SanType::URI(ascii("https://Example.COM/A")),
        SanType::DnsName(ascii("*.shop.svc")),
        SanType::URI(ascii("spiffe://demo.local/a")),
        SanType::Rfc822Name(ascii("Ops@example.com")),
        SanType::IpAddress(IpAddr::V4(Ipv4Addr::LOCALHOST)),
        SanType::IpAddress(IpAddr::V6(Ipv6Addr::LOCALHOST)),
        SanType::OtherName((vec![1, 2, 3], rcgen::OtherNameValue::Utf8String("x".to_owned()))),
    ]);
    assert_eq!(facts.uris, ["https://Example.COM/A", "spiffe://demo.local/a"]);
    assert_eq!(facts.dns_names, ["front.shop.svc", "*.shop.svc"]);
    assert_eq!(
        facts.san,
        "DNS:Front.SHOP.svc, URI:https://Example.COM/A, DNS:*.shop.svc, URI:spiffe://demo.local/a, \
         email:Ops@example.com, IP:127.0.0.1, IP:::1, other"
    );
}

#[test]
fn a_common_name_counts_where_it_is_the_only_one() {
    let second = DnType::CustomDnType(vec![2, 5, 4, 3]);
    let rows = [
        (name(&[(DnType::CommonName, "billing")]), Some("billing")),
        (name(&[(DnType::OrganizationName, "Example"), (DnType::CommonName, "B\u{fc}ro")]), Some("B\u{fc}ro")),
        (name(&[(DnType::CommonName, "billing\0.evil")]), Some("billing\0.evil")),
        (name(&[(DnType::CommonName, "")]), Some("")),
        (name(&[(DnType::OrganizationName, "Example")]), None),
        (name(&[]), None),
        // Two would let a signer hide one behind the other.
        (name(&[(DnType::CommonName, "billing"), (second.clone(), "admin")]), None),
        (name(&[(DnType::CommonName, "billing"), (second, "billing")]), None),
    ];
    for (distinguished_name, expected) in rows {
        let facts = changed(|params| params.distinguished_name = distinguished_name);
        assert_eq!(facts.common_name.as_deref(), expected, "{}", facts.subject);
    }
}

/// What is stored is bounded; what a claim is compared with is not cut, or two long names would become one.
#[test]
fn overlong_names_are_cut_between_characters() {
    let rows = [
        // `CN=` and 1021 bytes are exactly the bound.
        ("x".repeat(1021), format!("CN={}", "x".repeat(1021))),
        ("x".repeat(1022), format!("CN={}…", "x".repeat(1021))),
        ("x".repeat(9000), format!("CN={}…", "x".repeat(1021))),
        // Two bytes each: the 1021 that are left end in the middle of one.
        ("\u{e9}".repeat(600), format!("CN={}…", "\u{e9}".repeat(510))),
        // Three bytes each, and four.
        ("\u{20ac}".repeat(400), format!("CN={}…", "\u{20ac}".repeat(340))),
        ("\u{1f512}".repeat(300), format!("CN={}…", "\u{1f512}".repeat(255))),
    ];
    for (common_name, printed) in rows {
        let facts = self_signed(&params(&common_name));
        assert_eq!((&facts.subject, &facts.issuer), (&printed, &printed));
        assert_eq!(facts.common_name, Some(common_name));
    }
    let names: Vec<_> = (0..200).map(|number| format!("host-{number:03}.svc")).collect();
    let list = names.iter().map(|name| SanType::DnsName(ascii(name))).collect();
    let facts = changed(|params| params.subject_alt_names = list);
    let mut printed = names.iter().map(|name| format!("DNS:{name}")).collect::<Vec<_>>().join(", ");
    printed.truncate(1024);
    assert_eq!(facts.san, printed + "…");
    assert_eq!(facts.dns_names, names);
}

#[test]
fn what_is_not_one_certificate_is_refused() {
    let whole = unhex(FROZEN);
    let twice = [whole.clone(), whole.clone()].concat();
    let after = [whole.clone(), vec![0]].concat();
    let refused = |der: &[u8]| CertificateFacts::of(der).map_err(|error| error.to_string());
    assert_eq!(refused(&after), Err("not an X.509 certificate: 1 bytes after its end".to_owned()));
    assert_eq!(refused(&twice), Err(format!("not an X.509 certificate: {} bytes after its end", whole.len())));
    let pem = b"-----BEGIN CERTIFICATE-----\nMIIC\n-----END CERTIFICATE-----\n";
    let garbage: [&[u8]; 6] = [b"", b"\x30", b"\x30\x00", b"garbage", &[0xff; 64], pem];
    for der in garbage {
        assert!(CertificateFacts::of(der).is_err(), "{der:?}");
        assert!(Certificate::from_der(der.to_vec()).is_err(), "{der:?}");
    }
    for length in 0..whole.len() {
        assert!(CertificateFacts::of(&whole[..length]).is_err(), "the first {length} bytes");
    }
}

/// A stranger's bytes never end the process, whatever is wrong with them.
#[test]
fn a_changed_byte_is_read_or_refused() {
    let whole = unhex(FROZEN);
    let mut refused = 0;
    for index in 0..whole.len() {
        for flipped in [0x01, 0x80, 0xff] {
            let mut der = whole.clone();
            der[index] ^= flipped;
            refused += usize::from(CertificateFacts::of(&der).is_err());
        }
    }
    // As x509-parser 0.18 reads them, of 3 * 561. The others are in names, digests and signatures, where any byte may stand.
    assert_eq!((whole.len(), refused), (561, 246));
}

/// The first two are the standard's own (IEEE 2030.5); the others are its edges.
#[test]
fn short_forms_follow_from_long_ones() {
    let rows = [
        ("3E4F45AB31EDFE5B67E343E5E4562E31984E23E5", 167_261_211_391),
        ("30a13b2277d008c891e06e1d34ee728cc3a6db2b", 130_539_648_399),
        ("0000000000000000000000000000000000000000", 0),
        // What follows the first 36 bits has no say.
        ("000000000fffffffffffffffffffffffffffffff", 0),
        ("0000000010000000000000000000000000000000", 19),
        // A sum that is a multiple of ten already.
        ("0000000130000000000000000000000000000000", 190),
        ("ffffffffffffffffffffffffffffffffffffffff", 687_194_767_357),
    ];
    for (lfdi, sfdi) in rows {
        let bytes: [u8; 20] = unhex(lfdi).try_into().expect("20 bytes");
        assert_eq!(sfdi_of(&bytes), sfdi, "{lfdi}");
        let mut sha256 = [0; 32];
        sha256[..20].copy_from_slice(&bytes);
        let facts = CertificateFacts { sha256, ..facts("x", 1) };
        assert_eq!((facts.sfdi(), facts.sfdi_digits()), (sfdi, format!("{sfdi:012}")), "{lfdi}");
        assert_eq!(sfdi_of_hex(lfdi), Some(facts.sfdi_digits()), "{lfdi}");
    }
}
