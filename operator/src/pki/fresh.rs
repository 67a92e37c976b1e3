//! The one place where randomness comes from: keys, serial numbers, passwords.

use aws_lc_rs::rand;
use rcgen::{KeyPair, PKCS_ECDSA_P256_SHA256, PKCS_ECDSA_P384_SHA384, PKCS_RSA_SHA256, RsaKeySize};
use zeroize::Zeroizing;

use super::issue::Serial;
use super::key::{Algorithm, KeyError, PrivateKey};

/// A new key.
///
/// # Errors
/// When the system has no randomness to give.
pub fn key(algorithm: Algorithm) -> Result<PrivateKey, KeyError> {
    let made = match algorithm {
        Algorithm::EcdsaP256 => KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256),
        Algorithm::EcdsaP384 => KeyPair::generate_for(&PKCS_ECDSA_P384_SHA384),
        Algorithm::Ed25519 => return ed25519(),
        Algorithm::Rsa2048 => KeyPair::generate_rsa_for(&PKCS_RSA_SHA256, RsaKeySize::_2048),
        Algorithm::Rsa3072 => KeyPair::generate_rsa_for(&PKCS_RSA_SHA256, RsaKeySize::_3072),
        Algorithm::Rsa4096 => KeyPair::generate_rsa_for(&PKCS_RSA_SHA256, RsaKeySize::_4096),
    };
    made.map(PrivateKey::from).map_err(|_| KeyError::NoRandomness)
}

/// In the first version of PKCS#8: neither OpenSSL nor Java reads the second, which rcgen writes.
fn ed25519() -> Result<PrivateKey, KeyError> {
    let made = aws_lc_rs::signature::Ed25519KeyPair::generate().and_then(|key| key.to_pkcs8v1());
    let der = made.map_err(|_| KeyError::NoRandomness)?;
    PrivateKey::from_pkcs8(der.as_ref())
}

/// A new serial number, 128 bits of chance.
///
/// # Errors
/// When the system has no randomness to give.
pub fn serial() -> Result<Serial, KeyError> {
    bytes().map(Serial::from_random)
}

/// A new password, 128 bits of chance in 32 hex digits, which every program's prompt takes.
///
/// # Errors
/// When the system has no randomness to give.
pub fn password() -> Result<Zeroizing<String>, KeyError> {
    let drawn = Zeroizing::new(bytes::<16>()?);
    Ok(Zeroizing::new(drawn.iter().map(|byte| format!("{byte:02x}")).collect()))
}

fn bytes<const N: usize>() -> Result<[u8; N], KeyError> {
    let mut drawn = [0; N];
    rand::fill(&mut drawn).map_err(|_| KeyError::NoRandomness)?;
    Ok(drawn)
}
