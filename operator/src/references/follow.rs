//! Watches objects of others while somebody names them: one watch for a namespace and kind, of names and versions alone,
//! so that neither keys nor what nobody asked for come into memory.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Debug;
use std::pin::pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use futures_util::StreamExt;
use k8s_openapi::NamespaceResourceScope;
use k8s_openapi::api::core::v1::{ConfigMap, Secret};
use kube::core::PartialObjectMeta;
use kube::runtime::watcher;
use kube::{Api, Client, Resource};
use serde::de::DeserializeOwned;
use tokio::task::JoinHandle;

use super::interest::{Interest, Kind, Moved, Place};
use crate::index::cluster::version_of;
use crate::index::held::MANAGED_LABEL;
use crate::index::{ObjectName, watched};
use crate::metrics::Metrics;
use crate::queue::{Key, Pace, Queue};

/// Type of Secrets with a certificate and its key.
pub const CERTIFICATE_TYPE: &str = "kubernetes.io/tls";

/// Follows objects of others, and asks for the turns that their changes are worth.
#[derive(Clone)]
pub struct Follower {
    client: Client,
    shared: Arc<Shared>,
    watches: Arc<Mutex<BTreeMap<Place, Watch>>>,
}

/// What watches have in common.
struct Shared {
    interest: Mutex<Interest>,
    queue: Arc<Queue>,
    metrics: Arc<Metrics>,
}

/// A watch, which ends with this.
struct Watch(JoinHandle<()>);

impl Drop for Watch {
    fn drop(&mut self) {
        self.0.abort();
    }
}

impl Follower {
    /// Nothing is followed yet.
    #[must_use]
    pub fn new(client: Client, queue: Arc<Queue>, metrics: Arc<Metrics>) -> Self {
        let shared = Arc::new(Shared { interest: Mutex::default(), queue, metrics });
        Self { client, shared, watches: Arc::default() }
    }

    /// From now on a turn is asked for when one of these changes, and for none of the same kind that it named before.
    pub fn follow(&self, key: &Key, kind: Kind, names: &BTreeSet<ObjectName>) {
        // Held until the watches are as they should be: whoever comes next may undo this.
        let mut watches = self.watches.lock().unwrap_or_else(PoisonError::into_inner);
        let Moved { begin, end } = self.shared.interest().name(key, kind, names);
        for place in end {
            watches.remove(&place);
        }
        for place in begin {
            let watch = self.watch(&place);
            watches.insert(place, watch);
        }
    }

    /// Who is named, and what is known of it.
    pub(crate) fn interest(&self) -> MutexGuard<'_, Interest> {
        self.shared.interest()
    }

    /// Whether an object was read, and has not changed since.
    #[must_use]
    pub fn is_read(&self, kind: Kind, name: &ObjectName) -> bool {
        self.interest().is_read(kind, name)
    }

    /// Takes in that an object was read in a version, or that there was none.
    pub fn read(&self, kind: Kind, name: &ObjectName, version: Option<&str>) {
        self.interest().read(kind, name, version_of(version));
    }

    fn watch(&self, place: &Place) -> Watch {
        let (kind, namespace) = place.clone();
        // What is ours is in the index.
        let config = watcher::Config::default().labels(&format!("{}!={}", MANAGED_LABEL.0, MANAGED_LABEL.1));
        let (client, shared) = (self.client.clone(), Arc::clone(&self.shared));
        Watch(match kind {
            Kind::Certificate => {
                let config = config.fields(&format!("type={CERTIFICATE_TYPE}"));
                let api = Api::<PartialObjectMeta<Secret>>::namespaced(client, &namespace);
                tokio::spawn(async move { shared.keep(api, config, kind, &namespace).await })
            }
            Kind::Authority => {
                let api = Api::<PartialObjectMeta<ConfigMap>>::namespaced(client, &namespace);
                tokio::spawn(async move { shared.keep(api, config, kind, &namespace).await })
            }
        })
    }
}

impl Shared {
    // Each change is whole.
    fn interest(&self) -> MutexGuard<'_, Interest> {
        self.interest.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes in what happens, until nobody is interested any more.
    async fn keep<K>(&self, api: Api<PartialObjectMeta<K>>, config: watcher::Config, kind: Kind, namespace: &str)
    where
        K: Resource<Scope = NamespaceResourceScope, DynamicType = ()>
            + Clone
            + Debug
            + DeserializeOwned
            + Send
            + Sync
            + 'static,
    {
        let mut events = pin!(watched(api, config));
        let mut listed = BTreeMap::new();
        let version = |object: &PartialObjectMeta<K>| version_of(object.metadata.resource_version.as_deref());
        while let Some(event) = events.next().await {
            let keys = match event {
                Ok(watcher::Event::Init) => {
                    listed.clear();
                    continue;
                }
                Ok(watcher::Event::InitApply(object)) => {
                    let name = ObjectName::of(&object);
                    if self.interest().is_named(kind, &name) {
                        listed.insert(name, version(&object));
                    }
                    continue;
                }
                Ok(watcher::Event::InitDone) => {
                    let listed = std::mem::take(&mut listed);
                    self.interest().listed(kind, namespace, &listed)
                }
                Ok(watcher::Event::Apply(object) | watcher::Event::Delete(object)) => {
                    self.interest().seen(kind, &ObjectName::of(&object), version(&object))
                }
                Err(error) => {
                    tracing::warn!(kind = kind.word(), namespace, %error, "cannot watch what routes name; trying again");
                    self.metrics.watch_failed(kind.word());
                    continue;
                }
            };
            keys.into_iter().for_each(|key| self.queue.add(key, Pace::Now));
        }
    }
}
