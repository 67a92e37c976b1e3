//! What became of spans.

use std::sync::atomic::{AtomicU64, Ordering};

use crate::page::{Kind, Page};

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

/// Counts of spans.
#[derive(Debug, Default)]
pub struct SpanStats {
    exported: AtomicU64,
    dropped: [AtomicU64; SpanDrop::ALL.len()],
}

impl SpanStats {
    /// Spans that a collector has taken.
    #[must_use]
    pub fn exported(&self) -> u64 {
        self.exported.load(Ordering::Relaxed)
    }

    /// Spans that nobody got.
    #[must_use]
    pub fn dropped(&self, reason: SpanDrop) -> u64 {
        self.dropped[reason as usize].load(Ordering::Relaxed)
    }

    /// The families, whose names begin with what the program's do.
    pub fn write(&self, page: &mut Page, prefix: &str) {
        let name = format!("{prefix}_trace_spans_exported_total");
        page.counter(&name, "Spans that the collector took.", self.exported());
        let name = format!("{prefix}_trace_spans_dropped_total");
        let mut dropped = page.family(Kind::Counter, &name, "Spans that nobody got, by reason.");
        for reason in SpanDrop::ALL {
            dropped.series(&[("reason", reason.name())], self.dropped(reason));
        }
    }

    pub(super) fn add_exported(&self, spans: u64) {
        self.exported.fetch_add(spans, Ordering::Relaxed);
    }

    pub(super) fn add_dropped(&self, reason: SpanDrop, spans: u64) {
        self.dropped[reason as usize].fetch_add(spans, Ordering::Relaxed);
    }
}
