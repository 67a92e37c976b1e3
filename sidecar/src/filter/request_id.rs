//! Where fresh ids for requests come from.

use std::cell::Cell;
use std::hash::{BuildHasher, RandomState};
use std::time::{SystemTime, UNIX_EPOCH};

use sidecar_decide::filter::Uuid7;

/// A worker's source of ids: a keyed hash of a counter, as good as chance to tell requests apart. An id is no secret.
#[derive(Default)]
pub struct RequestIds {
    key: RandomState,
    count: Cell<u64>,
}

impl RequestIds {
    /// The next one, for a request that began at this time.
    pub fn fresh(&self, time: SystemTime) -> Uuid7 {
        let since = time.duration_since(UNIX_EPOCH).unwrap_or_default();
        let micros = u64::try_from(since.as_micros()).unwrap_or(u64::MAX);
        let count = self.count.get();
        self.count.set(count.wrapping_add(1));
        Uuid7::new(micros, self.key.hash_one(count))
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
        let ids: HashSet<[u8; 16]> =
            workers.iter().flat_map(|ids| (0..5000).map(|_| ids.fresh(UNIX_EPOCH).bytes())).collect();
        assert_eq!(ids.len(), 10_000);
    }
}
