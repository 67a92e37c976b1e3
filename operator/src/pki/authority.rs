//! Who signs: a root that signs an intermediate and may then be taken offline, and the intermediate that signs leaves.
//! Both are made at first start or brought by the user, and what was brought is checked as if it were hostile.

use std::fmt;

use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, IsCa, KeyPair, KeyUsagePurpose, SerialNumber,
};
use rustls_pki_types::CertificateDer;
use sidecar_decide::Certificate;
use thiserror::Error;
use x509_parser::prelude::{FromDer, X509Certificate};
use zeroize::Zeroizing;

use super::blocks::{self, BlockError};
use super::issue::{self, BACKDATED_SECONDS, Serial};
use super::key::{Algorithm, KeyError, PrivateKey, PublicKey};

/// How long a root is valid: ten years.
pub const ROOT_SECONDS: i64 = 10 * 365 * 86_400;
/// How long an intermediate is valid: three years, so that a year is left to renew it when it is due.
pub const INTERMEDIATE_SECONDS: i64 = 3 * 365 * 86_400;
/// Most roots that are trusted at once: two during a change, and some more for those who join clusters.
pub const ROOTS_MAX: usize = 8;
/// Most authorities between a leaf and its root.
const CHAIN_MAX: usize = 4;
/// Longest organisation name (RFC 5280, ub-organization-name), in characters.
const ORGANISATION_MAX_CHARS: usize = 64;

/// How authorities are made.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AuthoritySettings {
    /// Of what kind their keys are.
    pub algorithm: Algorithm,
    /// How long a root is valid.
    pub root_seconds: i64,
    /// How long an intermediate is valid.
    pub intermediate_seconds: i64,
    /// What stands in their names: the trust domain.
    pub organisation: String,
}

/// What a Secret of an authority holds.
#[derive(Clone, Default)]
pub struct Files {
    /// `tls.crt`: its certificate, then those above it.
    pub certificates: Vec<u8>,
    /// `tls.key`; of a root it may be absent or empty once the intermediate is signed.
    pub key: Option<Zeroizing<Vec<u8>>>,
    /// `ca.crt` of the root: more roots that are trusted, during a change of roots.
    pub more_roots: Option<Vec<u8>>,
}

impl fmt::Debug for Files {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Files").field("has_key", &self.key.is_some()).finish_non_exhaustive()
    }
}

impl Files {
    fn key(&self) -> Result<Option<PrivateKey>, KeyError> {
        let text = self.key.as_ref().filter(|text| !text.trim_ascii().is_empty());
        text.map(|text| PrivateKey::from_pem(text)).transpose()
    }
}

/// Why an authority cannot be used.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
pub enum AuthorityError {
    /// The certificates.
    #[error("tls.crt {0}")]
    Certificates(BlockError),
    /// The further roots.
    #[error("ca.crt {0}")]
    MoreRoots(BlockError),
    /// The key.
    #[error("tls.key {0}")]
    Key(#[from] KeyError),
    /// No key where one is needed.
    #[error("tls.key is missing")]
    NoKey,
    /// The key is another certificate's.
    #[error("tls.key does not belong to the first certificate of tls.crt")]
    OtherKey,
    /// A certificate that may not sign.
    #[error("`{subject}` {why}")]
    Certificate {
        /// Its subject.
        subject: String,
        /// What is wrong with it.
        why: String,
    },
    /// The chain ends in no root of ours.
    #[error(
        "`{0}` is not signed by a trusted root; put its authority into tls.crt behind it, or into the root's ca.crt"
    )]
    NoRoot(String),
    /// Too much of something.
    #[error("{0}")]
    TooMany(String),
    /// It could not be signed.
    #[error("it could not be signed: {0}")]
    Unsigned(String),
}

/// The roots that are trusted; the first is the one that signs.
pub struct Root {
    certificates: Vec<Certificate>,
    key: Option<KeyPair>,
}

impl fmt::Debug for Root {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Root").field("certificates", &self.certificates.len()).finish_non_exhaustive()
    }
}

impl Root {
    /// Makes one.
    ///
    /// # Errors
    /// When it cannot be signed.
    pub fn make(
        settings: &AuthoritySettings,
        key: PrivateKey,
        serial: Serial,
        now: i64,
    ) -> Result<Files, AuthorityError> {
        let text = key.pem();
        let parameters = parameters(settings, "root", serial, 1, (now, now + settings.root_seconds))?;
        let made = parameters.self_signed(&key.into_pair()).map_err(unsigned)?;
        let key = Some(Zeroizing::new(text.as_bytes().to_vec()));
        Ok(Files { certificates: blocks::block("CERTIFICATE", made.der()).into_bytes(), key, more_roots: None })
    }

    /// Reads and checks what a Secret holds.
    ///
    /// # Errors
    /// When it is no root that can be trusted now, or its key is another's.
    pub fn read(files: &Files, now: i64) -> Result<Self, AuthorityError> {
        let mut certificates = blocks::certificates(&files.certificates).map_err(AuthorityError::Certificates)?;
        if let Some(more) = files.more_roots.as_ref().filter(|text| !text.trim_ascii().is_empty()) {
            certificates.extend(blocks::certificates(more).map_err(AuthorityError::MoreRoots)?);
        }
        let mut seen = std::collections::BTreeSet::new();
        certificates.retain(|certificate| seen.insert(certificate.facts.sha256));
        if certificates.len() > ROOTS_MAX {
            return Err(AuthorityError::TooMany(format!(
                "{} roots; at most {ROOTS_MAX} are trusted",
                certificates.len()
            )));
        }
        for certificate in &certificates {
            may_sign(certificate, 1)?;
            if !certificate.facts.self_issued || !is_signed_by(certificate, certificate) {
                return Err(wrong(certificate, "is not self-signed; only roots belong here"));
            }
        }
        let signs = certificates.first().ok_or(AuthorityError::Certificates(BlockError::Empty("CERTIFICATE")))?;
        valid_at(signs, now)?;
        let key = files.key()?.map(|key| belongs(key, signs)).transpose()?;
        Ok(Self { certificates, key })
    }

    /// All of them.
    #[must_use]
    pub fn certificates(&self) -> &[Certificate] {
        &self.certificates
    }

    /// Whether it can sign an intermediate: its key has not been taken offline.
    #[must_use]
    pub fn has_key(&self) -> bool {
        self.key.is_some()
    }

    /// Signs an intermediate.
    ///
    /// # Errors
    /// When its key is offline, or it is about to end.
    pub fn make_intermediate(
        &self,
        settings: &AuthoritySettings,
        key: &PrivateKey,
        serial: Serial,
        now: i64,
    ) -> Result<Files, AuthorityError> {
        let (Some(signer), Some(root)) = (&self.key, self.certificates.first()) else {
            return Err(AuthorityError::NoKey);
        };
        let until = (now + settings.intermediate_seconds).min(root.facts.not_after);
        let from = (now - BACKDATED_SECONDS).max(root.facts.not_before) + BACKDATED_SECONDS;
        let parameters = parameters(settings, "intermediate", serial, 0, (from, until))?;
        let issuer = rcgen::Issuer::from_ca_cert_der(&der(root), signer).map_err(unsigned)?;
        writes_its_name(root, &issuer, now)?;
        let public = PublicKey::from_spki(&key.spki())?.info()?;
        let made = parameters.signed_by(&public, &issuer).map_err(unsigned)?;
        let key = Some(Zeroizing::new(key.pem().as_bytes().to_vec()));
        Ok(Files { certificates: blocks::block("CERTIFICATE", made.der()).into_bytes(), key, more_roots: None })
    }
}

/// The authority that signs leaves, with all above it.
pub struct Issuer {
    /// It, then those above it, without the root.
    chain: Vec<Certificate>,
    roots: Vec<Certificate>,
    not_before: i64,
    not_after: i64,
    signer: rcgen::Issuer<'static, KeyPair>,
}

impl fmt::Debug for Issuer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Issuer").field("not_after", &self.not_after).finish_non_exhaustive()
    }
}

impl Issuer {
    /// Reads and checks what a Secret holds, under these roots.
    ///
    /// # Errors
    /// When it may not or cannot sign leaves now.
    pub fn read(files: &Files, root: &Root, now: i64) -> Result<Self, AuthorityError> {
        let mut chain = blocks::certificates(&files.certificates).map_err(AuthorityError::Certificates)?;
        chain.retain(|certificate| root.certificates.iter().all(|root| root.facts.sha256 != certificate.facts.sha256));
        if chain.len() > CHAIN_MAX {
            return Err(AuthorityError::TooMany(format!("a chain of {}; at most {CHAIN_MAX}", chain.len())));
        }
        let own = chain.first().ok_or_else(|| AuthorityError::NoRoot("the root itself".to_owned()))?;
        for (below, certificate) in chain.iter().enumerate() {
            may_sign(certificate, below)?;
            valid_at(certificate, now)?;
        }
        for pair in chain.windows(2) {
            if let [below, above] = pair
                && !is_signed_by(below, above)
            {
                return Err(wrong(below, "is not signed by the certificate behind it; put them in order"));
            }
        }
        let last = &chain[chain.len() - 1];
        let signed = |anchor: &&Certificate| is_signed_by(last, anchor) && valid_at(anchor, now).is_ok();
        let anchor = root.certificates.iter().find(signed);
        let anchor = anchor.ok_or_else(|| AuthorityError::NoRoot(last.facts.subject.clone()))?;
        may_sign(anchor, chain.len())?;
        let key = belongs(files.key()?.ok_or(AuthorityError::NoKey)?, own)?;
        let signer = rcgen::Issuer::from_ca_cert_der(&der(own), key).map_err(unsigned)?;
        writes_its_name(own, &signer, now)?;
        let all = || chain.iter().chain([anchor]).map(|certificate| &certificate.facts);
        let not_before = all().map(|facts| facts.not_before).max().unwrap_or(i64::MAX);
        let not_after = all().map(|facts| facts.not_after).min().unwrap_or(i64::MIN);
        Ok(Self { roots: root.certificates.clone(), not_before, not_after, signer, chain })
    }

    /// Its own certificate, then those above it, without the root.
    pub fn chain(&self) -> impl Iterator<Item = &Certificate> {
        self.chain.iter()
    }

    /// Whether it has signed this certificate.
    #[must_use]
    pub fn has_signed(&self, certificate: &Certificate) -> bool {
        self.chain.first().is_some_and(|own| is_signed_by(certificate, own))
    }

    /// The roots that are trusted.
    #[must_use]
    pub fn roots(&self) -> &[Certificate] {
        &self.roots
    }

    /// The roots as PEM, for bundles and `ca.crt`.
    #[must_use]
    pub fn roots_pem(&self) -> String {
        blocks::write(&self.roots)
    }

    /// Its own certificate and those above it as PEM, without the root.
    #[must_use]
    pub fn chain_pem(&self) -> String {
        blocks::write(&self.chain)
    }

    /// From when all authorities of its chain are valid, in seconds since the epoch.
    #[must_use]
    pub fn not_before(&self) -> i64 {
        self.not_before
    }

    /// Until when all of them are.
    #[must_use]
    pub fn not_after(&self) -> i64 {
        self.not_after
    }

    pub(super) fn signer(&self) -> &rcgen::Issuer<'static, KeyPair> {
        &self.signer
    }
}

fn parameters(
    settings: &AuthoritySettings,
    what: &str,
    serial: Serial,
    path_length: u8,
    (from, until): (i64, i64),
) -> Result<CertificateParams, AuthorityError> {
    let date = |seconds| issue::date(seconds).map_err(|error| AuthorityError::Unsigned(error.to_string()));
    let mut parameters = CertificateParams::default();
    let mut name = DistinguishedName::new();
    let organisation: String = settings.organisation.chars().take(ORGANISATION_MAX_CHARS).collect();
    name.push(DnType::OrganizationName, organisation);
    // Two roots of one cluster must not have one name: whoever looks for an issuer by name would find the wrong one.
    let number: String = serial.to_string().replace(':', "").chars().take(8).collect();
    name.push(DnType::CommonName, format!("Postern {what} {number}"));
    parameters.distinguished_name = name;
    parameters.serial_number = Some(SerialNumber::from_slice(serial.as_bytes()));
    parameters.is_ca = IsCa::Ca(BasicConstraints::Constrained(path_length));
    parameters.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    parameters.use_authority_key_identifier_extension = true;
    parameters.not_before = date(from - BACKDATED_SECONDS)?;
    parameters.not_after = date(until)?;
    Ok(parameters)
}

fn wrong(certificate: &Certificate, why: impl Into<String>) -> AuthorityError {
    AuthorityError::Certificate { subject: certificate.facts.subject.clone(), why: why.into() }
}

fn unsigned(error: impl fmt::Display) -> AuthorityError {
    AuthorityError::Unsigned(error.to_string())
}

fn der(certificate: &Certificate) -> CertificateDer<'_> {
    CertificateDer::from(certificate.der.as_slice())
}

/// Whether it is an authority that may have this many authorities below it.
fn may_sign(certificate: &Certificate, below: usize) -> Result<(), AuthorityError> {
    let Ok((_, parsed)) = X509Certificate::from_der(&certificate.der) else {
        return Err(wrong(certificate, "cannot be read"));
    };
    let constraints = parsed.basic_constraints().ok().flatten();
    let Some(constraints) = constraints.filter(|found| found.value.ca) else {
        return Err(wrong(certificate, "is not a CA (basicConstraints CA:TRUE is missing)"));
    };
    let length = constraints.value.path_len_constraint;
    if length.is_some_and(|length| usize::try_from(length).is_ok_and(|length| length < below)) {
        let length = length.unwrap_or_default();
        return Err(wrong(
            certificate,
            format!("allows {length} authorities below it (pathlen), and {below} are needed"),
        ));
    }
    let usage = parsed.key_usage().ok().flatten();
    if usage.is_some_and(|usage| !usage.value.key_cert_sign()) {
        return Err(wrong(certificate, "may not sign certificates (keyUsage without keyCertSign)"));
    }
    PublicKey::from_spki(&certificate.facts.spki)
        .map(|_| ())
        .map_err(|error| wrong(certificate, format!("its key {error}")))
}

fn valid_at(certificate: &Certificate, now: i64) -> Result<(), AuthorityError> {
    if now < certificate.facts.not_before {
        return Err(wrong(certificate, "is not yet valid"));
    }
    if now >= certificate.facts.not_after {
        return Err(wrong(certificate, "has expired"));
    }
    Ok(())
}

fn is_signed_by(certificate: &Certificate, above: &Certificate) -> bool {
    let parsed = (X509Certificate::from_der(&certificate.der), X509Certificate::from_der(&above.der));
    let (Ok((_, certificate)), Ok((_, above))) = parsed else { return false };
    certificate.issuer().as_raw() == above.subject().as_raw()
        && certificate.verify_signature(Some(above.public_key())).is_ok()
}

fn belongs(key: PrivateKey, certificate: &Certificate) -> Result<KeyPair, AuthorityError> {
    if key.spki() == certificate.facts.spki { Ok(key.into_pair()) } else { Err(AuthorityError::OtherKey) }
}

/// rcgen writes an issuer's name anew, and cannot write every name; a leaf whose issuer is spelled otherwise has none.
fn writes_its_name(
    own: &Certificate,
    signer: &rcgen::Issuer<'_, impl rcgen::SigningKey>,
    now: i64,
) -> Result<(), AuthorityError> {
    let mut probe = CertificateParams::default();
    probe.serial_number = Some(SerialNumber::from(1));
    probe.not_after = issue::date(now).map_err(unsigned)?;
    let made = probe.signed_by(signer.key(), signer).map_err(unsigned)?;
    let made = Certificate::from_der(made.der().to_vec()).map_err(unsigned)?;
    if is_signed_by(&made, own) {
        return Ok(());
    }
    Err(wrong(own, "has a name that cannot be written as an issuer; give it one attribute of each kind, in UTF-8"))
}
