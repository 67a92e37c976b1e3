//! Keeps the picture of the cluster true, and asks for the turns that its changes are worth.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Debug;
use std::pin::pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use futures_util::StreamExt;
use k8s_openapi::NamespaceResourceScope;
use k8s_openapi::api::core::v1::Namespace;
use kube::core::PartialObjectMeta;
use kube::runtime::watcher;
use kube::{Api, Client, Resource};
use serde::de::DeserializeOwned;
use tokio::sync::watch;
use tokio::task::JoinSet;

use super::again::watched;
use super::cluster::{Source, version_of};
use super::serving::{Follower, Scope, Serving};
use super::{Cluster, Object, ObjectKind, ObjectName, kinds, optional};
use crate::metrics::Metrics;
use crate::queue::{Key, Pace, Queue};

/// The picture of the cluster, shared by those who read it and those who keep it true.
#[derive(Debug)]
pub struct Index {
    cluster: Mutex<Cluster>,
    queue: Arc<Queue>,
    /// Watches that have not seen everything yet.
    missing: watch::Sender<usize>,
    /// How each watch fares, by its number.
    watches: Mutex<BTreeMap<usize, (ObjectKind, Standing)>>,
    serving: Mutex<Serving>,
    metrics: Arc<Metrics>,
}

/// How a watch fares.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Standing {
    /// It has not seen everything yet.
    Listing,
    /// It has, and is told of changes.
    Watching,
    /// It is begun anew, again and again.
    Failing,
}

impl Standing {
    fn word(self) -> &'static str {
        match self {
            Self::Listing => "listing",
            Self::Watching => "watching",
            Self::Failing => "failing",
        }
    }
}

impl Index {
    /// An empty picture, whose changes ask for turns.
    #[must_use]
    pub fn new(queue: Arc<Queue>, metrics: Arc<Metrics>) -> Arc<Self> {
        let (missing, watches) = (watch::Sender::new(0), Mutex::default());
        let serving = Mutex::new(Serving::of(Scope::Cluster));
        Arc::new(Self { cluster: Mutex::default(), queue, missing, watches, serving, metrics })
    }

    /// Whether everything that is there has been seen.
    #[must_use]
    pub fn is_complete(&self) -> bool {
        *self.missing.borrow() == 0 && !self.standings().is_empty()
    }

    /// How many watches of each kind fare how.
    #[must_use]
    pub fn watches(&self) -> BTreeMap<(&'static str, &'static str), usize> {
        let mut counts = BTreeMap::new();
        for (kind, standing) in self.standings().values() {
            *counts.entry((kind.word(), standing.word())).or_default() += 1;
        }
        counts
    }

    // Each change is whole.
    fn standings(&self) -> MutexGuard<'_, BTreeMap<usize, (ObjectKind, Standing)>> {
        self.watches.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn stands(&self, watch: usize, standing: Standing) {
        if let Some(entry) = self.standings().get_mut(&watch) {
            entry.1 = standing;
        }
    }

    // Each change is whole.
    pub(super) fn serving(&self) -> MutexGuard<'_, Serving> {
        self.serving.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether anything may be done in a namespace: it is served, and everything in it has been seen.
    #[must_use]
    pub fn serves(&self, namespace: &str) -> bool {
        self.serving().serves(namespace)
    }

    /// The namespaces that are served now.
    #[must_use]
    pub fn scope(&self) -> Scope {
        self.serving().now()
    }

    /// The picture. Hold it shortly: whoever waits for something else lets it go first.
    // A poisoned lock only says that somebody panicked while reading: each change is whole.
    pub fn cluster(&self) -> MutexGuard<'_, Cluster> {
        self.cluster.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes in what a write was answered, so that nobody compares with what was there before.
    pub fn written(&self, object: Object) {
        let turns = self.cluster().set_written(object);
        self.ask_for(turns);
    }

    /// Takes in that something was just removed.
    pub fn removed(&self, kind: ObjectKind, name: &ObjectName) {
        drop(self.cluster().remove(kind, name));
    }

    pub(super) fn ask_for(&self, turns: Vec<(Key, Pace)>) {
        turns.into_iter().for_each(|(key, pace)| self.queue.add(key, pace));
    }

    /// Waits until everything that is there has been seen: a plan made of less would take it for gone.
    pub async fn complete(&self) {
        // An error says that there is no sender, which is this one.
        let _ = self.missing.subscribe().wait_for(|missing| *missing == 0).await;
    }

    /// Starts watching.
    pub fn watch(self: &Arc<Self>, client: &Client, scope: &Scope, operator_namespace: &str, tasks: &mut JoinSet<()>) {
        self.serving().scope = scope.clone();
        let mut watches = Watches { index: self, client, tasks };
        let everywhere = Place::everywhere();
        match scope {
            Scope::Cluster => {
                kinds::watch(&mut watches, &everywhere);
                kinds::watch_identities(&mut watches, &everywhere);
                kinds::watch_held(&mut watches, &everywhere);
                let namespaces = Api::<PartialObjectMeta<Namespace>>::all(client.clone());
                let config = watcher::Config::default();
                watches.start(namespaces, config, ObjectKind::Namespace, &everywhere, kinds::namespace);
                optional::watch(self, client, &[everywhere], watches.tasks);
            }
            Scope::Namespaces(names) => {
                let places: Vec<_> = names.iter().map(|name| Place::of(name)).collect();
                for place in &places {
                    kinds::watch(&mut watches, place);
                    kinds::watch_identities(&mut watches, place);
                    kinds::watch_held(&mut watches, place);
                }
                optional::watch(self, client, &places, watches.tasks);
            }
            Scope::Enabled => {
                kinds::watch_identities(&mut watches, &everywhere);
                let follower = Follower::new(self, client, operator_namespace);
                optional::watch(self, client, &[everywhere], watches.tasks);
                watches.tasks.spawn(follower.follow());
            }
        }
        if !scope.contains(operator_namespace) {
            let mut watches = Watches { index: self, client, tasks };
            kinds::watch_held(&mut watches, &Place::of(operator_namespace));
        }
    }

    /// All of a namespace with the label has been seen.
    fn seen(&self, namespace: &str) {
        if self.serving().seen(namespace) {
            tracing::info!(namespace, "everything in it is seen; it is served");
            let turns = self.cluster().everything_in(namespace);
            self.ask_for(turns);
        }
    }
}

/// Where something is watched, and who waits for it.
#[derive(Clone, Debug)]
pub(super) struct Place {
    /// `None` is everywhere.
    namespace: Option<String>,
    /// Whether nothing is done before everything there has been seen.
    is_waited: bool,
    /// Whether nothing is done in that namespace before.
    is_followed: bool,
}

impl Place {
    pub(super) fn everywhere() -> Self {
        Self { namespace: None, is_waited: true, is_followed: false }
    }

    /// A namespace that was named.
    pub(super) fn of(namespace: &str) -> Self {
        Self { namespace: Some(namespace.to_owned()), is_waited: true, is_followed: false }
    }

    /// A namespace that has the label.
    pub(super) fn followed(namespace: &str, is_waited: bool) -> Self {
        Self { namespace: Some(namespace.to_owned()), is_waited, is_followed: true }
    }
}

/// Starts watches. They end with the tasks.
pub(super) struct Watches<'a> {
    pub(super) index: &'a Arc<Index>,
    pub(super) client: &'a Client,
    pub(super) tasks: &'a mut JoinSet<()>,
}

impl Watches<'_> {
    pub(super) fn follow<K>(
        &mut self,
        place: &Place,
        config: watcher::Config,
        kind: ObjectKind,
        prune: fn(K) -> Option<Object>,
    ) where
        K: Resource<Scope = NamespaceResourceScope, DynamicType = ()>
            + Clone
            + Debug
            + DeserializeOwned
            + Send
            + Sync
            + 'static,
    {
        let api = match &place.namespace {
            Some(namespace) => Api::<K>::namespaced(self.client.clone(), namespace),
            None => Api::all(self.client.clone()),
        };
        self.start(api, config, kind, place, prune);
    }

    /// Keeps the objects of one kind and place true until its task ends.
    fn start<K>(
        &mut self,
        api: Api<K>,
        config: watcher::Config,
        kind: ObjectKind,
        place: &Place,
        prune: fn(K) -> Option<Object>,
    ) where
        K: Resource<DynamicType = ()> + Clone + Debug + DeserializeOwned + Send + 'static,
    {
        let mut listing = Listing::new(self.index, kind, place);
        self.tasks.spawn(async move {
            let mut events = pin!(watched(api, config));
            while let Some(event) = events.next().await {
                match event {
                    Ok(event) => listing.take(event, prune),
                    Err(error) => listing.failed(&error),
                }
            }
        });
    }
}

/// What one watch has seen since it was begun anew.
pub(super) struct Listing {
    index: Arc<Index>,
    number: usize,
    kind: ObjectKind,
    place: Place,
    seen: BTreeSet<ObjectName>,
    is_first: bool,
}

impl Listing {
    /// Of a watch that has not seen anything yet.
    pub(super) fn new(index: &Arc<Index>, kind: ObjectKind, place: &Place) -> Self {
        if place.is_waited {
            index.missing.send_modify(|missing| *missing += 1);
        }
        if let Some(namespace) = place.namespace.as_ref().filter(|_| place.is_followed) {
            index.serving().wait(namespace);
        }
        let mut standings = index.standings();
        let number = standings.last_key_value().map_or(0, |(last, _)| last + 1);
        standings.insert(number, (kind, Standing::Listing));
        let (index, place) = (Arc::clone(index), place.clone());
        Self { index, number, kind, place, seen: BTreeSet::new(), is_first: true }
    }

    /// Where it is watched; `None` is everywhere.
    pub(super) fn namespace(&self) -> Option<&str> {
        self.place.namespace.as_deref()
    }

    /// Whether it has not seen everything yet.
    pub(super) fn is_first(&self) -> bool {
        self.is_first
    }

    /// Nobody waits for it any more.
    fn release(&mut self) {
        if std::mem::take(&mut self.place.is_waited) {
            self.index.missing.send_modify(|missing| *missing -= 1);
        }
    }

    /// It could not be watched, and that is tried again.
    pub(super) fn failed(&mut self, error: &watcher::Error) {
        let namespace = self.namespace().unwrap_or("all");
        tracing::warn!(kind = self.kind.word(), namespace, %error, "cannot watch; trying again");
        self.index.metrics.watch_failed(self.kind.word());
        if self.place.is_followed && is_forbidden(error) {
            // Whoever sets the label and gives no right to look keeps nobody else waiting.
            self.release();
        }
        if !self.is_first {
            self.index.stands(self.number, Standing::Failing);
        }
    }

    /// There are none, because the kind is not served.
    pub(super) fn is_absent(&mut self) {
        self.seen.clear();
        self.end();
    }

    pub(super) fn take<K: Resource>(&mut self, event: watcher::Event<K>, prune: fn(K) -> Option<Object>) {
        match event {
            watcher::Event::Init => self.seen.clear(),
            watcher::Event::InitApply(object) => {
                self.seen.insert(ObjectName::of(&object));
                if self.kind == ObjectKind::Route {
                    // What changed while nobody watched is timed from when it is seen.
                    let generation = object.meta().generation.unwrap_or_default();
                    self.index.metrics.route_seen(&ObjectName::of(&object), generation, !self.is_first);
                }
                self.set(object, Source::List, prune);
            }
            watcher::Event::Apply(object) => {
                if self.kind == ObjectKind::Route {
                    let generation = object.meta().generation.unwrap_or_default();
                    self.index.metrics.route_seen(&ObjectName::of(&object), generation, true);
                }
                self.set(object, Source::Change, prune);
            }
            watcher::Event::Delete(object) => {
                if self.kind == ObjectKind::Route {
                    self.index.metrics.route_gone(&ObjectName::of(&object));
                }
                self.remove(&object);
            }
            watcher::Event::InitDone => self.end(),
        }
    }

    /// All there are have been listed.
    fn end(&mut self) {
        // What went while nobody watched.
        let known = self.index.cluster().names(self.kind, self.namespace());
        for name in known.into_iter().filter(|name| !self.seen.contains(name)) {
            let turns = self.index.cluster().remove(self.kind, &name);
            self.index.ask_for(turns);
        }
        // With what it has grown to.
        self.seen = BTreeSet::new();
        self.index.stands(self.number, Standing::Watching);
        if std::mem::take(&mut self.is_first) {
            if let Some(namespace) = self.namespace().filter(|_| self.place.is_followed) {
                self.index.seen(namespace);
            }
            self.release();
        }
    }

    fn set<K: Resource>(&self, object: K, source: Source, prune: fn(K) -> Option<Object>) {
        let (name, version) = (ObjectName::of(&object), version_of(object.meta().resource_version.as_deref()));
        let turns = match prune(object) {
            Some(object) => self.index.cluster().set(object, source),
            // It has lost what made it ours to watch.
            None => self.index.cluster().remove_at(self.kind, &name, version),
        };
        self.index.ask_for(turns);
    }

    fn remove<K: Resource>(&self, object: &K) {
        let version = version_of(object.meta().resource_version.as_deref());
        let turns = self.index.cluster().remove_at(self.kind, &ObjectName::of(object), version);
        self.index.ask_for(turns);
    }
}

/// A namespace may be let go of before everything in it was seen.
impl Drop for Listing {
    fn drop(&mut self) {
        self.release();
        self.index.standings().remove(&self.number);
    }
}

/// Whether it is a right that is missing.
fn is_forbidden(error: &watcher::Error) -> bool {
    match error {
        watcher::Error::InitialListFailed(kube::Error::Api(status))
        | watcher::Error::WatchStartFailed(kube::Error::Api(status)) => status.code == 403,
        _ => false,
    }
}
