//! Certificates of others, in ConfigMaps that are not ours: read when they are named, and now and then again.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Mutex, MutexGuard, PoisonError};

use futures_util::future::join_all;
use k8s_openapi::api::core::v1::ConfigMap;
use kube::{Api, Client};
use tokio::time::Instant;

use crate::identity::trust::ExternalBundle;
use crate::index::ObjectName;
use crate::limits::AUTHORITIES_AGAIN;
use crate::render::Bundle;

/// Entry of a ConfigMap that holds certificates.
const ENTRY: &str = "ca.crt";

/// What was read last, by ConfigMap.
pub struct Authorities {
    client: Client,
    read: Mutex<BTreeMap<ObjectName, Reading>>,
}

#[derive(Clone, Debug)]
struct Reading {
    pem: Result<String, String>,
    at: Instant,
}

impl Authorities {
    /// Nothing read yet.
    #[must_use]
    pub fn new(client: Client) -> Self {
        Self { client, read: Mutex::default() }
    }

    /// Those of some ConfigMaps that were never read, or not for long.
    #[must_use]
    pub fn unread(&self, names: &BTreeSet<ObjectName>) -> (BTreeSet<ObjectName>, BTreeSet<ObjectName>) {
        let read = self.read();
        let (known, new): (BTreeSet<_>, BTreeSet<_>) = names.iter().cloned().partition(|name| read.contains_key(name));
        let is_old = |name: &ObjectName| read.get(name).is_some_and(|read| read.at.elapsed() >= AUTHORITIES_AGAIN);
        (new, known.into_iter().filter(is_old).collect())
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
            let entry = found.map(|object| object.data.unwrap_or_default().remove(ENTRY));
            let pem = match entry {
                Some(Some(pem)) if !pem.trim().is_empty() => Ok(pem),
                Some(_) => Err(format!("ConfigMap {name} has no `{ENTRY}`; put the certificates there in PEM")),
                None => Err(format!("ConfigMap {name} does not exist")),
            };
            let before = self.read().insert(name, Reading { pem: pem.clone(), at: Instant::now() });
            has_changed |= before.is_none_or(|before| before.pem != pem);
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
            pem.push_str(known.pem.as_ref().map_err(Clone::clone)?.trim());
            pem.push('\n');
        }
        Ok(ExternalBundle { pem, vouches_for: bundle.vouches_for.clone() })
    }

    // Each change is whole.
    fn read(&self) -> MutexGuard<'_, BTreeMap<ObjectName, Reading>> {
        self.read.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The ConfigMaps of a bundle.
pub fn names(bundle: &Bundle) -> impl Iterator<Item = ObjectName> {
    bundle.refs.iter().map(|reference| ObjectName::new(bundle.namespace.clone(), reference.name.clone()))
}
