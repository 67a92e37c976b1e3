//! Memory that a burst of connections leaves behind goes back to the system.
//!
//! glibc keeps what was freed for the next allocation of the thread that freed it, and for ever. After a burst that is
//! most of what the process has: connections are allocated by workers one after the other, so the last to close holds
//! up the top of its arena. `malloc_trim` gives back free pages in the middle, too. Another C library has another
//! allocator, and there this module does nothing.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use tokio::time::{MissedTickBehavior, interval};

use crate::limits::{TRIM_CHECK, TRIM_CONNECTIONS, TRIM_PAUSE};
use crate::metrics::Handshakes;

/// How often memory was given back, and how long that took.
#[derive(Debug, Default)]
pub struct Trims {
    count: AtomicU64,
    microseconds: AtomicU64,
}

impl Trims {
    /// How often.
    pub fn count(&self) -> u64 {
        self.count.load(Ordering::Relaxed)
    }

    /// How long it took, all together.
    pub fn time(&self) -> Duration {
        Duration::from_micros(self.microseconds.load(Ordering::Relaxed))
    }

    fn add(&self, took: Duration) {
        self.count.fetch_add(1, Ordering::Relaxed);
        self.microseconds.fetch_add(u64::try_from(took.as_micros()).unwrap_or(u64::MAX), Ordering::Relaxed);
    }
}

/// Gives memory back after bursts, for as long as it is polled. It runs on a thread of its own, because the control thread
/// has revocations to publish; a worker waits for it only where it allocates while its own arena is being searched.
pub async fn give_back(connections: &Handshakes, trims: &Trims) {
    let mut checks = interval(TRIM_CHECK);
    checks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut bursts = Bursts::default();
    // What reading the first configuration took.
    trim();
    loop {
        checks.tick().await;
        let now = Instant::now();
        if bursts.is_over(connections.open(), now) {
            let _trimmed = tokio::task::spawn_blocking(trim).await;
            let took = now.elapsed();
            trims.add(took);
            tracing::debug!(?took, "memory given back");
        }
    }
}

/// Tells when a burst of connections has ended.
#[derive(Debug, Default)]
struct Bursts {
    /// The most that were open since the last burst's end.
    most: usize,
    last: usize,
    ended: Option<Instant>,
}

impl Bursts {
    /// Whether most of what was open has closed, and is not just closing. Once for each burst.
    fn is_over(&mut self, open: usize, now: Instant) -> bool {
        let falling = open < self.last;
        self.last = open;
        self.most = self.most.max(open);
        let too_soon = self.ended.is_some_and(|ended| now.saturating_duration_since(ended) < TRIM_PAUSE);
        if falling || too_soon || open > self.most / 2 || self.most - open < TRIM_CONNECTIONS {
            return false;
        }
        self.most = open;
        self.ended = Some(now);
        true
    }
}

#[cfg(target_env = "gnu")]
fn trim() {
    unsafe extern "C" {
        fn malloc_trim(pad: usize) -> i32;
    }
    // SAFETY: malloc_trim(3) may be called at any time by any thread; it takes each arena's lock.
    unsafe { malloc_trim(0) };
}

#[cfg(not(target_env = "gnu"))]
fn trim() {}

#[cfg(test)]
mod tests {
    use super::*;

    /// Which of the counts, one for each second, ends a burst.
    fn ends(counts: &[usize]) -> Vec<usize> {
        let start = Instant::now();
        let mut bursts = Bursts::default();
        let seconds = counts.iter().zip(0..).filter(|(open, second)| {
            let now = start + Duration::from_secs(*second);
            bursts.is_over(**open, now)
        });
        seconds.map(|(_, second)| usize::try_from(second).unwrap()).collect()
    }

    #[test]
    fn a_burst_ends_once_when_most_of_it_has_closed() {
        let many = TRIM_CONNECTIONS * 10;
        let rows: [(&str, Vec<usize>, &[usize]); 8] = [
            ("nothing happens", vec![0; 40], &[]),
            ("a busy gate stays busy", vec![many; 40], &[]),
            ("few come and go", [[TRIM_CONNECTIONS - 1; 5], [0; 5]].concat(), &[]),
            ("all close", [[many; 5], [0; 5]].concat(), &[6]),
            ("half close", [[many; 5], [many / 2; 5]].concat(), &[6]),
            ("fewer close", [[many; 5], [many / 2 + 1; 5]].concat(), &[]),
            ("they go on closing", vec![many, many / 4, many / 5, many / 6, many / 7, 5, 5, 5], &[6]),
            ("another burst", [vec![many, 0, 0], vec![many; 3], vec![0; 20]].concat(), &[2, 12]),
        ];
        for (case, counts, expected) in rows {
            assert_eq!(ends(&counts), expected, "{case}");
        }
    }
}
