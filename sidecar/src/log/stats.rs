//! What the log tells about itself: counters the metrics read at each scrape.

use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};

use super::store::Written;

/// Counters of the log; all grow from the process's start. Shared by the senders, the writer and the metrics.
#[derive(Debug, Default)]
pub struct Stats {
    written: AtomicU64,
    dropped: [AtomicU64; DropReason::ALL.len()],
    pruned: [AtomicU64; PruneReason::ALL.len()],
    write_errors: AtomicU64,
    set_aside: AtomicU64,
    store_up: AtomicBool,
    database_bytes: AtomicU64,
    held: AtomicU64,
    in_hand: AtomicU64,
    /// Also the queue's own measure of how full it is.
    pub(super) depth: AtomicUsize,
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

    /// Bytes of the store in use after the last batch, its write-ahead log included.
    pub fn database_bytes(&self) -> u64 {
        self.database_bytes.load(Ordering::Relaxed)
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

    pub(super) fn add_written(&self, rows: u64, written: &Written) {
        let Written { pruned, pruned_strangers, gone, database_bytes } = *written;
        self.written.fetch_add(rows, Ordering::Relaxed);
        let pruned = [
            (PruneReason::Size, pruned + gone.for_size),
            (PruneReason::Age, gone.for_age),
            (PruneReason::Strangers, pruned_strangers),
        ];
        for (reason, rows) in pruned {
            self.pruned[reason as usize].fetch_add(rows, Ordering::Relaxed);
        }
        self.database_bytes.store(database_bytes, Ordering::Relaxed);
    }

    pub(super) fn store_works(&self) {
        self.store_up.store(true, Ordering::Relaxed);
    }

    pub(super) fn store_failed(&self) {
        self.write_errors.fetch_add(1, Ordering::Relaxed);
        self.store_up.store(false, Ordering::Relaxed);
    }
}
