//! The `log-ship` thread: sends rows to Postgres, oldest first, and never holds up who writes them.
//!
//! The log itself is the queue: what is above the [`watermark`] is still to be sent, and it moves only when Postgres has
//! committed. A batch that was sent and not noted is sent again, and Postgres knows its rows by their ids.

mod backlog;
pub(super) mod rows;
mod sender;
mod stats;
mod watermark;

use std::hash::{BuildHasher, RandomState};
use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::mpsc::{self, Receiver, RecvTimeoutError, SyncSender};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use postern_postgres::Failure;
use tokio::runtime::{Builder, Runtime};

use self::backlog::{Backlog, Batch};
use self::sender::{Sender, Trouble};
use self::watermark::Position;
use super::Stats;
use crate::limits::CONFIG_COMPARE;

pub use self::stats::{Lost, ShipStats};

/// The first pause after a failure, and the longest. Each is between half of it and all, so that not all pods come at once
/// to a server that is back.
const RETRY_MIN: Duration = Duration::from_millis(500);
const RETRY_MAX: Duration = Duration::from_secs(60);

/// The pause between tries while the process ends.
const RETRY_LAST: Duration = Duration::from_millis(200);

/// How long a connection is kept that nothing is sent on, and the log open of which nothing is.
const IDLE: Duration = Duration::from_secs(10);

/// What the shipper needs to know.
#[derive(Clone, Debug)]
pub struct ShipOptions {
    /// The live file of the log.
    pub log: PathBuf,
    /// The server, if it is written in the settings.
    pub url: Option<String>,
    /// File with the server's URL otherwise; where it is not there, nothing is sent.
    pub url_file: Option<PathBuf>,
    /// File with the password, where the URL has none.
    pub password_file: Option<PathBuf>,
    /// File with the authorities that may vouch for the server.
    pub ca_file: Option<PathBuf>,
    /// Rows that are sent at once.
    pub batch_rows: u32,
    /// Time between two looks for new rows.
    pub every: Duration,
    /// Whether the schema is made, and brought up to date, where it is not.
    pub applies_schema: bool,
}

/// The running thread.
#[derive(Debug)]
#[must_use = "the shipper is to be stopped, or it does not send what is left"]
pub struct Shipper {
    thread: JoinHandle<()>,
    stop: SyncSender<Instant>,
    done: Receiver<()>,
    stats: Arc<Stats>,
}

/// Starts the thread. That there is no server is no error here.
///
/// # Errors
/// When the thread or its runtime cannot be made.
pub fn start_shipper(options: ShipOptions, stats: Arc<Stats>) -> io::Result<Shipper> {
    let runtime = Builder::new_current_thread().enable_all().build()?;
    let (stop, stopped) = mpsc::sync_channel(1);
    let (finished, done) = mpsc::sync_channel(1);
    let worker = Worker::new(options, runtime, Arc::clone(&stats));
    let thread = thread::Builder::new().name("log-ship".to_owned()).spawn(move || {
        worker.run(&stopped);
        // Nobody listens where it took too long.
        let _ = finished.send(());
    })?;
    Ok(Shipper { thread, stop, done, stats })
}

impl Shipper {
    /// Sends what is left, for at most `deadline`; how many rows stay behind, for the next start of this log, or `None`
    /// where there is no server. To be called when nothing is written any more. Blocks.
    #[must_use]
    pub fn stop(self, deadline: Duration) -> Option<u64> {
        let _it_may_have_ended = self.stop.send(Instant::now() + deadline);
        if self.done.recv_timeout(deadline).is_ok() {
            let _ended = self.thread.join();
        }
        let ship = &self.stats.ship;
        ship.is_on().then(|| ship.backlog_rows(&self.stats))
    }
}

/// The thread's own state.
struct Worker {
    options: ShipOptions,
    runtime: Runtime,
    stats: Arc<Stats>,
    backlog: Backlog,
    sender: Sender,
    position: Option<Position>,
    /// Whether the log is known to be there.
    is_made: bool,
    /// Rows that were written when all of them had been sent.
    settled: Option<u64>,
    last_sent: Instant,
    /// What the state was that was told last.
    told: Option<Failure>,
    retry: Duration,
}

impl Worker {
    fn new(options: ShipOptions, runtime: Runtime, stats: Arc<Stats>) -> Self {
        let sender = Sender::new(&options);
        let position = watermark::read(&options.log);
        let backlog = Backlog::new(&options.log);
        // Before anything is deleted: what cannot be told of a file is told when it is read.
        let last = position.map_or((0, 0), |position| (position.seq, position.at));
        stats.ship.begin(sender.is_wanted().unwrap_or(true), last);
        Self {
            options,
            runtime,
            stats,
            backlog,
            sender,
            position,
            is_made: false,
            settled: None,
            last_sent: Instant::now(),
            told: None,
            retry: RETRY_MIN,
        }
    }

    fn run(mut self, stopped: &Receiver<Instant>) {
        let stop_at = loop {
            let pause = match self.turn() {
                Ok(true) => Duration::ZERO,
                Ok(false) if self.stats.ship.is_on() => self.options.every,
                // Its file may come as any of the configuration.
                Ok(false) => self.options.every.max(CONFIG_COMPARE),
                Err(trouble) => self.failed(&trouble),
            };
            match stopped.recv_timeout(pause) {
                Ok(stop_at) => break Some(stop_at),
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => break None,
            }
        };
        while stop_at.is_some_and(|stop_at| Instant::now() < stop_at) {
            match self.turn() {
                Ok(true) => {}
                Ok(false) => break,
                Err(trouble) => {
                    self.failed(&trouble);
                    thread::sleep(RETRY_LAST);
                }
            }
        }
        self.runtime.block_on(self.sender.close());
    }

    /// Sends one batch; whether there may be more.
    fn turn(&mut self) -> Result<bool, Trouble> {
        let written = self.stats.rows_written();
        if self.settled == Some(written) {
            if self.last_sent.elapsed() > IDLE {
                self.backlog.rest();
                self.runtime.block_on(self.sender.close());
            }
            return Ok(false);
        }
        // Whoever writes makes the log, and brings it up to date. One that cannot be written any more can be read.
        self.is_made |= self.stats.store_up();
        let is_on = self.sender.is_wanted()?;
        self.stats.ship.turn(is_on);
        if !self.is_made || !is_on {
            return Ok(false);
        }
        let next = self.backlog.next(self.position, self.options.batch_rows);
        let Some(batch) = self.runtime.block_on(next)? else { return Ok(false) };
        self.stats.ship.behind(&batch, written);
        self.note(batch.start)?;
        if !batch.rows.each.is_empty() {
            let sent = self.runtime.block_on(self.sender.send(&batch))?;
            self.stats.ship.add_sent(&sent);
            self.last_sent = Instant::now();
            self.recovered();
        }
        self.moved(&batch, written)?;
        Ok(!batch.is_last())
    }

    /// After Postgres has committed.
    fn moved(&mut self, batch: &Batch, written: u64) -> Result<(), Trouble> {
        self.note(batch.end)?;
        self.stats.ship.moved(batch, written);
        self.settled = batch.is_last().then_some(written);
        Ok(())
    }

    fn note(&mut self, position: Position) -> io::Result<()> {
        if self.position != Some(position) {
            watermark::write(&self.options.log, position)?;
            self.position = Some(position);
        }
        Ok(())
    }

    /// Tells what is new about it, and how long to wait.
    fn failed(&mut self, trouble: &Trouble) -> Duration {
        let failure = trouble.failure();
        self.backlog.rest();
        self.stats.ship.add_failure(failure);
        if self.told != Some(failure) {
            let (reason, backlog) = (failure.name(), self.stats.ship.backlog_rows(&self.stats));
            tracing::warn!(reason, error = %trouble, backlog, "rows are not sent to Postgres, and wait in the log");
            self.told = Some(failure);
        }
        let pause = self.retry.mul_f64(0.5 + 0.5 * chance());
        self.retry = (self.retry * 2).min(RETRY_MAX);
        pause
    }

    fn recovered(&mut self) {
        self.retry = RETRY_MIN;
        if self.told.take().is_some() {
            let backlog = self.stats.ship.backlog_rows(&self.stats);
            tracing::info!(backlog, "rows are sent to Postgres again");
        }
    }
}

/// From 0 to 1.
fn chance() -> f64 {
    f64::from(u16::try_from(RandomState::new().hash_one(()) & 0xffff).unwrap_or(0)) / 65_536.0
}

#[cfg(test)]
mod tests {
    use super::*;

    fn worker(log: PathBuf) -> Worker {
        let options = ShipOptions {
            log,
            url: None,
            url_file: None,
            password_file: None,
            ca_file: None,
            batch_rows: 500,
            every: Duration::from_secs(1),
            applies_schema: false,
        };
        Worker::new(options, Builder::new_current_thread().build().expect("a runtime"), Arc::default())
    }

    #[test]
    fn pauses_grow_to_their_bound_and_are_no_two_alike() {
        let folder = tempfile::tempdir().expect("a folder");
        let mut worker = worker(folder.path().join("requests.db"));
        let trouble = Trouble::Watermark(io::Error::other("full"));
        let mut longest = RETRY_MIN;
        let mut parts = Vec::new();
        for _ in 0..32 {
            let pause = worker.failed(&trouble);
            assert!((longest / 2..=longest).contains(&pause), "{pause:?} of {longest:?}");
            parts.push(pause.div_duration_f64(longest).to_bits());
            longest = RETRY_MAX.min(longest * 2);
        }
        assert_eq!(longest, RETRY_MAX);
        parts.sort_unstable();
        parts.dedup();
        assert!(parts.len() > 16, "of 32 only {} differ", parts.len());
        worker.recovered();
        assert!(worker.failed(&trouble) <= RETRY_MIN);
    }
}
