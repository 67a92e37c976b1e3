//! The paths of one host: whole, by template, by prefix, by regular expression.

use sidecar_config::policy::{Match, PathMatch, PathMatchType};

use super::RuleIndex;
use super::candidate::{Candidate, Candidates, Search};
use super::template::{Template, Templates};
use crate::path::match_key;
use crate::pattern::Pattern;
use crate::quick::QuickMap;

/// Places in the tree of templates that one request may have to look at: alternatives multiply with every segment
/// (`/{a}/b` beside `/a/{b}`), and a thousand templates could make them thousands.
const TEMPLATE_VISITS_MAX: usize = 256;

/// Combinations of methods, headers and parameters that are asked for on one path: a request looks each of them up.
const GROUPS_MAX: usize = 64;

/// A condition on the path, compiled.
#[derive(Clone, Debug)]
pub(super) enum PathCondition {
    /// The whole path.
    Exact(Box<str>),
    /// Its segments.
    Template(Template),
    /// Its first segments; without a trailing slash, so that the root is empty.
    Prefix(Box<str>),
    /// The whole path by an expression, which comes with its own text.
    Pattern(Box<str>, Pattern),
}

impl PathCondition {
    /// Of a match; no condition is the prefix of every path. What is accepted compiles.
    pub(super) fn of(condition: Option<&PathMatch>) -> Result<Self, String> {
        let Some(PathMatch { kind, value }) = condition else { return Ok(Self::Prefix("".into())) };
        Ok(match kind {
            PathMatchType::Exact => Self::Exact(match_key(value).into()),
            PathMatchType::Template => Self::Template(Template::parse(value)?),
            PathMatchType::PathPrefix => Self::Prefix(match_key(value.strip_suffix('/').unwrap_or(value)).into()),
            PathMatchType::RegularExpression => Self::Pattern(value.as_str().into(), Pattern::new(value)?),
        })
    }
}

/// The compiled routes of one host.
#[derive(Debug, Default)]
pub(super) struct HostTable {
    exact: QuickMap<Box<str>, Candidates>,
    templates: Templates,
    /// Without their trailing slash; the root is the empty string.
    prefixes: QuickMap<Box<str>, Candidates>,
    /// Bounds what a request costs: without it, a long path of short segments is hashed once for each of them.
    longest_prefix_bytes: usize,
    patterns: Vec<(Box<str>, Pattern, Candidates)>,
    is_used: bool,
}

impl HostTable {
    pub(super) fn is_empty(&self) -> bool {
        !self.is_used
    }

    pub(super) fn insert(&mut self, path: PathCondition, candidate: Candidate) {
        self.is_used = true;
        match path {
            PathCondition::Exact(path) => self.exact.entry(path).or_default().insert(candidate),
            PathCondition::Template(template) => self.templates.insert(template, candidate),
            PathCondition::Prefix(prefix) => {
                self.longest_prefix_bytes = self.longest_prefix_bytes.max(prefix.len());
                self.prefixes.entry(prefix).or_default().insert(candidate);
            }
            PathCondition::Pattern(text, pattern) => {
                let known = self.patterns.iter().position(|(known, ..)| *known == text);
                let place = known.unwrap_or_else(|| {
                    self.patterns.push((text, pattern, Candidates::default()));
                    self.patterns.len() - 1
                });
                self.patterns[place].2.insert(candidate);
            }
        }
    }

    /// What costs too much, if anything does.
    pub(super) fn excess(&self) -> Option<String> {
        let visits = self.templates.most_visits();
        if visits > TEMPLATE_VISITS_MAX {
            return Some(format!(
                "have templates that overlap: one request may have to look at {visits} places of them, and at most \
                 {TEMPLATE_VISITS_MAX} are allowed; write fewer that have a parameter where others have text"
            ));
        }
        let exact = self.exact.values().chain(self.prefixes.values());
        let groups = exact.chain(self.patterns.iter().map(|(.., candidates)| candidates)).map(Candidates::groups);
        let groups = groups.max().unwrap_or(0).max(self.templates.most_groups());
        (groups > GROUPS_MAX).then(|| {
            format!(
                "ask on one path for {groups} combinations of names of headers and parameters; at most {GROUPS_MAX} are \
                 allowed: ask for the same names, or on different paths"
            )
        })
    }

    /// The rule of the first candidate that fits.
    pub(super) fn find(&self, path: &str, search: &mut Search<'_>) -> Option<RuleIndex> {
        let exact = self.exact.get(path).and_then(|candidates| search.first(candidates)).map(Candidate::rule);
        exact
            .or_else(|| self.templates.find(path, search))
            .or_else(|| self.by_prefix(path, search))
            .or_else(|| self.by_pattern(path, search))
    }

    fn by_prefix(&self, path: &str, search: &mut Search<'_>) -> Option<RuleIndex> {
        let prefixes = prefixes(path).filter(|prefix| prefix.len() <= self.longest_prefix_bytes);
        let mut found = prefixes.filter_map(|prefix| self.prefixes.get(prefix));
        found.find_map(|candidates| search.first(candidates)).map(Candidate::rule)
    }

    fn by_pattern(&self, path: &str, search: &mut Search<'_>) -> Option<RuleIndex> {
        let matching = self.patterns.iter().filter(|(_, pattern, _)| pattern.is_match(path.as_bytes()));
        let fitting = matching.filter_map(|(_, _, candidates)| search.first(candidates));
        fitting.min_by_key(|candidate| candidate.rank()).map(Candidate::rule)
    }
}

/// The one condition on a path that all matches have, as those write it who name routes: a prefix ends in `*`.
pub(crate) fn path_pattern(matches: &[Match]) -> Option<String> {
    let first = matches.first()?.path.as_ref()?;
    let is_same = matches.iter().all(|condition| condition.path.as_ref() == Some(first));
    match first.kind {
        _ if !is_same => None,
        PathMatchType::Exact | PathMatchType::Template => Some(first.value.clone()),
        PathMatchType::PathPrefix => Some(format!("{}/*", first.value.strip_suffix('/').unwrap_or(&first.value))),
        PathMatchType::RegularExpression => None,
    }
}

/// Every prefix of a path that ends between segments, longest first: `/a/b`, `/a`, and the empty root.
fn prefixes(path: &str) -> impl Iterator<Item = &str> {
    let whole = path.strip_suffix('/').unwrap_or(path);
    std::iter::successors(Some(whole), |longer| {
        longer.bytes().rposition(|byte| byte == b'/').map(|slash| &longer[..slash])
    })
}
