//! A namespace's turn: part `trust` is written, and all its pods are touched, before anything else is done.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use k8s_openapi::api::core::v1::ConfigMap;
use k8s_openapi::jiff::Timestamp;
use kube::Api;
use tracing::{Instrument, error_span};

use super::apply::Applied;
use super::authorities;
use super::last_good::read_bundles;
use super::names;
use super::trust::{accepted, content, written};
use super::turn::{TurnError, Worker};
use crate::identity::directory::Directory;
use crate::identity::objects::{LEDGER, LEDGER_LABEL};
use crate::identity::trust::{ExternalBundle, TrustDocument, TrustInput, document};
use crate::index::held::{BUNDLES_ANNOTATION, PART_LABEL};
use crate::index::{Cluster, HeldKind, ObjectName, Pod};
use crate::limits::{AUTHORITIES_AGAIN, AUTHORITY_AGAIN, DOCUMENT_BYTES};
use crate::pki::ledger::Ledger;
use crate::queue::{Key, Outcome, Pace};
use crate::render::{self, Bundle};

/// What there is to know for part `trust` of a namespace.
struct Seen {
    directory: Arc<Directory>,
    pods: Vec<Arc<Pod>>,
    ledgers: Vec<Ledger>,
    bundles: BTreeMap<String, Bundle>,
}

impl Worker {
    /// A namespace's turn.
    ///
    /// # Errors
    /// When it could not be written, or a pod not be touched.
    pub async fn trust(&self, namespace: &str) -> Result<Outcome, TurnError> {
        let key = Key::Trust(namespace.to_owned());
        let Some(seen) = self.see(namespace)? else {
            self.unfollow(&key);
            return Ok(Outcome::Done);
        };
        let names: BTreeSet<_> = seen.bundles.values().flat_map(authorities::names).collect();
        self.authorities.follow(&key, &names);
        let (new, changed) = self.authorities.unread(&names);
        if !new.is_empty() {
            let read = self.authorities.refresh(new).await;
            read.map_err(|error| TurnError::Trust(format!("certificates of others cannot be read: {error}")))?;
        }
        self.write_trust(namespace, &seen).await?;
        // After what may be urgent was written.
        if !changed.is_empty() && self.authorities.refresh(changed).await.unwrap_or_default() {
            self.write_trust(namespace, &seen).await?;
        }
        let (_, unread) = self.authorities.unread(&names);
        Ok(if unread.is_empty() { Outcome::Done } else { Outcome::Again(AUTHORITIES_AGAIN) })
    }

    /// Looks who signs, and has everything made anew that another one signed.
    ///
    /// # Errors
    /// When the authorities cannot be read. Who signed before still does.
    pub async fn authority(&self) -> Result<Outcome, TurnError> {
        let now = Timestamp::now().as_second();
        if self.signer.renew(&self.client, &self.operator_namespace, now).await? {
            let cluster = self.index.cluster();
            for namespace in cluster.namespaces() {
                for workload in cluster.workloads_in(&namespace) {
                    self.queue.add(Key::Workload(workload.clone()), Pace::Gathered);
                }
                // Whom to trust is known before anything is shown that the new one signed.
                self.queue.add(Key::Trust(namespace), Pace::Urgent);
            }
            for identity in cluster.identities() {
                self.queue.add(Key::Identity(ObjectName::of(&**identity)), Pace::Gathered);
            }
        }
        Ok(Outcome::Again(AUTHORITY_AGAIN))
    }

    fn see(&self, namespace: &str) -> Result<Option<Seen>, TurnError> {
        let mut cluster = self.index.cluster();
        if cluster.is_ending(namespace) || !cluster.namespaces().contains(namespace) {
            return Ok(None);
        }
        let rendered =
            cluster.routes_in(namespace).filter_map(|route| render::route(route, &self.names.trust_domain).ok());
        let mut bundles: BTreeMap<_, _> = rendered.flat_map(|rendered| rendered.needs.bundles).collect();
        // What is served is trusted until it is written without: a route may have changed a moment ago, or in vain.
        for held in cluster.held_in(HeldKind::ConfigMap, namespace) {
            let served = held.annotations.get(BUNDLES_ANNOTATION).map(read_bundles);
            for (name, bundle) in served.into_iter().flatten() {
                bundles.entry(name).or_insert(bundle);
            }
        }
        Ok(Some(Seen {
            bundles,
            directory: cluster.directory(&self.names),
            pods: cluster.pods_in(namespace).cloned().collect(),
            ledgers: ledgers(&cluster, &self.operator_namespace)?,
        }))
    }

    async fn write_trust(&self, namespace: &str, seen: &Seen) -> Result<(), TurnError> {
        let Seen { directory, pods, ledgers, bundles } = seen;
        let mut readable = BTreeMap::new();
        let mut unreadable = BTreeMap::new();
        for (name, bundle) in bundles {
            let usable = self.authorities.bundle(bundle).and_then(|external| {
                self.trust_of(&Directory::default(), &[], &[(name.clone(), external.clone())].into()).map(|_| external)
            });
            match usable {
                Ok(external) => drop(readable.insert(name.clone(), external)),
                Err(why) => drop(unreadable.insert(name.clone(), why)),
            }
        }
        let (document, accepted) = self.trust_of(directory, ledgers, &readable).map_err(TurnError::Trust)?;
        let content = content(namespace, &document);
        let was_held_up = self.trusts.held_up().contains_key(namespace);
        let is_held_up = content.entries.size() > DOCUMENT_BYTES;
        let is_new = if is_held_up {
            self.hold_up(namespace, &bundles.keys().cloned().collect()).await?
        } else if self.writer.set(&content).instrument(error_span!("apply")).await? == Applied::Taken {
            return Err(TurnError::Taken(content.name));
        } else {
            self.trusts.enter(namespace, accepted, document, unreadable)
        };
        if is_held_up != was_held_up {
            self.wake_clients();
        }
        // Even if a pod cannot be touched, or it takes too long: the next turn finds nothing new.
        let _waiting = is_new.then(|| Waiting { worker: self, namespace });
        self.touch(pods).instrument(error_span!("touch")).await?;
        Ok(())
    }

    /// What does not fit is not written, in part or as a whole: what was written last stays. Tells whether that is news.
    async fn hold_up(&self, namespace: &str, bundles: &BTreeSet<String>) -> Result<bool, TurnError> {
        let why = format!(
            "part trust of namespace {namespace} would be larger than its object may be ({} KiB); what was written last \
             stays: let routes trust fewer or smaller bundles, or delete identities that are revoked",
            DOCUMENT_BYTES >> 10
        );
        tracing::error!(%namespace, "{why}");
        if let Some(is_news) = self.trusts.hold_up(namespace, &why, bundles) {
            return Ok(is_news);
        }
        let api = Api::<ConfigMap>::namespaced(self.client.clone(), namespace);
        let name = || ObjectName::new(namespace, names::TRUST);
        let found = api.get_opt(names::TRUST).await.map_err(|error| TurnError::Read(name(), Box::new(error)))?;
        let document = found.and_then(written).ok_or_else(|| TurnError::Trust(why.clone()))?;
        let accepted = accepted(&document).map_err(TurnError::Trust)?;
        self.trusts.enter(namespace, accepted, document, BTreeMap::new());
        self.trusts.hold_up(namespace, &why, bundles);
        Ok(true)
    }

    /// Part `trust`, accepted as a sidecar will.
    fn trust_of(
        &self,
        directory: &Directory,
        ledgers: &[Ledger],
        bundles: &BTreeMap<String, ExternalBundle>,
    ) -> Result<(TrustDocument, sidecar_decide::snapshot::AcceptedTrust), String> {
        let input = TrustInput { issuer: &self.signer.issuer(), names: &self.names, directory, ledgers, bundles };
        let document = document(&input);
        let accepted = accepted(&document)?;
        Ok((document, accepted))
    }
}

/// Workloads of a namespace, which wait for its part `trust`, or have to be asked whether they have it. They get their
/// turns when this is dropped.
struct Waiting<'a> {
    worker: &'a Worker,
    namespace: &'a str,
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        let Self { worker, namespace } = self;
        let workloads: Vec<_> = worker.index.cluster().workloads_in(namespace).cloned().collect();
        workloads.into_iter().for_each(|workload| worker.queue.add(Key::Workload(workload), Pace::Now));
    }
}

/// What must not be forgotten of certificates, of all namespaces. One that cannot be read is an error: what it revokes
/// would be let in again.
fn ledgers(cluster: &Cluster, operator_namespace: &str) -> Result<Vec<Ledger>, TurnError> {
    let held = cluster.held_in(HeldKind::ConfigMap, operator_namespace);
    let ledgers = held.filter(|held| held.labels.get(PART_LABEL).is_some_and(|part| part == LEDGER_LABEL.1));
    let read = ledgers.map(|held| {
        let text = held.entries.as_deref().and_then(|entries| entries.text(LEDGER));
        let wrong = |error: crate::pki::ledger::LedgerError| TurnError::Ledger(held.name.clone(), error.to_string());
        Ledger::read(text).map_err(wrong)
    });
    read.collect()
}
