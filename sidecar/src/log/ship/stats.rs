//! What the shipper tells about itself: counters the metrics read at each scrape.

use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU64, Ordering};
use std::time::SystemTime;

use postern_postgres::Failure;

use super::super::Stats;
use super::super::encode::micros;
use super::backlog::Batch;
use super::sender::Sent;

/// Why a row will not be in Postgres. Closed: a label of a metric.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Lost {
    /// It was deleted from the log before it could be sent.
    Pruned,
    /// Postgres does not take it.
    Rejected,
}

impl Lost {
    /// Every reason.
    pub const ALL: [Self; 2] = [Self::Pruned, Self::Rejected];

    /// The word in metric labels.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Pruned => "pruned",
            Self::Rejected => "rejected",
        }
    }
}

/// Counters of what is sent to Postgres.
#[derive(Debug, Default)]
pub struct ShipStats {
    is_on: AtomicBool,
    is_up: AtomicBool,
    sent: AtomicU64,
    known: AtomicU64,
    lost: [AtomicU64; Lost::ALL.len()],
    failures: [AtomicU64; Failure::ALL.len()],
    /// Rows that were still to be sent when it was looked last, and how many had been written then.
    backlog: AtomicU64,
    written: AtomicU64,
    /// Time of the oldest row that is still to be sent, in microseconds; 0 where there is none.
    oldest: AtomicI64,
    /// Time of the newest row that was sent.
    watermark: AtomicI64,
    /// The store whose rows are sent, and the last one that was.
    store: AtomicI64,
    seq: AtomicI64,
}

impl ShipStats {
    /// Whether there is a shipper at all.
    pub fn is_on(&self) -> bool {
        self.is_on.load(Ordering::Relaxed)
    }

    /// Whether the last try succeeded.
    pub fn is_up(&self) -> bool {
        self.is_up.load(Ordering::Relaxed)
    }

    /// Rows that Postgres has taken.
    pub fn sent(&self) -> u64 {
        self.sent.load(Ordering::Relaxed)
    }

    /// Rows that it had when they were sent.
    pub fn known(&self) -> u64 {
        self.known.load(Ordering::Relaxed)
    }

    /// Rows that it will never have.
    pub fn lost(&self, reason: Lost) -> u64 {
        self.lost[reason as usize].load(Ordering::Relaxed)
    }

    /// Tries that failed.
    pub fn failures(&self, failure: Failure) -> u64 {
        self.failures[failure as usize].load(Ordering::Relaxed)
    }

    /// Rows that are still to be sent.
    pub fn backlog_rows(&self, log: &Stats) -> u64 {
        let since = log.rows_written().saturating_sub(self.written.load(Ordering::Relaxed));
        self.backlog.load(Ordering::Relaxed) + since
    }

    /// Seconds since the oldest of them was decided.
    pub fn backlog_age_seconds(&self, now: SystemTime) -> u64 {
        match self.oldest.load(Ordering::Relaxed) {
            0 => 0,
            oldest => u64::try_from((micros(now) - oldest) / 1_000_000).unwrap_or(0),
        }
    }

    /// When the newest row that was sent was decided, in seconds since the epoch.
    pub fn watermark_seconds(&self) -> u64 {
        u64::try_from(self.watermark.load(Ordering::Relaxed) / 1_000_000).unwrap_or(0)
    }

    /// Which rows were sent: a store, and the number of its last one. `None` where nothing is sent, or nothing was yet.
    pub fn position(&self) -> Option<(i64, i64)> {
        let store = self.store.load(Ordering::Acquire);
        (self.is_on() && store != 0).then(|| (store, self.seq.load(Ordering::Relaxed)))
    }

    pub(super) fn start(&self) {
        self.is_on.store(true, Ordering::Relaxed);
        // Until it is tried: an alert is not to fire for a start.
        self.is_up.store(true, Ordering::Relaxed);
    }

    /// What is there to be sent; `written` rows had been written before it was looked.
    pub(super) fn behind(&self, batch: &Batch, written: u64) {
        self.backlog.store(batch.backlog(), Ordering::Relaxed);
        self.written.store(written, Ordering::Relaxed);
        self.oldest.store(batch.rows.first().map_or(0, |row| row.at), Ordering::Relaxed);
    }

    pub(super) fn add_sent(&self, sent: &Sent) {
        let Sent { added, known, rejected } = *sent;
        self.is_up.store(true, Ordering::Relaxed);
        self.sent.fetch_add(added, Ordering::Relaxed);
        self.known.fetch_add(known, Ordering::Relaxed);
        self.lost[Lost::Rejected as usize].fetch_add(rejected, Ordering::Relaxed);
    }

    /// All of the batch is sent, and that is noted.
    pub(super) fn moved(&self, batch: &Batch, written: u64) {
        let left = batch.backlog().saturating_sub(batch.rows.len() as u64);
        self.backlog.store(left, Ordering::Relaxed);
        self.written.store(written, Ordering::Relaxed);
        self.lost[Lost::Pruned as usize].fetch_add(batch.missing, Ordering::Relaxed);
        if let Some(last) = batch.rows.last() {
            self.watermark.store(last.at, Ordering::Relaxed);
        }
        self.oldest.store(batch.rows.last().filter(|_| left > 0).map_or(0, |row| row.at), Ordering::Relaxed);
        self.seq.store(batch.end.seq, Ordering::Relaxed);
        self.store.store(batch.end.store, Ordering::Release);
    }

    pub(super) fn add_failure(&self, failure: Failure) {
        self.is_up.store(false, Ordering::Relaxed);
        self.failures[failure as usize].fetch_add(1, Ordering::Relaxed);
    }
}
