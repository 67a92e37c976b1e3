//! Authorities that are made, and authorities that are brought.

use postern_operator::pki::authority::{AuthorityError, Files, Issuer, ROOT_SECONDS, Root};
use postern_operator::pki::fresh;
use postern_operator::pki::issue::{IssueError, leaf};
use postern_operator::pki::key::{Algorithm, KeyError};
use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, DnType, GeneralSubtree, IsCa, KeyPair, KeyUsagePurpose,
    NameConstraints, PKCS_ECDSA_P521_SHA512, date_time_ymd,
};
use zeroize::Zeroizing;

use crate::pki_fixture::{NOW, issued, key, line_after, made, request, settings, text_of, verifies};

#[test]
fn root_and_intermediate_are_made_for_what_they_do() {
    let made = made(Algorithm::default());
    let root = text_of(&made.root_files.certificates);
    let intermediate = text_of(&made.intermediate_files.certificates);
    assert_eq!(line_after(&root, "X509v3 Basic Constraints: critical"), "CA:TRUE, pathlen:1");
    assert_eq!(line_after(&intermediate, "X509v3 Basic Constraints: critical"), "CA:TRUE, pathlen:0");
    for text in [&root, &intermediate] {
        assert_eq!(line_after(text, "X509v3 Key Usage: critical"), "Certificate Sign, CRL Sign");
        assert!(text.contains("O = demo.local, CN = Postern "), "{text}");
    }
    let facts = &made.root.certificates()[0].facts;
    assert_eq!(facts.not_after, NOW + ROOT_SECONDS);
    verifies(&made.issuer.roots_pem(), &made.issuer.chain_pem(), "any", NOW).unwrap();
}

#[test]
fn the_roots_key_may_go_offline_once_the_intermediate_is_signed() {
    let made = made(Algorithm::default());
    for key in [None, Some(Zeroizing::new(Vec::new())), Some(Zeroizing::new(b" \n".to_vec()))] {
        let root = Root::read(&Files { key, ..made.root_files.clone() }, NOW).unwrap();
        assert!(!root.has_key());
        let issuer = Issuer::read(&made.intermediate_files, &root, NOW).unwrap();
        let (leaf, _) = issued(&issuer, &request(), Algorithm::default());
        verifies(&issuer.roots_pem(), &leaf.chain_pem, "sslclient", NOW).unwrap();
        let unsigned =
            root.make_intermediate(&settings(Algorithm::default()), &key_pair(), fresh::serial().unwrap(), NOW);
        assert_eq!(unsigned.unwrap_err(), AuthorityError::NoKey);
    }
}

fn key_pair() -> postern_operator::pki::key::PrivateKey {
    key(Algorithm::default())
}

#[test]
fn during_a_change_of_roots_both_are_trusted() {
    let (old, new) = (made(Algorithm::default()), made(Algorithm::default()));
    let more_roots = Some(old.root_files.certificates.clone());
    let root = Root::read(&Files { more_roots, ..new.root_files.clone() }, NOW).unwrap();
    assert_eq!(root.certificates().len(), 2);
    // The old intermediate signs until the new one is there.
    for files in [&old.intermediate_files, &new.intermediate_files] {
        let issuer = Issuer::read(files, &root, NOW).unwrap();
        let (leaf, _) = issued(&issuer, &request(), Algorithm::default());
        verifies(&issuer.roots_pem(), &leaf.chain_pem, "sslclient", NOW).unwrap();
    }
    // The same root twice is one.
    let more_roots = Some(new.root_files.certificates.clone());
    assert_eq!(Root::read(&Files { more_roots, ..new.root_files.clone() }, NOW).unwrap().certificates().len(), 1);
}

/// An authority that a user brings.
struct Brought {
    issuer: CertifiedIssuer<'static, KeyPair>,
}

impl Brought {
    fn parameters(change: impl FnOnce(&mut CertificateParams)) -> CertificateParams {
        let mut parameters = CertificateParams::default();
        parameters.distinguished_name.push(DnType::CommonName, "Example CA");
        parameters.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        parameters.key_usages = vec![KeyUsagePurpose::KeyCertSign];
        parameters.use_authority_key_identifier_extension = true;
        change(&mut parameters);
        parameters
    }

    fn root(change: impl FnOnce(&mut CertificateParams)) -> Self {
        let issuer = CertifiedIssuer::self_signed(Self::parameters(change), KeyPair::generate().unwrap()).unwrap();
        Self { issuer }
    }

    fn below(&self, change: impl FnOnce(&mut CertificateParams)) -> Self {
        let parameters = Self::parameters(|parameters| {
            parameters.distinguished_name.push(DnType::CommonName, "Example issuing CA");
            change(parameters);
        });
        let key = KeyPair::generate().unwrap();
        Self { issuer: CertifiedIssuer::signed_by(parameters, key, &self.issuer).unwrap() }
    }

    fn files(&self) -> Files {
        let key = Some(Zeroizing::new(self.issuer.key().serialize_pem().into_bytes()));
        Files { certificates: self.issuer.pem().into_bytes(), key, more_roots: None }
    }
}

fn read(root: &Brought, issuer: &Files) -> Result<Issuer, AuthorityError> {
    Issuer::read(issuer, &Root::read(&root.files(), NOW)?, NOW)
}

#[test]
fn an_authority_that_is_brought_signs() {
    let root = Brought::root(|_| {});
    let middle = root.below(|parameters| parameters.distinguished_name.push(DnType::OrganizationName, "Middle"));
    let last = middle.below(|parameters| parameters.is_ca = IsCa::Ca(BasicConstraints::Constrained(0)));
    let mut files = last.files();
    // The chain may end with the root, which is left out.
    files.certificates.extend(middle.issuer.pem().bytes().chain(root.issuer.pem().bytes()));
    let issuer = read(&root, &files).unwrap();
    let (leaf, _) = issued(&issuer, &request(), Algorithm::default());
    assert_eq!(leaf.chain_pem.matches("BEGIN CERTIFICATE").count(), 3);
    verifies(&issuer.roots_pem(), &leaf.chain_pem, "sslclient", NOW).unwrap();
}

#[test]
fn an_authority_that_cannot_sign_is_refused_with_the_reason() {
    let root = Brought::root(|_| {});
    let good = root.below(|_| {});
    let with = |change: fn(&mut CertificateParams)| root.below(change).files();
    let no_key = Files { key: None, ..good.files() };
    let other_key = Files { key: root.files().key, ..good.files() };
    let bad_key = Files { key: Some(Zeroizing::new(b"-----BEGIN".to_vec())), ..good.files() };
    let mut gap = good.below(|_| {}).files();
    gap.certificates.extend(root.issuer.pem().bytes());
    let mut backwards = good.below(|_| {}).files();
    backwards.certificates = [good.issuer.pem().as_bytes(), backwards.certificates.as_slice()].concat();
    let of = "`CN=Example issuing CA`";
    let rows = [
        (no_key, "tls.key is missing".to_owned()),
        (other_key, "tls.key does not belong to the first certificate of tls.crt".to_owned()),
        (bad_key, format!("tls.key {}", KeyError::NotAKey)),
        (with(|p| p.is_ca = IsCa::NoCa), format!("{of} is not a CA (basicConstraints CA:TRUE is missing)")),
        (with(|p| p.is_ca = IsCa::ExplicitNoCa), format!("{of} is not a CA (basicConstraints CA:TRUE is missing)")),
        (
            with(|p| p.key_usages = vec![KeyUsagePurpose::CrlSign]),
            format!("{of} may not sign certificates (keyUsage without keyCertSign)"),
        ),
        (with(|p| p.not_after = date_time_ymd(2026, 9, 20)), format!("{of} has expired")),
        (with(|p| p.not_before = date_time_ymd(2026, 9, 23)), format!("{of} is not yet valid")),
        (gap, format!("{of} is not signed by a trusted root; put its authority into tls.crt behind it, or into the root's ca.crt")),
        (backwards, format!("{of} is not signed by the certificate behind it; put them in order")),
        (root.files(), "`the root itself` is not signed by a trusted root; put its authority into tls.crt behind it, or into the root's ca.crt".to_owned()),
        (Files::default(), "tls.crt holds no PEM block `CERTIFICATE`".to_owned()),
    ];
    for (files, expected) in rows {
        assert_eq!(read(&root, &files).unwrap_err().to_string(), expected);
    }
    let stranger = Brought::root(|_| {}).below(|_| {});
    assert!(matches!(read(&root, &stranger.files()), Err(AuthorityError::NoRoot(_))));
}

#[test]
fn the_length_of_the_path_is_kept() {
    let none = Brought::root(|parameters| parameters.is_ca = IsCa::Ca(BasicConstraints::Constrained(0)));
    let error = read(&none, &none.below(|_| {}).files()).unwrap_err().to_string();
    assert_eq!(error, "`CN=Example CA` allows 0 authorities below it (pathlen), and 1 are needed");
}

#[test]
fn a_name_that_would_be_written_otherwise_is_refused() {
    // openssl writes two attributes of one kind, as directories do; rcgen would write the last one.
    let folder = tempfile::tempdir().unwrap();
    let key = folder.path().join("key");
    let arguments = format!(
        "req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -keyout {} -subj /DC=example/DC=com/CN=Two -days 36500 -addext keyUsage=critical,keyCertSign",
        key.display()
    );
    let certificate = crate::pki_fixture::openssl(&arguments, &[]).unwrap();
    let start = certificate.find("-----BEGIN CERTIFICATE").unwrap();
    let certificates = certificate.as_bytes()[start..].to_vec();
    let far = 1_900_000_000;
    let files = Files { certificates, key: Some(Zeroizing::new(std::fs::read(&key).unwrap())), more_roots: None };
    let root = Root::read(&files, far).unwrap();
    let below = root.make_intermediate(&settings(Algorithm::default()), &key_pair(), fresh::serial().unwrap(), far);
    let expected = "has a name that cannot be written as an issuer; give it one attribute of each kind, in UTF-8";
    assert!(below.unwrap_err().to_string().ends_with(expected));
}

#[test]
fn a_weak_or_unknown_key_does_not_sign() {
    let parameters = Brought::parameters(|_| {});
    let pair = KeyPair::generate_for(&PKCS_ECDSA_P521_SHA512).unwrap();
    let certificates = parameters.self_signed(&pair).unwrap().pem().into_bytes();
    let files = Files { certificates, key: None, more_roots: None };
    let error = Root::read(&files, NOW).unwrap_err().to_string();
    assert!(error.contains("its key is ECDSA on another curve"), "{error}");
}

#[test]
fn bounds_of_a_brought_authority_are_found_before_a_sidecar_finds_them() {
    let root = Brought::root(|_| {});
    let bound = root.below(|parameters| {
        let elsewhere = GeneralSubtree::DnsName("example.org".into());
        parameters.name_constraints =
            Some(NameConstraints { permitted_subtrees: vec![elsewhere], excluded_subtrees: Vec::new() });
    });
    let issuer = read(&root, &bound.files()).unwrap();
    let error = leaf(&issuer, &request(), &key_pair().public(), fresh::serial().unwrap(), NOW).unwrap_err();
    assert!(matches!(error, IssueError::Unverified(_)), "{error}");
}
