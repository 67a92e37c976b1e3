//! What competes for a request once host and path fit: method, headers, query, then the order of the document.

use std::cmp::Reverse;
use std::sync::Arc;

use http::Method;

use super::conditions::Conditions;
use super::{Request, RuleIndex};
use crate::reason::Reason;

/// Which candidate goes first, as values that sort so (Gateway API: method, number of headers, number of parameters).
pub(super) type Rank = (bool, Reverse<usize>, Reverse<usize>, usize);

/// One match of a rule, without its host and path.
#[derive(Clone, Debug)]
pub(super) struct Candidate {
    method: Option<Method>,
    conditions: Option<Arc<Conditions>>,
    /// Its place in the document.
    order: usize,
    rule: RuleIndex,
}

impl Candidate {
    pub(super) fn new(
        method: Option<Method>,
        conditions: Option<Arc<Conditions>>,
        order: usize,
        rule: RuleIndex,
    ) -> Self {
        Self { method, conditions, order, rule }
    }

    pub(super) fn rule(&self) -> RuleIndex {
        self.rule
    }

    pub(super) fn rank(&self) -> Rank {
        let (headers, parameters) = self.conditions.as_ref().map_or((0, 0), |conditions| conditions.counts());
        (self.method.is_none(), Reverse(headers), Reverse(parameters), self.order)
    }

    fn fits(&self, request: &Request<'_>) -> Result<(), Reason> {
        if self.method.as_ref().is_some_and(|method| method != request.method) {
            return Err(Reason::RouteNoMethod);
        }
        match &self.conditions {
            Some(conditions) if !conditions.hold(request) => Err(Reason::RouteNoMatch),
            _ => Ok(()),
        }
    }
}

/// The candidates of one path condition, first one first.
#[derive(Debug, Default)]
pub(super) struct Candidates(Vec<Candidate>);

impl Candidates {
    pub(super) fn insert(&mut self, candidate: Candidate) {
        let place = self.0.partition_point(|other| other.rank() <= candidate.rank());
        self.0.insert(place, candidate);
    }
}

/// One request's way through the tables.
pub(super) struct Search<'a> {
    request: &'a Request<'a>,
    /// How far any candidate got. The reasons are in that order: host, path, method, the rest.
    furthest: Reason,
}

impl<'a> Search<'a> {
    pub(super) fn new(request: &'a Request<'a>, nothing_yet: Reason) -> Self {
        Self { request, furthest: nothing_yet }
    }

    /// The first candidate that fits.
    pub(super) fn first<'c>(&mut self, candidates: &'c Candidates) -> Option<&'c Candidate> {
        candidates.0.iter().find(|candidate| match candidate.fits(self.request) {
            Ok(()) => true,
            Err(reason) => {
                self.furthest = self.furthest.max(reason);
                false
            }
        })
    }

    pub(super) fn furthest(self) -> Reason {
        self.furthest
    }
}
