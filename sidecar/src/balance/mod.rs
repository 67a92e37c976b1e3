//! Which of a rule's addresses a request goes to: each in turn.

use std::cell::Cell;
use std::net::SocketAddr;

/// A worker's place in the turns of one rule.
#[derive(Debug, Default)]
pub struct RoundRobin {
    next: Cell<usize>,
}

impl RoundRobin {
    /// All addresses, beginning with the one whose turn it is; the rest are for when that one cannot be reached.
    pub fn turn<'a>(&self, addresses: &'a [SocketAddr]) -> impl Iterator<Item = SocketAddr> + use<'a> {
        let first = self.next.get().checked_rem(addresses.len()).unwrap_or(0);
        self.next.set(first + 1);
        let (before, after) = addresses.split_at(first);
        after.iter().chain(before).copied()
    }
}
