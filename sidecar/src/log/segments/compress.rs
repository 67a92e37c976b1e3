//! Segments made small, by a thread of its own that is there only while there are some to make small. What traffic needs
//! goes first: the thread is idle by its policy, works a part of the time, and not while the kernel holds this process
//! back. Where the others leave it nothing, and segments wait for it or a cut does, one that is like any other thread takes
//! its place, and its part of the time: else what is to be deleted next, and what was refused of that, would be for the writer
//! to see to, and rows would wait for it.

use std::fs::{self, File};
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI64, Ordering};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant, SystemTime};

use tokio::runtime::Builder;

use super::pace::{Pace, Paced};
use super::pack::{PIECE, pack, unpack};
use super::retain::CUTS_AHEAD;
use super::thin::thin;
use super::{Form, Retention, SIZE_MAX, Segment, Sizes, beside, list, set_aside, sync_folder, write_file};
use crate::log::links::Chained;
use crate::log::stats::{PruneReason, SegmentForm, Stats};
use crate::processors;

/// What a packed segment is called while it is written.
pub(super) const UNFINISHED: &str = ".zst.part";

/// Bytes in which a database says how long it is.
const HEAD: usize = 32;

/// What looking at a segment takes.
const CHECK: Duration = Duration::from_millis(10);

/// What thinning one takes for each of its pieces, but for compressing what is left.
const THIN: Duration = Duration::from_micros(800);

/// Segments that wait when an idle thread has no time for them: the one it is at, and two that came meanwhile.
const BEHIND: u64 = 3;

/// How long it is like any other thread then: what left it nothing will do so again.
const ORDINARY: Duration = Duration::from_secs(60);

/// The thread, while there is one.
#[derive(Debug)]
pub(in crate::log) struct Compressor {
    live: PathBuf,
    stats: Arc<Stats>,
    retention: Retention,
    chain: Chained,
    thread: Option<JoinHandle<()>>,
    is_idle: bool,
    /// When segments, or a cut, last waited for it.
    behind: Option<Instant>,
    stop: Arc<AtomicBool>,
    /// Number of the last row of those that were there at the start and were looked at; the largest when all were.
    checked: Arc<AtomicI64>,
}

impl Compressor {
    pub(in crate::log) fn new(live: PathBuf, sizes: Sizes, stats: Arc<Stats>, chain: Chained) -> Self {
        let retention = Retention::new(sizes, &stats);
        let (stop, checked) = <(Arc<_>, Arc<_>)>::default();
        Self { live, stats, retention, chain, thread: None, is_idle: true, behind: None, stop, checked }
    }

    /// Sees to it that all segments there are become small; at the first time also that they are whole.
    pub(in crate::log) fn start(&mut self) {
        if self.is_urgent() {
            self.behind = Some(Instant::now());
        }
        let is_idle = self.behind.is_none_or(|behind| behind.elapsed() >= ORDINARY);
        if self.is_at_work() && (is_idle || !self.is_idle) {
            // What came since it looked is made small with the next one.
            return;
        }
        self.stop.store(true, Ordering::Relaxed);
        (self.stop, self.is_idle) = (Arc::default(), is_idle);
        let (work, before) = (self.work(Pace::new(Arc::clone(&self.stop))), self.thread.take());
        let thread = thread::Builder::new().name("log-compress".to_owned()).spawn(move || {
            if is_idle {
                processors::be_idle();
            }
            // Two at once would take too much memory, and have one file for what they write.
            if let Some(before) = before {
                end(before);
            }
            work.run();
        });
        match thread {
            Ok(thread) => self.thread = Some(thread),
            Err(error) => tracing::warn!(%error, "segments of the request log cannot be compressed now"),
        }
    }

    /// Whether segments wait for it, or the next cut, which cannot be made before one is smaller.
    pub(in crate::log) fn is_urgent(&self) -> bool {
        let is_cut_waiting =
            || self.retention.next_unsent(&self.live, SystemTime::now()).is_ok_and(|segment| segment.is_some());
        self.stats.segments(SegmentForm::Plain).0 >= BEHIND || is_cut_waiting()
    }

    fn work(&self, pace: Pace) -> Work {
        let (live, stats, retention) = (self.live.clone(), Arc::clone(&self.stats), self.retention.clone());
        Work { live, stats, retention, chain: self.chain.clone(), pace, checked: Arc::clone(&self.checked) }
    }

    /// Takes what was allowed out of segments that are still to be sent and that the next cut would delete: the thread has
    /// had no time for them. It ends before that, for both at once would take too much memory.
    pub(in crate::log) fn thin_unsent(&mut self) -> io::Result<()> {
        self.stop();
        self.stop = Arc::default();
        let work = self.work(Pace::of(Arc::clone(&self.stop), 0));
        while let Some(segment) = self.retention.next_unsent(&self.live, SystemTime::now())? {
            work.settle(&segment, work.thin(&segment))?;
        }
        Ok(())
    }

    /// Whether there is something left that it does.
    pub(in crate::log) fn is_at_work(&self) -> bool {
        self.thread.as_ref().is_some_and(|thread| !thread.is_finished())
    }

    /// Ends the thread, in the middle of a segment, too.
    pub(in crate::log) fn stop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            end(thread);
        }
    }
}

/// Waits for the end of a thread that is to stop.
fn end(thread: JoinHandle<()>) {
    thread.thread().unpark();
    let _it_is_over_either_way = thread.join();
}

/// What the thread has.
struct Work {
    live: PathBuf,
    stats: Arc<Stats>,
    retention: Retention,
    chain: Chained,
    pace: Pace,
    checked: Arc<AtomicI64>,
}

impl Work {
    fn run(&self) {
        while !self.pace.is_over() {
            match self.step() {
                Ok(true) => self.stats.count_segments(&self.live),
                Ok(false) => return self.checked.store(i64::MAX, Ordering::Relaxed),
                Err(error) => {
                    tracing::warn!(path = %self.live.display(), %error, "segments of the request log cannot be compressed now");
                    return;
                }
            }
        }
    }

    /// Does the next thing there is to do; whether there was one.
    fn step(&self) -> io::Result<bool> {
        let live = &self.live;
        let checked = self.checked.load(Ordering::Relaxed);
        let is_next = |segment: &&Segment| match segment.form(live) {
            Some(Form::Plain) => true,
            Some(Form::Packed | Form::Thinned) => segment.last > checked,
            Some(Form::Large) | None => false,
        };
        let segments = list(live)?;
        // What the very next cut would delete first: where segments come fast, there is always one to be made small.
        let mut to_go = self.retention.next_to_go(live, 1)?;
        let next = segments.iter().find(is_next).filter(|_| to_go.is_none());
        if next.is_none() && to_go.is_none() {
            to_go = self.retention.next_to_go(live, CUTS_AHEAD)?;
        }
        let (segment, done) = match (next, to_go) {
            (Some(segment), _) if segment.form(live) == Some(Form::Plain) => {
                (segment.clone(), small(live, segment, &self.pace))
            }
            (Some(segment), _) => {
                self.checked.store(segment.last, Ordering::Relaxed);
                self.pace.wait(CHECK);
                (segment.clone(), read(live, segment).map(drop))
            }
            (None, Some(segment)) => {
                let done = self.thin(&segment);
                (segment, done)
            }
            (None, None) => return Ok(false),
        };
        self.settle(&segment, done).map(|()| true)
    }

    /// After something was done with a segment: one that is damaged is set aside.
    fn settle(&self, segment: &Segment, done: io::Result<()>) -> io::Result<()> {
        let live = &self.live;
        match done {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
            Err(error) if error.kind() == io::ErrorKind::InvalidData => {
                set_aside(live, segment)?;
                self.stats.add_set_aside();
                let path = segment.path(live);
                tracing::error!(path = %path.display(), %error, "a segment of the request log is damaged: it was set aside");
                Ok(())
            }
            done => done,
        }
    }

    /// Takes what was allowed out of a segment, which would be deleted whole soon.
    fn thin(&self, segment: &Segment) -> io::Result<()> {
        let [plain, packed, thinned] = segment.paths(&self.live);
        let image = read(&self.live, segment)?;
        let pieces = image.len().div_ceil(PIECE);
        self.pace.wait(THIN * u32::try_from(pieces).unwrap_or(u32::MAX));
        let runtime = Builder::new_current_thread().build()?;
        let chain = self.chain.open().map_err(io::Error::other)?;
        let less =
            runtime.block_on(thin(&image, segment, chain.as_ref())).map_err(|error| match error.is_damage() {
                true => io::Error::new(io::ErrorKind::InvalidData, error.to_string()),
                false => io::Error::other(error),
            })?;
        drop(image);
        // What is left of a chain says at least what was there.
        if less.left > 0 || chain.is_some() {
            let bytes = pack(Paced { image: less.image.as_ref(), pace: &self.pace })?;
            if self.pace.is_over() {
                return Ok(());
            }
            write_file(&beside(&self.live, UNFINISHED), &thinned, &bytes)?;
            sync_folder(&self.live)?;
        }
        for path in [plain, packed] {
            match fs::remove_file(path) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
                _ => {}
            }
        }
        self.stats.add_pruned(PruneReason::Size, less.gone);
        Ok(())
    }
}

/// Makes one small: whole and on the disk before the other is deleted.
fn small(live: &Path, segment: &Segment, pace: &Pace) -> io::Result<()> {
    let (plain, packed) = (segment.path(live), segment.packed_path(live));
    if !packed.exists() {
        let image = File::open(&plain)?;
        let mut head = [0; HEAD];
        let _less_is_no_database = image.read_at(&mut head, 0)?;
        if !is_database_of(&head, image.metadata()?.len()) {
            return Err(io::Error::new(io::ErrorKind::InvalidData, "it is no database of its size"));
        }
        let bytes = pack(Paced { image, pace })?;
        if pace.is_over() {
            // What was not read is not in it.
            return Ok(());
        }
        write_file(&beside(live, UNFINISHED), &packed, &bytes)?;
        sync_folder(live)?;
    }
    match fs::remove_file(plain) {
        // It was deleted meanwhile, for it was the oldest.
        Err(error) if error.kind() == io::ErrorKind::NotFound => fs::remove_file(packed),
        removed => removed,
    }
}

/// The bytes of a segment.
pub(super) fn read(live: &Path, segment: &Segment) -> io::Result<Vec<u8>> {
    let [plain, packed, thinned] = segment.paths(live);
    let image = match segment.form(live) {
        Some(Form::Packed) => unpack(&fs::read(packed)?)?,
        Some(Form::Thinned) => unpack(&fs::read(thinned)?)?,
        _ => fs::read(plain)?,
    };
    if is_database(&image) { Ok(image) } else { Err(io::Error::new(io::ErrorKind::InvalidData, "it is no database")) }
}

/// Whether this begins as a database does and has the length that it says (sqlite.org/fileformat2.html#the_database_header).
pub(super) fn is_database(image: &[u8]) -> bool {
    is_database_of(image, image.len() as u64)
}

fn is_database_of(head: &[u8], length: u64) -> bool {
    let number = |at: usize| {
        head.get(at..at + 4).map_or(0, |bytes| bytes.iter().fold(0_u64, |n, byte| n << 8 | u64::from(*byte)))
    };
    let page = head.get(16..18).map_or(0, |bytes| u64::from(bytes[0]) << 8 | u64::from(bytes[1]));
    head.starts_with(b"SQLite format 3\0") && number(28) * page == length && length <= SIZE_MAX
}

#[cfg(test)]
mod tests {
    use std::ffi::c_int;
    use std::os::unix::thread::JoinHandleExt;
    use std::thread::ThreadId;

    use sidecar_decide::Verdict;

    use super::*;
    use crate::log::record::{Kind, Record};
    use crate::log::tests::segments::open;
    use crate::log::tests::{ask, block_on, folder, request, wait};

    /// What begins as a database of two pages and has their length.
    fn database() -> Vec<u8> {
        let mut image = vec![0; 2 * 4096];
        image[..16].copy_from_slice(b"SQLite format 3\0");
        image[16] = 16;
        image[31] = 2;
        image
    }

    const SEGMENT: Segment = Segment { first: 1, last: 2, newest: 3 };

    #[test]
    fn a_stop_in_the_middle_leaves_a_segment_as_it_was() {
        let (_folder, live) = folder();
        let sizes = Sizes::new(SIZE_MAX, Duration::ZERO, 1 << 30, None);
        let verdicts = [Verdict::Allowed, Verdict::Refused, Verdict::WouldRefuse];
        let of = |verdict| Record { verdict, ..request(7) };
        let gap = Record { verdict: Verdict::Allowed, kind: Kind::Gap, ..request(7) };
        let rows: Vec<_> = verdicts.map(of).into_iter().chain([gap]).map(Box::new).collect();
        let mut store = open(&live, sizes);
        block_on(store.write(&rows)).unwrap();
        // It is as old as it may be.
        block_on(store.write(&[])).unwrap();
        block_on(store.close_clean()).unwrap();
        let segment = list(&live).unwrap().remove(0);
        let stats = Arc::new(Stats::default());
        let retention = Retention::new(sizes, &stats);
        let paced = |is_over| Pace::of(Arc::new(AtomicBool::new(is_over)), 0);
        let chain = Chained::Off;
        small(&live, &segment, &paced(true)).unwrap();
        assert_eq!(segment.form(&live), Some(Form::Plain));
        small(&live, &segment, &paced(false)).unwrap();
        assert_eq!(segment.form(&live), Some(Form::Packed));
        let checked = Arc::default();
        let mut work = Work { live: live.clone(), stats, retention, chain, pace: paced(true), checked };
        work.thin(&segment).unwrap();
        assert_eq!(segment.form(&live), Some(Form::Packed));
        work.pace = paced(false);
        work.thin(&segment).unwrap();
        assert_eq!(segment.form(&live), Some(Form::Thinned));
        let left = ask(&live, "SELECT kind, verdict FROM requests ORDER BY id");
        assert_eq!(left, "request,refused\nrequest,would_refuse\ngap,", "all but what was allowed");
    }

    /// The policy of the thread (sched(7)), which is asked for once: glibc keeps the answer.
    fn policy(compressor: &Compressor) -> (ThreadId, c_int) {
        let thread = compressor.thread.as_ref().unwrap();
        let (mut policy, mut parameter) = (-1, libc::sched_param { sched_priority: 0 });
        // SAFETY: the thread was not joined, and both places can be written to.
        let code = unsafe { libc::pthread_getschedparam(thread.as_pthread_t(), &raw mut policy, &raw mut parameter) };
        assert_eq!(code, 0);
        (thread.thread().id(), policy)
    }

    #[test]
    fn it_is_idle_until_segments_wait_for_it() {
        let (_folder, live) = folder();
        let sizes = Sizes::new(SIZE_MAX, Duration::ZERO, 1 << 30, None);
        let stats = Arc::new(Stats::default());
        let mut compressor = Compressor::new(live.clone(), sizes, Arc::clone(&stats), Chained::Off);
        let write = |number| fs::write(Segment { first: number, last: number, ..SEGMENT }.path(&live), database());
        let packed = || {
            stats.count_segments(&live);
            stats.segments(SegmentForm::Compressed).0
        };
        (1..=40).for_each(|number| write(number).unwrap());
        compressor.start();
        wait("the first", || packed() > 0);
        let (first, of_first) = policy(&compressor);
        compressor.start();
        let so_far = packed();
        wait("two more at least", || packed() > so_far + 2);
        let (second, of_second) = policy(&compressor);
        assert_eq!((of_first, of_second), (libc::SCHED_IDLE, libc::SCHED_OTHER));
        // It goes on as it is, and so does the next one for some time.
        compressor.start();
        assert_ne!(first, second);
        assert_eq!(compressor.thread.as_ref().unwrap().thread().id(), second);
        wait("all", || packed() == 40 && !compressor.is_at_work());
        for (number, is_idle) in [(41, false), (42, true)] {
            write(number).unwrap();
            compressor.start();
            assert_eq!(compressor.is_idle, is_idle);
            wait("the last", || packed() == number.cast_unsigned() && !compressor.is_at_work());
            compressor.behind = Instant::now().checked_sub(ORDINARY);
        }
    }

    #[test]
    fn what_was_deleted_meanwhile_does_not_come_back() {
        let folder = tempfile::tempdir().unwrap();
        let live = folder.path().join("requests.db");
        fs::write(SEGMENT.packed_path(&live), pack(&database()[..]).unwrap()).unwrap();
        small(&live, &SEGMENT, &Pace::of(Arc::default(), 0)).unwrap();
        assert_eq!(SEGMENT.form(&live), None);
    }

    #[test]
    fn a_file_that_is_cut_off_is_no_database() {
        let image = database();
        assert!(is_database(&image));
        for length in [0, 15, 30, 4096, 2 * 4096 - 1] {
            assert!(!is_database(&image[..length]), "{length}");
        }
    }
}
