//! What the shipper tells about itself: counters the metrics read at each scrape.

use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU64, AtomicUsize, Ordering};
use std::time::SystemTime;

use postern_postgres::Failure;

use super::super::Stats;
use super::super::encode::micros;
use super::backlog::{Batch, share};
use super::sender::Sent;

/// Why a row will not be in Postgres. Closed: a label of a metric.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Lost {
    /// It was deleted before it could be sent, because the log has its size.
    Size,
    /// It was deleted before it could be sent, because it was older than rows may become.
    Age,
    /// The file that it was in was damaged.
    Damaged,
    /// Postgres does not take it.
    Rejected,
}

impl Lost {
    /// Every reason.
    pub const ALL: [Self; 4] = [Self::Size, Self::Age, Self::Damaged, Self::Rejected];

    /// The word in metric labels.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Size => "size",
            Self::Age => "age",
            Self::Damaged => "damaged",
            Self::Rejected => "rejected",
        }
    }
}

/// Counters of what is sent to Postgres.
#[derive(Debug, Default)]
pub struct ShipStats {
    is_on: AtomicBool,
    /// Which failure the last try ended with, counted from one: an alert is not to fire for a start.
    failing: AtomicUsize,
    sent: AtomicU64,
    known: AtomicU64,
    lost: [AtomicU64; Lost::ALL.len()],
    failures: [AtomicU64; Failure::ALL.len()],
    /// Rows that were still to be sent when it was looked last, what they take, and how many had been written then.
    backlog: AtomicU64,
    backlog_bytes: AtomicU64,
    written: AtomicU64,
    /// Time of the oldest row that is still to be sent, in microseconds; 0 where there is none.
    oldest: AtomicI64,
    /// Time of the newest row that was sent.
    watermark: AtomicI64,
    /// Number of the last row that was sent.
    shipped: AtomicI64,
    /// Number of the last row that was deleted for its age.
    aged: AtomicI64,
}

impl ShipStats {
    /// Whether there is a server to send to.
    pub fn is_on(&self) -> bool {
        self.is_on.load(Ordering::Relaxed)
    }

    /// Whether no try failed, or the last succeeded.
    pub fn is_up(&self) -> bool {
        self.failing().is_none()
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

    /// Rows that will never be there, for any reason.
    pub fn lost_total(&self) -> u64 {
        Lost::ALL.into_iter().map(|reason| self.lost(reason)).sum()
    }

    /// Why the last try failed; `None` where it did not.
    pub fn failing(&self) -> Option<Failure> {
        Failure::ALL.get(self.failing.load(Ordering::Relaxed).checked_sub(1)?).copied()
    }

    /// Rows that are still to be sent.
    pub fn backlog_rows(&self, log: &Stats) -> u64 {
        let since = log.rows_written().saturating_sub(self.written.load(Ordering::Relaxed));
        self.backlog.load(Ordering::Relaxed) + since
    }

    /// Bytes of the log that they take, as of the last look.
    pub fn backlog_bytes(&self) -> u64 {
        self.backlog_bytes.load(Ordering::Relaxed)
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

    /// Number of the last row that Postgres has, or will never have; all of them where nothing is sent anywhere.
    pub(in crate::log) fn shipped(&self) -> i64 {
        if self.is_on() { self.shipped.load(Ordering::Relaxed) } else { i64::MAX }
    }

    /// Rows up to this one were deleted for their age.
    pub(in crate::log) fn aged(&self, last: i64) {
        self.aged.fetch_max(last, Ordering::Relaxed);
    }

    /// A damaged live file was set aside, which had the rows behind `cut` up to `last`.
    pub(in crate::log) fn set_aside(&self, (cut, last): (i64, i64)) {
        let unsent = last - cut.max(self.shipped());
        self.add_lost(Lost::Damaged, u64::try_from(unsent).unwrap_or(0));
    }

    /// Whether there is a server from now on, and which row was the last that was sent to it: its number and its time.
    pub(in crate::log) fn begin(&self, is_on: bool, (shipped, at): (i64, i64)) {
        self.shipped.store(shipped, Ordering::Relaxed);
        self.watermark.store(at, Ordering::Relaxed);
        self.turn(is_on);
    }

    pub(super) fn turn(&self, is_on: bool) {
        self.is_on.store(is_on, Ordering::Relaxed);
    }

    /// What is there to be sent; `written` rows had been written before it was looked.
    pub(super) fn behind(&self, batch: &Batch, written: u64) {
        self.backlog.store(batch.backlog(), Ordering::Relaxed);
        self.backlog_bytes.store(batch.bytes, Ordering::Relaxed);
        self.written.store(written, Ordering::Relaxed);
        self.oldest.store(batch.rows.each.first().map_or(0, |row| row.at), Ordering::Relaxed);
        self.shipped.store(batch.start.seq, Ordering::Relaxed);
    }

    pub(super) fn add_sent(&self, sent: &Sent) {
        let Sent { added, known, rejected } = *sent;
        self.failing.store(0, Ordering::Relaxed);
        self.sent.fetch_add(added, Ordering::Relaxed);
        self.known.fetch_add(known, Ordering::Relaxed);
        self.add_lost(Lost::Rejected, rejected);
    }

    /// All of the batch is sent, and that is noted.
    pub(super) fn moved(&self, batch: &Batch, written: u64) {
        let (all, sent) = (batch.backlog(), batch.rows.each.len() as u64);
        let left = all.saturating_sub(sent);
        self.backlog.store(left, Ordering::Relaxed);
        self.backlog_bytes.store(share(batch.bytes, left, all), Ordering::Relaxed);
        self.written.store(written, Ordering::Relaxed);
        let aged = self.aged.load(Ordering::Relaxed).min(batch.end.seq) - batch.start.seq;
        let damaged = batch.damaged.min(batch.missing);
        let aged = u64::try_from(aged).unwrap_or(0).min(batch.missing - damaged);
        self.add_lost(Lost::Damaged, damaged);
        self.add_lost(Lost::Age, aged);
        self.add_lost(Lost::Size, batch.missing - damaged - aged);
        if let Some(last) = batch.rows.each.last() {
            self.watermark.store(last.at, Ordering::Relaxed);
        }
        self.oldest.store(batch.rows.each.last().filter(|_| left > 0).map_or(0, |row| row.at), Ordering::Relaxed);
        self.shipped.store(batch.end.seq, Ordering::Relaxed);
    }

    pub(super) fn add_failure(&self, failure: Failure) {
        self.failing.store(failure as usize + 1, Ordering::Relaxed);
        self.failures[failure as usize].fetch_add(1, Ordering::Relaxed);
    }

    fn add_lost(&self, reason: Lost, rows: u64) {
        self.lost[reason as usize].fetch_add(rows, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::super::rows::{Row, Rows};
    use super::super::watermark::Position;
    use super::*;

    /// A batch of `rows` rows behind number 10, to number 110.
    fn batch(rows: u64, damaged: u64) -> Batch {
        let position = |seq| Position { store: 1, seq, at: 0 };
        let row = |number| Row { seq: number, at: number, place: 0..0 };
        let end = i64::try_from(110 - rows).unwrap_or_default();
        Batch {
            start: position(10),
            end: position(110),
            rows: Rows { each: (end + 1..=110).map(row).collect(), ..Rows::default() },
            missing: 100 - rows,
            damaged,
            newest: 110,
            bytes: 1000,
        }
    }

    #[test]
    fn each_row_that_is_lost_has_one_reason() {
        // Rows there are, numbers in damaged files, the last that went for its age: size, age, damaged.
        let table = [
            ((100, 0, 0), [0, 0, 0]),
            ((60, 0, 0), [40, 0, 0]),
            ((60, 0, 10), [40, 0, 0]),
            ((60, 0, 30), [20, 20, 0]),
            ((60, 0, 500), [0, 40, 0]),
            ((60, 30, 500), [0, 10, 30]),
            ((60, 30, 0), [10, 0, 30]),
            ((60, 99, 20), [0, 0, 40]),
        ];
        for ((rows, damaged, aged), expected) in table {
            let stats = ShipStats::default();
            stats.aged(aged);
            stats.moved(&batch(rows, damaged), 0);
            let lost = [Lost::Size, Lost::Age, Lost::Damaged].map(|reason| stats.lost(reason));
            assert_eq!(lost, expected, "{rows} rows, {damaged} damaged, {aged} aged");
        }
    }

    #[test]
    fn of_a_live_file_what_was_not_sent_is_lost() {
        for (is_on, shipped, numbers, expected) in [
            (true, 7, (5, 10), 3),
            (true, 3, (5, 10), 5),
            (true, 10, (5, 10), 0),
            (true, 0, (0, 0), 0),
            (false, 0, (5, 10), 0),
        ] {
            let stats = ShipStats::default();
            stats.begin(is_on, (shipped, 0));
            stats.set_aside(numbers);
            assert_eq!(stats.lost(Lost::Damaged), expected, "{shipped} of {numbers:?}");
        }
    }

    #[test]
    fn nothing_waits_where_there_is_no_server() {
        let stats = ShipStats::default();
        assert_eq!(stats.shipped(), i64::MAX);
        stats.begin(true, (7, 0));
        assert_eq!(stats.shipped(), 7);
        stats.turn(false);
        assert_eq!(stats.shipped(), i64::MAX);
    }
}
