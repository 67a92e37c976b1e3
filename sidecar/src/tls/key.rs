//! The gate's own private key: loaded once, never printed.

use std::fmt;
use std::sync::Arc;

use rustls::crypto::aws_lc_rs::sign::any_supported_type;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::sign::{CertifiedKey, SigningKey};
use sidecar_decide::Certificate;

/// A private key that can sign handshakes. The bytes it was read from are not kept here.
#[derive(Clone)]
pub struct ServerKey(Arc<dyn SigningKey>);

impl ServerKey {
    /// Reads the first private key of a PEM file's bytes (PKCS#8, SEC1 or PKCS#1).
    ///
    /// # Errors
    /// When there is none, or it is of a kind that cannot sign TLS handshakes.
    pub fn from_pem(pem: &[u8]) -> Result<Self, String> {
        let key = PrivateKeyDer::from_pem_slice(pem)
            .map_err(|error| format!("holds no private key ({error}); put a PEM block `BEGIN PRIVATE KEY` into it"))?;
        any_supported_type(&key).map(Self).map_err(|error| {
            format!("holds a key that cannot be used ({error}); use ECDSA, Ed25519 or RSA from 2048 bits")
        })
    }

    /// The DER subjectPublicKeyInfo that belongs to it, if its kind tells.
    pub fn public_key(&self) -> Option<Vec<u8>> {
        self.0.public_key().map(|key| key.as_ref().to_vec())
    }

    /// The key with a chain it was checked to belong to.
    pub fn certified(&self, chain: &[Certificate]) -> Arc<CertifiedKey> {
        let chain = chain.iter().map(|certificate| CertificateDer::from(certificate.der.clone())).collect();
        Arc::new(CertifiedKey::new(chain, Arc::clone(&self.0)))
    }
}

impl fmt::Debug for ServerKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ServerKey")
    }
}
