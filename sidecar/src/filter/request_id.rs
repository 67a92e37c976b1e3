//! Where fresh ids for requests come from.

use std::cell::Cell;
use std::hash::{BuildHasher, RandomState};
use std::time::{SystemTime, UNIX_EPOCH};

use sidecar_decide::filter::Uuid7;

/// A worker's source of ids. An id is no secret, and tells nobody how many requests others make.
#[derive(Default)]
pub struct RequestIds {
    key: RandomState,
    connections: Cell<u64>,
}

impl RequestIds {
    /// Those of the next connection: from a keyed hash of its number, which is as good as chance.
    pub fn connection(&self) -> ConnectionIds {
        let count = self.connections.get();
        self.connections.set(count.wrapping_add(1));
        ConnectionIds { next: Cell::new(self.key.hash_one(count)) }
    }
}

/// A connection's ids. They count up (RFC 9562 §6.2), so that its rows differ in one byte of them: in the log's segments
/// chance is what cannot be compressed.
pub struct ConnectionIds {
    next: Cell<u64>,
}

impl ConnectionIds {
    /// The next one, for a request that began at this time.
    pub fn fresh(&self, time: SystemTime) -> Uuid7 {
        let since = time.duration_since(UNIX_EPOCH).unwrap_or_default();
        let micros = u64::try_from(since.as_micros()).unwrap_or(u64::MAX);
        let next = self.next.get();
        self.next.set(next.wrapping_add(1));
        Uuid7::new(micros, next)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;
    use std::time::UNIX_EPOCH;

    use super::RequestIds;

    #[test]
    fn no_two_are_the_same() {
        let workers = [RequestIds::default(), RequestIds::default()];
        let connections: Vec<_> = workers.iter().flat_map(|ids| (0..50).map(|_| ids.connection())).collect();
        let ids: HashSet<[u8; 16]> =
            connections.iter().flat_map(|ids| (0..100).map(|_| ids.fresh(UNIX_EPOCH).bytes())).collect();
        assert_eq!(ids.len(), 10_000);
    }

    #[test]
    fn of_a_connection_they_differ_in_little_and_of_two_in_much() {
        let worker = RequestIds::default();
        let [one, other] = [worker.connection(), worker.connection()];
        let [first, second, others] = [&one, &one, &other].map(|ids| ids.fresh(UNIX_EPOCH).chance());
        assert_eq!(second.wrapping_sub(first) & (u64::MAX >> 2), 1);
        assert!(others.abs_diff(second) > 1 << 20, "{others} {second}");
    }
}
