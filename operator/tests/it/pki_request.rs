//! Requests that openssl makes, and what becomes of them.

use postern_operator::pki::fresh;
use postern_operator::pki::issue::{Request, Usage, leaf};
use postern_operator::pki::key::Algorithm;
use postern_operator::pki::request::{RequestError, accept};
use rcgen::{BasicConstraints, KeyUsagePurpose, SanType};
use rcgen::{CertificateParams, CustomExtension, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa, KeyPair};

use crate::pki_fixture::{NOW, made, openssl, request, verifies};

const OWN: &str = "URI:spiffe://demo.local/ns/shop/client/billing";

/// What openssl makes of some arguments to `req -new`.
fn made_by_openssl(arguments: &str) -> Vec<u8> {
    let text = openssl(&format!("req -new -nodes -keyout /dev/null -batch {arguments}"), &[]).unwrap();
    let start = text.find("-----BEGIN CERTIFICATE REQUEST").unwrap();
    let end = text.find("-----END CERTIFICATE REQUEST-----\n").unwrap() + "-----END CERTIFICATE REQUEST-----\n".len();
    text.as_bytes()[start..end].to_vec()
}

const P256: &str = "-newkey ec -pkeyopt ec_paramgen_curve:P-256";

#[test]
fn a_request_brings_a_key_and_the_identity_the_names() {
    let authority = made(Algorithm::default());
    let rows = [
        P256,
        "-newkey ec -pkeyopt ec_paramgen_curve:P-384 -sha384",
        "-newkey ed25519",
        "-newkey rsa:2048",
        "-newkey rsa:3072 -sha512",
        "-newkey rsa:2048 -sigopt rsa_padding_mode:pss -sigopt rsa_pss_saltlen:32 -sha256",
    ];
    for row in rows {
        let text = made_by_openssl(&format!("{row} -subj /CN=billing -addext subjectAltName={OWN}"));
        openssl("req -verify -noout -in {r}", &[("r", &text)]).unwrap();
        let key = accept(&text, &request()).unwrap_or_else(|error| panic!("{row}: {error}"));
        let leaf = leaf(&authority.issuer, &request(), &key, fresh::serial().unwrap(), NOW).unwrap();
        verifies(&authority.issuer.roots_pem(), &leaf.chain_pem, "sslclient", NOW).unwrap();
        let of_request = openssl("req -noout -pubkey -in {r}", &[("r", &text)]).unwrap();
        let of_leaf = openssl("x509 -noout -pubkey -in {c}", &[("c", leaf.chain_pem.as_bytes())]).unwrap();
        assert_eq!(of_request, of_leaf, "{row}");
        assert_eq!(leaf.certificate.facts.dns_names, request().names.dns_names, "{row}");
    }
}

#[test]
fn a_request_may_ask_for_what_the_identity_has() {
    let rows = [
        "-subj /",
        "-subj /CN=billing",
        "-subj / -addext subjectAltName=DNS:Billing.shop.svc",
        "-subj / -addext extendedKeyUsage=clientAuth",
        "-subj / -addext keyUsage=digitalSignature,keyEncipherment,keyAgreement",
        "-subj / -addext basicConstraints=CA:FALSE",
    ];
    for row in rows {
        accept(&made_by_openssl(&format!("{P256} {row}")), &request()).unwrap_or_else(|error| panic!("{row}: {error}"));
    }
    let both = Request { usage: Usage::Both, ..request() };
    let asks = made_by_openssl(&format!("{P256} -subj / -addext extendedKeyUsage=serverAuth,clientAuth"));
    accept(&asks, &both).unwrap();
}

#[test]
fn what_is_asked_beyond_is_refused_and_named() {
    let own = "spiffe://demo.local/ns/shop/client/billing";
    let rows = [
        ("-subj /CN=admin", "the common name `admin`; write `billing` or leave it out".to_owned()),
        (
            "-subj /O=Example/CN=billing",
            "its subject has organizationName `Example`; only a common name may be there".to_owned(),
        ),
        (
            "-subj / -addext subjectAltName=DNS:orders.web.svc",
            "the DNS name `orders.web.svc`; add it to `dnsNames` of the identity or leave it out".to_owned(),
        ),
        (
            "-subj / -addext subjectAltName=URI:spiffe://demo.local/ns/web/client/billing",
            format!("the URI `spiffe://demo.local/ns/web/client/billing`; the identity has `{own}`"),
        ),
        (
            "-subj / -addext subjectAltName=IP:10.0.0.1",
            "the name `IPAddress(0a:00:00:01)`; only URIs and DNS names are issued".to_owned(),
        ),
        (
            "-subj / -addext subjectAltName=email:a@example.com",
            "the name `RFC822Name(a@example.com)`; only URIs and DNS names are issued".to_owned(),
        ),
        ("-subj / -addext basicConstraints=CA:TRUE", "to be a CA".to_owned()),
        ("-subj / -addext keyUsage=keyCertSign", "the key usage keyCertSign".to_owned()),
        ("-subj / -addext extendedKeyUsage=serverAuth", "the purpose serverAuth".to_owned()),
        ("-subj / -addext extendedKeyUsage=codeSigning", "the purpose codeSigning".to_owned()),
        ("-subj / -addext extendedKeyUsage=1.2.3.4", "the purpose 1.2.3.4".to_owned()),
        ("-subj / -addext nameConstraints=permitted;DNS:a", "the extension nameConstraints".to_owned()),
        ("-subj / -addext 1.2.3.4=ASN1:NULL", "the extension 1.2.3.4".to_owned()),
    ];
    for (row, expected) in rows {
        let error = accept(&made_by_openssl(&format!("{P256} {row}")), &request()).unwrap_err();
        assert_eq!(error, RequestError::Beyond(vec![expected]), "{row}");
    }
}

#[test]
fn everything_beyond_is_told_at_once() {
    let mut parameters = CertificateParams::default();
    parameters.distinguished_name = DistinguishedName::new();
    parameters.distinguished_name.push(DnType::CommonName, "admin");
    parameters.subject_alt_names = vec![SanType::DnsName("a.example.com".try_into().unwrap())];
    parameters.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    parameters.key_usages = vec![KeyUsagePurpose::CrlSign];
    parameters.extended_key_usages = vec![ExtendedKeyUsagePurpose::Any];
    parameters.custom_extensions = vec![CustomExtension::from_oid_content(&[2, 5, 29, 17], vec![0x30, 0])];
    let text = parameters.serialize_request(&KeyPair::generate().unwrap()).unwrap().pem().unwrap();
    let Err(RequestError::Beyond(beyond)) = accept(text.as_bytes(), &request()) else { panic!("it was accepted") };
    assert_eq!(beyond.len(), 6, "{beyond:?}");
}

#[test]
fn a_key_that_is_too_weak_is_refused() {
    let rows = [
        ("-newkey rsa:1024", "RSA of 1024 bits"),
        ("-newkey ec -pkeyopt ec_paramgen_curve:secp256k1", "ECDSA on another curve (256 bits)"),
        ("-newkey ec -pkeyopt ec_paramgen_curve:P-521", "ECDSA on another curve (528 bits)"),
        ("-newkey ec -pkeyopt ec_paramgen_curve:P-224", "ECDSA on another curve (224 bits)"),
        ("-newkey ed448", "of kind 1.3.101.113"),
    ];
    for (row, what) in rows {
        let error = accept(&made_by_openssl(&format!("{row} -subj /")), &request()).unwrap_err().to_string();
        assert!(error.starts_with(&format!("the request's key is {what}; use ECDSA")), "{row}: {error}");
    }
}

#[test]
fn who_has_not_the_key_gets_no_certificate() {
    let good = made_by_openssl(&format!("{P256} -subj /CN=billing"));
    let der = pem::parse(&good).unwrap().into_contents();
    let again = |der: Vec<u8>| pem::encode(&pem::Pem::new("CERTIFICATE REQUEST", der)).into_bytes();
    // The last byte is of the signature; the key's bytes are in the middle.
    let mut forged = der.clone();
    *forged.last_mut().unwrap() ^= 1;
    assert_eq!(accept(&again(forged), &request()), Err(RequestError::NoProof));
    let other = pem::parse(made_by_openssl(&format!("{P256} -subj /CN=billing"))).unwrap().into_contents();
    let point = |der: &[u8]| der.windows(4).position(|window| window == [0x03, 0x42, 0x00, 0x04]).unwrap() + 4;
    let mut stolen = der.clone();
    let at = point(&der);
    stolen[at..at + 64].copy_from_slice(&other[point(&other)..point(&other) + 64]);
    assert_eq!(accept(&again(stolen), &request()), Err(RequestError::NoProof));
    let sha1 = made_by_openssl("-newkey rsa:2048 -sha1 -subj /");
    assert_eq!(accept(&sha1, &request()), Err(RequestError::WeakSignature("1.2.840.113549.1.1.5".into())));
}

#[test]
fn what_is_no_request_is_told_so() {
    let good = String::from_utf8(made_by_openssl(&format!("{P256} -subj /"))).unwrap();
    let with_more = {
        let mut der = pem::parse(&good).unwrap().into_contents();
        der.push(0);
        pem::encode(&pem::Pem::new("CERTIFICATE REQUEST", der))
    };
    let rows = [
        (String::new(), "the request holds no PEM block `CERTIFICATE REQUEST`"),
        ("hello".to_owned(), "the request holds no PEM block `CERTIFICATE REQUEST`"),
        (format!("{good}{good}"), "the request cannot be read as PKCS#10: 2 blocks; put one there"),
        (
            good.replace("CERTIFICATE REQUEST", "PRIVATE KEY"),
            "the request holds a block `PRIVATE KEY` where `CERTIFICATE REQUEST` is expected; remove it",
        ),
        (with_more, "the request cannot be read as PKCS#10: 1 bytes after its end"),
        (format!("{good}{}", " ".repeat(16 * 1024)), "the request has"),
    ];
    for (text, expected) in rows {
        let error = accept(text.as_bytes(), &request()).unwrap_err().to_string();
        assert!(error.starts_with(expected), "{error}");
    }
    // As older programs head it.
    accept(good.replace("CERTIFICATE REQUEST", "NEW CERTIFICATE REQUEST").as_bytes(), &request()).unwrap();
}
