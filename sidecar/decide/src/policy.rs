//! May this caller use this rule?

use std::sync::Arc;

use sidecar_config::policy::Mode;

use crate::identity::{BundleIndex, Caller, IdentityIndex, Who};
use crate::reason::Reason;
use crate::spiffe::PatternIndex;

/// Who may use a rule, compiled. An entry that names something missing is not in here: it allows nobody.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Allowed {
    pub(crate) anyone: bool,
    /// Sorted.
    pub(crate) identities: Vec<IdentityIndex>,
    /// Those that selectors choose; rules with the same selector share one set.
    pub(crate) selected: Vec<Arc<IdentitySet>>,
    /// Sorted.
    pub(crate) patterns: Vec<PatternIndex>,
    pub(crate) bundles: Vec<BundleIndex>,
}

/// A set of identities: one bit each, so that asking costs the same however many there are.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct IdentitySet {
    words: Vec<u64>,
}

impl IdentitySet {
    fn contains(&self, identity: IdentityIndex) -> bool {
        self.words.get(identity / 64).is_some_and(|word| word >> (identity % 64) & 1 == 1)
    }
}

impl FromIterator<IdentityIndex> for IdentitySet {
    fn from_iter<I: IntoIterator<Item = IdentityIndex>>(identities: I) -> Self {
        let mut words = Vec::new();
        for identity in identities {
            if words.len() <= identity / 64 {
                words.resize(identity / 64 + 1, 0);
            }
            words[identity / 64] |= 1 << (identity % 64);
        }
        Self { words }
    }
}

/// What was decided, and why where it was not simply allowed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Decision {
    /// The decision.
    pub verdict: Verdict,
    /// Why not, or why it would not have been.
    pub reason: Option<Reason>,
}

/// A decision.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Verdict {
    /// It may pass.
    Allowed,
    /// It may not.
    Refused,
    /// It passes because the rule only watches; it would have been refused.
    WouldRefuse,
}

impl Verdict {
    /// Every decision.
    pub const ALL: [Self; 3] = [Self::Allowed, Self::Refused, Self::WouldRefuse];

    /// The word in rows, metric labels and filters.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Allowed => "allowed",
            Self::Refused => "refused",
            Self::WouldRefuse => "would_refuse",
        }
    }
}

impl Decision {
    /// Allowed, nothing to say.
    pub const ALLOWED: Self = Self { verdict: Verdict::Allowed, reason: None };

    /// Refused for a reason.
    #[must_use]
    pub const fn refused(reason: Reason) -> Self {
        Self { verdict: Verdict::Refused, reason: Some(reason) }
    }
}

/// Decides for one request.
///
/// What is revoked is refused by every rule, those that allow anyone and those that only watch included: a revocation
/// is an order, not a rule under trial.
#[must_use]
pub fn decide(allowed: &Allowed, mode: Mode, caller: &Caller) -> Decision {
    if let Some(reason) = caller.revoked {
        return Decision::refused(reason);
    }
    if allowed.admits(caller) {
        return Decision::ALLOWED;
    }
    let reason = match caller.who {
        _ if caller.bundles.is_empty() => Reason::PolicyNoCertificate,
        Who::Known(_) => Reason::PolicyNotAllowed,
        Who::Unknown => Reason::PolicyNoIdentity,
        Who::Ambiguous => Reason::PolicyAmbiguous,
    };
    match mode {
        Mode::Enforce => Decision::refused(reason),
        Mode::Audit => Decision { verdict: Verdict::WouldRefuse, reason: Some(reason) },
    }
}

impl Allowed {
    fn admits(&self, caller: &Caller) -> bool {
        let by_identity = match caller.who {
            Who::Known(identity) => {
                self.identities.binary_search(&identity).is_ok()
                    || self.selected.iter().any(|selected| selected.contains(identity))
            }
            Who::Unknown | Who::Ambiguous => false,
        };
        self.anyone
            || by_identity
            || caller.patterns.iter().any(|pattern| self.patterns.binary_search(pattern).is_ok())
            || caller.bundles.iter().any(|bundle| self.bundles.contains(bundle))
    }
}
