//! Who a server must be that the gate connects to: its chain ends in a bundle of its backend, nothing on it is revoked,
//! and it is one of the named peers, or has the name it was asked for.

use std::sync::Arc;

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{CertificateError, DigitallySignedStruct, Error, SignatureScheme};
use sidecar_decide::identity::BundleIndex;
use sidecar_decide::snapshot::Bundle;
use sidecar_decide::{CertificateFacts, Directory, Reason, UpstreamTls};
use webpki::{EndEntityCert, KeyUsage};

use super::chains::{Chain, Chains};
use super::path::VerifiedPath;
use super::peer::TlsPeer;
use super::reason::{certificate_error, certificate_reason};
use super::verifier::Trust;

/// Judges the servers of a backend. One for all handshakes of a generation that judges alike.
#[derive(Debug)]
pub(super) struct ServerJudge {
    pub(super) trust: Arc<Trust>,
    /// The bundles of `trust`, in their order, with their places among all.
    pub(super) bundles: Vec<(BundleIndex, Bundle)>,
    pub(super) directory: Arc<Directory>,
    pub(super) tls: Arc<UpstreamTls>,
    /// What servers are asked for.
    pub(super) name: ServerName<'static>,
    /// Chains that it has found good.
    pub(super) chains: Chains,
}

impl ServerJudge {
    /// Judges the chain that a server has shown, in this handshake or in the one whose session it resumes.
    pub(super) fn judge(
        &self,
        leaf: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<TlsPeer, Error> {
        let sum = Chains::sum(leaf, intermediates);
        if let Some(Chain { facts, path, .. }) = self.chains.find(&sum, now) {
            return Ok(TlsPeer { facts: Some(facts), path: Some(path), refused: None });
        }
        let Ok(facts) = CertificateFacts::of(leaf).map(Arc::new) else {
            return Err(CertificateError::BadEncoding.into());
        };
        let path = self.trust.verify(leaf, intermediates, &facts, KeyUsage::server_auth(), now);
        let path = Arc::new(path.map_err(|error| certificate_error(certificate_reason(&error, &facts), error))?);
        self.check_identity(leaf, &facts, &path)?;
        self.chains.insert(sum, &facts, &path, now);
        Ok(TlsPeer { facts: Some(facts), path: Some(path), refused: None })
    }

    /// Why a server that was found good would not be any more, if so. What does not change while its backend is described
    /// alike, as its name, is not asked again.
    pub(super) fn refuses(&self, server: &TlsPeer) -> Option<Reason> {
        let standing = self.trust.standing(server);
        if let Some(reason) = standing.refused {
            let is_revoked = reason == Reason::PolicyCertificateRevoked;
            return Some(if is_revoked { Reason::UpstreamTlsRevoked } else { Reason::UpstreamTlsUntrusted });
        }
        let facts = server.facts.as_ref()?;
        let ended = || self.bundles.iter().filter(|(_, bundle)| standing.bundles.contains(&bundle.name));
        if self.is_revoked(facts, ended().map(|(index, _)| *index).collect()) {
            return Some(Reason::UpstreamTlsRevoked);
        }
        // Which bundle vouches for its trust domain is part trust's to say, and may be another one now.
        let is_peer = !self.tls.is_by_identity() || self.tls.is_peer(&facts.uris, ended().map(|(_, bundle)| bundle));
        (!is_peer).then_some(Reason::UpstreamTlsPeer)
    }

    /// What is revoked as a caller is revoked as a server.
    fn is_revoked(&self, facts: &CertificateFacts, bundles: Vec<BundleIndex>) -> bool {
        self.directory.resolve(facts, bundles).revoked.is_some()
    }

    /// Whether a verified certificate is one of those that the backend names.
    fn check_identity(
        &self,
        leaf: &CertificateDer<'_>,
        facts: &CertificateFacts,
        path: &VerifiedPath,
    ) -> Result<(), Error> {
        let ended = || self.bundles.iter().filter(|(_, bundle)| path.bundles().any(|name| *name == bundle.name));
        if self.is_revoked(facts, ended().map(|(index, _)| *index).collect()) {
            return Err(CertificateError::Revoked.into());
        }
        let is_right = if self.tls.is_by_identity() {
            self.tls.is_peer(&facts.uris, ended().map(|(_, bundle)| bundle))
        } else {
            EndEntityCert::try_from(leaf).is_ok_and(|leaf| leaf.verify_is_valid_for_subject_name(&self.name).is_ok())
        };
        if is_right { Ok(()) } else { Err(CertificateError::NotValidForName.into()) }
    }
}

impl ServerCertVerifier for ServerJudge {
    fn verify_server_cert(
        &self,
        leaf: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        self.judge(leaf, intermediates, now).map(|_| ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls12_signature(message, certificate, signature, &self.trust.algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls13_signature(message, certificate, signature, &self.trust.algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.trust.algorithms.supported_schemes()
    }
}
