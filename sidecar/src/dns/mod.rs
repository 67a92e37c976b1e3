//! Addresses of upstreams that the configuration names: looked up on the control thread, and again when an answer has run
//! out. What is found goes to workers as a generation like any other.

mod known;
mod lookup;
mod system;

use std::cell::{Cell, RefCell};
use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::Instant;

use sidecar_config::settings::Dns;
use sidecar_decide::Resolved;
use tokio::sync::{Notify, Semaphore};
use tokio::task::AbortHandle;
use tokio::time::{sleep, timeout};

pub use known::Standing;
use known::{Answer, Known};
use system::Resolving;

use crate::limits::{DNS_FIRST_WAIT, DNS_LOOKUPS_AT_ONCE, DNS_PAUSE, DNS_REST, DNS_SYSTEM_FILE_BYTES};

/// Counts of lookups, and how well names are known.
#[derive(Debug, Default)]
pub struct Lookups {
    found: AtomicU64,
    nothing: AtomicU64,
    failed: AtomicU64,
    names: [AtomicUsize; Standing::ALL.len()],
}

impl Lookups {
    /// Lookups by their result.
    pub fn results(&self) -> [(&'static str, u64); 3] {
        [("found", &self.found), ("nothing", &self.nothing), ("failed", &self.failed)]
            .map(|(result, count)| (result, count.load(Ordering::Relaxed)))
    }

    /// Names by how well they are known.
    pub fn names(&self) -> [(&'static str, usize); 3] {
        Standing::ALL.map(|standing| (standing.name(), self.names[standing as usize].load(Ordering::Relaxed)))
    }

    fn count(&self, answers: &[Answer; 2]) {
        let has = |wanted: fn(&Answer) -> bool| answers.iter().any(wanted);
        let count = match (
            has(|answer| matches!(answer, Answer::Failed(_))),
            has(|answer| matches!(answer, Answer::Found(..))),
        ) {
            (true, _) => &self.failed,
            (false, true) => &self.found,
            (false, false) => &self.nothing,
        };
        count.fetch_add(1, Ordering::Relaxed);
    }
}

/// The names of a generation, each looked up again and again by a task of its own.
pub struct Names {
    tasks: BTreeMap<String, Looking>,
    shared: Rc<Shared>,
}

struct Shared {
    /// What the settings say; the system's files are read each time, because they change.
    resolving: Option<Resolving>,
    known: RefCell<BTreeMap<String, Known>>,
    /// Whether what is known is not what was given out last.
    has_changed: Cell<bool>,
    /// When it was given out last.
    given: Cell<Option<Instant>>,
    /// A lookup has ended.
    ended: Notify,
    turns: Semaphore,
    lookups: Arc<Lookups>,
}

/// A task that is ended when it is dropped.
struct Looking(AbortHandle);

impl Drop for Looking {
    fn drop(&mut self) {
        self.0.abort();
    }
}

impl Names {
    /// No names yet.
    pub fn new(settings: &Dns, lookups: Arc<Lookups>) -> Self {
        let shared = Shared {
            resolving: Resolving::of_settings(settings),
            known: RefCell::default(),
            has_changed: Cell::new(false),
            given: Cell::new(None),
            ended: Notify::new(),
            turns: Semaphore::new(DNS_LOOKUPS_AT_ONCE),
            lookups,
        };
        Self { tasks: BTreeMap::new(), shared: Rc::new(shared) }
    }

    /// Looks these names up from now on, and no others. Whether there are new ones among them. Call it on a local runtime.
    pub fn follow(&mut self, names: &BTreeSet<String>) -> bool {
        self.tasks.retain(|name, _| names.contains(name));
        self.shared.known.borrow_mut().retain(|name, _| names.contains(name));
        let before = self.tasks.len();
        for name in names {
            self.tasks.entry(name.clone()).or_insert_with(|| {
                let look = look(name.clone(), Rc::clone(&self.shared));
                Looking(tokio::task::spawn_local(look).abort_handle())
            });
        }
        self.shared.tell();
        self.tasks.len() > before
    }

    /// Waits until each name was looked up once, but no longer than is bearable.
    pub async fn first(&self) {
        let all = async {
            loop {
                let ended = self.shared.ended.notified();
                if self.shared.known.borrow().len() >= self.tasks.len() {
                    return;
                }
                ended.await;
            }
        };
        // Those that take longer come later, by themselves.
        let _late = timeout(DNS_FIRST_WAIT, all).await;
    }

    /// What is known, to be given out.
    pub fn resolved(&self) -> Resolved {
        self.shared.has_changed.set(false);
        self.shared.given.set(Some(Instant::now()));
        let known = self.shared.known.borrow();
        known.iter().map(|(name, known)| (name.clone(), known.addresses())).collect()
    }

    /// Resolves when something else is known than was given out, and has rested a moment: names change together.
    pub async fn changed(&self) {
        loop {
            let ended = self.shared.ended.notified();
            if self.shared.has_changed.get() {
                let pause = self.shared.given.get().map_or(DNS_REST, |given| DNS_PAUSE.saturating_sub(given.elapsed()));
                return sleep(pause.max(DNS_REST)).await;
            }
            ended.await;
        }
    }
}

impl Shared {
    /// Enters what a lookup has brought; how long to wait until the next.
    fn enter(&self, name: &str, answers: [Answer; 2]) -> std::time::Duration {
        self.lookups.count(&answers);
        let why = answers.iter().find_map(|answer| match answer {
            Answer::Failed(why) => Some(why.clone()),
            _ => None,
        });
        let mut all = self.known.borrow_mut();
        let before = all.get(name).cloned();
        let (known, wait) = before.clone().unwrap_or_default().after(answers, Instant::now());
        let (standing, addresses) = (known.standing(), known.addresses());
        let was = before.as_ref().map(|before| (before.standing(), before.addresses()));
        if was.as_ref().is_none_or(|(before, _)| *before != standing) || why.is_some() {
            say_standing(name, standing, was.map(|(before, _)| before), why.as_deref());
        }
        if before.is_none_or(|before| before.addresses() != addresses) {
            say_addresses(name, &addresses);
            self.has_changed.set(true);
        }
        all.insert(name.to_owned(), known);
        drop(all);
        self.tell();
        self.ended.notify_waiters();
        wait
    }

    /// Tells how well the names are known.
    fn tell(&self) {
        let known = self.known.borrow();
        for standing in Standing::ALL {
            let count = known.values().filter(|known| known.standing() == standing).count();
            self.lookups.names[standing as usize].store(count, Ordering::Relaxed);
        }
    }
}

/// Once for each change, so that a server that is away for a day does not fill a disk.
fn say_standing(name: &str, standing: Standing, before: Option<Standing>, why: Option<&str>) {
    if before == Some(standing) {
        return;
    }
    match (standing, why) {
        (Standing::Resolved, _) => {}
        (Standing::Stale, why) => tracing::warn!(name, why, "a name is not confirmed; its addresses stay in use"),
        (Standing::Unresolved, why) => tracing::warn!(name, why, "a name has no address"),
    }
}

fn say_addresses(name: &str, addresses: &[IpAddr]) {
    tracing::info!(name, ?addresses, "a name has these addresses");
}

async fn look(name: String, shared: Rc<Shared>) {
    loop {
        let Ok(turn) = shared.turns.acquire().await else { return };
        let answers = match lookup::of_hosts(system::hosts(&system_file("/etc/hosts"), &name)) {
            Some(answers) => answers,
            None => {
                let resolving = shared.resolving.clone();
                let resolving = resolving.unwrap_or_else(|| Resolving::of_system(&system_file("/etc/resolv.conf")));
                lookup::lookup(&name, &resolving).await
            }
        };
        drop(turn);
        sleep(shared.enter(&name, answers)).await;
    }
}

/// The text of a file of the system's; none where it cannot be read.
fn system_file(path: &str) -> String {
    let is_bearable = std::fs::metadata(path).is_ok_and(|file| file.len() <= DNS_SYSTEM_FILE_BYTES);
    let bytes = if is_bearable { std::fs::read(path).unwrap_or_default() } else { Vec::new() };
    String::from_utf8_lossy(&bytes).into_owned()
}
