//! What is known of a name's addresses, and when to ask again: a pure state machine, for each family by itself, so that a
//! server that answers for one only takes nothing from the other.

#[cfg(test)]
mod tests;

use std::net::IpAddr;
use std::time::{Duration, Instant};

use crate::limits::{DNS_ADDRESSES, DNS_NEGATIVE_TTL_MAX, DNS_RETRY, DNS_STALE_MAX, DNS_TTL_MAX, DNS_TTL_MIN};

/// What a lookup of one family brought.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Answer {
    /// Addresses, for so long.
    Found(Vec<IpAddr>, Duration),
    /// That there are none, for so long.
    Nothing(Duration),
    /// Nothing that can be believed, and why.
    Failed(String),
}

/// The addresses of one family.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Family {
    /// In order, each once.
    addresses: Vec<IpAddr>,
    /// Until when they are used although nobody confirms them.
    kept_until: Option<Instant>,
    has_failed: bool,
}

impl Family {
    /// After one more lookup, and how long to wait for the next.
    pub fn after(self, answer: Answer, now: Instant) -> (Self, Duration) {
        match answer {
            Answer::Found(mut addresses, ttl) => {
                addresses.sort_unstable();
                addresses.dedup();
                addresses.truncate(DNS_ADDRESSES);
                let ttl = ttl.clamp(DNS_TTL_MIN, DNS_TTL_MAX);
                (Self { addresses, kept_until: Some(now + ttl + DNS_STALE_MAX), has_failed: false }, ttl)
            }
            Answer::Nothing(ttl) => (Self::default(), ttl.clamp(DNS_TTL_MIN, DNS_NEGATIVE_TTL_MAX)),
            Answer::Failed(_) => {
                let is_kept = self.kept_until.is_some_and(|until| now < until);
                let kept = if is_kept { self } else { Self::default() };
                (Self { has_failed: true, ..kept }, DNS_RETRY)
            }
        }
    }
}

/// The addresses of a name.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Known {
    families: [Family; 2],
}

/// How well a name is known.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Standing {
    /// By an answer that counts.
    Resolved,
    /// By one that should have been confirmed, and nobody does.
    Stale,
    /// Not at all.
    Unresolved,
}

impl Standing {
    /// All, in their order.
    pub const ALL: [Self; 3] = [Self::Resolved, Self::Stale, Self::Unresolved];

    /// What metrics call it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Resolved => "resolved",
            Self::Stale => "stale",
            Self::Unresolved => "unresolved",
        }
    }
}

impl Known {
    /// After one more lookup of both families, and how long to wait for the next.
    pub fn after(self, answers: [Answer; 2], now: Instant) -> (Self, Duration) {
        let ([four, six], [answer_four, answer_six]) = (self.families, answers);
        let ((four, wait_four), (six, wait_six)) = (four.after(answer_four, now), six.after(answer_six, now));
        (Self { families: [four, six] }, wait_four.min(wait_six))
    }

    /// Its addresses, those of IPv4 first.
    pub fn addresses(&self) -> Vec<IpAddr> {
        self.families.iter().flat_map(|family| family.addresses.iter().copied()).collect()
    }

    /// How well it is known.
    pub fn standing(&self) -> Standing {
        let has = |failed: bool| {
            self.families.iter().any(|family| family.has_failed == failed && !family.addresses.is_empty())
        };
        match (has(true), has(false)) {
            (true, _) => Standing::Stale,
            (false, true) => Standing::Resolved,
            (false, false) => Standing::Unresolved,
        }
    }
}
