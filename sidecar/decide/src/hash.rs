//! Revisions: a short name for exactly these bytes, the same wherever it is computed.

use std::fmt;

use serde::Serialize;
use sha2::{Digest, Sha256};

/// The first 12 hex digits of a SHA-256 over canonical bytes. Never computed over a secret.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Revision(String);

impl Revision {
    /// Of a document, and of whatever else decides what it means: the digests of the certificates it refers to.
    ///
    /// Canonical bytes are the document's JSON: fields in the order of their types, maps sorted by key.
    pub(crate) fn of(document: &impl Serialize) -> Self {
        // Contract types hold strings, numbers, lists and maps with string keys; serialising those cannot fail.
        let digest = Sha256::digest(serde_json::to_vec(document).unwrap_or_default());
        Self(hex(&digest[..6], ""))
    }

    /// The 12 digits.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Revision {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Lower-case hex digits, with `separator` between bytes.
pub(crate) fn hex(bytes: &[u8], separator: &str) -> String {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    let mut text = String::with_capacity(bytes.len() * (2 + separator.len()));
    for (index, byte) in bytes.iter().enumerate() {
        if index > 0 {
            text.push_str(separator);
        }
        text.push(char::from(DIGITS[usize::from(byte >> 4)]));
        text.push(char::from(DIGITS[usize::from(byte & 15)]));
    }
    text
}

/// The bytes that exactly `N` pairs of hex digits stand for, in either case.
pub(crate) fn unhex<const N: usize>(text: &str) -> Option<[u8; N]> {
    let digits = text.as_bytes();
    if digits.len() != 2 * N {
        return None;
    }
    let mut bytes = [0; N];
    for (byte, pair) in bytes.iter_mut().zip(digits.chunks_exact(2)) {
        let high = char::from(pair[0]).to_digit(16)?;
        let low = char::from(pair[1]).to_digit(16)?;
        *byte = u8::try_from(high * 16 + low).ok()?;
    }
    Some(bytes)
}
