//! Counters of the request path. Each cell has one writer, so that counting is a load and a store, without a lock or a
//! contended cache line; cells of the same labels are added up when they are scraped.

use std::cell::RefCell;
use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use sidecar_decide::{Reason, Verdict};

use crate::log::Scope;

/// Upper bounds of the duration buckets in microseconds: from a cache hit nearby to the response timeout.
pub const BUCKETS_US: [u64; 12] =
    [500, 1_000, 2_500, 5_000, 10_000, 25_000, 50_000, 100_000, 250_000, 1_000_000, 5_000_000, 30_000_000];

/// Labels of a decision about a request, or about a connection that is passed on as it is.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct RequestLabels {
    /// The listener it came to.
    pub listener: Box<str>,
    /// The route it matched; empty without one.
    pub route: Box<str>,
    /// The rule it matched; empty without one.
    pub rule: Box<str>,
    /// The decision.
    pub verdict: Verdict,
    /// Why; `None` where all went well.
    pub reason: Option<Reason>,
}

/// Counts of one set of labels.
#[derive(Debug, Default)]
pub struct RequestCell {
    /// Requests.
    pub count: AtomicU64,
    /// Their durations, summed up.
    pub sum_us: AtomicU64,
    /// Requests by duration, each in the first bucket that holds it; the last holds what is longer than all bounds.
    pub buckets: [AtomicU64; BUCKETS_US.len() + 1],
}

impl RequestCell {
    fn add(&self, duration: Duration) {
        let duration_us = u64::try_from(duration.as_micros()).unwrap_or(u64::MAX);
        increase(&self.count, 1);
        increase(&self.sum_us, duration_us);
        let bucket = BUCKETS_US.iter().position(|bound| duration_us <= *bound).unwrap_or(BUCKETS_US.len());
        increase(&self.buckets[bucket], 1);
    }
}

/// Adds without a locked instruction: only the cell's own worker writes it.
fn increase(cell: &AtomicU64, amount: u64) {
    cell.store(cell.load(Ordering::Relaxed).wrapping_add(amount), Ordering::Relaxed);
}

/// Labels of a refused handshake, or of a connection that was cut.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct HandshakeLabels {
    /// The listener it came to.
    pub listener: Box<str>,
    /// Why it was refused; `None` where the client closed before its first byte.
    pub reason: Option<Reason>,
}

/// Counts of handshakes and connections. Shared by the workers: a handshake costs far more than an addition.
#[derive(Debug, Default)]
pub struct Handshakes {
    refused: Mutex<HashMap<HandshakeLabels, u64>>,
    cut: Mutex<HashMap<HandshakeLabels, u64>>,
    completed: AtomicU64,
    resumed: AtomicU64,
    /// Chains of clients that were verified, and that were known.
    chains: [AtomicU64; 2],
    open: AtomicUsize,
}

impl Handshakes {
    /// Counts a handshake that led to a connection.
    pub fn completed(&self, is_resumed: bool, is_known: Option<bool>) {
        self.completed.fetch_add(1, Ordering::Relaxed);
        self.resumed.fetch_add(u64::from(is_resumed), Ordering::Relaxed);
        if let Some(is_known) = is_known {
            self.chains[usize::from(is_known)].fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Chains of clients that were verified, and that were known from an earlier handshake.
    pub fn chains(&self) -> [u64; 2] {
        self.chains.each_ref().map(|count| count.load(Ordering::Relaxed))
    }

    /// Handshakes that resumed a session.
    pub fn resumed(&self) -> u64 {
        self.resumed.load(Ordering::Relaxed)
    }

    /// Counts one that did not.
    pub fn refused(&self, listener: &str, reason: Option<Reason>) {
        let labels = HandshakeLabels { listener: listener.into(), reason };
        *self.refused.lock().unwrap_or_else(PoisonError::into_inner).entry(labels).or_default() += 1;
    }

    /// Counts a connection that was cut.
    pub fn cut(&self, listener: &str, reason: Reason) {
        let labels = HandshakeLabels { listener: listener.into(), reason: Some(reason) };
        *self.cut.lock().unwrap_or_else(PoisonError::into_inner).entry(labels).or_default() += 1;
    }

    /// All that were cut, by label.
    pub fn read_cut(&self) -> Vec<(HandshakeLabels, u64)> {
        let cut = self.cut.lock().unwrap_or_else(PoisonError::into_inner);
        cut.iter().map(|(labels, count)| (labels.clone(), *count)).collect()
    }

    /// All refused ones by label, and how many were completed.
    pub fn read(&self) -> (Vec<(HandshakeLabels, u64)>, u64) {
        let refused = self.refused.lock().unwrap_or_else(PoisonError::into_inner);
        let refused = refused.iter().map(|(labels, count)| (labels.clone(), *count)).collect();
        (refused, self.completed.load(Ordering::Relaxed))
    }

    /// Client connections open now.
    pub fn open(&self) -> usize {
        self.open.load(Ordering::Relaxed)
    }

    /// Counts a connection as open for as long as the gauge lives; `None` at the limit.
    pub fn open_one(self: &Arc<Self>, limit: usize) -> Option<ConnectionGauge> {
        if self.open.fetch_add(1, Ordering::Relaxed) < limit {
            return Some(ConnectionGauge(Arc::clone(self)));
        }
        self.open.fetch_sub(1, Ordering::Relaxed);
        None
    }
}

/// One open connection.
#[derive(Debug)]
pub struct ConnectionGauge(Arc<Handshakes>);

impl Drop for ConnectionGauge {
    fn drop(&mut self) {
        self.0.open.fetch_sub(1, Ordering::Relaxed);
    }
}

type ByLabels = HashMap<RequestLabels, Arc<RequestCell>>;

/// All cells of all workers.
#[derive(Debug, Default)]
pub struct Registry {
    workers: Mutex<Vec<ByLabels>>,
}

impl Registry {
    /// A place for one more worker's cells.
    pub fn worker(self: &Arc<Self>) -> Cells {
        let mut workers = self.workers.lock().unwrap_or_else(PoisonError::into_inner);
        workers.push(HashMap::new());
        Cells { registry: Arc::clone(self), worker: workers.len() - 1, near: RefCell::default() }
    }

    /// How many workers have a place.
    pub fn workers(&self) -> usize {
        self.workers.lock().unwrap_or_else(PoisonError::into_inner).len()
    }

    /// Calls with every cell there is.
    pub fn for_each(&self, mut call: impl FnMut(&RequestLabels, &RequestCell)) {
        let workers = self.workers.lock().unwrap_or_else(PoisonError::into_inner);
        for (labels, cell) in workers.iter().flatten() {
            call(labels, cell);
        }
    }
}

/// One worker's cells.
#[derive(Debug)]
pub struct Cells {
    registry: Arc<Registry>,
    worker: usize,
    /// The cells of this generation by where their scope lies in memory, so that a request hashes a few words and no
    /// text. The scope is kept with its cell, or its place could be another's tomorrow.
    near: RefCell<HashMap<Near, Held>>,
}

type Held = (Arc<Scope>, Arc<RequestCell>);

/// Where a scope lies, and what was decided there.
type Near = (usize, Verdict, Option<Reason>);

impl Cells {
    /// Counts a decision.
    pub fn count(&self, scope: &Arc<Scope>, verdict: Verdict, reason: Option<Reason>, duration: Duration) {
        let mut near = self.near.borrow_mut();
        let key = (Arc::as_ptr(scope).addr(), verdict, reason);
        let (_, cell) = near.entry(key).or_insert_with(|| (Arc::clone(scope), self.find(scope, verdict, reason)));
        cell.add(duration);
    }

    /// Lets go of the scopes of the generation before.
    pub fn new_generation(&self) {
        self.near.borrow_mut().clear();
    }

    fn find(&self, scope: &Scope, verdict: Verdict, reason: Option<Reason>) -> Arc<RequestCell> {
        let text = |value: &Option<Box<str>>| value.clone().unwrap_or_default();
        let labels = RequestLabels {
            listener: text(&scope.listener),
            route: text(&scope.route),
            rule: text(&scope.rule),
            verdict,
            reason,
        };
        let mut workers = self.registry.workers.lock().unwrap_or_else(PoisonError::into_inner);
        Arc::clone(workers[self.worker].entry(labels).or_default())
    }
}
