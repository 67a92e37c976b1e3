//! Which rule a request falls under: host, then path, then method.

use std::borrow::Cow;
use std::collections::HashMap;

use http::Method;

use crate::path::match_key;
use crate::reason::Reason;

/// Index of a rule in its snapshot.
pub type RuleIndex = usize;

/// The compiled routes of one listener.
///
/// Precedence is Gateway API's for what the contract has: the host's own routes before those for any host; a whole path
/// before a prefix, a longer prefix before a shorter one; a match with a method before one without; then document order.
#[derive(Debug, Default)]
pub struct RouteTable {
    hosts: HashMap<Box<str>, HostTable>,
    any_host: HostTable,
}

#[derive(Debug, Default)]
struct HostTable {
    exact: HashMap<Box<str>, Vec<Candidate>>,
    /// Without their trailing slash; the root is the empty string.
    prefix: HashMap<Box<str>, Vec<Candidate>>,
    /// Bounds what a request costs: without it, a long path of short segments is hashed once for each of them.
    longest_prefix_bytes: usize,
}

#[derive(Debug)]
struct Candidate {
    method: Option<Method>,
    rule: RuleIndex,
}

/// A path condition, compiled.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PathCondition {
    /// The whole normalised path.
    Exact(Box<str>),
    /// Its first segments; without a trailing slash, so that the root is empty.
    Prefix(Box<str>),
}

impl RouteTable {
    /// Adds a rule under a host (lower-case, without port), or under any host.
    pub(crate) fn insert(&mut self, host: Option<&str>, path: PathCondition, method: Option<Method>, rule: RuleIndex) {
        let table = match host {
            Some(host) => self.hosts.entry(host.into()).or_default(),
            None => &mut self.any_host,
        };
        let candidates = match path {
            PathCondition::Exact(path) => table.exact.entry(match_key(&path).into()).or_default(),
            PathCondition::Prefix(path) => {
                let key = match_key(&path);
                table.longest_prefix_bytes = table.longest_prefix_bytes.max(key.len());
                table.prefix.entry(key.into()).or_default()
            }
        };
        // Rules come in document order; one with a method goes before those without, behind those with.
        let place = match method {
            Some(_) => candidates.iter().position(|other| other.method.is_none()).unwrap_or(candidates.len()),
            None => candidates.len(),
        };
        candidates.insert(place, Candidate { method, rule });
    }

    /// The rule for a request; `path` must be normalised ([`crate::path::normalise`]).
    ///
    /// # Errors
    /// [`Reason::RouteNoHost`], [`Reason::RouteNoPath`] or [`Reason::RouteNoMethod`]: how far it got.
    pub fn find(&self, host: &str, path: &str, method: &Method) -> Result<RuleIndex, Reason> {
        let path = &*match_key(path);
        let own = self.hosts.get(canonical_host(host).as_ref());
        let mut furthest = match own {
            None if self.any_host.is_empty() => return Err(Reason::RouteNoHost),
            _ => Reason::RouteNoPath,
        };
        for table in own.into_iter().chain([&self.any_host]) {
            match table.find(path, method) {
                Ok(rule) => return Ok(rule),
                Err(Reason::RouteNoMethod) => furthest = Reason::RouteNoMethod,
                Err(_) => {}
            }
        }
        Err(furthest)
    }
}

impl HostTable {
    fn is_empty(&self) -> bool {
        self.exact.is_empty() && self.prefix.is_empty()
    }

    fn find(&self, path: &str, method: &Method) -> Result<RuleIndex, Reason> {
        let exact = self.exact.get(path).map(Vec::as_slice);
        let prefixes = prefixes(path).filter(|prefix| prefix.len() <= self.longest_prefix_bytes);
        let prefixes = prefixes.filter_map(|prefix| self.prefix.get(prefix)).map(Vec::as_slice);
        let mut furthest = Reason::RouteNoPath;
        for candidates in exact.into_iter().chain(prefixes) {
            furthest = Reason::RouteNoMethod;
            let fits = |candidate: &&Candidate| candidate.method.as_ref().is_none_or(|wanted| wanted == method);
            if let Some(candidate) = candidates.iter().find(fits) {
                return Ok(candidate.rule);
            }
        }
        Err(furthest)
    }
}

/// Every prefix of a path that ends between segments, longest first: `/a/b`, `/a`, and the empty root.
fn prefixes(path: &str) -> impl Iterator<Item = &str> {
    let whole = path.strip_suffix('/').unwrap_or(path);
    std::iter::successors(Some(whole), |longer| longer.rfind('/').map(|slash| &longer[..slash]))
}

/// A host as it is compared: lower-case, without port and without the root's dot (RFC 9110 §4.2.3, RFC 1034 §3.1).
#[must_use]
pub fn canonical_host(host: &str) -> Cow<'_, str> {
    let name = match host.rfind(':') {
        // The colon of a port stands behind the bracket of an IPv6 literal.
        Some(colon) if !host[colon..].contains(']') => &host[..colon],
        _ => host,
    };
    let name = name.strip_suffix('.').unwrap_or(name);
    if name.bytes().any(|byte| byte.is_ascii_uppercase()) {
        Cow::Owned(name.to_ascii_lowercase())
    } else {
        Cow::Borrowed(name)
    }
}
