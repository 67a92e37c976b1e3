//! Chance for choices that nobody gains by foretelling.

use std::cell::Cell;
use std::hash::{BuildHasher, RandomState};

/// A worker's own numbers, without a lock and without a system call (xorshift64, Marsaglia 2003).
#[derive(Debug)]
pub struct Random(Cell<u64>);

impl Random {
    /// Numbers that nobody has seen before.
    pub fn new() -> Self {
        Self::from_seed(RandomState::new().hash_one(0))
    }

    /// The same numbers each time.
    pub fn from_seed(seed: u64) -> Self {
        // Zero would stay zero.
        Self(Cell::new(seed.max(1)))
    }

    /// A number below a limit; 0 where the limit is 0.
    pub fn below(&self, limit: usize) -> usize {
        let mut state = self.0.get();
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        self.0.set(state);
        // The high bits of the product are as even as the number itself (Lemire 2019), without a division.
        let product = u128::from(state) * limit as u128;
        usize::try_from(product >> 64).unwrap_or(0)
    }
}
