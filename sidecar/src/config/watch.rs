//! Says when the configuration's files may have changed.
//!
//! inotify on the folders, because a file that is replaced (an editor's rename, Kubernetes' `..data` swap) is a new
//! file. What inotify does not tell (a link in another folder that was turned, a file that could not be opened a moment
//! ago, a machine without instances left) is found by comparing at an interval.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::{OsStr, OsString};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use notify::event::{AccessKind, AccessMode, ModifyKind};
use notify::{EventKind, RecommendedWatcher, RecursiveMode, Watcher};
use tokio::sync::mpsc;
use tokio::time::{Instant, Interval, MissedTickBehavior, interval, timeout_at};

use crate::limits::{CONFIG_COMPARE, CONFIG_DEBOUNCE, CONFIG_WRITER};

/// Longest that a stream of changes can put off reading them.
const DEBOUNCE_MAX: Duration = Duration::from_millis(200);

/// What the names of files go on with that the request log keeps beside its own: of the database, and segments and others.
const LOG_SUFFIXES: [u8; 2] = [b'-', b'.'];

/// What files of the state directory end in.
const STATE_SUFFIXES: [&[u8]; 2] = [b".state", b".state.new"];

/// Changes of some folders, debounced.
pub struct Changes {
    events: mpsc::Receiver<()>,
    /// Something changed that nobody was told of yet.
    is_noticed: bool,
    /// Ends the events when it is dropped; `None` where there is none to be had.
    watcher: Option<RecommendedWatcher>,
    folders: BTreeSet<PathBuf>,
    compare: Interval,
    writers: Arc<Mutex<Writers>>,
}

/// Who is writing into files of the configuration just now. Half a document can be a valid one, with less in it: a
/// revocation less, for one.
#[derive(Default)]
struct Writers {
    /// Names of the configuration's files.
    files: BTreeSet<OsString>,
    /// Those that were written to and not closed since, and when that was.
    writing: BTreeMap<OsString, Instant>,
}

impl Writers {
    fn note(&mut self, event: &notify::Event) {
        let names = event.paths.iter().filter_map(|path| path.file_name());
        let is_write = matches!(event.kind, EventKind::Modify(ModifyKind::Data(_)));
        for name in names {
            if !is_write {
                self.writing.remove(name);
            } else if self.files.contains(name) {
                self.writing.insert(name.to_owned(), Instant::now());
            }
        }
    }

    /// Whether somebody is writing; one who has not gone on for long does not count any more.
    fn any(&self) -> bool {
        self.writing.values().any(|last| last.elapsed() < CONFIG_WRITER)
    }
}

/// Why the files should be looked at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Change {
    /// Something happened in a folder, and whoever did it is done.
    Noticed,
    /// It is time to compare.
    Due,
}

/// Watches no folder yet. The request log's files and what is in the state directory are no configuration, although they
/// may lie beside it and change all the time.
pub fn watch(log: &Path, state: Option<&Path>) -> Changes {
    let (changed, events) = mpsc::channel(1);
    let log = log.file_name().unwrap_or_default().to_os_string();
    let state = state.map(Path::to_owned);
    let is_ours = move |path: &PathBuf| state.as_ref().is_some_and(|state| is_state(state, path)) || is_log(&log, path);
    let writers = Arc::new(Mutex::new(Writers::default()));
    let noted = Arc::clone(&writers);
    let watcher = notify::recommended_watcher(move |event: notify::Result<notify::Event>| {
        if let Ok(event) = &event {
            noted.lock().unwrap_or_else(PoisonError::into_inner).note(event);
        }
        let is_nothing = |event: &notify::Event| {
            !is_done(event.kind) || (!event.paths.is_empty() && event.paths.iter().all(&is_ours))
        };
        // A full channel already says that something changed; an error may hide a change.
        if !event.is_ok_and(|event| is_nothing(&event)) {
            let _full_or_closed = changed.try_send(());
        }
    });
    let watcher = watcher.inspect_err(compare_instead).ok();
    let mut compare = interval(CONFIG_COMPARE);
    compare.set_missed_tick_behavior(MissedTickBehavior::Delay);
    Changes { events, is_noticed: false, watcher, folders: BTreeSet::new(), compare, writers }
}

/// Whether it is the log of this name or a file beside it.
fn is_log(log: &OsStr, path: &Path) -> bool {
    let name = path.file_name().map(|name| name.as_encoded_bytes());
    let suffix = name.and_then(|name| name.strip_prefix(log.as_encoded_bytes()));
    suffix.is_some_and(|suffix| suffix.first().is_none_or(|first| LOG_SUFFIXES.contains(first)))
}

/// Whether it is the state directory or one of the files in it, which may be the configuration's folder too.
fn is_state(folder: &Path, path: &Path) -> bool {
    let name = path.file_name().map_or(&b""[..], |name| name.as_encoded_bytes());
    path == folder || (path.parent() == Some(folder) && STATE_SUFFIXES.iter().any(|suffix| name.ends_with(suffix)))
}

/// Whether an event says that a change is complete.
fn is_done(kind: EventKind) -> bool {
    match kind {
        EventKind::Access(access) => access == AccessKind::Close(AccessMode::Write),
        EventKind::Modify(ModifyKind::Data(_)) => false,
        _ => true,
    }
}

fn compare_instead(error: &notify::Error) {
    tracing::warn!(%error, interval = ?CONFIG_COMPARE, "cannot watch the configuration; comparing it at an interval");
}

impl Changes {
    /// Watches these folders too, and the writers of these files: those the configuration refers to.
    pub fn follow(&mut self, folders: &BTreeSet<PathBuf>, files: BTreeSet<OsString>) {
        self.writers.lock().unwrap_or_else(PoisonError::into_inner).files = files;
        let Some(watcher) = &mut self.watcher else { return };
        for folder in folders.difference(&self.folders) {
            let path = if folder.as_os_str().is_empty() { Path::new(".") } else { folder };
            if let Err(error) = watcher.watch(path, RecursiveMode::NonRecursive) {
                compare_instead(&error);
                self.watcher = None;
                return;
            }
            // What changed between being read and being watched is found by comparing once more.
            self.compare.reset_immediately();
        }
        self.folders.extend(folders.iter().cloned());
    }

    /// Forgets what is watched, so that [`Changes::follow`] finds where the folders' names lead today.
    pub fn forget(&mut self) {
        self.folders.clear();
    }

    /// Waits until the files should be looked at, which is not while they are being written.
    pub async fn next(&mut self) -> Change {
        loop {
            let change = self.any().await;
            if !self.writers.lock().unwrap_or_else(PoisonError::into_inner).any() {
                return change;
            }
        }
    }

    async fn any(&mut self) -> Change {
        if !self.is_noticed {
            tokio::select! {
                // Without a watcher there is nobody to tell of events, which is none itself.
                Some(()) = self.events.recv() => {}
                _ = self.compare.tick() => return Change::Due,
            }
            // Not in this future alone: whoever waits for something else too may drop it while it waits for quiet.
            self.is_noticed = true;
        }
        let latest = Instant::now() + DEBOUNCE_MAX;
        loop {
            let quiet = (Instant::now() + CONFIG_DEBOUNCE).min(latest);
            match timeout_at(quiet, self.events.recv()).await {
                Ok(Some(())) if Instant::now() < latest => {}
                _ => {
                    self.is_noticed = false;
                    return Change::Noticed;
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;
    use std::path::Path;
    use std::sync::Arc;
    use std::time::Duration;

    use tokio::runtime::Builder;
    use tokio::sync::mpsc;
    use tokio::time::{Instant, interval_at, timeout};

    use super::{Change, Changes, is_log};

    /// Whoever waits for a change waits for other things too, and begins again after each of them.
    #[test]
    fn files_of_the_log_are_no_configuration() {
        let ours = ["", "-wal", "-shm", ".damaged-wal", ".shipped", ".shipped.new", ".000000000001-000000000002-1.zst"];
        for end in ours {
            assert!(is_log("requests.db".as_ref(), Path::new(&format!("/etc/postern/requests.db{end}"))), "{end}");
        }
        for name in ["requests.dbs", "my-requests.db", "postern.yaml"] {
            assert!(!is_log("requests.db".as_ref(), Path::new(name)), "{name}");
        }
    }

    /// Of a watcher that is not there, and not compared for an hour.
    fn told(events: mpsc::Receiver<()>) -> Changes {
        let hour = Duration::from_secs(3600);
        Changes {
            events,
            is_noticed: false,
            watcher: None,
            folders: BTreeSet::new(),
            compare: interval_at(Instant::now() + hour, hour),
            writers: Arc::default(),
        }
    }

    #[test]
    fn a_change_is_not_lost_with_the_future_that_saw_it() {
        let runtime = Builder::new_current_thread().enable_time().build().unwrap();
        runtime.block_on(async {
            let (changed, events) = mpsc::channel(1);
            let mut changes = told(events);
            changed.try_send(()).unwrap();
            assert!(timeout(Duration::from_millis(1), changes.next()).await.is_err(), "it waits for quiet");
            assert!(matches!(timeout(Duration::from_secs(60), changes.next()).await, Ok(Change::Noticed)));
        });
    }

    #[test]
    fn a_watcher_that_is_gone_tells_nothing() {
        let runtime = Builder::new_current_thread().enable_time().build().unwrap();
        runtime.block_on(async {
            let (changed, events) = mpsc::channel(1);
            let mut changes = told(events);
            drop(changed);
            assert!(
                timeout(Duration::from_millis(300), changes.next()).await.is_err(),
                "it would be read all the time"
            );
        });
    }
}
