//! What a verified chain rests on, so that it can be judged again when trust changes, without verifying it anew.

use std::sync::Arc;

use rustls::pki_types::TrustAnchor;
use sha2::{Digest, Sha256};
use sidecar_decide::CertificateFacts;
use sidecar_decide::crl::Revoked;

/// A SHA-256.
pub(super) type Sum = [u8; 32];

/// The paths from a client's certificate to the roots that vouch for it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct VerifiedPath {
    /// SHA-256 of the client's certificate.
    pub(super) leaf: Sum,
    /// One for each bundle its chain ends in, in the order of the listener's document; never empty.
    pub(super) ends: Vec<End>,
    /// Seconds since the epoch after which some certificate on a path has expired.
    pub(super) valid_until: u64,
    /// Seconds since the epoch after which a revocation list about some certificate on a path is too old. For the
    /// handshake: what is open goes on.
    pub(super) believed_until: u64,
}

/// The path to one bundle.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct End {
    /// The bundle's name.
    pub(super) bundle: Arc<str>,
    /// Which of its roots; see [`anchor_sum`].
    pub(super) anchor: Sum,
    /// The certificates below the root, the client's first.
    pub(super) links: Vec<Link>,
}

/// A certificate as revocation lists name it (RFC 5280 §5.1).
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Link {
    /// SHA-256 of its issuer's name, as webpki reads it: the content of the DER sequence.
    pub(super) issuer: Sum,
    /// Its serial number: the content of the DER integer.
    pub(super) serial: Box<[u8]>,
}

impl VerifiedPath {
    /// Names of the bundles it ends in.
    pub fn bundles(&self) -> impl Iterator<Item = &Arc<str>> {
        self.ends.iter().map(|end| &end.bundle)
    }

    /// The first second since the epoch in which it has expired.
    pub fn expires(&self) -> u64 {
        self.valid_until.saturating_add(1)
    }
}

impl End {
    /// The path that webpki found, to a root of a bundle.
    pub(super) fn of(bundle: &Arc<str>, anchor: Sum, path: &webpki::VerifiedPath<'_>) -> Self {
        let leaf: &webpki::Cert<'_> = path.end_entity();
        let certificates = std::iter::once(leaf).chain(path.intermediate_certificates());
        let links = certificates.map(|certificate| Link {
            issuer: Sha256::digest(certificate.issuer()).into(),
            serial: certificate.serial().into(),
        });
        Self { bundle: Arc::clone(bundle), anchor, links: links.collect() }
    }
}

impl End {
    /// Whether a revocation list of its bundle names a certificate on the path.
    pub(super) fn is_listed(&self, listed: &Revoked) -> bool {
        self.links.iter().any(|link| listed.contains(&link.issuer, &link.serial))
    }

    /// Seconds since the epoch until which the lists about it can be believed; `None` where there are none.
    pub(super) fn believed_until(&self, listed: &Revoked) -> Option<i64> {
        self.links.iter().filter_map(|link| listed.believed_until(&link.issuer)).min()
    }
}

/// Seconds since the epoch after which the first certificate of a path has expired.
pub(super) fn valid_until(leaf: &CertificateFacts, path: &webpki::VerifiedPath<'_>) -> u64 {
    let above = path.intermediate_certificates().map(|certificate| {
        // webpki has read it; what the other parser cannot read is trusted no longer than now.
        CertificateFacts::of(&certificate.der()).map_or(0, |facts| facts.not_after)
    });
    let earliest = above.fold(leaf.not_after, i64::min);
    u64::try_from(earliest).unwrap_or(0)
}

/// What a root is known by: its name and its key, which are all that webpki takes from it, with its constraints.
pub(super) fn anchor_sum(anchor: &TrustAnchor<'_>) -> Sum {
    let constraints = anchor.name_constraints.as_ref().map_or(&[][..], |der| der.as_ref());
    let mut sum = Sha256::new();
    for field in [anchor.subject.as_ref(), anchor.subject_public_key_info.as_ref(), constraints] {
        // With its length in front no two fields can be read as others.
        sum.update(u64::try_from(field.len()).unwrap_or(u64::MAX).to_be_bytes());
        sum.update(field);
    }
    sum.finalize().into()
}
