//! What became of spans.

use std::sync::atomic::{AtomicU64, Ordering};

/// Why spans were not sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SpanDrop {
    /// They came faster than the collector took them.
    QueueFull,
    /// The collector said that it will not have them.
    Rejected,
    /// The collector could not be reached, or did not take them in so many tries.
    Unavailable,
    /// The process ended before they were sent.
    Stopped,
}

impl SpanDrop {
    /// Every reason.
    pub const ALL: [Self; 4] = [Self::QueueFull, Self::Rejected, Self::Unavailable, Self::Stopped];

    /// The word in metrics.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::QueueFull => "queue_full",
            Self::Rejected => "rejected",
            Self::Unavailable => "unavailable",
            Self::Stopped => "stopped",
        }
    }
}

/// Counts of spans, of all workers.
#[derive(Debug, Default)]
pub struct SpanStats {
    exported: AtomicU64,
    dropped: [AtomicU64; SpanDrop::ALL.len()],
}

impl SpanStats {
    /// Spans that a collector has taken.
    pub fn exported(&self) -> u64 {
        self.exported.load(Ordering::Relaxed)
    }

    /// Spans that nobody got.
    pub fn dropped(&self, reason: SpanDrop) -> u64 {
        self.dropped[reason as usize].load(Ordering::Relaxed)
    }

    pub(super) fn add_exported(&self, spans: u64) {
        self.exported.fetch_add(spans, Ordering::Relaxed);
    }

    pub(super) fn add_dropped(&self, reason: SpanDrop, spans: u64) {
        self.dropped[reason as usize].fetch_add(spans, Ordering::Relaxed);
    }
}
