//! What is counted at one place: a rule, a listener, or a backend.
//!
//! Each worker has cells of its own there, which only it writes: counting is a load and a store, without a lock or a
//! contended cache line. A place is found once and then held by whatever counts there, so that no text is hashed.

use std::hash::{Hash, Hasher};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use sidecar_decide::{Limiter, Reason, Verdict};

use super::messages::MessageCells;

/// Upper bounds of the duration buckets in microseconds: from a cache hit nearby to the response timeout.
pub const BUCKETS_US: [u64; 12] =
    [500, 1_000, 2_500, 5_000, 10_000, 25_000, 50_000, 100_000, 250_000, 1_000_000, 5_000_000, 30_000_000];

/// What a place is called.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum PlaceName {
    /// Where requests and connections are decided.
    Rule {
        /// The listener; empty where it is gone.
        listener: Box<str>,
        /// The route that was matched; empty without one.
        route: Box<str>,
        /// The rule that was matched; empty without one.
        rule: Box<str>,
    },
    /// Where requests are sent.
    Backend(Box<str>),
}

/// In place of every label of what has no series of its own. What has this name by chance is added to it.
pub(super) const OTHER: &str = "other";

impl PlaceName {
    /// Where the counts go of what has no series of its own.
    pub(super) fn other(&self) -> Self {
        match self {
            Self::Rule { .. } => Self::Rule { listener: OTHER.into(), route: OTHER.into(), rule: OTHER.into() },
            Self::Backend(_) => Self::Backend(OTHER.into()),
        }
    }
}

/// What is counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Event {
    /// A request was decided.
    Request,
    /// A connection that is passed on as it is was decided.
    Forwarded,
    /// A request was upgraded, and its tunnel has ended.
    Tunnel,
    /// A handshake, or a connection before one, was refused.
    Refused,
    /// An open connection was cut.
    Cut,
    /// A request or connection was tried at a backend.
    Attempt,
    /// A connection to a backend was made.
    Connect,
    /// A try at a backend failed.
    Failure,
}

/// What became of something.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Outcome {
    /// What it was.
    pub event: Event,
    /// The decision.
    pub verdict: Verdict,
    /// Why; `None` where all went well.
    pub reason: Option<Reason>,
    /// Which limit the reason is about, if it is about one.
    pub limiter: Option<Limiter>,
}

impl Outcome {
    /// What went on as it should, but for a reason.
    pub fn allowed(event: Event, reason: Option<Reason>) -> Self {
        Self { event, verdict: Verdict::Allowed, reason, limiter: reason.and_then(Reason::limiter) }
    }

    /// What was refused.
    pub fn refused(event: Event, reason: Option<Reason>) -> Self {
        Self { event, verdict: Verdict::Refused, reason, limiter: reason.and_then(Reason::limiter) }
    }
}

/// How much it was.
#[derive(Clone, Copy, Debug, Default)]
pub struct Amount {
    /// How long it took.
    pub duration: Duration,
    /// Bytes from the client.
    pub request_bytes: u64,
    /// Bytes to the client.
    pub response_bytes: u64,
}

/// One worker's counts of one outcome; on a cache line of their own, next to which no other worker writes.
#[derive(Debug)]
#[repr(align(64))]
pub(super) struct OutcomeCell {
    pub(super) outcome: Outcome,
    /// Whether it has no series of its own.
    pub(super) is_other: bool,
    pub(super) count: AtomicU64,
    pub(super) duration_us: AtomicU64,
    pub(super) request_bytes: AtomicU64,
    pub(super) response_bytes: AtomicU64,
    next: OnceLock<Box<OutcomeCell>>,
}

impl OutcomeCell {
    fn new(outcome: Outcome, is_other: bool) -> Box<Self> {
        let zero = || AtomicU64::new(0);
        let (count, duration_us, request_bytes, response_bytes) = (zero(), zero(), zero(), zero());
        let next = OnceLock::new();
        Box::new(Self { outcome, is_other, count, duration_us, request_bytes, response_bytes, next })
    }

    fn add(&self, amount: &Amount) {
        increase(&self.count, 1);
        increase(&self.duration_us, microseconds(amount.duration));
        increase(&self.request_bytes, amount.request_bytes);
        increase(&self.response_bytes, amount.response_bytes);
    }
}

/// One worker's cells of a place, in the order in which the outcomes were first seen: what is common comes first.
#[derive(Debug, Default)]
pub(super) struct WorkerCells(OnceLock<Box<OutcomeCell>>);

impl WorkerCells {
    /// Counts an outcome. Called by its own worker only; `may_have_series` is asked once for each outcome.
    pub(super) fn count(&self, outcome: Outcome, amount: &Amount, may_have_series: impl FnOnce() -> bool) {
        let mut link = &self.0;
        while let Some(cell) = link.get() {
            if cell.outcome == outcome {
                return cell.add(amount);
            }
            link = &cell.next;
        }
        let is_other = !may_have_series();
        link.get_or_init(|| OutcomeCell::new(outcome, is_other)).add(amount);
    }

    /// All of them.
    pub(super) fn iter(&self) -> impl Iterator<Item = &OutcomeCell> {
        std::iter::successors(self.0.get(), |cell| cell.next.get()).map(|cell| &**cell)
    }
}

/// One worker's durations of requests at one listener.
#[derive(Debug, Default)]
#[repr(align(64))]
pub(super) struct DurationCells {
    pub(super) sum_us: AtomicU64,
    /// Each request in the first bucket that holds it; the last holds what is longer than all bounds.
    pub(super) buckets: [AtomicU64; BUCKETS_US.len() + 1],
}

impl DurationCells {
    pub(super) fn add(&self, duration: Duration) {
        let duration_us = microseconds(duration);
        increase(&self.sum_us, duration_us);
        let bucket = BUCKETS_US.iter().position(|bound| duration_us <= *bound).unwrap_or(BUCKETS_US.len());
        increase(&self.buckets[bucket], 1);
    }
}

/// The durations of requests at one listener, by worker.
#[derive(Debug)]
pub(super) struct Durations {
    pub(super) is_other: bool,
    pub(super) workers: Box<[DurationCells]>,
}

/// A place with its cells, by worker. It outlives the configuration that made it for as long as there is room.
#[derive(Debug)]
pub struct Place {
    pub(super) name: PlaceName,
    /// Whether it has no series of its own.
    pub(super) is_other: bool,
    pub(super) workers: Box<[WorkerCells]>,
    /// What its requests were about, by worker.
    pub(super) messages: Box<[MessageCells]>,
    /// Of its listener; backends have none.
    pub(super) durations: Option<Arc<Durations>>,
}

/// The place that something is counted at, once it is known. What holds it is the same with it and without it.
#[derive(Clone, Debug, Default)]
pub struct Counted(pub(super) OnceLock<Arc<Place>>);

impl PartialEq for Counted {
    fn eq(&self, _: &Self) -> bool {
        true
    }
}

impl Eq for Counted {}

impl Hash for Counted {
    fn hash<H: Hasher>(&self, _: &mut H) {}
}

/// Adds without a locked instruction: only the cell's own worker writes it.
pub(super) fn increase(cell: &AtomicU64, amount: u64) {
    cell.store(cell.load(Ordering::Relaxed).wrapping_add(amount), Ordering::Relaxed);
}

fn microseconds(duration: Duration) -> u64 {
    u64::try_from(duration.as_micros()).unwrap_or(u64::MAX)
}
