//! What nobody needs any more goes back to the system. Lists of objects come by the megabyte, as bytes and as objects, and
//! little of each is kept: glibc would keep the rest for the next allocation, and for ever. Another C library has
//! another allocator, and there this module does nothing.

use tokio::task::spawn_blocking;
use tokio::time::{MissedTickBehavior, interval};

use crate::limits::{HEAP_ARENAS, HEAP_BLOCK_BYTES, HEAP_TRIM};

/// Says how memory is to be had. Before there are other threads.
pub fn prepare() {
    system::prepare();
}

/// Gives memory back now and then, for as long as it is polled.
pub async fn give_back() {
    let mut turns = interval(HEAP_TRIM);
    turns.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        turns.tick().await;
        let _trimmed = spawn_blocking(system::trim).await;
    }
}

#[cfg(target_env = "gnu")]
mod system {
    use super::{HEAP_ARENAS, HEAP_BLOCK_BYTES};

    /// <malloc.h>
    const MMAP_THRESHOLD: i32 = -3;
    const ARENA_MAX: i32 = -8;

    unsafe extern "C" {
        fn mallopt(parameter: i32, value: i32) -> i32;
        fn malloc_trim(pad: usize) -> i32;
    }

    pub(super) fn prepare() {
        for (parameter, value) in [(ARENA_MAX, HEAP_ARENAS), (MMAP_THRESHOLD, HEAP_BLOCK_BYTES)] {
            // SAFETY: mallopt(3) takes two numbers, and is called before there are other threads.
            let _is_known = unsafe { mallopt(parameter, value) };
        }
    }

    pub(super) fn trim() {
        // SAFETY: malloc_trim(3) may be called at any time by any thread; it takes each arena's lock.
        let _has_given = unsafe { malloc_trim(0) };
    }
}

#[cfg(not(target_env = "gnu"))]
mod system {
    pub(super) fn prepare() {}

    pub(super) fn trim() {}
}
