//! What the log tells about itself: counters the metrics read at each scrape.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};

use super::bodies::BodyRoom;
use super::segments::Tally;
use super::ship::ShipStats;
use super::store::Written;

/// Counters of the log; all grow from the process's start. Shared by the senders, the writer and the metrics.
#[derive(Debug, Default)]
pub struct Stats {
    written: AtomicU64,
    dropped: [AtomicU64; DropReason::ALL.len()],
    sampled: AtomicU64,
    capture_losses: [AtomicU64; CaptureLoss::ALL.len()],
    /// Bytes of what is captured by rows that wait or are being written.
    pub(super) captured_bytes: AtomicUsize,
    pruned: [AtomicU64; PruneReason::ALL.len()],
    write_errors: AtomicU64,
    set_aside: AtomicU64,
    store_up: AtomicBool,
    live_bytes: AtomicU64,
    /// Segments, and their bytes: as they were cut, and packed.
    segments: [(AtomicU64, AtomicU64); 2],
    /// Bytes of files that are neither the live one nor a segment.
    other_bytes: AtomicU64,
    held: AtomicU64,
    in_hand: AtomicU64,
    /// Also the queue's own measure of how full it is.
    pub(super) depth: AtomicUsize,
    /// What became of rows that are sent to Postgres.
    pub ship: ShipStats,
    /// Bodies on their way into rows.
    pub bodies: Arc<BodyRoom>,
}

/// Why a row is not in the store. Closed: a label of a metric.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DropReason {
    /// The writer did not keep up, or the store was down too long.
    QueueFull,
    /// The store could not be written before the process had to end.
    WriteFailed,
    /// The decision came after the log was closed.
    Stopped,
}

impl DropReason {
    /// Every reason.
    pub const ALL: [Self; 3] = [Self::QueueFull, Self::WriteFailed, Self::Stopped];

    /// The word in metric labels.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::QueueFull => "queue_full",
            Self::WriteFailed => "write_failed",
            Self::Stopped => "stopped",
        }
    }
}

/// Why something that was to be captured is not in its row as it should be. Closed: a label of a metric.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CaptureLoss {
    /// A value: the row has as much as it may.
    RowFull,
    /// All of a row's: rows that wait have as much as they may.
    QueueFull,
    /// A value was to be hashed and is masked: there is no salt.
    NoSalt,
}

impl CaptureLoss {
    /// Every reason.
    pub const ALL: [Self; 3] = [Self::RowFull, Self::QueueFull, Self::NoSalt];

    /// The word in metric labels.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::RowFull => "row_full",
            Self::QueueFull => "queue_full",
            Self::NoSalt => "no_salt",
        }
    }
}

/// Why rows were deleted. Closed: a label of a metric.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PruneReason {
    /// The log has its size.
    Size,
    /// They were older than they may become.
    Age,
    /// Refusals of strangers had their part.
    Strangers,
}

impl PruneReason {
    /// Every reason.
    pub const ALL: [Self; 3] = [Self::Size, Self::Age, Self::Strangers];

    /// The word in metric labels.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Size => "size",
            Self::Age => "age",
            Self::Strangers => "strangers",
        }
    }
}

/// How segments are kept. Closed: a label of a metric.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SegmentForm {
    /// As they were cut.
    Plain,
    /// Packed.
    Compressed,
}

impl SegmentForm {
    /// Every form.
    pub const ALL: [Self; 2] = [Self::Plain, Self::Compressed];

    /// The word in metric labels.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Plain => "plain",
            Self::Compressed => "compressed",
        }
    }
}

impl Stats {
    /// Rows that were committed.
    pub fn rows_written(&self) -> u64 {
        self.written.load(Ordering::Relaxed)
    }

    /// Decisions that never will be in a row, for `reason`.
    pub fn rows_dropped(&self, reason: DropReason) -> u64 {
        self.dropped[reason as usize].load(Ordering::Relaxed)
    }

    /// Decisions that never will be in a row, for any reason.
    pub fn rows_dropped_total(&self) -> u64 {
        DropReason::ALL.into_iter().map(|reason| self.rows_dropped(reason)).sum()
    }

    /// Decisions that are in no row because only a part of what is allowed is to be.
    pub fn rows_sampled_away(&self) -> u64 {
        self.sampled.load(Ordering::Relaxed)
    }

    pub(super) fn add_sampled(&self, decisions: u64) {
        self.sampled.fetch_add(decisions, Ordering::Relaxed);
    }

    /// What was to be captured and is not in its row, for `reason`.
    pub fn captures_lost(&self, reason: CaptureLoss) -> u64 {
        self.capture_losses[reason as usize].load(Ordering::Relaxed)
    }

    pub(super) fn add_capture_loss(&self, reason: CaptureLoss, losses: u64) {
        if losses > 0 {
            self.capture_losses[reason as usize].fetch_add(losses, Ordering::Relaxed);
        }
    }

    /// Rows deleted for `reason`.
    pub fn rows_pruned(&self, reason: PruneReason) -> u64 {
        self.pruned[reason as usize].load(Ordering::Relaxed)
    }

    /// Attempts to open or write the store that failed.
    pub fn write_errors(&self) -> u64 {
        self.write_errors.load(Ordering::Relaxed)
    }

    /// Damaged files that were set aside.
    pub fn files_set_aside(&self) -> u64 {
        self.set_aside.load(Ordering::Relaxed)
    }

    pub(super) fn add_set_aside(&self) {
        self.set_aside.fetch_add(1, Ordering::Relaxed);
    }

    /// Whether the last attempt on the store succeeded.
    pub fn store_up(&self) -> bool {
        self.store_up.load(Ordering::Relaxed)
    }

    /// Bytes of the store in use: of the live file after the last batch, its write-ahead log included, and of all others.
    pub fn database_bytes(&self) -> u64 {
        let segments: u64 = SegmentForm::ALL.into_iter().map(|form| self.segments(form).1).sum();
        self.live_bytes.load(Ordering::Relaxed) + segments + self.other_bytes.load(Ordering::Relaxed)
    }

    /// Segments that are kept so, and their bytes.
    pub fn segments(&self, form: SegmentForm) -> (u64, u64) {
        let (count, bytes) = &self.segments[form as usize];
        (count.load(Ordering::Relaxed), bytes.load(Ordering::Relaxed))
    }

    /// Counts the segments there are beside the live file.
    pub(super) fn count_segments(&self, live: &Path) {
        // A folder that cannot be read has other ways to be known.
        let Ok(tally) = Tally::of(live) else { return };
        for ((count, bytes), now) in self.segments.iter().zip([tally.plain, tally.packed]) {
            count.store(now.0, Ordering::Relaxed);
            bytes.store(now.1, Ordering::Relaxed);
        }
        self.other_bytes.store(tally.others, Ordering::Relaxed);
    }

    /// Rows that wait for the writer.
    pub fn queue_depth(&self) -> usize {
        self.depth.load(Ordering::Relaxed)
    }

    /// Refusals that are counted to be written as a row with others.
    pub fn refusals_held(&self) -> u64 {
        self.held.load(Ordering::Relaxed)
    }

    /// Decisions of the batch the writer is writing.
    pub(super) fn set_in_hand(&self, decisions: u64) {
        self.in_hand.store(decisions, Ordering::Relaxed);
    }

    /// All that is neither written nor dropped yet.
    pub(super) fn waiting(&self) -> u64 {
        self.queue_depth() as u64 + self.refusals_held() + self.in_hand.load(Ordering::Relaxed)
    }

    pub(super) fn set_held(&self, refusals: u64) {
        self.held.store(refusals, Ordering::Relaxed);
    }

    pub(super) fn add_dropped(&self, reason: DropReason, decisions: u64) {
        self.dropped[reason as usize].fetch_add(decisions, Ordering::Relaxed);
    }

    pub(super) fn add_pruned(&self, reason: PruneReason, rows: u64) {
        self.pruned[reason as usize].fetch_add(rows, Ordering::Relaxed);
    }

    pub(super) fn add_written(&self, rows: u64, written: &Written) {
        let Written { pruned, pruned_strangers, gone, live_bytes, has_cut: _, is_short: _ } = *written;
        self.written.fetch_add(rows, Ordering::Relaxed);
        let pruned = [
            (PruneReason::Size, pruned + gone.for_size),
            (PruneReason::Age, gone.for_age),
            (PruneReason::Strangers, pruned_strangers),
        ];
        for (reason, rows) in pruned {
            self.add_pruned(reason, rows);
        }
        self.live_bytes.store(live_bytes, Ordering::Relaxed);
    }

    pub(super) fn store_works(&self) {
        self.store_up.store(true, Ordering::Relaxed);
    }

    pub(super) fn store_failed(&self) {
        self.write_errors.fetch_add(1, Ordering::Relaxed);
        self.store_up.store(false, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::log::segments::Gone;

    #[test]
    fn each_row_that_is_deleted_has_one_reason() {
        let stats = Stats::default();
        let gone = Gone { for_size: 4, for_age: 8 };
        stats.add_written(5, &Written { pruned: 1, pruned_strangers: 2, gone, ..Written::default() });
        assert_eq!(PruneReason::ALL.map(|reason| stats.rows_pruned(reason)), [1 + 4, 8, 2]);
        assert_eq!(stats.rows_written(), 5);
    }
}
