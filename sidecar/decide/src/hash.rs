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
    if text.len() == 2 * N { unhex_all(text)?.try_into().ok() } else { None }
}

/// The bytes that pairs of hex digits stand for, in either case.
pub(crate) fn unhex_all(text: &str) -> Option<Vec<u8>> {
    let pairs = text.as_bytes().chunks(2).map(|pair| {
        let [high, low] = pair else { return None };
        let high = char::from(*high).to_digit(16)?;
        let low = char::from(*low).to_digit(16)?;
        u8::try_from(high * 16 + low).ok()
    });
    pairs.collect()
}
