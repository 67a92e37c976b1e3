//! Keys: which ones are strong enough, and one type whose `Debug` prints nothing of the secret.

use std::fmt;

use rcgen::{KeyPair, PublicKeyData, SubjectPublicKeyInfo};
use rustls_pki_types::PrivateKeyDer;
use rustls_pki_types::pem::PemObject;
use thiserror::Error;
use x509_parser::prelude::FromDer;
use x509_parser::public_key::PublicKey as ParsedKey;
use x509_parser::x509::SubjectPublicKeyInfo as ParsedInfo;
use zeroize::Zeroizing;

/// Fewest bits of an RSA key.
pub const RSA_MIN_BITS: usize = 2048;
/// Most bits of an RSA key: aws-lc verifies no signature of a longer one.
pub const RSA_MAX_BITS: usize = 8192;

const OID_ED25519: &str = "1.3.101.112";

/// What keys are made for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Algorithm {
    /// ECDSA on P-256.
    #[default]
    EcdsaP256,
    /// ECDSA on P-384.
    EcdsaP384,
    /// Ed25519.
    Ed25519,
    /// RSA of 2048 bits.
    Rsa2048,
    /// RSA of 3072 bits.
    Rsa3072,
    /// RSA of 4096 bits.
    Rsa4096,
}

/// Why a key cannot be used.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
pub enum KeyError {
    /// Not a private key in any form that is read.
    #[error("is not a private key; put one unencrypted PEM block `PRIVATE KEY` (PKCS#8) there")]
    NotAKey,
    /// A kind or size that is not accepted.
    #[error("is {0}; use ECDSA on P-256 or P-384, Ed25519, or RSA of {RSA_MIN_BITS} to {RSA_MAX_BITS} bits")]
    Weak(String),
    /// The system gave no random bytes.
    #[error("no random bytes from the system")]
    NoRandomness,
}

/// A private key.
pub struct PrivateKey(KeyPair);

impl From<KeyPair> for PrivateKey {
    fn from(pair: KeyPair) -> Self {
        Self(pair)
    }
}

impl fmt::Debug for PrivateKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("PrivateKey(…)")
    }
}

impl PrivateKey {
    /// Reads a PEM text: PKCS#8, SEC1 or PKCS#1.
    ///
    /// # Errors
    /// When it holds no key, or one that is too weak.
    pub fn from_pem(text: &[u8]) -> Result<Self, KeyError> {
        let der = PrivateKeyDer::from_pem_slice(text).map_err(|_| KeyError::NotAKey)?;
        let key = Self(KeyPair::try_from(&der).map_err(|_| KeyError::NotAKey)?);
        strong(&key.spki()).map(|_| key)
    }

    /// Reads PKCS#8.
    pub(super) fn from_pkcs8(der: &[u8]) -> Result<Self, KeyError> {
        KeyPair::try_from(der).map(Self).map_err(|_| KeyError::NotAKey)
    }

    /// PEM, in the form it was made or read in; what [`fresh`](super::fresh) makes is PKCS#8.
    #[must_use]
    pub fn pem(&self) -> Zeroizing<String> {
        Zeroizing::new(super::blocks::block("PRIVATE KEY", self.0.serialized_der()))
    }

    /// The same as DER.
    #[must_use]
    pub fn der(&self) -> &[u8] {
        self.0.serialized_der()
    }

    /// The DER subjectPublicKeyInfo of its public half.
    #[must_use]
    pub fn spki(&self) -> Vec<u8> {
        self.0.subject_public_key_info()
    }

    /// Its public half.
    #[must_use]
    pub fn public(&self) -> PublicKey {
        PublicKey { spki: self.spki() }
    }

    /// What signs with it.
    pub(super) fn into_pair(self) -> KeyPair {
        self.0
    }
}

/// A public key that is strong enough to be signed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PublicKey {
    spki: Vec<u8>,
}

impl PublicKey {
    /// Reads a DER subjectPublicKeyInfo.
    ///
    /// # Errors
    /// When it is none, or the key is too weak.
    pub fn from_spki(spki: &[u8]) -> Result<Self, KeyError> {
        strong(spki).map(|_| Self { spki: spki.to_vec() })
    }

    /// The DER subjectPublicKeyInfo.
    #[must_use]
    pub fn spki(&self) -> &[u8] {
        &self.spki
    }

    /// Which of the kinds that are made here it is.
    #[must_use]
    pub fn algorithm(&self) -> Option<Algorithm> {
        let (_, info) = ParsedInfo::from_der(&self.spki).ok()?;
        let bits = info.parsed().ok()?.key_size();
        match (strong(&self.spki).ok()?, bits) {
            (Kind::Ecdsa, 256) => Some(Algorithm::EcdsaP256),
            (Kind::Ecdsa, 384) => Some(Algorithm::EcdsaP384),
            (Kind::Ed25519, _) => Some(Algorithm::Ed25519),
            (Kind::Rsa, 2048) => Some(Algorithm::Rsa2048),
            (Kind::Rsa, 3072) => Some(Algorithm::Rsa3072),
            (Kind::Rsa, 4096) => Some(Algorithm::Rsa4096),
            _ => None,
        }
    }

    /// Whether certificates for it say that it may encipher keys, as RSA does in TLS 1.2.
    pub(super) fn is_rsa(&self) -> bool {
        strong(&self.spki) == Ok(Kind::Rsa)
    }

    /// For rcgen.
    pub(super) fn info(&self) -> Result<SubjectPublicKeyInfo, KeyError> {
        SubjectPublicKeyInfo::from_der(&self.spki).map_err(|_| KeyError::Weak("a key of an unknown kind".to_owned()))
    }
}

/// The kinds of keys that are accepted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Ecdsa,
    Ed25519,
    Rsa,
}

fn strong(spki: &[u8]) -> Result<Kind, KeyError> {
    let weak = |what: String| Err(KeyError::Weak(what));
    let Ok(([], info)) = ParsedInfo::from_der(spki) else { return weak("not a public key".to_owned()) };
    match info.parsed() {
        // Whole points only: not everyone reads compressed ones.
        Ok(ParsedKey::EC(point)) => match point.key_size() {
            256 | 384 if is_nist_curve(&info) && point.data().first() == Some(&4) => Ok(Kind::Ecdsa),
            bits => weak(format!("ECDSA on another curve ({bits} bits)")),
        },
        Ok(ParsedKey::RSA(key)) => match key.key_size() {
            bits if (RSA_MIN_BITS..=RSA_MAX_BITS).contains(&bits) => Ok(Kind::Rsa),
            bits => weak(format!("RSA of {bits} bits")),
        },
        Ok(ParsedKey::DSA(_)) => weak("DSA".to_owned()),
        _ if info.algorithm.algorithm.to_id_string() == OID_ED25519 => Ok(Kind::Ed25519),
        _ => weak(format!("of kind {}", info.algorithm.algorithm.to_id_string())),
    }
}

fn is_nist_curve(info: &ParsedInfo<'_>) -> bool {
    const P256: &str = "1.2.840.10045.3.1.7";
    const P384: &str = "1.3.132.0.34";
    let curve = info.algorithm.parameters.as_ref().and_then(|parameters| parameters.as_oid().ok());
    curve.is_some_and(|curve| [P256, P384].contains(&curve.to_id_string().as_str()))
}
