//! A client's turn: what it asks for, and how many sidecars know what is revoked of it.

use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::jiff::Timestamp;
use postern_crds::ClientIdentity;
use postern_crds::{ConditionStatus, ConditionType};

use super::turn::{TurnError, Worker};
use crate::identity::Surroundings;
use crate::identity::enforced::TrustView;
use crate::index::{Object, ObjectName};
use crate::limits::{CALM, CALM_EACH, FIRST_WORD, FIRST_WORD_AGAIN};
use crate::queue::{Key, Outcome, Pace};

impl Worker {
    /// A client's turn.
    ///
    /// # Errors
    /// When something could not be read or written.
    pub async fn client(&self, name: &ObjectName) -> Result<Outcome, TurnError> {
        if self.started.elapsed() < FIRST_WORD && !self.has_heard_of_all() {
            return Ok(Outcome::Again(FIRST_WORD_AGAIN));
        }
        let (identity, directory, is_ending) = {
            let mut cluster = self.index.cluster();
            let Some(identity) = cluster.identity(name).cloned() else { return Ok(Outcome::Done) };
            (identity, cluster.directory(&self.names), cluster.is_ending(&name.namespace))
        };
        let written = self.trusts.written();
        let seen = self.board.seen();
        let now = Timestamp::now().as_second();
        let around = Surroundings {
            now,
            issuer: Ok(&self.signer.issuer()),
            names: &self.names,
            directory: &directory,
            quota: self.quota,
            trust: TrustView { written: &written, seen: &seen, held_up: &self.trusts.held_up() },
            is_ending,
        };
        let done = self.reconciler.reconcile(&identity, around).await?;
        if let Some(written) = done.written {
            self.index.written(Object::Identity(written.into()));
        }
        if done.revoked {
            let namespaces = self.index.cluster().namespaces();
            namespaces.into_iter().for_each(|namespace| self.queue.add(Key::Trust(namespace), Pace::Urgent));
        }
        let wait = done.next_look.and_then(|at| u64::try_from((at - now).max(1)).ok()).map(Duration::from_secs);
        Ok(wait.map_or(Outcome::Done, Outcome::Again))
    }

    /// A turn in a namespace that is not served, or not yet: what was known of it is forgotten.
    pub fn let_go(&self, key: &Key) {
        match key {
            Key::Workload(workload) => {
                self.memories.forget(workload);
                if self.board.forget(workload) {
                    self.wake_clients();
                }
            }
            Key::Trust(namespace) => self.trusts.forget(namespace),
            Key::Authority | Key::Ledger(_) | Key::Identity(_) | Key::Route(_) | Key::Webhook | Key::Audit => {}
        }
    }

    /// Revokes what was issued in a namespace to clients that are not there any more.
    ///
    /// # Errors
    /// When the ledger could not be read or written.
    pub async fn sweep(&self, namespace: &str) -> Result<Outcome, TurnError> {
        let (index, own) = (Arc::clone(&self.index), namespace.to_owned());
        let uids = move || {
            let cluster = index.cluster();
            let own = cluster.identities().filter(|one| one.metadata.namespace.as_deref() == Some(own.as_str()));
            own.filter_map(|one| one.metadata.uid.clone()).collect()
        };
        self.reconciler.sweep(namespace, uids, Timestamp::now().as_second()).await?;
        Ok(Outcome::Done)
    }

    /// Whether every workload has been asked once.
    fn has_heard_of_all(&self) -> bool {
        let cluster = self.index.cluster();
        let namespaces = cluster.namespaces();
        namespaces
            .iter()
            .filter(|namespace| self.index.serves(namespace))
            .flat_map(|namespace| cluster.workloads_in(namespace))
            .all(|workload| self.board.report(workload).is_some() || cluster.pods_of(workload).all(|pod| pod.is_ending))
    }

    /// Sidecars know more or less of revocations than before, or there are more or less of them: clients are told. Soon
    /// where somebody waits for it.
    pub(super) fn wake_clients(&self) {
        let turns: Vec<_> = {
            let cluster = self.index.cluster();
            // So many statuses are written for a pod that comes or goes that the API server is left time for other things.
            let calm = CALM + CALM_EACH * u32::try_from(cluster.identities().count()).unwrap_or(u32::MAX);
            let pace =
                |identity: &ClientIdentity| if is_concerned(identity) { Pace::Gathered } else { Pace::After(calm) };
            cluster.identities().map(|one| (Key::Identity(ObjectName::of(&**one)), pace(one))).collect()
        };
        turns.into_iter().for_each(|(key, pace)| self.queue.add(key, pace));
    }
}

/// Whether anybody waits for sidecars to know of a client.
fn is_concerned(identity: &ClientIdentity) -> bool {
    let conditions = identity.status.as_ref().map(|status| status.conditions.as_slice()).unwrap_or_default();
    let is_enforced = conditions.iter().any(|condition| {
        condition.type_ == ConditionType::Enforced.as_str() && condition.status == ConditionStatus::True.as_str()
    });
    !is_enforced || crate::index::concern::is_restricted(identity)
}
