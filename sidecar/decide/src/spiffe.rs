//! SPIFFE IDs that rules allow, without a known identity: each only under the bundles that vouch for its trust domain.

use std::collections::HashMap;

use crate::identity::BundleIndex;

/// Longest SPIFFE ID (SPIFFE-ID §2.3), in bytes.
const ID_MAX_BYTES: usize = 2048;

/// Index of a pattern in its snapshot.
pub type PatternIndex = usize;

/// The trust domain of a URI that has the scheme of SPIFFE IDs, well-formed or not.
pub(crate) fn spiffe_domain(uri: &str) -> Option<&str> {
    let scheme = uri.get(..9).filter(|scheme| scheme.eq_ignore_ascii_case("spiffe://"))?;
    let rest = &uri[scheme.len()..];
    Some(rest.split_once('/').map_or(rest, |(domain, _)| domain))
}

/// The trust domain of a well-formed SPIFFE ID (SPIFFE-ID §2): no escapes, no empty and no dot segments, so that it can
/// be compared byte by byte and its path cannot climb.
pub(crate) fn well_formed(id: &str) -> Option<&str> {
    let rest = id.strip_prefix("spiffe://").filter(|_| id.len() <= ID_MAX_BYTES)?;
    let (domain, path) = rest.split_once('/').map_or((rest, None), |(domain, path)| (domain, Some(path)));
    let is_good = is_trust_domain(domain) && path.is_none_or(|path| path.split('/').all(is_segment));
    is_good.then_some(domain)
}

pub(crate) fn is_trust_domain(domain: &str) -> bool {
    let valid = |byte: u8| matches!(byte, b'a'..=b'z' | b'0'..=b'9' | b'.' | b'-' | b'_');
    !domain.is_empty() && domain.bytes().all(valid)
}

/// Whether it may stand between two slashes of a SPIFFE ID.
pub(crate) fn is_segment(segment: &str) -> bool {
    let valid = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'-' | b'_');
    !matches!(segment, "" | "." | "..") && segment.bytes().all(valid)
}

/// The one SPIFFE ID among a certificate's URIs, and its trust domain.
///
/// A certificate has one SPIFFE ID or none (X509-SVID §2): of two, nobody could say which one it is used for.
pub(crate) fn only_id(uris: &[String]) -> Option<(&str, &str)> {
    let mut ids = uris.iter().filter(|uri| spiffe_domain(uri).is_some());
    match (ids.next(), ids.next()) {
        (Some(id), None) => Some((id, well_formed(id)?)),
        _ => None,
    }
}

/// What a rule compares a SPIFFE ID with.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Pattern {
    /// This one.
    Exact(Box<str>),
    /// Those below this one: one or more segments follow.
    Below(Box<str>),
}

impl Pattern {
    /// Reads a SPIFFE ID, or one with `/*` behind it.
    pub(crate) fn parse(text: &str) -> Option<Self> {
        let (id, pattern): (_, fn(Box<str>) -> Self) = match text.strip_suffix("/*") {
            Some(above) => (above, Self::Below),
            None => (text, Self::Exact),
        };
        well_formed(id).map(|_| pattern(id.into()))
    }

    /// Whether it is about this well-formed SPIFFE ID.
    pub(crate) fn matches(&self, id: &str) -> bool {
        match self {
            Self::Exact(one) => **one == *id,
            Self::Below(above) => id.strip_prefix(&**above).is_some_and(|rest| rest.starts_with('/')),
        }
    }

    /// The trust domain it is in.
    pub(crate) fn trust_domain(&self) -> &str {
        let (Self::Exact(id) | Self::Below(id)) = self;
        spiffe_domain(id).unwrap_or_default()
    }
}

/// All patterns of all rules, by what they match.
#[derive(Clone, Debug, Default)]
pub(crate) struct Patterns {
    indices: HashMap<Pattern, PatternIndex>,
    by_bundle: HashMap<BundleIndex, HashMap<Pattern, PatternIndex>>,
}

impl Patterns {
    /// Adds a pattern that these bundles vouch for, once, and says where it stands.
    pub(crate) fn add(&mut self, pattern: &Pattern, vouching: &[BundleIndex]) -> PatternIndex {
        let next = self.indices.len();
        let index = *self.indices.entry(pattern.clone()).or_insert(next);
        for bundle in vouching {
            self.by_bundle.entry(*bundle).or_default().insert(pattern.clone(), index);
        }
        index
    }

    /// Every pattern that a certificate with these URIs matches under these bundles, sorted.
    pub(crate) fn matching(&self, uris: &[String], bundles: &[BundleIndex]) -> Vec<PatternIndex> {
        let Some((id, domain)) = only_id(uris) else { return Vec::new() };
        let mut found = Vec::new();
        for patterns in bundles.iter().filter_map(|bundle| self.by_bundle.get(bundle)) {
            found.extend(patterns.get(&Pattern::Exact(id.into())));
            let slashes = id.match_indices('/').map(|(at, _)| at);
            for slash in slashes.filter(|at| *at >= "spiffe://".len() + domain.len()) {
                found.extend(patterns.get(&Pattern::Below(id[..slash].into())));
            }
        }
        found.sort_unstable();
        found.dedup();
        found
    }
}
