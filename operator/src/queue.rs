//! Work to do, by key: each key once, by one at a time; what is urgent first; what failed later and later.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::fmt;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::pin::pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::Notify;
use tokio::time::{Instant, sleep_until};

use crate::index::ObjectName;
use crate::limits::{BACK_OFF_FIRST, BACK_OFF_LONGEST, GATHER};

/// What a turn is about.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Key {
    /// Who signs.
    Authority,
    /// What all sidecars of a namespace trust, and what is revoked there.
    Trust(String),
    /// What was issued in a namespace to clients that are gone without a word.
    Ledger(String),
    /// A ClientIdentity's certificate and status.
    Identity(ObjectName),
    /// Everything the sidecars of one workload read.
    Workload(ObjectName),
    /// A ProxyRoute's status.
    Route(ObjectName),
    /// The webhook's certificate, and whom API servers trust in it.
    Webhook,
    /// Pods without the sidecar that they should have.
    Audit,
}

impl Key {
    /// What kind of turn it is, in a closed set of words.
    #[must_use]
    pub fn kind(&self) -> &'static str {
        match self {
            Self::Authority => "authority",
            Self::Webhook => "webhook",
            Self::Audit => "audit",
            Self::Trust(_) => "trust",
            Self::Ledger(_) => "ledger",
            Self::Identity(_) => "identity",
            Self::Workload(_) => "workload",
            Self::Route(_) => "route",
        }
    }
}

impl Key {
    /// The namespace whose objects a turn reads and writes. A ledger is the operator's own.
    #[must_use]
    pub fn namespace(&self) -> Option<&str> {
        match self {
            Self::Trust(namespace) => Some(namespace),
            Self::Identity(name) | Self::Workload(name) | Self::Route(name) => Some(&name.namespace),
            Self::Authority | Self::Ledger(_) | Self::Webhook | Self::Audit => None,
        }
    }
}

impl fmt::Display for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Authority => f.write_str("authority"),
            Self::Trust(namespace) => write!(f, "trust {namespace}"),
            Self::Ledger(namespace) => write!(f, "ledger {namespace}"),
            Self::Identity(name) => write!(f, "identity {name}"),
            Self::Workload(name) => write!(f, "workload {name}"),
            Self::Route(name) => write!(f, "route {name}"),
            Self::Webhook => f.write_str("webhook"),
            Self::Audit => f.write_str("audit"),
        }
    }
}

/// How soon a key's turn is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Pace {
    /// Before everything else: a revocation is never held back.
    Urgent,
    /// As soon as somebody is free.
    Now,
    /// When what belongs together has come: changes rarely come alone.
    Gathered,
    /// When things have calmed down, after so long: of what is only counted.
    After(Duration),
}

/// How a turn ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// Nothing more to do until something changes.
    Done,
    /// To be looked at again after this time.
    Again(Duration),
    /// To be tried again, later each time in a row.
    Failed,
}

/// The keyed queue.
#[derive(Debug, Default)]
pub struct Queue {
    state: Mutex<State>,
    changed: Notify,
}

#[derive(Debug, Default)]
struct State {
    /// When each waiting key's turn is.
    due: BTreeMap<Key, Place>,
    /// The same in order: first all that is urgent, then the rest, then clients, of which there are thousands.
    lanes: [BTreeSet<(Instant, Key)>; 3],
    /// Keys whose turn it is.
    running: HashMap<Key, Running>,
    /// Failures in a row.
    failures: HashMap<Key, u32>,
    is_held: bool,
    is_closed: bool,
}

/// A key whose turn it is.
#[derive(Clone, Copy, Debug)]
struct Running {
    since: Instant,
    /// The place it has been given since.
    again: Option<Place>,
}

/// How many turns there are.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Depth {
    /// That are due and wait for somebody to take them.
    pub due: usize,
    /// Under way.
    pub running: usize,
    /// Whose time has not come.
    pub later: usize,
}

/// A place in the order.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Place {
    lane: usize,
    at: Instant,
}

const URGENT: usize = 0;
const USUAL: usize = 1;
const CLIENTS: usize = 2;

/// The lane of a key that is not urgent. A start with thousands of clients would else put off every workload's next turn.
fn lane(key: &Key) -> usize {
    if matches!(key, Key::Identity(_) | Key::Ledger(_)) { CLIENTS } else { USUAL }
}

impl State {
    /// Gives a key a place, unless it has an earlier one.
    fn place(&mut self, key: Key, place: Place) {
        if let Some(running) = self.running.get_mut(&key) {
            running.again = Some(running.again.map_or(place, |known| known.min(place)));
            return;
        }
        if let Some(known) = self.due.get(&key).copied() {
            if known <= place {
                return;
            }
            self.lanes[known.lane].remove(&(known.at, key.clone()));
        }
        self.lanes[place.lane].insert((place.at, key.clone()));
        self.due.insert(key, place);
    }

    /// The first key of these lanes whose time has come, or the time to wait for.
    fn take(&mut self, lanes: &[usize], now: Instant) -> Result<(Key, Place), Option<Instant>> {
        let first = lanes.iter().filter_map(|lane| self.lanes.get(*lane)?.first());
        let Some((at, key)) = first.clone().find(|(at, _)| *at <= now).cloned() else {
            return Err(first.map(|(at, _)| *at).min());
        };
        let place = self.due.remove(&key).unwrap_or(Place { lane: lane(&key), at });
        self.lanes[place.lane].remove(&(at, key.clone()));
        self.running.insert(key.clone(), Running { since: now, again: None });
        Ok((key, place))
    }
}

impl Queue {
    /// One that takes nothing until it is opened: whoever opens it asks for all there is.
    #[must_use]
    pub fn held() -> Arc<Self> {
        let state = State { is_held: true, ..State::default() };
        Arc::new(Self { state: Mutex::new(state), changed: Notify::new() })
    }

    /// From now on it takes what it is asked for.
    pub fn open(&self) {
        self.state().is_held = false;
    }

    /// Asks for a turn.
    pub fn add(&self, key: Key, pace: Pace) {
        let now = Instant::now();
        let place = match pace {
            Pace::Urgent => Place { lane: URGENT, at: now },
            Pace::Now => Place { lane: lane(&key), at: now },
            Pace::Gathered => Place { lane: lane(&key), at: now + GATHER },
            Pace::After(calm) => Place { lane: lane(&key), at: now + calm },
        };
        let mut state = self.state();
        if state.is_held {
            return;
        }
        state.place(key, place);
        drop(state);
        self.wake();
    }

    /// Waits for the next turn; `None` once the queue is closed.
    pub async fn next(self: &Arc<Self>) -> Option<Turn> {
        self.next_of(&[URGENT, USUAL, CLIENTS]).await
    }

    /// The same for whoever takes urgent turns only, so that those who wait for something hold none of them up.
    pub async fn next_urgent(self: &Arc<Self>) -> Option<Turn> {
        self.next_of(&[URGENT]).await
    }

    /// The same for whoever takes turns of clients only: nobody waits for ever for a certificate either.
    pub async fn next_client(self: &Arc<Self>) -> Option<Turn> {
        self.next_of(&[CLIENTS]).await
    }

    async fn next_of(self: &Arc<Self>, lanes: &[usize]) -> Option<Turn> {
        loop {
            let mut changed = pin!(self.changed.notified());
            // From here on it is told of every change.
            changed.as_mut().enable();
            let next = {
                let mut state = self.state();
                if state.is_closed {
                    return None;
                }
                state.take(lanes, Instant::now())
            };
            match next {
                Ok((key, place)) => {
                    return Some(Turn { key, place, taken: Instant::now(), queue: Arc::clone(self), is_done: false });
                }
                Err(None) => changed.await,
                Err(Some(at)) => tokio::select! {
                    () = changed => {}
                    () = sleep_until(at) => {}
                },
            }
        }
    }

    /// No more turns. Those that are under way go on.
    pub fn close(&self) {
        self.state().is_closed = true;
        self.wake();
    }

    /// Has everybody look who waits: one who takes other turns would else be the only one that is told. There are few.
    fn wake(&self) {
        self.changed.notify_waiters();
    }

    fn finish(&self, key: &Key, outcome: Outcome) {
        let now = Instant::now();
        let mut state = self.state();
        let asked = state.running.remove(key).and_then(|running| running.again);
        let wait = match outcome {
            Outcome::Failed => {
                let count = state.failures.entry(key.clone()).or_default();
                *count = count.saturating_add(1);
                Some(back_off(key, *count))
            }
            Outcome::Done | Outcome::Again(_) => {
                state.failures.remove(key);
                if let Outcome::Again(wait) = outcome { Some(wait) } else { None }
            }
        };
        for place in [asked, wait.map(|wait| Place { lane: lane(key), at: now + wait })].into_iter().flatten() {
            state.place(key.clone(), place);
        }
        drop(state);
        self.wake();
    }

    /// How many turns there are now.
    #[must_use]
    pub fn depth(&self) -> Depth {
        let now = Instant::now();
        let state = self.state();
        let due = state.due.values().filter(|place| place.at <= now).count();
        Depth { due, running: state.running.len(), later: state.due.len() - due }
    }

    /// The turn that is under way for the longest, and for how long.
    #[must_use]
    pub fn longest(&self) -> Option<(String, Duration)> {
        let state = self.state();
        let longest = state.running.iter().min_by_key(|(_, running)| running.since);
        longest.map(|(key, running)| (key.to_string(), running.since.elapsed()))
    }

    // A poisoned lock only says that somebody else panicked: each change of the state is whole.
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Somebody's turn with a key. Nobody else has the same key until it ends.
#[derive(Debug)]
pub struct Turn {
    key: Key,
    place: Place,
    taken: Instant,
    queue: Arc<Queue>,
    is_done: bool,
}

impl Turn {
    /// The key.
    #[must_use]
    pub fn key(&self) -> &Key {
        &self.key
    }

    /// How long it was due before it was taken.
    #[must_use]
    pub fn waited(&self) -> Duration {
        self.taken.duration_since(self.place.at)
    }

    /// Whether it went before everything else.
    #[must_use]
    pub fn lane(&self) -> &'static str {
        match self.place.lane {
            URGENT => "urgent",
            CLIENTS => "clients",
            _ => "usual",
        }
    }

    /// When it was taken.
    #[must_use]
    pub fn taken(&self) -> Instant {
        self.taken
    }

    /// Ends the turn.
    pub fn end(mut self, outcome: Outcome) {
        self.is_done = true;
        self.queue.finish(&self.key, outcome);
    }
}

impl Drop for Turn {
    /// A turn that ends in any other way has failed, and its key would else never have another.
    fn drop(&mut self) {
        if !self.is_done {
            self.queue.finish(&self.key, Outcome::Failed);
        }
    }
}

/// How long a key waits after so many failures in a row: twice as long each time, spread by up to a fifth so that keys
/// that failed together do not come back together. The same for the same key, so that it can be foretold.
#[must_use]
pub fn back_off(key: &Key, failures: u32) -> Duration {
    let doubled = BACK_OFF_FIRST.saturating_mul(1 << failures.saturating_sub(1).min(16));
    let wait = doubled.min(BACK_OFF_LONGEST);
    wait + spread((key, failures), wait / 5)
}

/// Some part of a time, always the same for the same seed.
#[must_use]
pub fn spread(seed: impl Hash, most: Duration) -> Duration {
    let mut hasher = DefaultHasher::new();
    seed.hash(&mut hasher);
    let share = u32::try_from(hasher.finish() >> 32).unwrap_or(u32::MAX);
    most.mul_f64(f64::from(share) / f64::from(u32::MAX))
}

#[cfg(test)]
mod tests;
