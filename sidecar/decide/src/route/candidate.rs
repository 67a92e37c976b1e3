//! What competes for a request once host and path fit: method, headers, query, message, then the order of the document.

use std::cmp::{Ordering, Reverse};
use std::collections::{BTreeSet, HashSet};
use std::hash::{Hash, Hasher};
use std::sync::Arc;

use http::Method;
use http::header::HeaderName;

use super::conditions::{Conditions, decoded, header_value, parameter_value};
use super::{Request, RuleIndex, Sent};
use crate::message_type::MessageType;
use crate::quick::{QuickHasher, QuickMap};
use crate::reason::Reason;

/// Which candidate goes first, as values that sort so (Gateway API: method, number of headers, number of
/// parameters), and a type of message behind those.
pub(super) type Rank = (RankOfNames, usize);

/// The same without the place in the document.
type RankOfNames = (bool, Reverse<usize>, Reverse<usize>, bool);

/// One match of a rule, without its host and path.
#[derive(Clone, Debug)]
pub(super) struct Candidate {
    method: Option<Method>,
    conditions: Option<Arc<Conditions>>,
    message: Option<MessageType>,
    /// Its place in the document.
    order: usize,
    rule: RuleIndex,
}

impl Candidate {
    pub(super) fn new(
        method: Option<Method>,
        conditions: Option<Arc<Conditions>>,
        message: Option<MessageType>,
        order: usize,
        rule: RuleIndex,
    ) -> Self {
        Self { method, conditions, message, order, rule }
    }

    pub(super) fn rule(&self) -> RuleIndex {
        self.rule
    }

    pub(super) fn rank(&self) -> Rank {
        (self.rank_of_names(), self.order)
    }

    fn rank_of_names(&self) -> RankOfNames {
        let (headers, parameters) = self.conditions.as_ref().map_or((0, 0), |conditions| conditions.counts());
        (self.method.is_none(), Reverse(headers), Reverse(parameters), self.message.is_none())
    }

    fn fits(&self, request: &Request<'_>) -> bool {
        self.method.as_ref().is_none_or(|method| method == request.method)
            && self.message.is_none_or(|message| request.message == Sent::Known(message))
            && self.conditions.as_ref().is_none_or(|conditions| conditions.hold(request))
    }

    fn names(&self) -> Names {
        let rank = self.rank_of_names();
        let (mut headers, mut parameters) = (Vec::new(), Vec::new());
        if let Some(conditions) = &self.conditions {
            headers.extend(conditions.exact_headers().map(|(name, _)| SortedHeader(name.clone())));
            parameters.extend(conditions.exact_parameters().map(|(name, _)| name.into()));
        }
        Names { rank, headers, parameters }
    }

    /// The bucket of the requests that it may fit.
    fn key(&self) -> u64 {
        let mut key = Key::of(self.method.as_ref(), self.message);
        if let Some(conditions) = &self.conditions {
            conditions.exact_headers().for_each(|(_, value)| key.add(value.as_bytes()));
            conditions.exact_parameters().for_each(|(_, value)| key.add(value.as_bytes()));
        }
        key.0.finish()
    }
}

/// The candidates of one path condition. A request looks into one bucket of each group, so that it costs the same
/// however many methods and values tell the candidates apart.
#[derive(Debug, Default)]
pub(super) struct Candidates {
    /// In the order of precedence.
    groups: Vec<Group>,
    methods: HashSet<Method>,
    has_any_method: bool,
}

/// Candidates that ask for the same names.
#[derive(Debug)]
struct Group {
    names: Names,
    /// By the hash of what they want of method and exact values; in the order of the document.
    buckets: QuickMap<u64, Vec<Candidate>>,
}

/// What candidates ask for, without its values. Their ranks differ in the order of the document alone.
#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Names {
    rank: RankOfNames,
    /// Compared exactly; sorted.
    headers: Vec<SortedHeader>,
    parameters: Vec<Box<str>>,
}

impl Candidates {
    pub(super) fn insert(&mut self, candidate: Candidate) {
        match &candidate.method {
            Some(method) => drop(self.methods.insert(method.clone())),
            None => self.has_any_method = true,
        }
        let names = candidate.names();
        let place = self.groups.partition_point(|group| group.names < names);
        if self.groups.get(place).is_none_or(|group| group.names != names) {
            self.groups.insert(place, Group { names, buckets: QuickMap::default() });
        }
        let bucket = self.groups[place].buckets.entry(candidate.key()).or_default();
        bucket.push(candidate);
    }

    /// How many groups a request has to look into.
    pub(super) fn groups(&self) -> usize {
        self.groups.len()
    }
}

impl Group {
    /// The first that fits.
    fn first(&self, request: &Request<'_>) -> Option<&Candidate> {
        self.buckets.get(&self.names.key(request)?)?.iter().find(|candidate| candidate.fits(request))
    }
}

impl Names {
    /// Whether it takes a look at a request's message to know whether any of them fits.
    fn want_message(&self, request: &Request<'_>) -> bool {
        let (.., any_message) = self.rank;
        !any_message && request.message == Sent::Unread
    }

    /// The bucket of a request; `None` where it has not all of the names.
    fn key(&self, request: &Request<'_>) -> Option<u64> {
        let (any_method, .., any_message) = self.rank;
        let message = match request.message {
            _ if any_message => None,
            Sent::Known(message) => Some(message),
            Sent::Nothing | Sent::Unread => return None,
        };
        let mut key = Key::of((!any_method).then_some(request.method), message);
        for SortedHeader(name) in &self.headers {
            key.add(&header_value(request.headers, name)?);
        }
        for name in &self.parameters {
            key.add(&decoded(parameter_value(request.query.unwrap_or_default(), name)?).collect::<Vec<u8>>());
        }
        Some(key.0.finish())
    }
}

/// A header's name, which has no order of its own.
#[derive(Debug, PartialEq, Eq)]
struct SortedHeader(HeaderName);

impl PartialOrd for SortedHeader {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for SortedHeader {
    fn cmp(&self, other: &Self) -> Ordering {
        self.0.as_str().cmp(other.0.as_str())
    }
}

/// The hash of a method and values. Only a filter, for whoever is in the bucket is compared: nobody gains by a collision.
struct Key(QuickHasher);

impl Key {
    fn of(method: Option<&Method>, message: Option<MessageType>) -> Self {
        let mut hasher = QuickHasher::default();
        method.hash(&mut hasher);
        if let Some(message) = message {
            message.hash(&mut hasher);
        }
        Self(hasher)
    }

    fn add(&mut self, value: &[u8]) {
        value.hash(&mut self.0);
    }
}

/// One request's way through the tables.
pub(super) struct Search<'a> {
    request: &'a Request<'a>,
    /// How far any candidate got. The reasons are in that order: host, path, method, the rest.
    furthest: Reason,
    /// What the candidates ask for that did not fit, where that is wanted.
    methods: Option<BTreeSet<String>>,
    /// Whether a candidate was met that asks for a message at which nobody has looked.
    wants_message: bool,
}

impl<'a> Search<'a> {
    pub(super) fn new(request: &'a Request<'a>, nothing_yet: Reason) -> Self {
        Self { request, furthest: nothing_yet, methods: None, wants_message: false }
    }

    /// One that gathers methods on its way.
    pub(super) fn for_methods(request: &'a Request<'a>) -> Self {
        Self { methods: Some(BTreeSet::new()), ..Self::new(request, Reason::RouteNoPath) }
    }

    /// The first candidate that fits.
    pub(super) fn first<'c>(&mut self, candidates: &'c Candidates) -> Option<&'c Candidate> {
        let mut best: Option<&Candidate> = None;
        for group in &candidates.groups {
            // The groups' order is the ranks' but for the document's place.
            if best.is_some_and(|best| best.rank_of_names() < group.names.rank) {
                break;
            }
            self.wants_message |= group.names.want_message(self.request);
            let offered = group.first(self.request);
            best = best.into_iter().chain(offered).min_by_key(|candidate| candidate.rank());
        }
        if best.is_none() {
            if let Some(methods) = &mut self.methods {
                methods.extend(candidates.methods.iter().map(Method::to_string));
            }
            let by_method = candidates.has_any_method || candidates.methods.contains(self.request.method);
            self.furthest = self.furthest.max(if by_method { Reason::RouteNoMatch } else { Reason::RouteNoMethod });
        }
        best
    }

    pub(super) fn methods(self) -> Vec<String> {
        self.methods.into_iter().flatten().collect()
    }

    pub(super) fn wants_message(&self) -> bool {
        self.wants_message
    }

    pub(super) fn furthest(self) -> Reason {
        self.furthest
    }
}
