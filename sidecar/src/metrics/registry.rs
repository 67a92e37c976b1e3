//! All places where something is counted, and how many series they may have.

use std::cell::Cell;
use std::collections::BTreeMap;
use std::marker::PhantomData;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use sidecar_decide::Verdict;

use super::messages::MessageCells;
use super::place::{
    Amount, BUCKETS_US, Counted, DurationCells, Durations, Event, OTHER, Outcome, OutcomeCell, Place, PlaceName,
    WorkerCells,
};
use crate::limits::METRIC_SERIES;
use crate::message_type::Message;

/// Series that a place has however little happens there: seconds, bytes in, bytes out.
const SERIES_OF_PLACE: usize = 3;
/// Series of a histogram: its buckets, the last one included, its sum and its count.
const SERIES_OF_HISTOGRAM: usize = BUCKETS_US.len() + 3;
/// All places of all workers.
#[derive(Debug, Default)]
pub struct Registry {
    workers: AtomicUsize,
    known: Mutex<Known>,
    /// Outcomes, places and histograms that got no series of their own.
    refused: AtomicU64,
}

#[derive(Debug, Default)]
struct Known {
    places: BTreeMap<PlaceName, Entry>,
    listeners: BTreeMap<Box<str>, Arc<Durations>>,
    /// Series that were given out.
    series: usize,
    /// Nothing could be forgotten that made room, and nothing can be before the next reload.
    is_full: bool,
}

#[derive(Debug)]
struct Entry {
    place: Arc<Place>,
    /// The outcomes that have a series each.
    outcomes: Vec<Outcome>,
    /// The types of messages that have one.
    messages: Vec<Message>,
}

impl Registry {
    /// A place for one more worker's cells. All of them come before anything is counted.
    pub fn worker(self: &Arc<Self>) -> Cells {
        Cells {
            registry: Arc::clone(self),
            worker: self.workers.fetch_add(1, Ordering::Relaxed),
            _one_thread: PhantomData,
        }
    }

    /// How many workers have a place.
    pub fn workers(&self) -> usize {
        self.workers.load(Ordering::Relaxed)
    }

    /// Another configuration is served: places of the one before may be forgotten.
    pub fn reloaded(&self) {
        self.known().is_full = false;
    }

    /// Outcomes, places and histograms that got no series of their own.
    pub fn refused(&self) -> u64 {
        self.refused.load(Ordering::Relaxed)
    }

    /// Series that were given out.
    pub fn series(&self) -> usize {
        self.known().series
    }

    /// The place of a name, which is new where it is not known.
    fn place(&self, name: PlaceName) -> Arc<Place> {
        let mut known = self.known();
        if let Some(entry) = known.places.get(&name) {
            return Arc::clone(&entry.place);
        }
        let workers = self.workers();
        let durations = match &name {
            PlaceName::Rule { listener, .. } => Some(self.durations(&mut known, listener)),
            PlaceName::Backend(_) => None,
        };
        let is_other = !self.take(&mut known, SERIES_OF_PLACE);
        let cells = (0..workers).map(|_| WorkerCells::default()).collect();
        let messages = (0..workers).map(|_| MessageCells::default()).collect();
        let place = Arc::new(Place { name: name.clone(), is_other, workers: cells, messages, durations });
        let entry = Entry { place: Arc::clone(&place), outcomes: Vec::new(), messages: Vec::new() };
        known.places.insert(name, entry);
        place
    }

    fn durations(&self, known: &mut Known, listener: &str) -> Arc<Durations> {
        if let Some(durations) = known.listeners.get(listener) {
            return Arc::clone(durations);
        }
        let is_other = !self.take(known, SERIES_OF_HISTOGRAM);
        let workers = (0..self.workers()).map(|_| DurationCells::default()).collect();
        let durations = Arc::new(Durations { is_other, workers });
        known.listeners.insert(listener.into(), Arc::clone(&durations));
        durations
    }

    /// Whether something at a place gets a series, which it has had already if another worker saw it first.
    fn enter<T: PartialEq>(&self, place: &Place, what: T, entered: impl Fn(&mut Entry) -> &mut Vec<T>) -> bool {
        let mut known = self.known();
        if place.is_other {
            return false;
        }
        if known.places.get_mut(&place.name).is_some_and(|entry| entered(entry).contains(&what)) {
            return true;
        }
        let is_own = self.take(&mut known, 1);
        if let Some(entry) = known.places.get_mut(&place.name).filter(|_| is_own) {
            entered(entry).push(what);
        }
        is_own
    }

    /// Takes so many series from the budget, if need be from places that the configuration has no more.
    fn take(&self, known: &mut Known, series: usize) -> bool {
        if known.series + series > METRIC_SERIES && !known.is_full {
            known.forget_unused();
            known.is_full = known.series + series > METRIC_SERIES;
        }
        let fits = known.series + series <= METRIC_SERIES;
        if fits {
            known.series += series;
        } else {
            self.refused.fetch_add(1, Ordering::Relaxed);
        }
        fits
    }

    fn known(&self) -> MutexGuard<'_, Known> {
        // Nothing in there can panic half way.
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// All counts added up over the workers, and what has no series of its own added up besides.
    pub fn read(&self) -> Counts {
        let (places, listeners): (Vec<_>, Vec<_>) = {
            let known = self.known();
            let listeners = known.listeners.iter().map(|(name, durations)| (name.clone(), Arc::clone(durations)));
            (known.places.values().map(|entry| Arc::clone(&entry.place)).collect(), listeners.collect())
        };
        let mut counts = Counts::default();
        for place in places {
            counts.add(&place);
        }
        for (listener, durations) in listeners {
            let listener = if durations.is_other { OTHER.into() } else { listener };
            let sums = counts.durations.entry(listener).or_default();
            durations.workers.iter().for_each(|cells| sums.add(cells));
        }
        counts
    }
}

impl Known {
    /// Forgets places that nothing counts at any more: no configuration has them, nor a request that began under one.
    fn forget_unused(&mut self) {
        let series = &mut self.series;
        self.places.retain(|_, entry| {
            let is_used = Arc::strong_count(&entry.place) > 1;
            if !is_used {
                let own = entry.outcomes.len() + entry.messages.len();
                *series -= own + if entry.place.is_other { 0 } else { SERIES_OF_PLACE };
            }
            is_used
        });
        self.listeners.retain(|_, durations| {
            let is_used = Arc::strong_count(durations) > 1;
            if !is_used && !durations.is_other {
                *series -= SERIES_OF_HISTOGRAM;
            }
            is_used
        });
    }
}

/// One worker's way to its cells.
#[derive(Debug)]
pub struct Cells {
    registry: Arc<Registry>,
    worker: usize,
    /// Two threads that write the same cells would lose counts.
    _one_thread: PhantomData<Cell<()>>,
}

impl Cells {
    /// Counts an outcome at the place that `counted` holds, or at the one of this name from now on.
    pub fn count(&self, counted: &Counted, name: impl FnOnce() -> PlaceName, outcome: Outcome, amount: &Amount) {
        let place = counted.0.get_or_init(|| self.registry.place(name()));
        let Some(cells) = place.workers.get(self.worker) else { return };
        cells.count(outcome, amount, || self.registry.enter(place, outcome, |entry| &mut entry.outcomes));
        // What is refused at once would make all durations look short.
        if outcome.event == Event::Request
            && outcome.verdict != Verdict::Refused
            && let Some(cells) = place.durations.as_ref().and_then(|durations| durations.workers.get(self.worker))
        {
            cells.add(amount.duration);
        }
    }
}

impl Cells {
    /// Counts what a request was about, at the place where it was counted before.
    pub fn count_message(&self, counted: &Counted, message: &Message) {
        let Some(place) = counted.0.get() else { return };
        let Some(cells) = place.messages.get(self.worker) else { return };
        cells.count(message, || self.registry.enter(place, message.clone(), |entry| &mut entry.messages));
    }
}

/// All counts at one moment.
#[derive(Debug, Default)]
pub struct Counts {
    /// By place and outcome.
    pub places: BTreeMap<PlaceName, BTreeMap<Outcome, Sums>>,
    /// Durations of requests that were passed on, by listener.
    pub durations: BTreeMap<Box<str>, DurationSums>,
    /// Requests by place and what they were about.
    pub messages: BTreeMap<PlaceName, BTreeMap<Box<str>, u64>>,
}

impl Counts {
    fn add(&mut self, place: &Place) {
        for cell in place.messages.iter().flat_map(MessageCells::iter) {
            let name = if cell.is_other { place.name.other() } else { place.name.clone() };
            *self.messages.entry(name).or_default().entry(cell.message.name().into()).or_default() += cell.count();
        }
        let mut own: BTreeMap<Outcome, Sums> = BTreeMap::new();
        let mut others: BTreeMap<Outcome, Sums> = BTreeMap::new();
        for cell in place.workers.iter().flat_map(WorkerCells::iter) {
            let sums = if cell.is_other { &mut others } else { &mut own };
            sums.entry(cell.outcome).or_default().add(cell);
        }
        self.join(|| place.name.clone(), own);
        self.join(|| place.name.other(), others);
    }

    fn join(&mut self, name: impl FnOnce() -> PlaceName, outcomes: BTreeMap<Outcome, Sums>) {
        if outcomes.is_empty() {
            return;
        }
        let sums = self.places.entry(name()).or_default();
        for (outcome, more) in outcomes {
            sums.entry(outcome).or_default().join(more);
        }
    }
}

/// Counts of one outcome.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Sums {
    /// How often.
    pub count: u64,
    /// How long, all together.
    pub duration_us: u64,
    /// Bytes from clients.
    pub request_bytes: u64,
    /// Bytes to clients.
    pub response_bytes: u64,
}

impl Sums {
    fn add(&mut self, cell: &OutcomeCell) {
        let read = |cell: &AtomicU64| cell.load(Ordering::Relaxed);
        self.join(Self {
            count: read(&cell.count),
            duration_us: read(&cell.duration_us),
            request_bytes: read(&cell.request_bytes),
            response_bytes: read(&cell.response_bytes),
        });
    }

    /// Adds others.
    pub fn join(&mut self, other: Self) {
        self.count += other.count;
        self.duration_us += other.duration_us;
        self.request_bytes += other.request_bytes;
        self.response_bytes += other.response_bytes;
    }
}

/// Durations of one listener.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct DurationSums {
    /// All of them together.
    pub sum_us: u64,
    /// How many, by bucket.
    pub buckets: [u64; BUCKETS_US.len() + 1],
}

impl DurationSums {
    fn add(&mut self, cells: &DurationCells) {
        self.sum_us += cells.sum_us.load(Ordering::Relaxed);
        for (sum, bucket) in self.buckets.iter_mut().zip(&cells.buckets) {
            *sum += bucket.load(Ordering::Relaxed);
        }
    }
}

#[cfg(test)]
mod tests;
