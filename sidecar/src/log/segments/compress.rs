//! Segments made small, by a thread of its own that is there only while there are some to make small. What traffic needs
//! goes first: the thread has the lowest priority, works a part of the time, and not while the kernel holds this process
//! back.

use std::fs;
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use super::pack::{pack, unpack};
use super::{Form, SIZE_MAX, Segment, beside, list, set_aside, sync_folder, write_file};
use crate::log::stats::Stats;
use crate::processors;

/// What a packed segment is called while it is written.
pub(super) const UNFINISHED: &str = ".zst.part";

/// The part of the CPU's limit that it may take, one in so many; of one processor where there is no limit.
const SHARE: u32 = 10;

/// Bytes after which it looks whether it may go on: 1 to 2 milliseconds of work.
const PIECE: usize = 128 << 10;

/// How long it waits where the kernel held this process back since it last looked: ten of the usual periods of a limit.
const HELD_BACK: Duration = Duration::from_secs(1);

/// The lowest there is; each thread has its own on Linux (setpriority(2)).
const PRIORITY: i32 = 19;

/// The thread, while there is one.
#[derive(Debug)]
pub(in crate::log) struct Compressor {
    live: PathBuf,
    stats: Arc<Stats>,
    thread: Option<JoinHandle<()>>,
    stop: Arc<AtomicBool>,
    /// Whether every segment was looked at that was there at the start.
    has_checked: bool,
}

impl Compressor {
    pub(in crate::log) fn new(live: PathBuf, stats: Arc<Stats>) -> Self {
        Self { live, stats, thread: None, stop: Arc::default(), has_checked: false }
    }

    /// Sees to it that all segments there are become small; at the first time also that they are whole.
    pub(in crate::log) fn start(&mut self) {
        if self.thread.as_ref().is_some_and(|thread| !thread.is_finished()) {
            // What came since it looked is made small with the next one.
            return;
        }
        let (live, stats, stop) = (self.live.clone(), Arc::clone(&self.stats), Arc::clone(&self.stop));
        let check = !self.has_checked;
        let thread = thread::Builder::new().name("log-compress".to_owned()).spawn(move || {
            let _as_it_was = rustix::process::setpriority_process(None, PRIORITY);
            let pace = Pace::new(stop);
            work(&live, &stats, &pace, check);
        });
        match thread {
            Ok(thread) => (self.thread, self.has_checked) = (Some(thread), true),
            Err(error) => tracing::warn!(%error, "segments of the request log cannot be compressed now"),
        }
    }

    /// Ends the thread, in the middle of a segment, too.
    pub(in crate::log) fn stop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            thread.thread().unpark();
            let _it_is_over_either_way = thread.join();
        }
    }
}

fn work(live: &Path, stats: &Stats, pace: &Pace, check: bool) {
    let mut checked = 0;
    while !pace.is_over() {
        let segments = match list(live) {
            Ok(segments) => segments,
            Err(error) => return tracing::warn!(%error, "segments of the request log cannot be looked at"),
        };
        let is_next = |segment: &&Segment| match segment.form(live) {
            Form::Plain => true,
            Form::Packed => check && segment.first > checked,
            Form::Large => false,
        };
        let Some(segment) = segments.iter().find(is_next) else { return };
        checked = checked.max(segment.first);
        let done = match segment.form(live) {
            Form::Plain => small(live, segment, pace),
            Form::Packed | Form::Large => read_packed(live, segment, pace).map(drop),
        };
        match done {
            Ok(()) => {}
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) if error.kind() == io::ErrorKind::InvalidData => put_aside(live, segment, stats, &error),
            Err(error) => {
                tracing::warn!(path = %segment.path(live).display(), %error, "a segment of the request log cannot be compressed");
                return;
            }
        }
        stats.count_segments(live);
    }
}

/// Makes one small: whole and on the disk before the other is deleted.
fn small(live: &Path, segment: &Segment, pace: &Pace) -> io::Result<()> {
    let (plain, packed) = (segment.path(live), segment.packed_path(live));
    if !packed.exists() {
        let image = fs::read(&plain)?;
        if !is_database(&image) {
            return Err(io::Error::new(io::ErrorKind::InvalidData, "it is no database of its size"));
        }
        let bytes = pack(Paced { left: &image, pace });
        if pace.is_over() {
            // What was not read is not in it.
            return Ok(());
        }
        drop(image);
        write_file(&beside(live, UNFINISHED), &packed, &bytes)?;
        sync_folder(live)?;
    }
    match fs::remove_file(plain) {
        // It was deleted meanwhile, for it was the oldest.
        Err(error) if error.kind() == io::ErrorKind::NotFound => fs::remove_file(packed),
        removed => removed,
    }
}

/// The bytes of one that is small.
fn read_packed(live: &Path, segment: &Segment, pace: &Pace) -> io::Result<Vec<u8>> {
    pace.wait(Duration::from_millis(20));
    let image = unpack(&fs::read(segment.packed_path(live))?)?;
    if is_database(&image) { Ok(image) } else { Err(io::Error::new(io::ErrorKind::InvalidData, "it is no database")) }
}

fn put_aside(live: &Path, segment: &Segment, stats: &Stats, error: &io::Error) {
    let path = segment.path(live);
    match set_aside(live, segment) {
        Ok(()) => {
            stats.add_set_aside();
            tracing::error!(path = %path.display(), %error, "a segment of the request log is damaged: it was set aside");
        }
        Err(why) => tracing::error!(path = %path.display(), %error, %why, "a segment of the request log is damaged"),
    }
}

/// Whether this begins as a database does and has the length that it says (sqlite.org/fileformat2.html#the_database_header).
pub(super) fn is_database(image: &[u8]) -> bool {
    let number = |at: usize| {
        image.get(at..at + 4).map_or(0, |bytes| bytes.iter().fold(0_u64, |n, byte| n << 8 | u64::from(*byte)))
    };
    let page = image.get(16..18).map_or(0, |bytes| u64::from(bytes[0]) << 8 | u64::from(bytes[1]));
    image.starts_with(b"SQLite format 3\0") && number(28) * page == image.len() as u64 && image.len() as u64 <= SIZE_MAX
}

/// When it may work.
struct Pace {
    stop: Arc<AtomicBool>,
    /// How long it rests for what it worked.
    rest: u32,
}

impl Pace {
    fn new(stop: Arc<AtomicBool>) -> Self {
        let thousandths = processors::limit().unwrap_or(1000).clamp(10, 1000);
        let rest = SHARE * 1000 / u32::try_from(thousandths).unwrap_or(1000);
        Self { stop, rest: rest - 1 }
    }

    fn is_over(&self) -> bool {
        self.stop.load(Ordering::Relaxed)
    }

    /// Rests for work that took so long.
    fn wait(&self, worked: Duration) {
        let mut until = Instant::now() + worked * self.rest;
        let before = processors::times_held_back();
        loop {
            let left = until.saturating_duration_since(Instant::now());
            if self.is_over() {
                return;
            }
            if !left.is_zero() {
                thread::park_timeout(left);
            } else if processors::times_held_back() > before {
                // Once for each rest: under a limit that is always reached it would never go on, and its share is small.
                until = Instant::now() + HELD_BACK;
                while !self.is_over() && Instant::now() < until {
                    thread::park_timeout(until.saturating_duration_since(Instant::now()));
                }
                return;
            } else {
                return;
            }
        }
    }
}

/// Bytes that are read as fast as it may be.
struct Paced<'a> {
    left: &'a [u8],
    pace: &'a Pace,
}

impl Read for Paced<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if self.pace.is_over() {
            return Ok(0);
        }
        let length = buffer.len().min(PIECE).min(self.left.len());
        if length > 0 {
            // What the last piece took is not known here; this is what one takes.
            self.pace.wait(Duration::from_micros(1500));
        }
        let (read, left) = self.left.split_at(length);
        buffer[..length].copy_from_slice(read);
        self.left = left;
        Ok(length)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_takes_its_share_and_no_more() {
        let pace = Pace { stop: Arc::default(), rest: 9 };
        let began = Instant::now();
        pace.wait(Duration::from_millis(3));
        assert!(began.elapsed() >= Duration::from_millis(27));
        pace.stop.store(true, Ordering::Relaxed);
        let began = Instant::now();
        pace.wait(Duration::from_secs(100));
        assert!(began.elapsed() < Duration::from_secs(10));
    }

    #[test]
    fn a_file_that_is_cut_off_is_no_database() {
        let mut image = vec![0; 2 * 4096];
        image[..16].copy_from_slice(b"SQLite format 3\0");
        image[16] = 16;
        image[31] = 2;
        assert!(is_database(&image));
        for length in [0, 15, 30, 4096, 2 * 4096 - 1] {
            assert!(!is_database(&image[..length]), "{length}");
        }
    }
}
