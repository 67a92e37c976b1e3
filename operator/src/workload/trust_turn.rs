//! A namespace's turn: part `trust` is written, and all its pods are touched, before anything else is done.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::trust::{accepted, content};
use super::turn::{TurnError, Worker};
use crate::identity::trust::{TrustInput, document};
use crate::index::{Cluster, Index, Pod};
use crate::queue::{Key, Outcome, Pace};

impl Worker {
    /// A namespace's turn.
    ///
    /// # Errors
    /// When it could not be written, or a pod not be touched.
    pub async fn trust(&self, namespace: &str) -> Result<Outcome, TurnError> {
        let (directory, pods) = {
            let mut cluster = self.index.cluster();
            if cluster.is_ending(namespace) || !is_used(&cluster, namespace) {
                return Ok(Outcome::Done);
            }
            let pods: Vec<Arc<Pod>> = cluster.pods_in(namespace).cloned().collect();
            (cluster.directory(&self.names), pods)
        };
        let bundles = BTreeMap::new();
        let input = TrustInput {
            issuer: &self.issuer,
            names: &self.names,
            directory: &directory,
            ledgers: &[],
            bundles: &bundles,
        };
        let trust = document(&input);
        let accepted = accepted(&trust).map_err(TurnError::Trust)?;
        let content = content(namespace, &trust);
        let applied = self.writer.set(&content).await?;
        let is_new = self.trusts.enter(namespace, accepted, trust);
        if applied == super::apply::Applied::Taken {
            return Err(TurnError::Taken(content.name));
        }
        self.touch(&pods).await?;
        if is_new {
            // They wait for it, or have to be asked whether they have it.
            ask_for_workloads(&self.index, &self.queue, namespace);
        }
        Ok(Outcome::Done)
    }
}

/// Whether there is anything in a namespace that a sidecar might have to know.
fn is_used(cluster: &Cluster, namespace: &str) -> bool {
    cluster.namespaces().contains(namespace)
}

fn ask_for_workloads(index: &Index, queue: &crate::queue::Queue, namespace: &str) {
    let workloads: Vec<_> = index.cluster().workloads_in(namespace).cloned().collect();
    workloads.into_iter().for_each(|workload| queue.add(Key::Workload(workload), Pace::Now));
}
