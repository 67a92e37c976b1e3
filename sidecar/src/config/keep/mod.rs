//! Keeps the last accepted parts on disk, for a start whose configuration is gone, broken or refused.
//!
//! A thread of its own writes, after what it writes is served: neither a worker nor the next revocation waits for a
//! disk. Of each item the newest waits, so that what waits is bounded.

mod folder;
mod record;

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering::Relaxed};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError, mpsc};
use std::time::Duration;

use serde_json::{Value, json};
use sidecar_config::{CONTRACT_MIN, Part};
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

use self::folder::Folder;
use self::record::Record;
use super::read::{self, Offered, Reading};
use crate::limits::STATE_RETRY;

/// What is kept in a file of its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Item {
    /// One of the parts.
    Part(Part),
    /// The settings of the last start.
    Settings,
}

const ITEMS: [Item; 6] = [
    Item::Part(Part::Trust),
    Item::Part(Part::Identity),
    Item::Part(Part::Identities),
    Item::Part(Part::Policy),
    Item::Part(Part::Endpoints),
    Item::Settings,
];

impl Item {
    /// The item's name.
    fn name(self) -> &'static str {
        match self {
            Self::Part(part) => part.name(),
            Self::Settings => "settings",
        }
    }
}

/// A part that was accepted once, to be accepted again.
#[derive(Debug)]
pub struct Kept {
    /// When it was accepted, RFC 3339.
    pub since: String,
    /// The part and what it refers to.
    pub reading: Reading,
}

/// The settings a gate was started with last, and the file they are kept in.
pub fn recall_settings(folder: &Path) -> Option<(PathBuf, Value)> {
    let folder = Folder::new(folder);
    // What is wrong with it is told when everything is recalled, by a process that can tell.
    let record = folder.read(Item::Settings).ok()??;
    Some((folder.file(Item::Settings), record.document))
}

/// How keeping goes, for metrics.
#[derive(Debug, Default)]
pub struct Stats {
    unsaved: AtomicUsize,
    errors: AtomicU64,
}

impl Stats {
    /// Items whose last accepted content is not on disk (yet).
    pub fn unsaved(&self) -> usize {
        self.unsaved.load(Relaxed)
    }

    /// Writes that failed.
    pub fn errors(&self) -> u64 {
        self.errors.load(Relaxed)
    }
}

/// Gives what was accepted to the thread that writes it.
#[derive(Debug)]
pub struct Keeper {
    shared: Arc<Shared>,
    ended: mpsc::Receiver<()>,
}

#[derive(Debug, Default)]
struct Shared {
    waiting: Mutex<Waiting>,
    changed: Condvar,
    stats: Arc<Stats>,
}

#[derive(Debug, Default)]
struct Waiting {
    /// To be written: of each item the newest.
    records: BTreeMap<Item, Record>,
    is_stopping: bool,
}

impl Keeper {
    /// Reads what is kept in a folder, telling what of it cannot be used, and starts to write there.
    ///
    /// # Errors
    /// When there is no thread to be had.
    pub fn start(folder: &Path, stats: Arc<Stats>) -> io::Result<(Self, BTreeMap<Part, Kept>)> {
        let folder = Folder::new(folder);
        let mut saved = BTreeMap::new();
        let mut kept = BTreeMap::new();
        let usable = folder.check().inspect_err(|why| tracing::warn!("cannot use what was kept: {why}"));
        for item in ITEMS.into_iter().filter(|_| usable.is_ok()) {
            match folder.read(item) {
                Ok(Some(record)) => {
                    saved.insert(item, record.content());
                    let Item::Part(part) = item else { continue };
                    let Record { version, accepted, document, sources, .. } = record;
                    let offered = Offered { file: folder.file(item), version, value: document, sources };
                    kept.insert(part, Kept { since: accepted, reading: read::kept(part, offered) });
                }
                Ok(None) => {}
                Err(why) => tracing::warn!(item = item.name(), "cannot use what was kept: {why}"),
            }
        }
        let shared = Arc::new(Shared { stats, ..Shared::default() });
        let (end, ended) = mpsc::sync_channel(1);
        let writer = Writer { folder, shared: Arc::clone(&shared), saved, told: None };
        std::thread::Builder::new().name("state".to_owned()).spawn(move || {
            writer.run();
            let _nobody_waits = end.send(());
        })?;
        Ok((Self { shared, ended }, kept))
    }

    /// Keeps these parts of a reading, which were accepted just now.
    pub fn keep(&self, parts: &[Part], reading: &mut Reading) {
        let offered = parts.iter().filter_map(|part| Some((Item::Part(*part), reading.parts.remove(part)?)));
        let accepted = now();
        self.put(offered.map(|(item, Offered { version, value, sources, .. })| Record {
            item,
            version,
            accepted: accepted.clone(),
            document: value,
            sources,
        }));
    }

    /// Keeps the settings of this start, as the file has them.
    pub fn keep_settings(&self, settings: Option<&Value>) {
        let document = settings.cloned().unwrap_or_else(|| json!({}));
        let (item, sources) = (Item::Settings, BTreeMap::new());
        self.put([Record { item, version: CONTRACT_MIN, accepted: now(), document, sources }]);
    }

    fn put(&self, records: impl IntoIterator<Item = Record>) {
        let mut waiting = self.shared.lock();
        waiting.records.extend(records.into_iter().map(|record| (record.item, record)));
        self.shared.stats.unsaved.store(waiting.records.len(), Relaxed);
        drop(waiting);
        self.shared.changed.notify_all();
    }

    /// Writes what still waits, for as long as that may take.
    pub fn stop(self, limit: Duration) {
        self.shared.lock().is_stopping = true;
        self.shared.changed.notify_all();
        if self.ended.recv_timeout(limit).is_err() {
            tracing::warn!("the state directory does not answer; what is there may be older than what was served");
        }
    }
}

impl Shared {
    /// Plain data: a panic elsewhere leaves it as good as it was.
    fn lock(&self) -> MutexGuard<'_, Waiting> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What waits, as soon as something does; nothing when all is written and no more will come.
    fn next(&self) -> (BTreeMap<Item, Record>, bool) {
        let idle = |waiting: &mut Waiting| waiting.records.is_empty() && !waiting.is_stopping;
        let waiting = self.changed.wait_while(self.lock(), idle);
        let mut waiting = waiting.unwrap_or_else(PoisonError::into_inner);
        (std::mem::take(&mut waiting.records), waiting.is_stopping)
    }

    /// Gives back what could not be written, unless something newer waits, and waits for better times.
    fn put_back(&self, failed: BTreeMap<Item, Record>) {
        let mut waiting = self.lock();
        let arrived = waiting.records.len();
        for (item, record) in failed {
            waiting.records.entry(item).or_insert(record);
        }
        self.stats.unsaved.store(waiting.records.len(), Relaxed);
        if arrived == 0 && !waiting.is_stopping {
            drop(self.changed.wait_timeout(waiting, STATE_RETRY));
        }
    }
}

/// The thread.
struct Writer {
    folder: Folder,
    shared: Arc<Shared>,
    /// Content of what is on disk.
    saved: BTreeMap<Item, [u8; 32]>,
    /// What is wrong, if it was told.
    told: Option<String>,
}

impl Writer {
    fn run(mut self) {
        loop {
            let (records, is_stopping) = self.shared.next();
            let failed = self.write(records);
            if is_stopping {
                return;
            }
            self.shared.put_back(failed);
        }
    }

    /// Writes what is not on disk yet; what failed comes back.
    fn write(&mut self, records: BTreeMap<Item, Record>) -> BTreeMap<Item, Record> {
        let mut failed = BTreeMap::new();
        for (item, record) in records {
            let content = record.content();
            if self.saved.get(&item) == Some(&content) {
                continue;
            }
            match self.folder.write(&record) {
                Ok(()) => {
                    self.saved.insert(item, content);
                }
                Err(why) => {
                    self.shared.stats.errors.fetch_add(1, Relaxed);
                    self.tell(why);
                    failed.insert(item, record);
                }
            }
        }
        if failed.is_empty() && self.told.take().is_some() {
            tracing::info!("the state directory is written again");
        }
        failed
    }

    /// Once for each new trouble: it is tried again and again.
    fn tell(&mut self, why: String) {
        if self.told.as_ref() != Some(&why) {
            tracing::warn!("cannot keep what was accepted: {why}; a restart would use what was kept before");
            self.told = Some(why);
        }
    }
}

fn now() -> String {
    let now = OffsetDateTime::now_utc();
    now.replace_nanosecond(0).unwrap_or(now).format(&Rfc3339).unwrap_or_default()
}
