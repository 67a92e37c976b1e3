//! Certificate revocation lists (RFC 5280 §5): what one says, and what all of a bundle say about a certificate.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use sha2::{Digest, Sha256};
use thiserror::Error;
use x509_parser::prelude::{FromDer, X509Name};
use x509_parser::revocation_list::CertificateRevocationList;

/// A revocation list.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RevocationList {
    /// Distinguished name of the authority that issued it.
    pub issuer: String,
    /// SHA-256 of that name, as certificates name their issuer: the content of the DER sequence.
    pub issuer_sum: [u8; 32],
    /// Seconds since the epoch when it was issued.
    pub this_update: i64,
    /// Seconds since the epoch when the next one is due at the latest.
    pub next_update: i64,
    /// Which of the authority's certificates it is about, if not all: its issuingDistributionPoint (RFC 5280 §5.2.5).
    pub scope: Option<Vec<u8>>,
    /// Serial numbers of what is revoked: big endian, without zeros in front.
    pub serials: Arc<HashSet<Box<[u8]>>>,
    /// SHA-256 over the DER encoding.
    pub sha256: [u8; 32],
    /// SHA-256 over each certificate whose name is the issuer's and whose key has signed it. Whoever has the
    /// certificates finds them; a list that nobody has signed is refused.
    pub signers: Vec<[u8; 32]>,
}

/// The bytes are not a revocation list.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
#[error("not a certificate revocation list: {0}")]
pub struct RevocationListError(String);

impl RevocationList {
    /// Reads a DER revocation list, whose signers are not known yet.
    ///
    /// # Errors
    /// When the bytes are not one list, or the list does not say when the next one is due.
    pub fn from_der(der: &[u8]) -> Result<Self, RevocationListError> {
        let error = |why: &str| RevocationListError(why.to_owned());
        let (rest, parsed) =
            CertificateRevocationList::from_der(der).map_err(|error| RevocationListError(error.to_string()))?;
        if !rest.is_empty() {
            return Err(RevocationListError(format!("{} bytes after its end", rest.len())));
        }
        let next_update = parsed.next_update().ok_or_else(|| error("it has no nextUpdate"))?;
        let scope = parsed.extensions().iter().find(|extension| extension.oid.to_id_string() == "2.5.29.28");
        let revoked = parsed.iter_revoked_certificates().map(|entry| significant(entry.raw_serial()).into());
        Ok(Self {
            issuer: parsed.issuer().to_string(),
            issuer_sum: name_sum(parsed.issuer()).ok_or_else(|| error("its issuer has no name"))?,
            this_update: parsed.last_update().timestamp(),
            next_update: next_update.timestamp(),
            scope: scope.map(|extension| extension.value.to_vec()),
            serials: Arc::new(revoked.collect()),
            sha256: Sha256::digest(der).into(),
            signers: Vec::new(),
        })
    }
}

/// SHA-256 of a name's content, behind the tag and the length of its sequence.
fn name_sum(name: &X509Name<'_>) -> Option<[u8; 32]> {
    let raw = name.as_raw();
    let length_bytes = match raw.get(1)? {
        short @ 0..0x80 => return Some(Sha256::digest(raw.get(2..2 + usize::from(*short))?).into()),
        long => usize::from(long & 0x7f),
    };
    Some(Sha256::digest(raw.get(2 + length_bytes..)?).into())
}

/// A number without zero bytes in front: DER puts one before a positive number whose first bit is set.
fn significant(serial: &[u8]) -> &[u8] {
    let zeros = serial.iter().take_while(|byte| **byte == 0).count();
    &serial[zeros..]
}

/// What the lists of a bundle say, by the authority that issued them. An authority without a list says nothing.
#[derive(Debug, Default)]
pub struct Revoked {
    authorities: HashMap<[u8; 32], Authority>,
}

#[derive(Debug)]
struct Authority {
    /// One list for each scope.
    serials: Vec<Arc<HashSet<Box<[u8]>>>>,
    /// When the first of them must be replaced.
    next_update: i64,
}

impl Revoked {
    /// Of all lists of a bundle. Of two about the same the younger counts, so that the next one can be put beside the
    /// one that it replaces.
    pub(crate) fn of(lists: &[RevocationList]) -> Self {
        let mut newest: HashMap<_, &RevocationList> = HashMap::new();
        for list in lists {
            let known = newest.entry((list.issuer_sum, &list.scope)).or_insert(list);
            if known.this_update < list.this_update {
                *known = list;
            }
        }
        let mut authorities: HashMap<_, Authority> = HashMap::new();
        for list in newest.into_values() {
            let nothing = Authority { serials: Vec::new(), next_update: i64::MAX };
            let authority = authorities.entry(list.issuer_sum).or_insert(nothing);
            authority.serials.push(Arc::clone(&list.serials));
            authority.next_update = authority.next_update.min(list.next_update);
        }
        Self { authorities }
    }

    /// Whether a certificate is revoked, by SHA-256 of its issuer's name and its serial number, both as in DER.
    #[must_use]
    pub fn contains(&self, issuer_sum: &[u8; 32], serial: &[u8]) -> bool {
        let serial = significant(serial);
        let authority = self.authorities.get(issuer_sum);
        authority.is_some_and(|authority| authority.serials.iter().any(|serials| serials.contains(serial)))
    }

    /// Seconds since the epoch until which the lists of an authority can be believed; `None` if it has none.
    #[must_use]
    pub fn believed_until(&self, issuer_sum: &[u8; 32]) -> Option<i64> {
        self.authorities.get(issuer_sum).map(|authority| authority.next_update)
    }

    /// When the first list of all must be replaced, seconds since the epoch.
    #[must_use]
    pub fn next_update(&self) -> Option<i64> {
        self.authorities.values().map(|authority| authority.next_update).min()
    }
}
