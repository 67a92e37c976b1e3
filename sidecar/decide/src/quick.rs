//! Hashing for what a configuration has entered and requests are looked up in.
//!
//! The standard hasher keeps whoever chooses keys from choosing such as meet, for some 150 instructions a lookup, of which
//! a request has several. Here the keys are a configuration's, and a request's are only looked for.

use std::collections::HashMap;
use std::hash::{BuildHasherDefault, Hasher};

/// A map of what was configured.
pub(crate) type QuickMap<K, V> = HashMap<K, V, BuildHasherDefault<QuickHasher>>;

/// Eight bytes at a time, as rustc hashes its own.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct QuickHasher(u64);

impl QuickHasher {
    fn add(&mut self, word: u64) {
        self.0 = (self.0.rotate_left(5) ^ word).wrapping_mul(0x517c_c1b7_2722_0a95);
    }
}

impl Hasher for QuickHasher {
    fn write(&mut self, bytes: &[u8]) {
        let (words, rest) = bytes.as_chunks();
        for word in words {
            self.add(u64::from_le_bytes(*word));
        }
        if !rest.is_empty() {
            // At most seven bytes, and how many they are: else NULs would count for nothing.
            self.add(rest.iter().rev().fold(rest.len() as u64, |word, byte| word << 8 | u64::from(*byte)));
        }
    }

    fn write_u8(&mut self, number: u8) {
        self.add(number.into());
    }

    fn write_u64(&mut self, number: u64) {
        self.add(number);
    }

    fn write_usize(&mut self, number: usize) {
        self.add(number as u64);
    }

    /// The tables look at both ends of it, and multiplication leaves the chance in the upper one.
    fn finish(&self) -> u64 {
        self.0.rotate_left(26)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;
    use std::hash::{Hash, Hasher};

    use super::QuickHasher;

    fn hash(value: impl Hash) -> u64 {
        let mut hasher = QuickHasher::default();
        value.hash(&mut hasher);
        hasher.finish()
    }

    /// What tables look at: the lowest bits for the place, the highest for the first comparison.
    #[test]
    fn names_that_differ_by_a_little_are_far_apart() {
        let names: Vec<String> = (0..10_000).map(|number| format!("/v1/orders/{number}")).collect();
        for (shift, bits, most) in [(0, 14, 6500), (57, 7, 100)] {
            let places: HashSet<u64> = names.iter().map(|name| hash(name) >> shift & ((1 << bits) - 1)).collect();
            // Of 2^14 places 10,000 by chance take some 7,480.
            assert!(places.len() >= most, "{shift}: {}", places.len());
        }
        assert_eq!(names.iter().map(hash).collect::<HashSet<_>>().len(), names.len());
        let short: HashSet<u64> = ["", "\0", "\0\0", "a", "a\0", "aaaaaaaa", "aaaaaaaaa"].iter().map(hash).collect();
        assert_eq!(short.len(), 7);
    }
}
