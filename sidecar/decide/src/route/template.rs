//! Path templates: `/orders/{id}` and `/files/{rest...}`, and the tree of segments that finds them.

use std::cmp::Reverse;
use std::collections::HashSet;
use std::str::Split;

use super::RuleIndex;
use super::candidate::{Candidate, Candidates, Rank, Search};
use crate::path::{match_key, normalise};
use crate::quick::QuickMap;

/// Segments of a template: a request descends the tree once for each.
const TEMPLATE_SEGMENTS_MAX: usize = 64;

/// A template, taken apart.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Template {
    /// `None` is any one segment that is not empty.
    segments: Vec<Option<Box<str>>>,
    /// Whether all that follows belongs to it too.
    has_rest: bool,
}

/// Which template goes first, as values that sort so: more literal segments, then one that ends, then a longer one.
type Specificity = (Reverse<usize>, bool, Reverse<usize>);

impl Template {
    /// Takes a document's value apart; the error says what is wrong with it and what to do.
    pub(crate) fn parse(value: &str) -> Result<Self, String> {
        let relative = value.strip_prefix('/').ok_or_else(|| not_a_template(value, "write an absolute path"))?;
        let mut names = HashSet::new();
        let mut template = Self { segments: Vec::new(), has_rest: false };
        let mut segments = relative.split('/').peekable();
        while let Some(segment) = segments.next() {
            let is_last = segments.peek().is_none();
            let Some(parameter) = segment.strip_prefix('{').and_then(|inner| inner.strip_suffix('}')) else {
                template.segments.push(Some(literal(value, segment, is_last)?));
                continue;
            };
            let name = parameter.strip_suffix("...").unwrap_or(parameter);
            if !is_name(name) || !names.insert(name) {
                let advice = "name each parameter once, in letters, digits and `_`: `{id}`, or `{rest...}` at the end";
                return Err(not_a_template(value, advice));
            }
            match (name.len() == parameter.len(), is_last) {
                (true, _) => template.segments.push(None),
                (false, true) => template.has_rest = true,
                (false, false) => return Err(not_a_template(value, "`{name...}` takes all that is left: put it last")),
            }
        }
        if template.segments.len() > TEMPLATE_SEGMENTS_MAX {
            return Err(format!(
                "has {} segments; at most {TEMPLATE_SEGMENTS_MAX} are allowed",
                template.segments.len()
            ));
        }
        Ok(template)
    }

    fn specificity(&self) -> Specificity {
        let literals = self.segments.iter().flatten().filter(|literal| !literal.is_empty()).count();
        (Reverse(literals), self.has_rest, Reverse(self.segments.len()))
    }
}

fn not_a_template(value: &str, advice: &str) -> String {
    format!("`{value}` is not a template; {advice}")
}

fn is_name(name: &str) -> bool {
    !name.is_empty() && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_')
}

/// A segment without parameters, as requests are compared with it. Empty only behind a last slash.
fn literal(template: &str, segment: &str, is_last: bool) -> Result<Box<str>, String> {
    if segment.contains(['{', '}']) {
        let advice = "a parameter is a whole segment; write `%7B` and `%7D` for braces of the path";
        return Err(not_a_template(template, advice));
    }
    let path = format!("/{segment}");
    let is_normal = normalise(&path).is_ok_and(|normal| *normal == *path);
    if !is_normal || (segment.is_empty() && !is_last) {
        let advice = format!("no request has a segment `{segment}` there; write it as requests are normalised");
        return Err(not_a_template(template, &advice));
    }
    Ok(match_key(segment).into())
}

/// All templates of a host, by segment.
#[derive(Debug, Default)]
pub(super) struct Templates(Node);

#[derive(Debug, Default)]
struct Node {
    literals: QuickMap<Box<str>, Node>,
    parameter: Option<Box<Node>>,
    /// Of templates that end here.
    ends: Option<Leaf>,
    /// Of templates whose rest begins here.
    rest: Option<Leaf>,
}

#[derive(Debug)]
struct Leaf {
    specificity: Specificity,
    candidates: Candidates,
}

/// The best rule so far, with what it was compared by.
type Best = Option<(Specificity, Rank, RuleIndex)>;

impl Templates {
    pub(super) fn insert(&mut self, template: Template, candidate: Candidate) {
        let specificity = template.specificity();
        let mut node = &mut self.0;
        for segment in template.segments {
            node = match segment {
                Some(literal) => node.literals.entry(literal).or_default(),
                None => node.parameter.get_or_insert_default(),
            };
        }
        let leaf = if template.has_rest { &mut node.rest } else { &mut node.ends };
        leaf.get_or_insert_with(|| Leaf { specificity, candidates: Candidates::default() })
            .candidates
            .insert(candidate);
    }

    /// A bound on the places that a request looks at: the dearest way past each place, added up.
    pub(super) fn most_visits(&self) -> usize {
        self.0.most_visits()
    }

    /// The most groups of one template.
    pub(super) fn most_groups(&self) -> usize {
        self.0.most_groups()
    }

    /// The rule of the most specific template that fits. Several templates may match one path, and which of them goes
    /// first is known only when all have been seen.
    pub(super) fn find(&self, path: &str, search: &mut Search<'_>) -> Option<RuleIndex> {
        let mut best = None;
        self.0.descend(path.strip_prefix('/')?.split('/'), search, &mut best);
        best.map(|(_, _, rule)| rule)
    }
}

impl Node {
    fn most_visits(&self) -> usize {
        let literal = self.literals.values().map(Self::most_visits).max().unwrap_or(0);
        let parameter = self.parameter.as_ref().map_or(0, |node| node.most_visits());
        literal.saturating_add(parameter).saturating_add(1)
    }

    fn most_groups(&self) -> usize {
        let below = self.literals.values().chain(self.parameter.as_deref()).map(Self::most_groups);
        let here = self.ends.iter().chain(&self.rest).map(|leaf| leaf.candidates.groups());
        below.chain(here).max().unwrap_or(0)
    }

    fn descend(&self, mut segments: Split<'_, char>, search: &mut Search<'_>, best: &mut Best) {
        let Some(segment) = segments.next() else { return offer(self.ends.as_ref(), search, best) };
        offer(self.rest.as_ref(), search, best);
        if let Some(node) = self.literals.get(segment) {
            node.descend(segments.clone(), search, best);
        }
        if let Some(node) = self.parameter.as_ref().filter(|_| !segment.is_empty()) {
            node.descend(segments, search, best);
        }
    }
}

fn offer(leaf: Option<&Leaf>, search: &mut Search<'_>, best: &mut Best) {
    let Some(leaf) = leaf else { return };
    let Some(candidate) = search.first(&leaf.candidates) else { return };
    let offered = (leaf.specificity, candidate.rank(), candidate.rule());
    if best.is_none_or(|best| offered < best) {
        *best = Some(offered);
    }
}
