//! Our own client certificate verifier. rustls' stock one says neither which root a chain ended in nor what was
//! presented when it refuses; a gate whose refusals are evidence needs both. Servers are verified by the same `Trust`.

use std::collections::HashSet;
use std::sync::{Arc, PoisonError};
use std::time::Duration;

use rustls::client::danger::HandshakeSignatureValid;
use rustls::crypto::{CryptoProvider, WebPkiSupportedAlgorithms, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::{CertificateDer, TrustAnchor, UnixTime};
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::{CertificateError, DigitallySignedStruct, DistinguishedName, Error, SignatureScheme};
use sidecar_config::policy::ClientAuth;
use sidecar_decide::certificate::has_short_rsa_key;
use sidecar_decide::crl::Revoked;
use sidecar_decide::{CertificateFacts, Reason};
use webpki::{EndEntityCert, KeyUsage};

use super::chains::{Chain, Chains};
use super::path::{self, End, Sum, VerifiedPath};
use super::peer::{Standing, TlsPeer};
use super::reason::{certificate_error, certificate_reason};
use super::ticket::{Cell, Seen};

/// The roots of one bundle, as webpki wants them.
#[derive(Debug)]
pub(super) struct Anchors {
    pub(super) bundle: Arc<str>,
    pub(super) roots: Vec<TrustAnchor<'static>>,
    /// What each of them is known by, in their order.
    pub(super) sums: Vec<Sum>,
    /// Between the roots and clients that send only their own certificate.
    pub(super) intermediates: Vec<CertificateDer<'static>>,
    /// Serial numbers of leaves that are revoked.
    pub(super) revoked: Arc<HashSet<Box<str>>>,
    /// What revocation lists say.
    pub(super) listed: Arc<Revoked>,
}

impl Anchors {
    fn end(&self, verified: &webpki::VerifiedPath<'_>) -> End {
        // webpki gives back one of the roots it was given.
        let index = self.roots.iter().position(|root| std::ptr::eq(root, verified.anchor()));
        let anchor = index.and_then(|index| self.sums.get(index)).copied().unwrap_or_default();
        End::of(&self.bundle, anchor, verified)
    }

    /// Whether a client whose path ends here is revoked.
    fn is_revoked(&self, facts: &CertificateFacts, end: &End) -> bool {
        self.revoked.contains(&*facts.serial) || end.is_listed(&self.listed)
    }

    /// Refuses a verified path that is revoked, and one about which it is not known any more whether it is. Until when
    /// it is known, in seconds since the epoch.
    fn check_revocation(&self, facts: &CertificateFacts, end: &End, now: UnixTime) -> Result<u64, webpki::Error> {
        if self.is_revoked(facts, end) {
            return Err(webpki::Error::CertRevoked);
        }
        let until = end.believed_until(&self.listed).map_or(u64::MAX, |until| u64::try_from(until).unwrap_or(0));
        if until < now.as_secs() {
            let next_update = UnixTime::since_unix_epoch(Duration::from_secs(until));
            return Err(webpki::Error::CrlExpired { time: now, next_update });
        }
        Ok(until)
    }
}

/// What all handshakes of a listener share.
#[derive(Debug)]
pub(super) struct Trust {
    pub(super) client_auth: ClientAuth,
    /// In the order of the listener's document, ours first.
    pub(super) bundles: Vec<Anchors>,
    pub(super) hints: Vec<DistinguishedName>,
    pub(super) algorithms: WebPkiSupportedAlgorithms,
}

impl Trust {
    /// The paths from a certificate, used in this way, to the bundles that vouch for it.
    pub(super) fn verify(
        &self,
        leaf: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        facts: &CertificateFacts,
        usage: KeyUsage,
        now: UnixTime,
    ) -> Result<VerifiedPath, webpki::Error> {
        let leaf = EndEntityCert::try_from(leaf)?;
        let (ends, valid_until) = (Vec::new(), u64::MAX);
        let mut path = VerifiedPath { leaf: facts.sha256, ends, valid_until, believed_until: u64::MAX };
        // A chain that no bundle knows is the least that can be said; a bundle that knows it says more.
        let mut refusal = webpki::Error::UnknownIssuer;
        for anchors in &self.bundles {
            let all: Vec<_>;
            let intermediates = if anchors.intermediates.is_empty() {
                intermediates
            } else {
                let ours = anchors.intermediates.iter().map(|ours| CertificateDer::from(ours.as_ref()));
                all = intermediates.iter().map(|theirs| CertificateDer::from(theirs.as_ref())).chain(ours).collect();
                &all
            };
            let (roots, algorithms) = (&anchors.roots, self.algorithms.all);
            match leaf.verify_for_usage(algorithms, roots, intermediates, now, usage, None, None) {
                Ok(verified) => {
                    let end = anchors.end(&verified);
                    // Revoked under one bundle it is revoked: another root above the same authority is no way around it.
                    path.believed_until = path.believed_until.min(anchors.check_revocation(facts, &end, now)?);
                    path.ends.push(end);
                    path.valid_until = path.valid_until.min(path::valid_until(facts, &verified));
                }
                Err(webpki::Error::UnknownIssuer) => {}
                Err(error) => refusal = error,
            }
        }
        if path.ends.is_empty() { Err(refusal) } else { Ok(path) }
    }

    /// How a client that was verified before stands today.
    pub(super) fn standing(&self, peer: &TlsPeer) -> Standing {
        let Some(path) = &peer.path else {
            let is_missing = self.client_auth == ClientAuth::Required;
            return Standing { bundles: Vec::new(), refused: is_missing.then_some(Reason::TlsNoCertificate) };
        };
        let mut standing = Standing::default();
        for end in &path.ends {
            let of_bundle = self.bundles.iter().find(|anchors| anchors.bundle == end.bundle);
            let Some(anchors) = of_bundle.filter(|anchors| anchors.sums.contains(&end.anchor)) else { continue };
            // Revoked under one bundle it is revoked, as in the handshake.
            if peer.facts.as_ref().is_some_and(|facts| anchors.is_revoked(facts, end)) {
                standing.refused = Some(Reason::PolicyCertificateRevoked);
            }
            standing.bundles.push(Arc::clone(&end.bundle));
        }
        if standing.bundles.is_empty() {
            standing.refused = Some(Reason::TlsUnknownCa);
        }
        standing
    }
}

/// Verifies the client of one handshake, and leaves what it saw in its cell.
#[derive(Debug)]
pub(super) struct Verifier {
    trust: Arc<Trust>,
    chains: Arc<Chains>,
    cell: Cell,
}

impl Verifier {
    pub(super) fn new(trust: Arc<Trust>, chains: Arc<Chains>, cell: Cell) -> Self {
        Self { trust, chains, cell }
    }

    /// A signature by a key that is too short fails like one that is wrong, and must not look like an attack.
    fn note_short_key(&self, certificate: &CertificateDer<'_>) {
        if has_short_rsa_key(certificate) {
            self.cell.lock().unwrap_or_else(PoisonError::into_inner).peer.refused = Some(Reason::TlsWeak);
        }
    }

    fn leave(&self, peer: TlsPeer, is_known: Option<bool>) {
        // A certificate is asked for in full handshakes only: whatever ticket was decrypted, it is not resumed.
        *self.cell.lock().unwrap_or_else(PoisonError::into_inner) = Seen { peer, resumed: None, is_known };
    }
}

impl ClientCertVerifier for Verifier {
    fn offer_client_auth(&self) -> bool {
        self.trust.client_auth != ClientAuth::None
    }

    fn client_auth_mandatory(&self) -> bool {
        self.trust.client_auth == ClientAuth::Required
    }

    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        &self.trust.hints
    }

    fn verify_client_cert(
        &self,
        leaf: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<ClientCertVerified, Error> {
        let sum = Chains::sum(leaf, intermediates);
        if let Some(Chain { facts, path, .. }) = self.chains.find(&sum, now) {
            self.leave(TlsPeer { facts: Some(facts), path: Some(path), refused: None }, Some(true));
            return Ok(ClientCertVerified::assertion());
        }
        let Ok(facts) = CertificateFacts::of(leaf).map(Arc::new) else {
            self.leave(TlsPeer { refused: Some(Reason::TlsMalformed), ..TlsPeer::default() }, None);
            return Err(CertificateError::BadEncoding.into());
        };
        let (path, refusal) = match self.trust.verify(leaf, intermediates, &facts, KeyUsage::client_auth(), now) {
            Ok(path) => (Some(Arc::new(path)), None),
            Err(error) => (None, Some((certificate_reason(&error, &facts), error))),
        };
        let refused = refusal.as_ref().map(|(reason, _)| *reason);
        if let Some(path) = &path {
            self.chains.insert(sum, &facts, path, now);
        }
        let is_known = path.is_some().then_some(false);
        self.leave(TlsPeer { facts: Some(facts), path, refused }, is_known);
        match refusal {
            None => Ok(ClientCertVerified::assertion()),
            Some((reason, error)) => Err(certificate_error(reason, error)),
        }
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        let verified = verify_tls12_signature(message, certificate, signature, &self.trust.algorithms);
        verified.inspect_err(|_| self.note_short_key(certificate))
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        let verified = verify_tls13_signature(message, certificate, signature, &self.trust.algorithms);
        verified.inspect_err(|_| self.note_short_key(certificate))
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.trust.algorithms.supported_schemes()
    }
}

/// The signature algorithms a provider can verify.
pub(super) fn algorithms(provider: &CryptoProvider) -> WebPkiSupportedAlgorithms {
    provider.signature_verification_algorithms
}
