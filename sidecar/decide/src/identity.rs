//! Who a verified certificate belongs to. A claim counts only under the bundle that an identity names for it.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use sidecar_config::trust::RevocationState;

use crate::certificate::CertificateFacts;
use crate::hash::unhex;
use crate::reason::Reason;
use crate::spiffe::{Pattern, PatternIndex, Patterns};

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
    /// The first 36 bits of it with a check digit (IEEE 2030.5).
    Sfdi(u64),
    /// The serial number, as [`CertificateFacts`] writes it.
    Serial(Box<str>),
    /// SHA-256 over the subjectPublicKeyInfo.
    Spki([u8; 32]),
}

impl Claim {
    /// Reads `sha256:` and 64 hex digits.
    pub(crate) fn fingerprint(text: &str) -> Option<Self> {
        sha256(text).map(Self::Fingerprint)
    }

    /// Reads the same.
    pub(crate) fn spki(text: &str) -> Option<Self> {
        sha256(text).map(Self::Spki)
    }

    /// Reads 40 hex digits.
    pub(crate) fn lfdi(text: &str) -> Option<Self> {
        unhex(text).map(Self::Lfdi)
    }
}

fn sha256(text: &str) -> Option<[u8; 32]> {
    text.strip_prefix("sha256:").and_then(unhex)
}

/// All known identities, by what they are recognised by.
#[derive(Clone, Debug, Default)]
pub struct Directory {
    names: Vec<Arc<str>>,
    /// By whom each is claimed; by more than one, neither is recognised by it.
    claims: HashMap<BundleIndex, HashMap<Claim, Vec<IdentityIndex>>>,
    /// Identities of which something is revoked.
    revocations: HashMap<IdentityIndex, Revocation>,
    /// Serial numbers that are revoked, by bundle.
    revoked_serials: Vec<Arc<HashSet<Box<str>>>>,
    /// What rules allow by SPIFFE ID.
    patterns: Patterns,
}

/// What is revoked of an identity.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Revocation {
    /// Its state, where it is not active.
    pub state: Option<RevocationState>,
    /// Certificates that are valid from before this second since the epoch.
    pub accept_issued_after: Option<i64>,
}

impl Revocation {
    /// Why a certificate of the identity is refused, if it is.
    fn refuses(&self, facts: &CertificateFacts) -> Option<Reason> {
        match self.state {
            Some(RevocationState::Suspended) => Some(Reason::PolicyIdentitySuspended),
            Some(RevocationState::Revoked) => Some(Reason::PolicyIdentityRevoked),
            None => {
                let is_early = self.accept_issued_after.is_some_and(|time| facts.not_before < time);
                is_early.then_some(Reason::PolicyIssuedTooEarly)
            }
        }
    }
}

/// Whose a certificate is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Who {
    /// This identity's.
    Known(IdentityIndex),
    /// Nobody's that is known.
    Unknown,
    /// It matches two active identities and so has none.
    Ambiguous,
}

/// The caller of a request as the policy sees it, for one snapshot.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Caller {
    /// Bundles its certificate's chain ends in; empty without a certificate.
    pub bundles: Vec<BundleIndex>,
    /// Whose its certificate is.
    pub who: Who,
    /// Why it is refused by every rule, if it is.
    pub revoked: Option<Reason>,
    /// Patterns that its SPIFFE ID matches, sorted.
    pub patterns: Vec<PatternIndex>,
}

impl Caller {
    /// A caller without a certificate.
    pub const ANONYMOUS: Self = Self { bundles: Vec::new(), who: Who::Unknown, revoked: None, patterns: Vec::new() };
}

impl Directory {
    /// Adds an identity and says where it stands.
    pub(crate) fn add(&mut self, name: &str) -> IdentityIndex {
        self.names.push(name.into());
        self.names.len() - 1
    }

    /// Lets an identity be recognised by a claim under a bundle. `false` where another identity claims the same.
    pub(crate) fn recognise(&mut self, identity: IdentityIndex, bundle: BundleIndex, claim: Claim) -> bool {
        let owners = self.claims.entry(bundle).or_default().entry(claim).or_default();
        if !owners.contains(&identity) {
            owners.push(identity);
        }
        owners.len() == 1
    }

    /// Says what is revoked of an identity.
    pub(crate) fn revoke(&mut self, identity: IdentityIndex, revocation: Revocation) {
        self.revocations.insert(identity, revocation);
    }

    /// Says which serial numbers are revoked, for all bundles in their order.
    pub(crate) fn revoke_serials(&mut self, by_bundle: Vec<Arc<HashSet<Box<str>>>>) {
        self.revoked_serials = by_bundle;
    }

    /// Adds what a rule allows by SPIFFE ID, for the bundles that vouch for it.
    pub(crate) fn add_pattern(&mut self, pattern: &Pattern, vouching: &[BundleIndex]) -> PatternIndex {
        self.patterns.add(pattern, vouching)
    }

    /// The state of an identity that is not active.
    #[must_use]
    pub fn state(&self, identity: IdentityIndex) -> Option<RevocationState> {
        self.revocations.get(&identity)?.state
    }

    /// All that is revoked of an identity.
    #[must_use]
    pub fn revocation(&self, identity: IdentityIndex) -> Revocation {
        self.revocations.get(&identity).copied().unwrap_or_default()
    }

    /// The name of an identity.
    #[must_use]
    pub fn name(&self, identity: IdentityIndex) -> Option<&Arc<str>> {
        self.names.get(identity)
    }

    /// Who a verified certificate belongs to, given the bundles its chain ends in.
    ///
    /// One that matches two identities has none, except where it is revoked as one of theirs: else whoever may add an
    /// identity could undo a revocation by claiming the revoked certificate once more.
    #[must_use]
    pub fn resolve(&self, facts: &CertificateFacts, bundles: Vec<BundleIndex>) -> Caller {
        let matches = self.matches(facts, &bundles);
        let refusal = |identity: &IdentityIndex| Some((*identity, self.revocations.get(identity)?.refuses(facts)?));
        let refused = matches.iter().find_map(refusal);
        let who = match (matches.as_slice(), refused) {
            ([], _) => Who::Unknown,
            (_, Some((one, _))) => Who::Known(one),
            ([one], None) => Who::Known(*one),
            _ => Who::Ambiguous,
        };
        let is_revoked = bundles.iter().any(|bundle| self.is_revoked(*bundle, &facts.serial));
        let revoked = if is_revoked { Some(Reason::PolicyCertificateRevoked) } else { refused.map(|(_, why)| why) };
        let patterns = self.patterns.matching(&facts.uris, &bundles);
        Caller { bundles, who, revoked, patterns }
    }

    fn is_revoked(&self, bundle: BundleIndex, serial: &str) -> bool {
        self.revoked_serials.get(bundle).is_some_and(|serials| serials.contains(serial))
    }

    /// Every identity that a certificate matches, once.
    fn matches(&self, facts: &CertificateFacts, bundles: &[BundleIndex]) -> Vec<IdentityIndex> {
        let claims = claims_of(facts);
        let mut found = Vec::new();
        for owners in bundles.iter().filter_map(|bundle| self.claims.get(bundle)) {
            found.extend(claims.iter().filter_map(|claim| owners.get(claim)).flatten());
        }
        found.sort_unstable();
        found.dedup();
        found
    }
}

fn claims_of(facts: &CertificateFacts) -> Vec<Claim> {
    let uris = facts.uris.iter().map(|uri| Claim::Uri(uri.as_str().into()));
    let dns_names = facts.dns_names.iter().map(|name| Claim::DnsName(name.as_str().into()));
    let common_name = facts.common_name.iter().map(|name| Claim::CommonName(name.as_str().into()));
    let digests = [
        Claim::Fingerprint(facts.sha256),
        Claim::Lfdi(facts.lfdi()),
        Claim::Sfdi(facts.sfdi()),
        Claim::Spki(facts.spki_sha256()),
        Claim::Serial(facts.serial.as_str().into()),
    ];
    uris.chain(dns_names).chain(common_name).chain(digests).collect()
}
