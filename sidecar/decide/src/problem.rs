//! What is wrong with a document: where it is, what it is and what to do.

use std::fmt;

use sidecar_config::Part;

use crate::hash::Revision;

/// One thing wrong with one place of one part.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// The part it is in.
    pub part: Part,
    /// The place, from the document's top: `policy.routes[0].hostnames[1]`.
    pub path: String,
    /// What is wrong and what to do about it.
    pub detail: String,
    /// The part that was looked into in vain, where something is missing.
    pub missing_in: Option<Part>,
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "`{}`: {}", self.path, self.detail)
    }
}

/// A part that is not accepted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusal {
    /// Of what was offered.
    pub revision: Revision,
    /// Everything that is wrong with it; never empty.
    pub problems: Vec<Problem>,
}

/// Collects the problems of one part, so that all of them are told at once.
pub(crate) struct Problems {
    part: Part,
    found: Vec<Problem>,
}

impl Problems {
    pub(crate) fn of(part: Part) -> Self {
        Self { part, found: Vec::new() }
    }

    /// Adds a problem at `place`, which is relative to the part: `bundles.ours.roots[0]`, or `[3].name` in a list.
    pub(crate) fn add(&mut self, place: impl fmt::Display, detail: impl fmt::Display) {
        self.enter(place, detail, None);
    }

    /// Adds a problem that is there because another part has not what this one names.
    pub(crate) fn add_missing(&mut self, place: impl fmt::Display, detail: impl fmt::Display, other: Part) {
        self.enter(place, detail, Some(other));
    }

    fn enter(&mut self, place: impl fmt::Display, detail: impl fmt::Display, missing_in: Option<Part>) {
        let place = place.to_string();
        let dot = if place.is_empty() || place.starts_with('[') { "" } else { "." };
        let path = format!("{}{dot}{place}", self.part);
        self.found.push(Problem { part: self.part, path, detail: detail.to_string(), missing_in });
    }

    pub(crate) fn count(&self) -> usize {
        self.found.len()
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.found.is_empty()
    }

    pub(crate) fn into_found(self) -> Vec<Problem> {
        self.found
    }

    /// What `accepted` makes of the revision if nothing was wrong.
    pub(crate) fn or<T>(self, revision: Revision, accepted: impl FnOnce(Revision) -> T) -> Result<T, Refusal> {
        if self.found.is_empty() { Ok(accepted(revision)) } else { Err(Refusal { revision, problems: self.found }) }
    }
}
