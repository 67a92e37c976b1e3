//! Keeps the picture of the cluster true, and asks for the turns that its changes are worth.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Debug;
use std::pin::pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use futures_util::StreamExt;
use k8s_openapi::NamespaceResourceScope;
use k8s_openapi::api::core::v1::{ConfigMap, Namespace, Pod as PodObject, Secret, Service as ServiceObject};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use kube::runtime::{WatchStreamExt, watcher};
use kube::{Api, Client, Resource, ResourceExt};
use postern_crds::{ClientIdentity, ProxyRoute};
use serde::de::DeserializeOwned;
use tokio::sync::watch;
use tokio::task::JoinSet;

use super::cluster::{Source, version_of};
use super::held::MANAGED_LABEL;
use super::pod::WORKLOAD_LABEL;
use super::slice::SERVICE_LABEL;
use super::{Cluster, Held, HeldKind, Object, ObjectKind, ObjectName, Pod, Service, Slice, optional};
use crate::metrics::Metrics;
use crate::queue::{Key, Pace, Queue};

/// Where objects are watched.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Scope {
    /// In all namespaces, which takes rights in all of them.
    #[default]
    Cluster,
    /// In these.
    Namespaces(BTreeSet<String>),
}

impl Scope {
    /// Whether a namespace is in it.
    #[must_use]
    pub fn contains(&self, namespace: &str) -> bool {
        match self {
            Self::Cluster => true,
            Self::Namespaces(names) => names.contains(namespace),
        }
    }
}

/// The picture of the cluster, shared by those who read it and those who keep it true.
#[derive(Debug)]
pub struct Index {
    cluster: Mutex<Cluster>,
    queue: Arc<Queue>,
    /// Watches that have not seen everything yet.
    missing: watch::Sender<usize>,
    /// How each watch fares.
    watches: Mutex<Vec<(ObjectKind, Standing)>>,
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
        Arc::new(Self { cluster: Mutex::default(), queue, missing, watches, metrics })
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
        for (kind, standing) in self.standings().iter() {
            *counts.entry((kind.word(), standing.word())).or_default() += 1;
        }
        counts
    }

    // Each change is whole.
    fn standings(&self) -> MutexGuard<'_, Vec<(ObjectKind, Standing)>> {
        self.watches.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn stands(&self, watch: usize, standing: Standing) {
        if let Some(entry) = self.standings().get_mut(watch) {
            entry.1 = standing;
        }
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

    fn ask_for(&self, turns: Vec<(Key, Pace)>) {
        turns.into_iter().for_each(|(key, pace)| self.queue.add(key, pace));
    }

    /// Waits until everything that is there has been seen: a plan made of less would take it for gone.
    pub async fn complete(&self) {
        // An error says that there is no sender, which is this one.
        let _ = self.missing.subscribe().wait_for(|missing| *missing == 0).await;
    }

    /// Starts watching.
    pub fn watch(self: &Arc<Self>, client: &Client, scope: &Scope, operator_namespace: &str, tasks: &mut JoinSet<()>) {
        let managed = watcher::Config::default().labels(&format!("{}={}", MANAGED_LABEL.0, MANAGED_LABEL.1));
        let namespaces: Vec<Option<String>> = match scope {
            Scope::Cluster => vec![None],
            Scope::Namespaces(names) => names.iter().cloned().map(Some).collect(),
        };
        for namespace in namespaces.iter().cloned() {
            let everything = watcher::Config::default();
            self.follow(
                client,
                namespace.clone(),
                everything.clone(),
                ObjectKind::Route,
                tasks,
                |mut route: ProxyRoute| {
                    route.managed_fields_mut().clear();
                    Some(Object::Route(Arc::new(route)))
                },
            );
            self.follow(
                client,
                namespace.clone(),
                everything,
                ObjectKind::Identity,
                tasks,
                |mut identity: ClientIdentity| {
                    identity.managed_fields_mut().clear();
                    Some(Object::Identity(Arc::new(identity)))
                },
            );
            let pods = watcher::Config::default().labels(WORKLOAD_LABEL);
            self.follow(client, namespace.clone(), pods, ObjectKind::Pod, tasks, |pod: PodObject| {
                Some(Object::Pod(Arc::new(Pod::of(pod)?)))
            });
            let services = watcher::Config::default();
            self.follow(client, namespace.clone(), services, ObjectKind::Service, tasks, |service: ServiceObject| {
                Some(Object::Service(Arc::new(Service::of(service))))
            });
            // Of all Services: which of them are asked is up to routes that come and go.
            let slices = watcher::Config::default().labels(SERVICE_LABEL);
            self.follow(client, namespace.clone(), slices, ObjectKind::Slice, tasks, |slice: EndpointSlice| {
                Some(Object::Slice(Arc::new(Slice::of(slice)?)))
            });
            self.follow_held(client, namespace, &managed, tasks);
        }
        optional::watch(self, client, &namespaces, tasks);
        if !scope.contains(operator_namespace) {
            self.follow_held(client, Some(operator_namespace.to_owned()), &managed, tasks);
        }
        if *scope == Scope::Cluster {
            let namespaces = Api::<Namespace>::all(client.clone());
            let config = watcher::Config::default();
            self.start(namespaces, config, ObjectKind::Namespace, None, tasks, |namespace: Namespace| {
                let is_ending = namespace.metadata.deletion_timestamp.is_some();
                Some(Object::Namespace { name: namespace.name_any(), is_ending })
            });
        }
    }

    fn follow_held(
        self: &Arc<Self>,
        client: &Client,
        namespace: Option<String>,
        managed: &watcher::Config,
        tasks: &mut JoinSet<()>,
    ) {
        let kind = ObjectKind::Held(HeldKind::ConfigMap);
        self.follow(client, namespace.clone(), managed.clone(), kind, tasks, |object: ConfigMap| {
            Some(Object::Held(Arc::new(Held::of_config_map(object)?)))
        });
        let kind = ObjectKind::Held(HeldKind::Secret);
        self.follow(client, namespace, managed.clone(), kind, tasks, |object: Secret| {
            Some(Object::Held(Arc::new(Held::of_secret(object)?)))
        });
    }

    fn follow<K>(
        self: &Arc<Self>,
        client: &Client,
        namespace: Option<String>,
        config: watcher::Config,
        kind: ObjectKind,
        tasks: &mut JoinSet<()>,
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
        let api = match &namespace {
            Some(namespace) => Api::<K>::namespaced(client.clone(), namespace),
            None => Api::all(client.clone()),
        };
        self.start(api, config, kind, namespace, tasks, prune);
    }

    /// Keeps the objects of one kind and namespace true until the process ends.
    fn start<K>(
        self: &Arc<Self>,
        api: Api<K>,
        config: watcher::Config,
        kind: ObjectKind,
        namespace: Option<String>,
        tasks: &mut JoinSet<()>,
        prune: fn(K) -> Option<Object>,
    ) where
        K: Resource<DynamicType = ()> + Clone + Debug + DeserializeOwned + Send + 'static,
    {
        let mut listing = Listing::new(self, kind, namespace);
        let index = Arc::clone(self);
        tasks.spawn(async move {
            let mut events = pin!(watcher(api, config).default_backoff());
            while let Some(event) = events.next().await {
                match event {
                    Ok(event) => listing.take(&index, event, prune),
                    Err(error) => listing.failed(&index, &error),
                }
            }
        });
    }
}

/// What one watch has seen since it was begun anew.
pub(super) struct Listing {
    number: usize,
    kind: ObjectKind,
    namespace: Option<String>,
    seen: BTreeSet<ObjectName>,
    is_first: bool,
}

impl Listing {
    /// Of a watch that has not seen anything yet, and that is waited for.
    pub(super) fn new(index: &Index, kind: ObjectKind, namespace: Option<String>) -> Self {
        index.missing.send_modify(|missing| *missing += 1);
        let mut standings = index.standings();
        standings.push((kind, Standing::Listing));
        Self { number: standings.len() - 1, kind, namespace, seen: BTreeSet::new(), is_first: true }
    }

    /// Where it is watched; `None` is everywhere.
    pub(super) fn namespace(&self) -> Option<&str> {
        self.namespace.as_deref()
    }

    /// It could not be watched, and that is tried again.
    pub(super) fn failed(&self, index: &Index, error: &watcher::Error) {
        tracing::warn!(kind = self.kind.word(), %error, "cannot watch; trying again");
        index.metrics.watch_failed(self.kind.word());
        if !self.is_first {
            index.stands(self.number, Standing::Failing);
        }
    }

    /// There are none, because the kind is not served.
    pub(super) fn is_absent(&mut self, index: &Index) {
        self.seen.clear();
        self.end(index);
    }

    pub(super) fn take<K: Resource>(
        &mut self,
        index: &Index,
        event: watcher::Event<K>,
        prune: fn(K) -> Option<Object>,
    ) {
        match event {
            watcher::Event::Init => self.seen.clear(),
            watcher::Event::InitApply(object) => {
                self.seen.insert(ObjectName::of(&object));
                if self.kind == ObjectKind::Route {
                    // What changed while nobody watched is timed from when it is seen.
                    let generation = object.meta().generation.unwrap_or_default();
                    index.metrics.route_seen(&ObjectName::of(&object), generation, !self.is_first);
                }
                self.set(index, object, Source::List, prune);
            }
            watcher::Event::Apply(object) => {
                if self.kind == ObjectKind::Route {
                    let generation = object.meta().generation.unwrap_or_default();
                    index.metrics.route_seen(&ObjectName::of(&object), generation, true);
                }
                self.set(index, object, Source::Change, prune);
            }
            watcher::Event::Delete(object) => {
                if self.kind == ObjectKind::Route {
                    index.metrics.route_gone(&ObjectName::of(&object));
                }
                self.remove(index, &object);
            }
            watcher::Event::InitDone => self.end(index),
        }
    }

    /// All there are have been listed.
    fn end(&mut self, index: &Index) {
        // What went while nobody watched.
        let known = index.cluster().names(self.kind, self.namespace.as_deref());
        for name in known.into_iter().filter(|name| !self.seen.contains(name)) {
            let turns = index.cluster().remove(self.kind, &name);
            index.ask_for(turns);
        }
        self.seen.clear();
        index.stands(self.number, Standing::Watching);
        if std::mem::take(&mut self.is_first) {
            index.missing.send_modify(|missing| *missing -= 1);
        }
    }

    fn set<K: Resource>(&self, index: &Index, object: K, source: Source, prune: fn(K) -> Option<Object>) {
        let (name, version) = (ObjectName::of(&object), version_of(object.meta().resource_version.as_deref()));
        let turns = match prune(object) {
            Some(object) => index.cluster().set(object, source),
            // It has lost what made it ours to watch.
            None => index.cluster().remove_at(self.kind, &name, version),
        };
        index.ask_for(turns);
    }

    fn remove<K: Resource>(&self, index: &Index, object: &K) {
        let version = version_of(object.meta().resource_version.as_deref());
        let turns = index.cluster().remove_at(self.kind, &ObjectName::of(object), version);
        index.ask_for(turns);
    }
}
