//! Which namespaces are served: named ones, all, or those with a label, which are followed while the operator runs. One
//! that gets the label is served as soon as everything in it is seen; one that loses it is let go of: watches end, and
//! what was written stays.

use std::collections::{BTreeMap, BTreeSet};
use std::pin::pin;
use std::sync::Arc;

use futures_util::StreamExt;
use k8s_openapi::api::core::v1::Namespace;
use kube::api::Api;
use kube::core::PartialObjectMeta;
use kube::runtime::watcher;
use kube::{Client, ResourceExt};
use tokio::task::JoinSet;

use super::again::watched;
use super::watch::{Listing, Place, Watches};
use super::{HeldKind, Index, ObjectKind, kinds};
use crate::queue::{Key, Pace};

/// Label of a namespace that is served: the namespace of the operator that serves it. `kubectl postern enable` sets it
/// beside the RoleBinding, which is what permits anything; the label only says where to look.
pub const OPERATOR_LABEL: &str = "postern.dev/operator";

/// Which namespaces are served.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Scope {
    /// Those that carry the label. Clients are watched in all: what is revoked of one that was let go of stays so.
    #[default]
    Enabled,
    /// All, which takes rights in all of them.
    Cluster,
    /// These.
    Namespaces(BTreeSet<String>),
}

impl Scope {
    /// Whether a namespace is in it; those with the label are told by [`Index::scope`].
    #[must_use]
    pub fn contains(&self, namespace: &str) -> bool {
        match self {
            Self::Cluster => true,
            Self::Namespaces(names) => names.contains(namespace),
            Self::Enabled => false,
        }
    }
}

/// How far each namespace is seen that has the label.
#[derive(Debug)]
pub(super) struct Serving {
    pub(super) scope: Scope,
    /// Watches of each that have not seen everything yet.
    unseen: BTreeMap<String, usize>,
}

impl Serving {
    pub(super) fn of(scope: Scope) -> Self {
        Self { scope, unseen: BTreeMap::new() }
    }

    pub(super) fn serves(&self, namespace: &str) -> bool {
        self.scope != Scope::Enabled || self.unseen.get(namespace) == Some(&0)
    }

    /// One more watch of a namespace has to see everything.
    pub(super) fn wait(&mut self, namespace: &str) {
        *self.unseen.entry(namespace.to_owned()).or_default() += 1;
    }

    /// A watch of a namespace has seen everything. Tells whether all have.
    pub(super) fn seen(&mut self, namespace: &str) -> bool {
        let Some(unseen) = self.unseen.get_mut(namespace) else { return false };
        *unseen = unseen.saturating_sub(1);
        *unseen == 0
    }

    /// The namespaces that are served now.
    pub(super) fn now(&self) -> Scope {
        if self.scope != Scope::Enabled {
            return self.scope.clone();
        }
        Scope::Namespaces(
            self.unseen.iter().filter(|(_, unseen)| **unseen == 0).map(|(name, _)| name.clone()).collect(),
        )
    }
}

/// Follows the namespaces with the label.
pub(super) struct Follower {
    index: Arc<Index>,
    client: Client,
    operator_namespace: String,
    listing: Listing,
    /// The watches of each.
    served: BTreeMap<String, JoinSet<()>>,
}

impl Follower {
    /// One that has not seen anything yet, and that is waited for.
    pub(super) fn new(index: &Arc<Index>, client: &Client, operator_namespace: &str) -> Self {
        let listing = Listing::new(index, ObjectKind::Namespace, &Place::everywhere());
        let (index, client, operator_namespace) = (Arc::clone(index), client.clone(), operator_namespace.to_owned());
        Self { index, client, operator_namespace, listing, served: BTreeMap::new() }
    }

    /// Follows them until the process ends.
    pub(super) async fn follow(mut self) {
        let api = Api::<PartialObjectMeta<Namespace>>::all(self.client.clone());
        let config = watcher::Config::default().labels(&format!("{OPERATOR_LABEL}={}", self.operator_namespace));
        let mut events = pin!(watched(api, config));
        let mut listed = BTreeSet::new();
        while let Some(event) = events.next().await {
            match &event {
                Ok(watcher::Event::Init) => listed.clear(),
                Ok(watcher::Event::InitApply(namespace)) => {
                    listed.insert(namespace.name_any());
                    self.begin(&namespace.name_any());
                }
                Ok(watcher::Event::Apply(namespace)) => self.begin(&namespace.name_any()),
                Ok(watcher::Event::Delete(namespace)) => self.let_go(&namespace.name_any()).await,
                Ok(watcher::Event::InitDone) => {
                    let gone: Vec<_> = self.served.keys().filter(|name| !listed.contains(*name)).cloned().collect();
                    for name in gone {
                        self.let_go(&name).await;
                    }
                }
                Err(_) => {}
            }
            match event {
                Ok(event) => self.listing.take(event, kinds::namespace),
                Err(error) => self.listing.failed(&error),
            }
        }
    }

    fn begin(&mut self, namespace: &str) {
        if self.served.contains_key(namespace) {
            return;
        }
        tracing::info!(namespace, "has the label; it is served once everything in it is seen");
        let mut tasks = JoinSet::new();
        // Who starts waits for those that are there. Later ones come one by one, and nobody is less ready for them.
        let place = Place::followed(namespace, self.listing.is_first());
        let mut watches = Watches { index: &self.index, client: &self.client, tasks: &mut tasks };
        kinds::watch(&mut watches, &place);
        if namespace != self.operator_namespace {
            kinds::watch_held(&mut watches, &place);
        }
        self.served.insert(namespace.to_owned(), tasks);
    }

    async fn let_go(&mut self, namespace: &str) {
        let Some(mut tasks) = self.served.remove(namespace) else { return };
        tracing::info!(namespace, "has lost the label; it is not served any more, and what was written stays");
        self.index.serving().unseen.remove(namespace);
        // What is watched must not come back after it was forgotten.
        tasks.shutdown().await;
        let mut kinds = vec![ObjectKind::Route, ObjectKind::Pod, ObjectKind::Service, ObjectKind::Slice];
        if namespace != self.operator_namespace {
            kinds.extend([HeldKind::ConfigMap, HeldKind::Secret].map(ObjectKind::Held));
        }
        let mut turns = self.index.cluster().forget(namespace, &kinds);
        // Whose turn it is forgets, too.
        turns.push((Key::Trust(namespace.to_owned()), Pace::Now));
        self.index.ask_for(turns);
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::{Scope, Serving};

    #[test]
    fn a_namespace_is_served_once_all_of_it_is_seen_and_until_it_is_let_go_of() {
        let mut serving = Serving::of(Scope::Enabled);
        let now = |names: &[&str]| Scope::Namespaces(names.iter().map(|name| (*name).to_owned()).collect());
        assert!(!serving.serves("shop"), "nobody has said so");
        serving.wait("shop");
        serving.wait("shop");
        assert!(!serving.seen("shop") && !serving.serves("shop"), "half of it is seen");
        assert_eq!(serving.now(), now(&[]));
        assert!(serving.seen("shop") && serving.serves("shop") && !serving.serves("web"));
        assert_eq!(serving.now(), now(&["shop"]));
        serving.unseen.remove("shop");
        assert!(!serving.seen("shop") && !serving.serves("shop"), "what comes late does not bring it back");
        let named = Scope::Namespaces(BTreeSet::from(["shop".to_owned()]));
        for scope in [Scope::Cluster, named] {
            assert!(Serving::of(scope.clone()).serves("shop"), "{scope:?} is seen before anything is done");
            assert_eq!(Serving::of(scope.clone()).now(), scope);
        }
    }
}
