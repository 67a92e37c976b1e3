//! How many requests were about what, at one place: a list of its own, so that outcomes are found as fast as without it.

use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering};

use super::place::increase;
use crate::message_type::Message;

/// One worker's counts of one type.
#[derive(Debug)]
pub(super) struct MessageCell {
    pub(super) message: Message,
    /// Whether it has no series of its own.
    pub(super) is_other: bool,
    count: AtomicU64,
    next: OnceLock<Box<Self>>,
}

impl MessageCell {
    pub(super) fn count(&self) -> u64 {
        self.count.load(Ordering::Relaxed)
    }
}

/// One worker's counts of all types at a place, in the order in which they were first seen. It has as many as messages
/// came of: one where all is JSON, some twenty where a server speaks IEEE 2030.5 by one rule.
#[derive(Debug, Default)]
pub(super) struct MessageCells(OnceLock<Box<MessageCell>>);

impl MessageCells {
    /// Counts one. Called by its own worker only; `may_have_series` is asked once for each type.
    pub(super) fn count(&self, message: &Message, may_have_series: impl FnOnce() -> bool) {
        let mut link = &self.0;
        while let Some(cell) = link.get() {
            if cell.message == *message {
                return increase(&cell.count, 1);
            }
            link = &cell.next;
        }
        let is_other = !may_have_series();
        let new = || {
            let (count, next) = (AtomicU64::new(0), OnceLock::new());
            Box::new(MessageCell { message: message.clone(), is_other, count, next })
        };
        increase(&link.get_or_init(new).count, 1);
    }

    /// All of them.
    pub(super) fn iter(&self) -> impl Iterator<Item = &MessageCell> {
        std::iter::successors(self.0.get(), |cell| cell.next.get()).map(|cell| &**cell)
    }
}
