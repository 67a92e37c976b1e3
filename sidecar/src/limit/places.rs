//! A number of things that may be at once, whichever worker has them.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

/// How many there are now.
#[derive(Debug, Default)]
pub struct Places {
    taken: AtomicUsize,
}

/// One of them, for as long as it lives.
#[derive(Debug)]
pub struct Place(Arc<Places>);

impl Places {
    /// How many are taken.
    pub fn taken(&self) -> usize {
        self.taken.load(Ordering::Relaxed)
    }

    /// One more; `None` where there are `limit` already.
    pub fn take(self: &Arc<Self>, limit: usize) -> Option<Place> {
        if self.taken.fetch_add(1, Ordering::Relaxed) < limit {
            return Some(Place(Arc::clone(self)));
        }
        self.taken.fetch_sub(1, Ordering::Relaxed);
        None
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.0.taken.fetch_sub(1, Ordering::Relaxed);
    }
}
