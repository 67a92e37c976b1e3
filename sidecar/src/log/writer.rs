//! The `log` thread: gathers records, writes them, and outlives a store that is slow, full, locked or gone.

use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::mpsc::{self, RecvTimeoutError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use sidecar_config::settings::{ClientAddress, Pod};
use tokio::runtime::{Builder, Runtime};

use super::links::Chained;
use super::queue::{Closer, Receiver, decisions};
use super::record::Record;
use super::sealed::KeyFile;
use super::segments::{Compressor, LOOK_EVERY, Sizes};
use super::stats::DropReason;
use super::store::{Opening, Store, StoreError, StoreOptions, set_aside};

/// The first pause after the store failed.
pub(super) const RETRY_MIN: Duration = Duration::from_millis(100);

/// The longest one: what an operator who repaired the store waits for rows.
const RETRY_MAX: Duration = Duration::from_secs(5);

/// What one statement of the writer may last beyond the deadline it was stopped with.
const STOP_GRACE: Duration = Duration::from_secs(1);

/// Bytes of bodies in one transaction: they are sealed in memory of their own, and are in the write-ahead log together.
const BODIES_AT_ONCE: u64 = 256 << 10;

/// No more than one in so many of a segment's bytes either, so that it becomes little larger than it should.
const SEGMENT_PART: u64 = 8;

/// What the writer needs to know.
#[derive(Clone, Debug)]
pub struct WriterOptions {
    /// The database file; its folder must exist.
    pub path: PathBuf,
    /// The longest a record waits in memory while the store works.
    pub flush_every: Duration,
    /// When the file is cut into segments, and what all of them may take.
    pub sizes: Sizes,
    /// Which pod the rows are of.
    pub pod: Pod,
    /// What rows tell of a client's address.
    pub client_address: ClientAddress,
    /// Whether rows are chained.
    pub chain: Chained,
    /// File with the key for bodies.
    pub body_key: Option<PathBuf>,
}

/// Starts the log thread. A store that cannot be opened is no error here: traffic goes on, and so do the attempts.
///
/// # Errors
/// When the thread or its runtime cannot be made.
pub fn start(options: WriterOptions, receiver: Receiver) -> io::Result<Writer> {
    let WriterOptions { path, flush_every, sizes, pod, client_address, chain, body_key } = options;
    let mut key_file = KeyFile::new(body_key);
    let body_key = key_file.look(Instant::now(), &receiver.stats().bodies);
    let runtime = Builder::new_current_thread().build()?;
    let closer = receiver.closer();
    let (done, summary) = mpsc::sync_channel(1);
    let thread = thread::Builder::new().name("log".to_owned()).spawn(move || {
        let stats = Arc::clone(receiver.stats());
        let compressor = Compressor::new(path.clone(), sizes, Arc::clone(&stats), chain.clone());
        let worker = Worker {
            compressor,
            has_age: sizes.keep.is_some(),
            store_options: StoreOptions { path, sizes, pod, client_address, chain, body_key, stats },
            flush_every,
            key_file,
            receiver,
            runtime,
            store: None,
            failed_at: (0, 0),
            opening: Opening::First,
            failing: None,
            retry: RETRY_MIN,
        };
        // Nobody listens when the writer was dropped instead of stopped.
        let _ = done.send(worker.run());
    })?;
    Ok(Writer { thread, closer, summary })
}

/// The running log thread. To be stopped: dropped, it goes on until the process ends, and its last rows are lost.
#[derive(Debug)]
#[must_use = "the writer is to be stopped, or its last rows are lost"]
pub struct Writer {
    thread: JoinHandle<()>,
    closer: Closer,
    summary: mpsc::Receiver<Summary>,
}

/// How the log ended.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Summary {
    /// Rows written since the start.
    pub written: u64,
    /// Decisions given up at the stop; counted as [`DropReason::WriteFailed`].
    pub lost: u64,
    /// Whether the store was closed as one from which nothing is missing.
    pub clean: bool,
}

impl Writer {
    /// Refuses further records, writes what is queued, for at most `deadline`, and closes the store. Blocks.
    #[must_use]
    pub fn stop(self, deadline: Duration) -> Summary {
        self.closer.close(Instant::now() + deadline);
        match self.summary.recv_timeout(deadline + STOP_GRACE) {
            Ok(summary) => {
                // It has sent its last message and is about to return.
                let _ = self.thread.join();
                summary
            }
            // The disk does not answer. The process ends; waiting for the thread would keep it from that.
            Err(RecvTimeoutError::Timeout | RecvTimeoutError::Disconnected) => {
                let stats = self.closer.stats();
                let lost = stats.waiting();
                stats.add_dropped(DropReason::WriteFailed, lost);
                Summary { written: stats.rows_written(), lost, clean: false }
            }
        }
    }
}

/// How many of the first rows are written at once: all, if their bodies are not more than so many bytes.
fn at_once(rows: &[Box<Record>], most: u64) -> usize {
    let mut bytes = 0;
    let mut is_more = |record: &Record| {
        bytes += record.bodies.as_ref().map_or(0, |bodies| bodies.bytes() as u64);
        bytes > most
    };
    rows.iter().position(|record| is_more(record)).map_or(rows.len(), |place| place.max(1))
}

/// The pause after one of this length, while the store fails.
pub(super) fn longer(pause: Duration) -> Duration {
    (pause * 2).min(RETRY_MAX)
}

/// The thread's own state.
struct Worker {
    store_options: StoreOptions,
    flush_every: Duration,
    key_file: KeyFile,
    /// Whether rows are deleted for their age.
    has_age: bool,
    receiver: Receiver,
    runtime: Runtime,
    compressor: Compressor,
    store: Option<Store>,
    /// Which rows it had when it failed: see [`Store::newest`].
    failed_at: (i64, i64),
    /// What the next opening is.
    opening: Opening,
    /// Since the store failed: rows dropped until then.
    failing: Option<u64>,
    retry: Duration,
}

impl Worker {
    fn run(mut self) -> Summary {
        self.receiver.attach();
        let mut batch = Vec::with_capacity(self.receiver.flush_rows());
        let mut lost = 0;
        // Opened before there is anything to write: a store that fails is known at once.
        while self.open() && self.receiver.gather(&mut batch, self.flush_every, self.due()) {
            self.look_for_key();
            let left = self.write_all(&batch);
            lost += left;
            self.receiver.stats().set_in_hand(0);
            self.receiver.recycle(&mut batch);
            if left > 0 || self.out_of_time() {
                break;
            }
        }
        lost += self.receiver.discard();
        self.receiver.stats().add_dropped(DropReason::WriteFailed, lost);
        let clean = self.close(lost == 0);
        self.compressor.stop();
        Summary { written: self.receiver.stats().rows_written(), lost, clean }
    }

    /// When the store wants to be written although there is nothing to write.
    fn due(&self) -> Option<Instant> {
        let look = self.has_age.then(|| Instant::now() + LOOK_EVERY);
        [self.store.as_ref().and_then(Store::due), look].into_iter().flatten().min()
    }

    /// Seals bodies with another key from now on, if there is another.
    fn look_for_key(&mut self) {
        if let Some(key) = self.key_file.look(Instant::now(), &self.receiver.stats().bodies) {
            if let Some(store) = &mut self.store {
                store.seal_with(&key);
            }
            self.store_options.body_key = Some(key);
        }
    }

    /// Writes `batch` in as few transactions as the bodies in it allow; decisions that could not be written.
    fn write_all(&mut self, batch: &[Box<Record>]) -> u64 {
        let most = self.store_options.sizes.segment / SEGMENT_PART;
        let mut rest = batch;
        loop {
            self.receiver.stats().set_in_hand(decisions(rest));
            let (now, later) = rest.split_at(at_once(rest, most.min(BODIES_AT_ONCE)));
            if !self.write(now) {
                return decisions(rest);
            }
            if later.is_empty() {
                return 0;
            }
            rest = later;
        }
    }

    /// Writes `batch`, however often that takes; false when the time to stop came first.
    fn write(&mut self, batch: &[Box<Record>]) -> bool {
        while self.open() {
            let Some(store) = self.store.as_mut() else { break };
            match self.runtime.block_on(store.write(batch)) {
                Ok(written) => {
                    self.receiver.stats().add_written(batch.len() as u64, &written);
                    if written.has_cut {
                        self.receiver.stats().count_segments(&self.store_options.path);
                        self.compressor.start();
                    }
                    if written.is_short {
                        self.thin_unsent();
                    }
                    self.recovered();
                    return true;
                }
                Err(error) => self.failed(&error),
            }
        }
        false
    }

    /// Makes room for the next cut. Rows wait in memory meanwhile.
    fn thin_unsent(&mut self) {
        if let Err(error) = self.compressor.thin_unsent() {
            let path = self.store_options.path.display();
            tracing::warn!(%path, %error, "a segment of the request log cannot be made smaller, and goes whole");
            if let Some(store) = self.store.as_mut() {
                store.force();
            }
        }
        self.receiver.stats().count_segments(&self.store_options.path);
    }

    /// Opens the store unless it is open, however often that takes; false when the time to stop came first.
    fn open(&mut self) -> bool {
        while self.store.is_none() {
            match self.runtime.block_on(Store::open(&self.store_options, self.opening)) {
                Ok(store) => {
                    if self.opening == Opening::First {
                        self.receiver.stats().count_segments(&self.store_options.path);
                        self.compressor.start();
                    }
                    self.store = Some(store);
                    self.opening = Opening::Again;
                    self.receiver.stats().store_works();
                }
                Err(error) => self.failed(&error),
            }
            if self.store.is_none() && self.out_of_time() {
                return false;
            }
        }
        true
    }

    /// Closes a store that failed and waits before the next attempt.
    fn failed(&mut self, error: &StoreError) {
        if let Some(store) = self.store.take() {
            self.failed_at = store.newest();
            // It is already in error; what closing it adds would only hide that.
            let _ = self.runtime.block_on(store.close());
        }
        self.receiver.stats().store_failed();
        if self.failing.is_none() {
            self.failing = Some(self.receiver.stats().rows_dropped_total());
            let path = self.store_options.path.display();
            tracing::error!(%path, %error, "the request log cannot be written; rows wait in memory, traffic goes on");
        }
        if error.is_damage() {
            self.set_aside();
        }
        match self.receiver.stop_at() {
            None => self.receiver.pause(self.retry),
            Some(stop_at) => thread::sleep(RETRY_MIN.min(stop_at.saturating_duration_since(Instant::now()))),
        }
        self.retry = longer(self.retry);
    }

    /// Makes place for a new file where the old one is damaged.
    fn set_aside(&mut self) {
        let path = self.store_options.path.display();
        match set_aside(&self.store_options.path) {
            Ok(aside) => {
                self.opening = Opening::Anew;
                self.receiver.stats().add_set_aside();
                // None is known of a file that was damaged before it was opened.
                self.receiver.stats().ship.set_aside(std::mem::take(&mut self.failed_at));
                let aside = aside.display();
                tracing::error!(%path, %aside, "the request log is damaged: it was set aside, and a new one is begun");
            }
            Err(error) => tracing::error!(%path, %error, "the request log is damaged and cannot be set aside"),
        }
    }

    /// After a batch was written: opening alone does not show that the store works.
    fn recovered(&mut self) {
        self.retry = RETRY_MIN;
        if let Some(dropped_before) = self.failing.take() {
            let dropped = self.receiver.stats().rows_dropped_total() - dropped_before;
            let path = self.store_options.path.display();
            tracing::info!(%path, dropped, "the request log is written again");
        }
    }

    fn out_of_time(&self) -> bool {
        self.receiver.stop_at().is_some_and(|stop_at| Instant::now() >= stop_at)
    }

    /// Closes the store; whether it is marked as one from which nothing is missing.
    fn close(&mut self, complete: bool) -> bool {
        let Some(store) = self.store.take() else { return false };
        let closed =
            self.runtime.block_on(async { if complete { store.close_clean().await } else { store.close().await } });
        if let Err(error) = &closed {
            let path = self.store_options.path.display();
            tracing::warn!(%path, %error, "the request log could not be closed");
        }
        complete && closed.is_ok()
    }
}
