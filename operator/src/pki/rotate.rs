//! Whether a certificate is kept or made anew, and when to look again. A decision over values: no clock, no randomness.

use sha2::{Digest, Sha256};
use sidecar_decide::Certificate;

use super::authority::Issuer;
use super::blocks;
use super::issue::Request;
use super::key::{Algorithm, PrivateKey, PublicKey};

/// Least part of its life that a certificate is used for, whatever `renewBefore` says: a third. Else one that ends early
/// with its issuer would be renewed without end.
const USED_AT_LEAST: i64 = 3;
/// Largest part of its life by which a renewal comes early, so that what was issued together is not renewed together.
const JITTER: i64 = 20;

/// What a Secret holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Held {
    /// No Secret, or an empty one.
    Nothing,
    /// Something that is not a chain and, where one belongs there, its key.
    Damaged(&'static str),
    /// A chain, and its key where it has one.
    Pair(Box<Pair>),
}

/// A chain and what is known of the key beside it. Never the key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pair {
    /// The chain, the leaf first.
    pub chain: Vec<Certificate>,
    /// The public half of the private key beside it.
    pub key: Option<PublicKey>,
}

impl Held {
    /// Reads what a Secret holds.
    #[must_use]
    pub fn read(chain: Option<&[u8]>, key: Option<&[u8]>) -> Self {
        let filled = |text: Option<&[u8]>| text.is_some_and(|text| !text.trim_ascii().is_empty());
        if !filled(chain) && !filled(key) {
            return Self::Nothing;
        }
        let Ok(chain) = blocks::certificates(chain.unwrap_or_default()) else {
            return Self::Damaged("the chain cannot be read");
        };
        let key = match key.filter(|_| filled(key)).map(PrivateKey::from_pem) {
            None => None,
            Some(Ok(key)) => Some(key.public()),
            Some(Err(_)) => return Self::Damaged("the key cannot be read"),
        };
        Self::Pair(Box::new(Pair { chain, key }))
    }

    /// The certificate that is held, whatever is wrong with it.
    #[must_use]
    pub fn leaf(&self) -> Option<&Certificate> {
        match self {
            Self::Pair(pair) => pair.chain.first(),
            Self::Nothing | Self::Damaged(_) => None,
        }
    }
}

/// Whose key a certificate is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum KeyOf<'a> {
    /// Ours to make: the Secret holds it.
    Ours(Algorithm),
    /// The client's: a request has brought its public half.
    Theirs(&'a PublicKey),
}

/// What there should be.
#[derive(Debug)]
pub struct Wanted<'a> {
    /// Whose it is, `namespace/name`: spreads renewals.
    pub name: &'a str,
    /// What the certificate says.
    pub request: &'a Request,
    /// Who signs.
    pub issuer: &'a Issuer,
    /// Whose key it is for.
    pub key: KeyOf<'a>,
    /// How long before its end it is renewed, where that was said.
    pub renew_before_seconds: Option<i64>,
    /// Serial numbers that were issued for it, where that is remembered: any other is somebody else's certificate.
    pub issued: Option<&'a [String]>,
}

/// What to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Decision {
    /// Nothing, and look again then.
    Keep {
        /// In seconds since the epoch.
        next_look: i64,
    },
    /// Make a new certificate, and a new key where the key is ours.
    Renew(Reason),
}

/// Why a certificate is made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reason {
    /// There is none: the first one, or the Secret was deleted.
    Missing,
    /// The Secret cannot be read.
    Damaged,
    /// Chain and key do not belong together, or the key is another than the request's.
    OtherKey,
    /// Somebody has put another certificate there.
    Edited,
    /// It says other names than it should.
    Names,
    /// It is for another use than it should be.
    Usage,
    /// Another authority signs now.
    Issuer,
    /// Another kind of key is wanted.
    Algorithm,
    /// It is too old for `acceptIssuedAfter`.
    IssuedTooEarly,
    /// It is valid for longer than it should be.
    TooLong,
    /// It is due.
    Due,
}

impl Reason {
    /// For logs and events.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Missing => "there was none",
            Self::Damaged => "the Secret could not be read",
            Self::OtherKey => "chain and key did not belong together",
            Self::Edited => "another certificate was in the Secret",
            Self::Names => "its names have changed",
            Self::Usage => "its profile has changed",
            Self::Issuer => "its issuer has changed",
            Self::Algorithm => "another kind of key is wanted",
            Self::IssuedTooEarly => "it was issued before acceptIssuedAfter",
            Self::TooLong => "its duration was shortened",
            Self::Due => "it was due",
        }
    }
}

/// Decides.
#[must_use]
pub fn decide(held: &Held, wanted: &Wanted<'_>, now: i64) -> Decision {
    let pair = match held {
        Held::Nothing => return renew(Reason::Missing, wanted, now),
        Held::Damaged(_) => return renew(Reason::Damaged, wanted, now),
        Held::Pair(pair) => pair,
    };
    if let Some(reason) = wrong(pair, wanted) {
        return renew(reason, wanted, now);
    }
    let Some(leaf) = pair.chain.first() else { return renew(Reason::Damaged, wanted, now) };
    let at = renewal_time(leaf, wanted.name, wanted.renew_before_seconds);
    if now >= at { renew(Reason::Due, wanted, now) } else { Decision::Keep { next_look: at } }
}

/// While nothing that is issued now would be accepted, there is nothing to do but wait.
fn renew(reason: Reason, wanted: &Wanted<'_>, now: i64) -> Decision {
    match wanted.request.accept_issued_after {
        Some(from) if from > now => Decision::Keep { next_look: from },
        _ => Decision::Renew(reason),
    }
}

/// What about a certificate is not as it should be, but for its age.
fn wrong(pair: &Pair, wanted: &Wanted<'_>) -> Option<Reason> {
    let Some(leaf) = pair.chain.first() else { return Some(Reason::Damaged) };
    let facts = &leaf.facts;
    match (wanted.key, &pair.key) {
        (KeyOf::Ours(_), Some(key)) if key.spki() != facts.spki => return Some(Reason::OtherKey),
        (KeyOf::Ours(_), None) => return Some(Reason::Damaged),
        (KeyOf::Ours(algorithm), Some(key)) if key.algorithm() != Some(algorithm) => return Some(Reason::Algorithm),
        (KeyOf::Theirs(key), _) if key.spki() != facts.spki => return Some(Reason::OtherKey),
        _ => {}
    }
    if !wanted.issuer.chain().eq(pair.chain.iter().skip(1)) {
        return Some(Reason::Issuer);
    }
    if !wanted.issuer.has_signed(leaf) || wanted.issued.is_some_and(|issued| !issued.contains(&facts.serial)) {
        return Some(Reason::Edited);
    }
    let names = &wanted.request.names;
    if facts.uris != wanted.request.uris()
        || facts.dns_names != names.dns_names
        || facts.common_name != names.common_name
    {
        return Some(Reason::Names);
    }
    if super::issue::usage_of(leaf) != Some(wanted.request.usage) {
        return Some(Reason::Usage);
    }
    if wanted.request.accept_issued_after.is_some_and(|from| facts.not_before < from) {
        return Some(Reason::IssuedTooEarly);
    }
    let life = facts.not_after - facts.not_before;
    (life > wanted.request.duration_seconds + super::issue::BACKDATED_SECONDS).then_some(Reason::TooLong)
}

/// When a certificate is renewed: at two thirds of its life or `renewBefore` its end, and a little earlier, by as much as
/// its name and serial number say.
#[must_use]
pub fn renewal_time(leaf: &Certificate, name: &str, renew_before_seconds: Option<i64>) -> i64 {
    let (from, until) = (leaf.facts.not_before, leaf.facts.not_after);
    let life = (until - from).max(0);
    let at = renew_before_seconds.map_or(from + life / 3 * 2, |before| until - before);
    let early = i64::from(chance(name, &leaf.facts.serial)) * (life / JITTER) / i64::from(u32::MAX);
    (at - early).clamp(from + life / USED_AT_LEAST, until)
}

/// A number that looks like chance and is always the same.
fn chance(name: &str, serial: &str) -> u32 {
    let digest = Sha256::digest(format!("{name}/{serial}"));
    u32::from_be_bytes([digest[0], digest[1], digest[2], digest[3]])
}
