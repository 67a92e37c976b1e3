//! The bounded queue between the workers and the writer, and when the writer wakes.
//!
//! The standard channel wakes its receiver for every message it waits for, so the writer never waits on it: it parks, and
//! senders unpark it twice a batch at most: for the first record, and for the one that makes the batch full.

use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering, fence};
use std::sync::mpsc::{self, SyncSender, TrySendError};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::thread::{self, Thread};
use std::time::{Duration, Instant};

use sidecar_config::Ratio;
use sidecar_decide::Verdict;

use super::bodies::BodyRoom;
use super::record::{Kind, Record};
use super::refusals::{Refusals, WINDOW};
use super::salt::Salt;
use super::stats::{CaptureLoss, DropReason, Stats};

/// Records that may wait: about a second of a busy gate, so that a checkpoint or a moment's lock drops nothing; 128 KiB of
/// slots, and with paths of usual length 4 MiB of records at worst.
pub const QUEUE_ROWS: usize = 8192;

/// Bytes of what is captured of heads in rows that wait or are being written: a full queue of rows with 256 bytes each, or a
/// thousand with as much as a row may have. What comes beyond it goes into its row without.
pub(super) const CAPTURED_BYTES: usize = 2 << 20;

/// Places of records that were written, kept for others: two batches of a busy gate. A place that is freed by another thread
/// than it was made by costs each of them more than writing into it does.
const SPARES: usize = 512;

const MILLION: u64 = Ratio::MILLION as u64;

/// Records on their way into one transaction; boxed as the queue has them, because unboxing would copy each once more.
pub(super) type Batch = Vec<Box<Record>>;

/// The decisions that records stand for.
pub(super) fn decisions(records: &[Box<Record>]) -> u64 {
    records.iter().map(|record| record.repeat).sum()
}

/// A queue of at most `capacity` records whose writer gathers `flush_rows` of them at a time.
#[must_use]
pub fn channel(capacity: usize, flush_rows: usize, stats: Arc<Stats>) -> (Sender, Receiver) {
    channel_with(Refusals::new(WINDOW), capacity, flush_rows, stats)
}

/// The same with another window for refusals.
pub(super) fn channel_with(
    refusals: Refusals,
    capacity: usize,
    flush_rows: usize,
    stats: Arc<Stats>,
) -> (Sender, Receiver) {
    let capacity = capacity.max(1);
    let (slots, records) = mpsc::sync_channel(capacity);
    let shared = Arc::new(Shared {
        capacity,
        flush_rows: flush_rows.clamp(1, capacity),
        stats,
        refusals: Mutex::new(refusals),
        spares: Mutex::default(),
        writer: OnceLock::new(),
        closed: AtomicBool::new(false),
        stop_at: OnceLock::new(),
    });
    let sender = Sender { slots, shared: Arc::clone(&shared), sampling: None, salt: Arc::new(Salt::new(None)) };
    (sender, Receiver { records, shared })
}

/// The workers' end.
#[derive(Clone, Debug)]
pub struct Sender {
    slots: SyncSender<Box<Record>>,
    shared: Arc<Shared>,
    /// Which of the allowed are rows; all, where it is absent.
    sampling: Option<Arc<Sampling>>,
    /// By which captured values are hashed.
    salt: Arc<Salt>,
}

impl Sender {
    /// The same, where of what is allowed, and went well, only this part is rows. The rest is counted.
    #[must_use]
    pub fn keeping(self, part: Ratio) -> Self {
        let is_all = part == Ratio::from_millionths(Ratio::MILLION);
        Self { sampling: (!is_all).then(|| Arc::new(Sampling { part, seen: AtomicU64::new(0) })), ..self }
    }

    /// The same, where captured values are hashed with the salt in this file.
    #[must_use]
    pub fn salting(self, path: PathBuf) -> Self {
        Self { salt: Arc::new(Salt::new(Some(path))), ..self }
    }

    /// A captured value, hashed; `None` without a salt.
    #[must_use]
    pub fn salted(&self, value: &[u8]) -> Option<[u8; 16]> {
        self.salt.hash(value)
    }

    /// Counts what was to be captured and is not in its row.
    pub fn count_capture_loss(&self, reason: CaptureLoss, losses: u64) {
        self.shared.stats.add_capture_loss(reason, losses);
    }

    /// What bodies are copied into.
    #[must_use]
    pub fn bodies(&self) -> &Arc<BodyRoom> {
        &self.shared.stats.bodies
    }

    /// A place for `record`: one that is no longer used, if there is any.
    #[must_use]
    pub fn place(&self, record: Record) -> Box<Record> {
        let spare = self.shared.spares.try_lock().ok().and_then(|mut spares| spares.pop());
        match spare {
            Some(mut place) => {
                *place = record;
                place
            }
            None => Box::new(record),
        }
    }

    /// Queues `record` without ever waiting for the writer; where there is no place for it, it is counted as dropped.
    /// Refusals before authentication are queued as far as they are to be rows of their own.
    pub fn send(&self, record: Box<Record>) {
        if self.sampling.as_ref().is_some_and(|sampling| !sampling.keeps(&record)) {
            self.shared.stats.add_sampled(record.repeat);
        } else if !record.is_before_authentication() {
            self.queue(record);
        } else if let Some(row) = self.tally(record) {
            self.queue(row);
        }
    }

    /// Counts a refusal; it comes back where it is to be queued.
    fn tally(&self, record: Box<Record>) -> Option<Box<Record>> {
        let shared = &*self.shared;
        let mut refusals = shared.refusals();
        // Read under the lock: a writer that closed the queue and takes what is held afterwards misses nothing.
        if shared.closed.load(Ordering::SeqCst) {
            return Some(record);
        }
        // Half the queue is for clients that are known, also while the store is down.
        let crowded = shared.stats.depth.load(Ordering::Relaxed) > shared.capacity / 2;
        let held_before = refusals.held();
        let row = refusals.take(record, Instant::now(), crowded);
        shared.stats.set_held(refusals.held());
        let is_first = held_before == 0 && refusals.held() > 0;
        drop(refusals);
        if is_first {
            // The writer waits without end, or not long enough: it has to know when this is due.
            shared.wake();
        }
        row
    }

    fn queue(&self, mut record: Box<Record>) {
        let shared = &*self.shared;
        let captured = shared.admit(&mut record);
        // Counted before it is queued, and before `closed` is read: a writer that closed the queue and sees no depth
        // knows that no record is on its way.
        let queued = shared.stats.depth.fetch_add(1, Ordering::SeqCst) + 1;
        let refused = if shared.closed.load(Ordering::SeqCst) {
            Some(DropReason::Stopped)
        } else if queued > shared.capacity {
            Some(DropReason::QueueFull)
        } else {
            match self.slots.try_send(record) {
                Ok(()) => None,
                Err(TrySendError::Full(_)) => Some(DropReason::QueueFull),
                Err(TrySendError::Disconnected(_)) => Some(DropReason::Stopped),
            }
        };
        if let Some(reason) = refused {
            shared.stats.depth.fetch_sub(1, Ordering::SeqCst);
            shared.stats.captured_bytes.fetch_sub(captured, Ordering::Relaxed);
            shared.stats.add_dropped(reason, 1);
        } else if queued == 1 || queued == shared.flush_rows {
            shared.wake();
        }
    }
}

/// Chooses rows of what was allowed, evenly. Not by anything that a client chooses, such as a request's id: it could choose
/// not to be seen.
#[derive(Debug)]
struct Sampling {
    part: Ratio,
    seen: AtomicU64,
}

impl Sampling {
    fn keeps(&self, record: &Record) -> bool {
        if record.verdict != Verdict::Allowed || record.reason.is_some() || record.kind == Kind::Gap {
            return true;
        }
        // Of each million just so many, and these as far apart as they can be.
        let kept = |of: u64| of % MILLION * u64::from(self.part.millionths()) / MILLION;
        let seen = self.seen.fetch_add(1, Ordering::Relaxed) % MILLION;
        let after = if seen + 1 == MILLION { self.part.millionths().into() } else { kept(seen + 1) };
        after > kept(seen)
    }
}

/// The writer's end.
#[derive(Debug)]
pub struct Receiver {
    records: mpsc::Receiver<Box<Record>>,
    shared: Arc<Shared>,
}

impl Receiver {
    /// Says that the calling thread is the one to wake.
    pub(super) fn attach(&self) {
        // A second call would be by the same writer: the receiver cannot be cloned.
        let _ = self.shared.writer.set(thread::current());
        // Pairs with the one in `wake`: either the sender sees this thread, or this thread sees its record.
        fence(Ordering::SeqCst);
    }

    /// Waits for a batch and moves it into `batch`; false when the queue is closed and empty.
    ///
    /// Idle, it waits without a timeout, or until refusals that are held are due, or until `idle_until`; from the first
    /// record on at most `flush_every`.
    pub(super) fn gather(&self, batch: &mut Batch, flush_every: Duration, idle_until: Option<Instant>) -> bool {
        while self.depth() == 0 {
            if self.closing() {
                batch.extend(self.take_refusals(true));
                return self.depth() > 0 || !batch.is_empty();
            }
            let due = [self.shared.refusals().due(), idle_until].into_iter().flatten().min();
            match due.map(|due| due.saturating_duration_since(Instant::now())) {
                None => thread::park(),
                Some(Duration::ZERO) => {
                    batch.extend(self.take_refusals(false));
                    return true;
                }
                Some(left) => thread::park_timeout(left),
            }
        }
        let full_at = Instant::now() + flush_every;
        while self.depth() < self.shared.flush_rows && !self.closing() {
            let left = full_at.saturating_duration_since(Instant::now());
            if left.is_zero() {
                break;
            }
            thread::park_timeout(left);
        }
        self.take(batch);
        batch.extend(self.take_refusals(false));
        true
    }

    /// The rows of refusals that share one: those that are due, or all.
    fn take_refusals(&self, all: bool) -> Batch {
        let mut refusals = self.shared.refusals();
        let is_due = refusals.due().is_some_and(|due| all || due <= Instant::now());
        let rows = if is_due { refusals.flush() } else { Batch::new() };
        self.shared.stats.set_held(refusals.held());
        rows
    }

    /// Waits `delay`, or until the queue is closed.
    pub(super) fn pause(&self, delay: Duration) {
        let until = Instant::now() + delay;
        while !self.closing() {
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return;
            }
            thread::park_timeout(left);
        }
    }

    /// Empties a batch that was written; its places are kept as far as there is room. Their texts go with them, to be freed
    /// by whoever made them; what belongs to a generation or to a connection does not stay, nor what may be large.
    pub(super) fn recycle(&self, batch: &mut Batch) {
        self.shared.release(batch);
        for record in &mut *batch {
            (record.scope, record.peer) = (None, None);
            (record.captured, record.bodies) = (None, None);
        }
        {
            let mut spares = self.shared.spares.lock().unwrap_or_else(PoisonError::into_inner);
            let room = SPARES.saturating_sub(spares.len()).min(batch.len());
            spares.extend(batch.drain(..room));
        }
        batch.clear();
    }

    /// Takes what is queued and held, and drops it; how many decisions that was.
    pub(super) fn discard(&self) -> u64 {
        let mut lost = decisions(&self.take_refusals(true));
        while self.depth() > 0 {
            let mut batch = Batch::new();
            self.take(&mut batch);
            lost += decisions(&batch);
            self.shared.release(&batch);
        }
        lost
    }

    pub(super) fn closing(&self) -> bool {
        self.shared.closed.load(Ordering::SeqCst)
    }

    /// When the writer must have stopped; `None` as long as nobody asked it to.
    pub(super) fn stop_at(&self) -> Option<Instant> {
        self.shared.stop_at.get().copied()
    }

    pub(super) fn flush_rows(&self) -> usize {
        self.shared.flush_rows
    }

    pub(super) fn stats(&self) -> &Arc<Stats> {
        &self.shared.stats
    }

    pub(super) fn closer(&self) -> Closer {
        Closer(Arc::clone(&self.shared))
    }

    fn take(&self, batch: &mut Batch) {
        let before = batch.len();
        batch.extend(self.records.try_iter().take(self.shared.flush_rows));
        let taken = batch.len() - before;
        self.shared.stats.depth.fetch_sub(taken, Ordering::SeqCst);
        if taken == 0 {
            // Counted and not queued yet: its sender was interrupted between the two.
            thread::yield_now();
        }
    }

    fn depth(&self) -> usize {
        self.shared.stats.depth.load(Ordering::SeqCst)
    }
}

/// Ends a queue from outside its writer.
#[derive(Debug)]
pub(super) struct Closer(Arc<Shared>);

impl Closer {
    /// From now on records are refused; what is queued is written until `deadline`.
    pub(super) fn close(&self, deadline: Instant) {
        let _ = self.0.stop_at.set(deadline);
        self.0.closed.store(true, Ordering::SeqCst);
        self.0.wake();
    }

    pub(super) fn stats(&self) -> &Stats {
        &self.0.stats
    }
}

#[derive(Debug)]
struct Shared {
    capacity: usize,
    flush_rows: usize,
    stats: Arc<Stats>,
    /// Locked once for each refused handshake, which costs far more, and once for each batch.
    refusals: Mutex<Refusals>,
    /// Locked by the writer for each batch. A worker that meets it then does without.
    spares: Mutex<Batch>,
    writer: OnceLock<Thread>,
    closed: AtomicBool,
    stop_at: OnceLock<Instant>,
}

impl Shared {
    fn refusals(&self) -> MutexGuard<'_, Refusals> {
        // Nothing in there can panic half way.
        self.refusals.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Makes room for what a record has captured, or has it go without; how many bytes it has then.
    fn admit(&self, record: &mut Record) -> usize {
        let bytes = record.captured_bytes();
        if bytes == 0 {
            return 0;
        }
        let before = self.stats.captured_bytes.fetch_add(bytes, Ordering::Relaxed);
        if before + bytes <= CAPTURED_BYTES {
            return bytes;
        }
        record.forget_captured();
        self.stats.add_capture_loss(CaptureLoss::QueueFull, 1);
        self.stats.captured_bytes.fetch_sub(bytes, Ordering::Relaxed);
        // What says so is small, and of no more rows than may wait.
        let left = record.captured_bytes();
        self.stats.captured_bytes.fetch_add(left, Ordering::Relaxed);
        left
    }

    /// Gives back the room of what records have captured.
    fn release(&self, records: &[Box<Record>]) {
        let bytes: usize = records.iter().map(|record| record.captured_bytes()).sum();
        if bytes > 0 {
            self.stats.captured_bytes.fetch_sub(bytes, Ordering::Relaxed);
        }
    }

    fn wake(&self) {
        fence(Ordering::SeqCst);
        if let Some(writer) = self.writer.get() {
            writer.unpark();
        }
    }
}
