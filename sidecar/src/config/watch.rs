//! Says when the configuration's files may have changed.
//!
//! inotify on the folder, because a file that is replaced (an editor's rename, Kubernetes' `..data` swap) is a new
//! file; where inotify instances have run out, the caller is woken at an interval and compares digests itself.

use std::collections::BTreeSet;
use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use notify::{RecommendedWatcher, RecursiveMode, Watcher};
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep, timeout_at};

use crate::limits::{CONFIG_DEBOUNCE, CONFIG_POLL};

/// Longest that a stream of changes can put off reading them.
const DEBOUNCE_MAX: Duration = Duration::from_millis(200);

/// Changes of some folders, debounced.
pub struct Changes {
    sender: mpsc::Sender<()>,
    events: mpsc::Receiver<()>,
    /// Ends the events when it is dropped; `None` while polling.
    watcher: Option<RecommendedWatcher>,
    folders: BTreeSet<PathBuf>,
}

/// Watches no folder yet. The request log's files are no configuration, although they may lie beside it and change all
/// the time.
pub fn watch(log: &Path) -> Changes {
    let (sender, events) = mpsc::channel(1);
    let changed = sender.clone();
    let log = log.file_name().map(|name| name.as_encoded_bytes().to_vec());
    let is_log = move |path: &PathBuf| {
        let name = path.file_name().map(OsStr::as_encoded_bytes);
        name.zip(log.as_deref()).is_some_and(|(name, log)| name.starts_with(log))
    };
    let watcher = notify::recommended_watcher(move |event: notify::Result<notify::Event>| {
        // A full channel already says that something changed; an error may hide a change.
        let is_nothing = |event: &notify::Event| {
            event.kind.is_access() || (!event.paths.is_empty() && event.paths.iter().all(&is_log))
        };
        if !event.is_ok_and(|event| is_nothing(&event)) {
            let _full_or_closed = changed.try_send(());
        }
    });
    let watcher = watcher.inspect_err(poll_instead).ok();
    Changes { sender, events, watcher, folders: BTreeSet::new() }
}

fn poll_instead(error: &notify::Error) {
    tracing::warn!(%error, interval = ?CONFIG_POLL, "cannot watch the configuration; comparing it at an interval instead");
}

impl Changes {
    /// Watches these folders too: those of the files the configuration refers to.
    pub fn follow(&mut self, folders: &BTreeSet<PathBuf>) {
        let Some(watcher) = &mut self.watcher else { return };
        for folder in folders.difference(&self.folders) {
            let path = if folder.as_os_str().is_empty() { Path::new(".") } else { folder };
            if let Err(error) = watcher.watch(path, RecursiveMode::NonRecursive) {
                poll_instead(&error);
                self.watcher = None;
                return;
            }
            // What changed between being read and being watched is found by reading once more.
            let _already_due = self.sender.try_send(());
        }
        self.folders.extend(folders.iter().cloned());
    }

    /// Waits until something may have changed and has been quiet for a moment.
    pub async fn next(&mut self) {
        if self.watcher.is_none() {
            sleep(CONFIG_POLL).await;
            return;
        }
        self.events.recv().await;
        let latest = Instant::now() + DEBOUNCE_MAX;
        loop {
            let quiet = (Instant::now() + CONFIG_DEBOUNCE).min(latest);
            match timeout_at(quiet, self.events.recv()).await {
                Ok(Some(())) if Instant::now() < latest => {}
                _ => return,
            }
        }
    }
}
