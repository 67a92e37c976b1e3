//! Leaves: what a certificate of a pod or a client says, and its signature, checked as a sidecar would check it.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use rcgen::{
    CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa, KeyUsagePurpose, SanType, SerialNumber,
};
use rustls_pki_types::{CertificateDer, UnixTime};
use sidecar_decide::{Certificate, CertificateFacts};
use thiserror::Error;
use time::OffsetDateTime;
use webpki::{EndEntityCert, KeyUsage, anchor_from_trusted_cert};
use x509_parser::prelude::{FromDer, X509Certificate};

use super::authority::Issuer;
use super::blocks;
use super::key::{KeyError, PublicKey};
use super::names::{Asked, Names};

/// By how much a certificate is valid before it was made: clocks differ.
pub const BACKDATED_SECONDS: i64 = 300;
/// How long a pod's certificate is valid, unless the operator is told otherwise.
pub const POD_SECONDS: i64 = 24 * 3600;
/// Shortest life of a pod's certificate: it is renewed some twenty seconds after it was made, and is with the pod within
/// two. Whoever wants it that short has no two clocks.
pub const POD_MIN_SECONDS: i64 = 60;
/// Longest one: a month, because nobody can take a pod's key back.
pub const POD_MAX_SECONDS: i64 = 30 * 24 * 3600;
/// How long a client's certificate is valid unless it says otherwise: 90 days.
pub const CLIENT_SECONDS: i64 = 90 * 24 * 3600;
/// Shortest life that is worth a certificate: what is shorter is renewed more often than it is read.
pub const LIFE_MIN_SECONDS: i64 = 600;

/// A serial number: 128 bits of chance, positive (RFC 5280 §4.1.2.2).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Serial([u8; 16]);

impl Serial {
    /// Its bytes, the highest first.
    pub(super) fn as_bytes(&self) -> &[u8] {
        &self.0
    }

    /// Of random bytes.
    #[must_use]
    pub fn from_random(mut bytes: [u8; 16]) -> Self {
        // Zero is not positive.
        if bytes == [0; 16] {
            bytes[15] = 1;
        }
        Self(bytes)
    }
}

impl fmt::Display for Serial {
    /// As [`CertificateFacts`] writes it.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let zeros = self.0.iter().take_while(|byte| **byte == 0).count();
        let digits: Vec<_> = self.0[zeros..].iter().map(|byte| format!("{byte:02x}")).collect();
        f.write_str(&digits.join(":"))
    }
}

impl FromStr for Serial {
    type Err = NoSerial;

    /// What [`Serial`]'s `Display` writes.
    fn from_str(text: &str) -> Result<Self, NoSerial> {
        let digits = text.split(':').map(|digits| (digits.len() == 2).then(|| u8::from_str_radix(digits, 16).ok())?);
        let bytes: Vec<u8> = digits.collect::<Option<_>>().ok_or(NoSerial)?;
        let mut all = [0; 16];
        let zeros = all.len().checked_sub(bytes.len()).ok_or(NoSerial)?;
        all[zeros..].copy_from_slice(&bytes);
        if all == [0; 16] { Err(NoSerial) } else { Ok(Self(all)) }
    }
}

/// A text is no serial number that is issued here.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[error("it is no serial number")]
pub struct NoSerial;

/// What a certificate may be used for in TLS.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Usage {
    /// To call others.
    Client,
    /// To be called, and to call others.
    Both,
}

/// What a certificate is to say.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Request {
    /// Its SPIFFE ID.
    pub spiffe_id: String,
    /// Its other names, which the namespace may ask for.
    pub names: Asked,
    /// What it may be used for.
    pub usage: Usage,
    /// How long it is valid.
    pub duration_seconds: i64,
    /// It is not valid from before this time, because what is older is refused.
    pub accept_issued_after: Option<i64>,
}

impl Request {
    /// For the sidecars of a workload that runs as a service account and is reached by these DNS names.
    #[must_use]
    pub fn pod(
        names: &Names,
        namespace: &str,
        service_account: &str,
        mut dns_names: Vec<String>,
        seconds: i64,
    ) -> Self {
        dns_names.sort();
        dns_names.dedup();
        Self {
            spiffe_id: names.service_account(namespace, service_account),
            names: Asked { common_name: None, uris: Vec::new(), dns_names },
            usage: Usage::Both,
            duration_seconds: seconds,
            accept_issued_after: None,
        }
    }

    /// All URIs, the SPIFFE ID first and once.
    pub(super) fn uris(&self) -> Vec<String> {
        let others = self.names.uris.iter().filter(|uri| **uri != self.spiffe_id);
        let mut uris: Vec<_> = [&self.spiffe_id].into_iter().chain(others).cloned().collect();
        uris.dedup();
        uris
    }

    /// From when it is valid, if it is made now.
    fn not_before(&self, now: i64) -> i64 {
        // Never by more than it lasts, or it would be old when it is made.
        let early = now - BACKDATED_SECONDS.min(self.duration_seconds);
        self.accept_issued_after.map_or(early, |floor| early.max(floor))
    }
}

/// Why a certificate is not issued.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
pub enum IssueError {
    /// The issuer has no key here, or has expired.
    #[error("{0}")]
    Issuer(String),
    /// A name cannot be written.
    #[error("`{0}` cannot be written into a certificate")]
    Name(String),
    /// It would be refused from its first second.
    #[error("what is issued before `acceptIssuedAfter` would be refused; it is issued then")]
    TooEarly,
    /// The issuer ends so early that nothing worth having can be issued.
    #[error("the issuer ends in {0} s, and a certificate may not outlive it; renew the issuer")]
    IssuerEnds(i64),
    /// The key.
    #[error("the key {0}")]
    Key(#[from] KeyError),
    /// A mistake in what was signed, which a sidecar would have found.
    #[error("the certificate would not verify under our own root: {0}")]
    Unverified(String),
}

/// A certificate that was issued.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Leaf {
    /// The certificate.
    pub certificate: Certificate,
    /// It and the authorities above it, but for the root.
    pub chain_pem: String,
}

/// Issues a certificate.
///
/// # Errors
/// When the issuer cannot, or the result would not be worth having.
pub fn leaf(issuer: &Issuer, request: &Request, key: &PublicKey, serial: Serial, now: i64) -> Result<Leaf, IssueError> {
    let not_before = request.not_before(now);
    if not_before > now {
        return Err(IssueError::TooEarly);
    }
    let not_after = (now + request.duration_seconds).min(issuer.not_after());
    let not_before = not_before.max(issuer.not_before());
    if not_after - now < LIFE_MIN_SECONDS.min(request.duration_seconds) {
        return Err(IssueError::IssuerEnds(issuer.not_after() - now));
    }
    let mut parameters = parameters(request, serial, key.is_rsa())?;
    parameters.not_before = date(not_before)?;
    parameters.not_after = date(not_after)?;
    let signed = parameters.signed_by(&key.info()?, issuer.signer()).map_err(|e| IssueError::Issuer(e.to_string()))?;
    let unverified = |error: String| IssueError::Unverified(error);
    let certificate = Certificate::from_der(signed.der().to_vec()).map_err(|error| unverified(error.to_string()))?;
    verify(&certificate, issuer, request.usage, now)?;
    check(&certificate.facts, request, serial).map_err(unverified)?;
    let chain_pem = blocks::write([&certificate].into_iter().chain(issuer.chain()));
    Ok(Leaf { certificate, chain_pem })
}

fn parameters(request: &Request, serial: Serial, is_rsa: bool) -> Result<CertificateParams, IssueError> {
    let mut parameters = CertificateParams::default();
    parameters.distinguished_name = DistinguishedName::new();
    if let Some(name) = &request.names.common_name {
        parameters.distinguished_name.push(DnType::CommonName, name.as_str());
    }
    let name = |text: &String| IssueError::Name(text.clone());
    let uris = request.uris();
    let uris = uris.iter().map(|uri| Ok(SanType::URI(uri.as_str().try_into().map_err(|_| name(uri))?)));
    let hosts = &request.names.dns_names;
    let hosts = hosts.iter().map(|host| Ok(SanType::DnsName(host.as_str().try_into().map_err(|_| name(host))?)));
    parameters.subject_alt_names = uris.chain(hosts).collect::<Result<_, IssueError>>()?;
    parameters.serial_number = Some(SerialNumber::from_slice(serial.as_bytes()));
    parameters.is_ca = IsCa::ExplicitNoCa;
    parameters.use_authority_key_identifier_extension = true;
    parameters.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    if is_rsa {
        // TLS 1.2 without forward secrecy wants it, and so do some checkers of RSA certificates.
        parameters.key_usages.push(KeyUsagePurpose::KeyEncipherment);
    }
    parameters.extended_key_usages = match request.usage {
        Usage::Client => vec![ExtendedKeyUsagePurpose::ClientAuth],
        Usage::Both => vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth],
    };
    Ok(parameters)
}

/// As sidecars and clients verify it, with the same library: an authority that was brought may be bound to names, to a
/// length of path or to a time in ways that only this finds.
fn verify(certificate: &Certificate, issuer: &Issuer, usage: Usage, now: i64) -> Result<(), IssueError> {
    let error = |found: webpki::Error| IssueError::Unverified(found.to_string());
    let roots: Vec<_> = issuer.roots().iter().map(|root| CertificateDer::from(root.der.as_slice())).collect();
    let anchors: Vec<_> = roots.iter().map(anchor_from_trusted_cert).collect::<Result<_, _>>().map_err(error)?;
    let chain: Vec<_> = issuer.chain().map(|above| CertificateDer::from(above.der.as_slice())).collect();
    let der = CertificateDer::from(certificate.der.as_slice());
    let leaf = EndEntityCert::try_from(&der).map_err(error)?;
    let time = UnixTime::since_unix_epoch(Duration::from_secs(u64::try_from(now).unwrap_or_default()));
    let usages = match usage {
        Usage::Client => vec![KeyUsage::client_auth()],
        Usage::Both => vec![KeyUsage::client_auth(), KeyUsage::server_auth()],
    };
    for usage in usages {
        leaf.verify_for_usage(webpki::ALL_VERIFICATION_ALGS, &anchors, &chain, time, usage, None, None)
            .map_err(error)?;
    }
    Ok(())
}

/// What was written is what was meant, as a sidecar reads it.
fn check(facts: &CertificateFacts, request: &Request, serial: Serial) -> Result<(), String> {
    let same = facts.serial == serial.to_string()
        && facts.uris == request.uris()
        && facts.dns_names == request.names.dns_names
        && facts.common_name == request.names.common_name
        && !facts.is_ca;
    if same { Ok(()) } else { Err(format!("it says `{}`, `{}`", facts.subject, facts.san)) }
}

/// What a certificate may be used for; `None` where it is neither of ours.
pub(super) fn usage_of(certificate: &Certificate) -> Option<Usage> {
    let (_, parsed) = X509Certificate::from_der(&certificate.der).ok()?;
    let purposes = parsed.extended_key_usage().ok()??.value;
    match (purposes.client_auth, purposes.server_auth) {
        (true, true) => Some(Usage::Both),
        (true, false) => Some(Usage::Client),
        _ => None,
    }
}

pub(super) fn date(seconds: i64) -> Result<OffsetDateTime, IssueError> {
    OffsetDateTime::from_unix_timestamp(seconds).map_err(|_| IssueError::Name(format!("the time {seconds}")))
}
