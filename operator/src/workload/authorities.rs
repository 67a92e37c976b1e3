//! Certificates of others, in ConfigMaps that are not ours: read when they are named, and again when they have changed.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Mutex, MutexGuard, PoisonError};

use futures_util::future::join_all;
use k8s_openapi::api::core::v1::ConfigMap;
use kube::{Api, Client};

use crate::identity::trust::ExternalBundle;
use crate::index::ObjectName;
use crate::queue::Key;
use crate::references::{Follower, Kind};
use crate::render::Bundle;

/// Entry of a ConfigMap that holds certificates.
const ENTRY: &str = "ca.crt";

/// What was read last, by ConfigMap.
pub struct Authorities {
    client: Client,
    follower: Follower,
    /// The certificates in PEM, or why there are none.
    read: Mutex<BTreeMap<ObjectName, Result<String, String>>>,
}

impl Authorities {
    /// Nothing read yet.
    #[must_use]
    pub fn new(client: Client, follower: Follower) -> Self {
        Self { client, follower, read: Mutex::default() }
    }

    /// From now on a turn is asked for when one of these changes, and for none that it named before.
    pub fn follow(&self, key: &Key, names: &BTreeSet<ObjectName>) {
        self.follower.follow(key, Kind::Authority, names);
        let interest = self.follower.interest();
        self.read().retain(|name, _| interest.is_named(Kind::Authority, name));
    }

    /// Those of some ConfigMaps that were never read, and those that have changed since.
    #[must_use]
    pub fn unread(&self, names: &BTreeSet<ObjectName>) -> (BTreeSet<ObjectName>, BTreeSet<ObjectName>) {
        let is_current = |name: &&ObjectName| self.follower.is_read(Kind::Authority, name);
        let unread = names.iter().filter(|name| !is_current(name)).cloned();
        let read = self.read();
        let (changed, new) = unread.partition(|name| read.contains_key(name));
        (new, changed)
    }

    /// Reads ConfigMaps, and tells whether one says something else than before. What cannot be read for the moment stays
    /// as it was read last.
    ///
    /// # Errors
    /// When one that was never read cannot be for the moment: without it, nobody knows what is to be trusted.
    pub async fn refresh(&self, names: BTreeSet<ObjectName>) -> Result<bool, kube::Error> {
        let read = names.into_iter().map(|name| async {
            let api = Api::<ConfigMap>::namespaced(self.client.clone(), &name.namespace);
            let found = api.get_opt(&name.name).await;
            (name, found)
        });
        let mut has_changed = false;
        for (name, found) in join_all(read).await {
            let found = match found {
                Ok(found) => found,
                Err(error) if self.read().contains_key(&name) => {
                    tracing::warn!(config_map = %name, %error, "cannot read certificates of others; the last ones stay");
                    continue;
                }
                Err(error) => return Err(error),
            };
            let version = found.as_ref().and_then(|object| object.metadata.resource_version.clone());
            let entry = found.map(|object| object.data.unwrap_or_default().remove(ENTRY));
            let pem = match entry {
                Some(Some(pem)) if !pem.trim().is_empty() => Ok(pem),
                Some(_) => Err(format!("ConfigMap {name} has no `{ENTRY}`; put the certificates there in PEM")),
                None => Err(format!("ConfigMap {name} does not exist")),
            };
            let before = self.read().insert(name.clone(), pem.clone());
            has_changed |= before.is_none_or(|before| before != pem);
            self.follower.read(Kind::Authority, &name, version.as_deref());
        }
        Ok(has_changed)
    }

    /// A bundle of what was read.
    ///
    /// # Errors
    /// With why it cannot be used.
    pub fn bundle(&self, bundle: &Bundle) -> Result<ExternalBundle, String> {
        let read = self.read();
        let mut pem = String::new();
        for name in names(bundle) {
            let known = read.get(&name).ok_or_else(|| format!("ConfigMap {name} was not read yet"))?;
            pem.push_str(known.as_ref().map_err(Clone::clone)?.trim());
            pem.push('\n');
        }
        Ok(ExternalBundle { pem, vouches_for: bundle.vouches_for.clone() })
    }

    // Each change is whole.
    fn read(&self) -> MutexGuard<'_, BTreeMap<ObjectName, Result<String, String>>> {
        self.read.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The ConfigMaps of a bundle.
pub fn names(bundle: &Bundle) -> impl Iterator<Item = ObjectName> {
    bundle.refs.iter().map(|reference| ObjectName::new(bundle.namespace.clone(), reference.name.clone()))
}
