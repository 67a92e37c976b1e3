//! How much of the processor making segments small may take.

use std::cell::Cell;
use std::io::{self, Read};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use crate::processors::{self, HeldBack};

/// The part of the CPU's limit that it may take, one in so many; of one processor where there is no limit.
const SHARE: u32 = 10;

/// What compressing a piece takes, on a slow processor.
const COMPRESS: Duration = Duration::from_micros(300);

/// How long it waits where the kernel held this process back since it last looked: ten of the usual periods of a limit.
const HELD_BACK: Duration = Duration::from_secs(1);

/// When it may work.
pub(super) struct Pace {
    stop: Arc<AtomicBool>,
    /// How long it rests for what it worked.
    rest: u32,
    held_back: HeldBack,
    /// How often that was when it last looked.
    seen: Cell<u64>,
}

impl Pace {
    pub(super) fn new(stop: Arc<AtomicBool>) -> Self {
        let thousandths = processors::limit().unwrap_or(1000).clamp(10, 1000);
        let rest = SHARE * 1000 / u32::try_from(thousandths).unwrap_or(1000);
        Self::of(stop, rest - 1)
    }

    pub(super) fn of(stop: Arc<AtomicBool>, rest: u32) -> Self {
        let held_back = HeldBack::new();
        let seen = Cell::new(held_back.times());
        Self { stop, rest, held_back, seen }
    }

    pub(super) fn is_over(&self) -> bool {
        self.stop.load(Ordering::Relaxed)
    }

    /// Rests for work that took so long.
    pub(super) fn wait(&self, worked: Duration) {
        if self.rest == 0 {
            return;
        }
        self.park(worked * self.rest);
        let times = self.held_back.times();
        if times > self.seen.replace(times) {
            // Once for each rest: under a limit that is always reached it would never go on, and its share is small.
            self.park(HELD_BACK);
            self.seen.set(self.held_back.times());
        }
    }

    /// Does nothing for so long, unless it is over.
    fn park(&self, time: Duration) {
        let until = Instant::now() + time;
        while !self.is_over()
            && let left = until.saturating_duration_since(Instant::now())
            && !left.is_zero()
        {
            thread::park_timeout(left);
        }
    }
}

/// Bytes to compress, as fast as it may be; not all of them where it is over.
pub(super) struct Paced<'a, R> {
    pub(super) image: R,
    pub(super) pace: &'a Pace,
}

impl<R: Read> Read for Paced<'_, R> {
    fn read(&mut self, piece: &mut [u8]) -> io::Result<usize> {
        // What the last one took is not known here.
        self.pace.wait(COMPRESS);
        if self.pace.is_over() { Ok(0) } else { self.image.read(piece) }
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    #[test]
    fn it_takes_its_share_and_no_more() {
        let pace = Pace::of(Arc::default(), 9);
        let began = Instant::now();
        pace.wait(Duration::from_millis(3));
        assert!(began.elapsed() >= Duration::from_millis(27));
        pace.stop.store(true, Ordering::Relaxed);
        let began = Instant::now();
        pace.wait(Duration::from_secs(100));
        assert!(began.elapsed() < Duration::from_secs(10));
    }

    #[test]
    fn it_waits_while_the_kernel_holds_the_process_back() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let held_back = |times: u64| fs::write(file.path(), format!("nr_periods 9\nnr_throttled {times}\n")).unwrap();
        held_back(3);
        let pace =
            Pace { held_back: HeldBack::counted_in(vec![file.path().to_owned()]), ..Pace::of(Arc::default(), 1) };
        pace.seen.set(3);
        let waits = || {
            let began = Instant::now();
            pace.wait(Duration::ZERO);
            began.elapsed() >= HELD_BACK
        };
        assert!(!waits());
        held_back(4);
        assert!(waits());
        assert!(!waits(), "once for each time");
    }
}
