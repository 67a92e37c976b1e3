//! Reads revocation lists, and finds out who has signed them: once when they are loaded, not in each handshake.

use rustls::crypto::aws_lc_rs;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, CertificateRevocationListDer};
use sha2::{Digest, Sha256};
use sidecar_decide::{Certificate, RevocationList};
use webpki::{EndEntityCert, OwnedCertRevocationList};

/// A list whose signers are still to be found.
pub struct UnverifiedList {
    der: Vec<u8>,
    list: RevocationList,
}

impl UnverifiedList {
    /// Reads all lists of a PEM file's bytes, or the one of a DER file's.
    ///
    /// # Errors
    /// When one cannot be read, or is of a kind that is not understood: a delta, or about other authorities'
    /// certificates.
    pub fn read_all(bytes: &[u8]) -> Result<Vec<Self>, String> {
        // DER begins with the tag of a sequence, which is a `0`; PEM may begin with any text.
        if bytes.first() == Some(&0x30) {
            return Ok(vec![Self::read(bytes)?]);
        }
        let mut lists = Vec::new();
        for der in CertificateRevocationListDer::pem_slice_iter(bytes) {
            let der = der.map_err(|error| format!("not valid PEM: {error}"))?;
            lists.push(Self::read(&der)?);
        }
        Ok(lists)
    }

    fn read(der: &[u8]) -> Result<Self, String> {
        let list = RevocationList::from_der(der).map_err(|error| error.to_string())?;
        // Stricter: critical extensions that nobody understands, and lists that say less than they seem to.
        OwnedCertRevocationList::from_der(der).map_err(|error| {
            format!("a revocation list of a kind that is not supported ({error}); use full lists of version 2")
        })?;
        Ok(Self { der: der.to_vec(), list })
    }

    /// The list with those of the certificates that have signed it.
    pub fn signed_by<'a>(self, certificates: impl Iterator<Item = &'a Certificate>) -> RevocationList {
        let mut list = self.list;
        let signers = certificates.filter(|certificate| has_signed(certificate, &list, &self.der).is_some());
        list.signers = signers.map(|certificate| certificate.facts.sha256).collect();
        list
    }
}

/// Whether a certificate's name is the list's issuer and its key has made the list's signature.
fn has_signed(certificate: &Certificate, list: &RevocationList, der: &[u8]) -> Option<()> {
    let certificate = CertificateDer::from(certificate.der.as_slice());
    let anchor = webpki::anchor_from_trusted_cert(&certificate).ok()?;
    if Sha256::digest(&anchor.subject)[..] != list.issuer_sum {
        return None;
    }
    let signer = EndEntityCert::try_from(&certificate).ok()?;
    let (signed, algorithm, signature) = take_apart(der)?;
    let algorithms = aws_lc_rs::default_provider().signature_verification_algorithms.all;
    let mut fitting = algorithms.iter().filter(|known| known.signature_alg_id().as_ref() == algorithm);
    fitting.find_map(|known| signer.verify_signature(*known, signed, signature).ok())
}

/// What is signed, the algorithm without its sequence, and the signature (RFC 5280 §5.1.1).
fn take_apart(der: &[u8]) -> Option<(&[u8], &[u8], &[u8])> {
    let (_, list, _) = element(der)?;
    let (_, _, signed_length) = element(list)?;
    let (signed, rest) = list.split_at_checked(signed_length)?;
    let (_, algorithm, algorithm_length) = element(rest)?;
    let (_, signature, _) = element(rest.get(algorithm_length..)?)?;
    // The first byte of a bit string counts the bits that its last byte has too many; a signature has none.
    Some((signed, algorithm, signature.strip_prefix(&[0])?))
}

/// The first element of some DER: its tag, its content and how many bytes it takes.
fn element(der: &[u8]) -> Option<(u8, &[u8], usize)> {
    let (tag, first) = (*der.first()?, *der.get(1)?);
    let count = if first < 0x80 { 0 } else { usize::from(first & 0x7f) };
    // Four bytes of length are more than any file has.
    if count > 4 {
        return None;
    }
    let bytes = der.get(2..2 + count)?;
    let length =
        if count == 0 { usize::from(first) } else { bytes.iter().fold(0, |sum, byte| sum << 8 | usize::from(*byte)) };
    let end = (2 + count).checked_add(length)?;
    Some((tag, der.get(2 + count..end)?, end))
}
