//! Refusals before authentication: the first of a kind are rows, the rest of a minute share one. Anybody can cause them,
//! as many as he likes, so neither the log nor memory may grow with them. Pure: the clock is a value.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use sidecar_decide::Reason;

use super::queue::Batch;
use super::record::{Client, Kind, Network, Record};

/// How long refusals are counted before they become a row.
pub(super) const WINDOW: Duration = Duration::from_secs(60);

/// Refusals of one key in a window that are rows of their own: enough to see a mistake as it happens.
pub(super) const ROWS: u32 = 10;

/// Keys in a window; some 300 bytes each, and the certificate's facts where more than [`ROWS`] were refused.
pub(super) const KEYS: usize = 1000;

/// What is counted of the current window.
#[derive(Debug)]
pub(super) struct Refusals {
    window: Duration,
    /// When the window began; `None` before its first refusal.
    began: Option<Instant>,
    tallies: HashMap<Key, Tally>,
    /// Of `tallies`, those that tell clients apart.
    told_apart: usize,
    /// Refusals that wait to be written as a row with others.
    held: u64,
}

/// What refusals have in common that share a row.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Key {
    listener: Option<Box<str>>,
    kind: Kind,
    reason: Option<Reason>,
    /// `None` once there are too many clients to tell apart.
    client: Option<(Option<Network>, Option<Box<str>>)>,
}

#[derive(Debug, Default)]
struct Tally {
    rows: u32,
    held: Option<Box<Record>>,
}

impl Refusals {
    pub(super) fn new(window: Duration) -> Self {
        Self { window, began: None, tallies: HashMap::new(), told_apart: 0, held: 0 }
    }

    /// Counts a refusal. It comes back where it is a row of its own; `crowded` says that there is no place for one.
    pub(super) fn take(&mut self, record: Box<Record>, now: Instant, crowded: bool) -> Option<Box<Record>> {
        let is_over = self.began.is_none_or(|began| now.saturating_duration_since(began) >= self.window);
        // What is held stays in its window until it is written, however late: nothing else bounds it.
        if is_over && self.held == 0 {
            self.begin(now);
        }
        let tally = self.tally(&record);
        if tally.rows < ROWS && !crowded {
            tally.rows += 1;
            return Some(record);
        }
        match &mut tally.held {
            None => tally.held = Some(record),
            Some(held) => join(held, &record),
        }
        self.held += 1;
        None
    }

    /// When what is held is to be written; `None` while nothing is.
    pub(super) fn due(&self) -> Option<Instant> {
        self.began.filter(|_| self.held > 0).map(|began| began + self.window)
    }

    /// Refusals that wait to be written as a row with others.
    pub(super) fn held(&self) -> u64 {
        self.held
    }

    /// The rows of what is held, oldest first. What comes next begins a window.
    pub(super) fn flush(&mut self) -> Batch {
        let mut rows: Vec<_> = self.tallies.drain().filter_map(|(_, tally)| tally.held).collect();
        rows.sort_unstable_by_key(|record| record.time);
        *self = Self::new(self.window);
        rows
    }

    fn begin(&mut self, now: Instant) {
        *self = Self::new(self.window);
        self.began = Some(now);
    }

    fn tally(&mut self, record: &Record) -> &mut Tally {
        let mut key = Key::of(record);
        if !self.tallies.contains_key(&key) {
            if self.told_apart < KEYS {
                self.told_apart += 1;
            } else {
                key.client = None;
            }
        }
        self.tallies.entry(key).or_default()
    }
}

impl Key {
    fn of(record: &Record) -> Self {
        let fingerprint = record.peer.as_ref().and_then(|peer| peer.fingerprint.clone());
        Self {
            listener: record.scope.as_ref().and_then(|scope| scope.listener.clone()),
            kind: record.kind,
            reason: record.reason,
            client: Some((network(record), fingerprint)),
        }
    }
}

/// Makes `held` stand for `record` too: what they do not have in common is not told, and it lasts from the first to the
/// last of them.
fn join(held: &mut Record, record: &Record) {
    held.repeat += record.repeat;
    held.sni = None;
    held.client_addr = match (network(held), network(record)) {
        (Some(known), Some(other)) if known == other => Some(Client::Network(known)),
        _ => None,
    };
    let fingerprint = |record: &Record| record.peer.as_ref().and_then(|peer| peer.fingerprint.clone());
    if fingerprint(held) != fingerprint(record) {
        held.peer = None;
    }
    let since = record.time.duration_since(held.time).unwrap_or_default();
    held.duration_us = held.duration_us.max(u64::try_from(since.as_micros()).unwrap_or(u64::MAX));
}

fn network(record: &Record) -> Option<Network> {
    record.client_addr.map(|client| match client {
        Client::Address(address) => Network::of(address.ip()),
        Client::Network(network) => network,
    })
}

#[cfg(test)]
mod tests;
