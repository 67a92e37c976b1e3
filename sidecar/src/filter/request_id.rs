//! Ids for requests: UUIDs of version 7 (RFC 9562 §5.7), which sort by time.

use std::cell::Cell;
use std::hash::{BuildHasher, RandomState};
use std::time::{SystemTime, UNIX_EPOCH};

/// Where a worker's ids come from: a keyed hash of a counter, as good as chance to tell requests apart. An id is no
/// secret.
#[derive(Default)]
pub struct RequestIds {
    key: RandomState,
    count: Cell<u64>,
}

impl RequestIds {
    /// The next one.
    pub fn fresh(&self) -> String {
        let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let count = self.count.get();
        self.count.set(count.wrapping_add(1));
        text(u64::try_from(since.as_millis()).unwrap_or(0), since.subsec_nanos() % 1_000_000, self.key.hash_one(count))
    }
}

/// Milliseconds in 48 bits, their fraction in 12, 62 bits of chance.
fn text(milliseconds: u64, nanoseconds: u32, chance: u64) -> String {
    let fraction = u64::from(nanoseconds) * 4096 / 1_000_000;
    let (high, low) = (milliseconds >> 16 & 0xffff_ffff, milliseconds & 0xffff);
    let (variant, node) = (0x8000 | (chance >> 48 & 0x3fff), chance & 0xffff_ffff_ffff);
    format!("{high:08x}-{low:04x}-7{fraction:03x}-{variant:04x}-{node:012x}")
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::{RequestIds, text};

    #[test]
    fn an_id_is_a_uuid_of_version_7() {
        // RFC 9562 appendix A.6, but for its random fraction.
        assert_eq!(text(0x017f_22e2_79b0, 0, 0x18c4_dc0c_0c07_398f), "017f22e2-79b0-7000-98c4-dc0c0c07398f");
        assert_eq!(text(0x017f_22e2_79b0, 999_999, u64::MAX), "017f22e2-79b0-7fff-bfff-ffffffffffff");
    }

    #[test]
    fn no_two_are_the_same() {
        let workers = [RequestIds::default(), RequestIds::default()];
        let ids: BTreeSet<String> = workers.iter().flat_map(|ids| (0..5000).map(|_| ids.fresh())).collect();
        assert_eq!(ids.len(), 10_000);
    }
}
