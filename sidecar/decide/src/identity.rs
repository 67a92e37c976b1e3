//! Who a verified certificate belongs to. A claim counts only under the bundle that an identity names for it.

use std::collections::HashMap;
use std::sync::Arc;

use crate::certificate::CertificateFacts;
use crate::hash::unhex;

/// Index of a bundle in its snapshot.
pub type BundleIndex = usize;
/// Index of a known identity in its snapshot.
pub type IdentityIndex = usize;

/// Something a certificate says by which it can be recognised.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Claim {
    /// A URI subject alternative name.
    Uri(Box<str>),
    /// A DNS subject alternative name, lower-case.
    DnsName(Box<str>),
    /// The subject's one common name.
    CommonName(Box<str>),
    /// SHA-256 over the certificate.
    Fingerprint([u8; 32]),
    /// The first 20 bytes of it (IEEE 2030.5).
    Lfdi([u8; 20]),
}

impl Claim {
    /// Reads `sha256:` and 64 hex digits.
    pub(crate) fn fingerprint(text: &str) -> Option<Self> {
        text.strip_prefix("sha256:").and_then(unhex).map(Self::Fingerprint)
    }

    /// Reads 40 hex digits.
    pub(crate) fn lfdi(text: &str) -> Option<Self> {
        unhex(text).map(Self::Lfdi)
    }
}

/// The trust domain of a SPIFFE ID (SPIFFE-ID §2), if the URI is one.
pub(crate) fn spiffe_domain(uri: &str) -> Option<&str> {
    let scheme = uri.get(..9).filter(|scheme| scheme.eq_ignore_ascii_case("spiffe://"))?;
    let rest = &uri[scheme.len()..];
    Some(rest.split_once('/').map_or(rest, |(domain, _)| domain))
}

/// All known identities, by what they are recognised by.
#[derive(Debug, Default)]
pub struct Directory {
    names: Vec<Arc<str>>,
    claims: HashMap<(BundleIndex, Claim), Owner>,
}

/// Whose a claim is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Owner {
    One(IdentityIndex),
    /// Two identities claim it, so neither has it.
    Several,
}

/// Whose a certificate is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Who {
    /// This identity's.
    Known(IdentityIndex),
    /// Nobody's that is known.
    Unknown,
    /// It matches two identities and so has none.
    Ambiguous,
}

/// The caller of a request as the policy sees it, for one snapshot.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Caller {
    /// Bundles its certificate's chain ends in; empty without a certificate.
    pub bundles: Vec<BundleIndex>,
    /// Whose its certificate is.
    pub who: Who,
}

impl Caller {
    /// A caller without a certificate.
    pub const ANONYMOUS: Self = Self { bundles: Vec::new(), who: Who::Unknown };
}

impl Directory {
    /// Adds an identity and says where it stands.
    pub(crate) fn add(&mut self, name: &str) -> IdentityIndex {
        self.names.push(name.into());
        self.names.len() - 1
    }

    /// Lets an identity be recognised by a claim under a bundle. `false` where another identity claims the same.
    pub(crate) fn recognise(&mut self, identity: IdentityIndex, bundle: BundleIndex, claim: Claim) -> bool {
        let owner = self.claims.entry((bundle, claim)).or_insert(Owner::One(identity));
        if *owner == Owner::One(identity) {
            return true;
        }
        *owner = Owner::Several;
        false
    }

    /// The name of an identity.
    #[must_use]
    pub fn name(&self, identity: IdentityIndex) -> Option<&Arc<str>> {
        self.names.get(identity)
    }

    /// Who a verified certificate belongs to, given the bundles its chain ends in.
    #[must_use]
    pub fn resolve(&self, facts: &CertificateFacts, bundles: Vec<BundleIndex>) -> Caller {
        let claims = claims_of(facts);
        let mut who = Who::Unknown;
        for bundle in &bundles {
            for claim in &claims {
                who = match (self.claims.get(&(*bundle, claim.clone())), who) {
                    (None, _) => who,
                    (Some(Owner::One(found)), Who::Unknown) => Who::Known(*found),
                    (Some(Owner::One(found)), Who::Known(known)) if *found == known => who,
                    (Some(_), _) => Who::Ambiguous,
                };
            }
        }
        Caller { bundles, who }
    }
}

fn claims_of(facts: &CertificateFacts) -> Vec<Claim> {
    let uris = facts.uris.iter().map(|uri| Claim::Uri(uri.as_str().into()));
    let dns_names = facts.dns_names.iter().map(|name| Claim::DnsName(name.as_str().into()));
    let common_name = facts.common_name.iter().map(|name| Claim::CommonName(name.as_str().into()));
    let digests = [Claim::Fingerprint(facts.sha256), Claim::Lfdi(facts.lfdi())];
    uris.chain(dns_names).chain(common_name).chain(digests).collect()
}
