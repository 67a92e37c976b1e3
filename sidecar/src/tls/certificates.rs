//! The gate's own certificates: which of them a handshake shows.

use std::net::IpAddr;
use std::sync::{Arc, Mutex, PoisonError};

use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;
use sidecar_config::policy::UnknownServerName;
use sidecar_decide::snapshot::AcceptedIdentity;
use sidecar_decide::{Reason, ServerCertificate};

use super::key::ServerKey;

/// All certificates of part `identity` with their keys.
#[derive(Clone, Debug)]
pub struct OwnCertificates {
    identity: Arc<AcceptedIdentity>,
    /// In the order of the identity's certificates.
    certified: Arc<[Arc<CertifiedKey>]>,
}

impl OwnCertificates {
    /// Certificates and the keys they were accepted with, in the same order. `None` where one has no key.
    pub fn new(identity: &Arc<AcceptedIdentity>, keys: &[ServerKey]) -> Option<Self> {
        if keys.is_empty() || keys.len() != identity.certificates.len() {
            return None;
        }
        let pairs = identity.certificates.iter().zip(keys);
        let certified = pairs.map(|(certificate, key)| key.certified(&certificate.chain)).collect();
        Some(Self { identity: Arc::clone(identity), certified })
    }

    /// The first one, which is also the gate's as a client.
    pub(super) fn first(&self) -> Option<Arc<CertifiedKey>> {
        self.certified.first().map(Arc::clone)
    }

    /// The one for a client of a listener with certificates of its `own`, which asks for `name`, or for none and has
    /// reached `address`.
    pub(super) fn choose(
        &self,
        own: &[usize],
        name: Option<&str>,
        address: Option<IpAddr>,
        unknown: UnknownServerName,
    ) -> Result<Chosen, Reason> {
        let index = self.identity.choose(own, name, address, unknown)?;
        // Both lists have this index; a client could not be told otherwise than that it has come to nobody.
        let certificate = self.identity.certificates.get(index).ok_or(Reason::TlsUnknownSni)?;
        let certified = self.certified.get(index).ok_or(Reason::TlsUnknownSni)?;
        Ok(Chosen { certificate: Arc::clone(certificate), certified: Arc::clone(certified) })
    }
}

/// What one handshake shows.
pub(super) struct Chosen {
    pub(super) certificate: Arc<ServerCertificate>,
    pub(super) certified: Arc<CertifiedKey>,
}

/// Gives rustls the certificate that was chosen for a slot's handshake.
#[derive(Debug, Default)]
pub(super) struct Shown(Mutex<Option<Arc<CertifiedKey>>>);

impl Shown {
    pub(super) fn set(&self, certified: Arc<CertifiedKey>) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Some(certified);
    }
}

impl ResolvesServerCert for Shown {
    fn resolve(&self, _: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}
