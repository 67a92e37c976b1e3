//! Changes of ledgers. Those that come to one namespace while another is being written are written together, in one request:
//! a start with many clients would else have each of them read, write and meet a conflict.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use k8s_openapi::api::core::v1::ConfigMap;
use kube::api::PostParams;
use kube::{Api, Client};
use tokio::sync::oneshot;

use super::error::ReconcileError;
use super::objects;
use super::observe::read_ledger;
use crate::FIELD_MANAGER;
use crate::pki::ledger::{Ledger, LedgerError};

/// Tries to write the ledger of a namespace, which somebody else may write to meanwhile.
const LEDGER_TRIES: usize = 8;

/// A change; whether it has changed anything. It may be made again, of a newer ledger.
type Change = Box<dyn Fn(&mut Ledger) -> Result<bool, LedgerError> + Send + Sync>;
type Outcome = Result<(), ReconcileError>;

/// The ledgers of all namespaces.
#[derive(Clone)]
pub(super) struct Ledgers {
    client: Client,
    operator_namespace: String,
    lines: Arc<Mutex<HashMap<String, Arc<Line>>>>,
}

/// Who waits for the ledger of one namespace to be written.
#[derive(Default)]
struct Line {
    waiting: Mutex<Vec<Waiting>>,
    turn: tokio::sync::Mutex<()>,
}

struct Waiting {
    change: Change,
    done: oneshot::Sender<Outcome>,
}

// Each change of what they guard is whole.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Ledgers {
    pub(super) fn new(client: Client, operator_namespace: String) -> Self {
        Self { client, operator_namespace, lines: Arc::default() }
    }

    /// Where they are kept.
    pub(super) fn operator_namespace(&self) -> &str {
        &self.operator_namespace
    }

    /// Changes the ledger of a namespace; what has expired is forgotten on the way.
    pub(super) async fn change(
        &self,
        namespace: &str,
        now: i64,
        change: impl Fn(&mut Ledger) -> Result<bool, LedgerError> + Send + Sync + 'static,
    ) -> Outcome {
        let line = Arc::clone(lock(&self.lines).entry(namespace.to_owned()).or_default());
        let (done, mut own) = oneshot::channel();
        lock(&line.waiting).push(Waiting { change: Box::new(change), done });
        let _turn = line.turn.lock().await;
        // Whoever had the turn before may have written it along, or was ended in the middle of that.
        match own.try_recv() {
            Ok(outcome) => return outcome,
            Err(oneshot::error::TryRecvError::Closed) => return Err(ReconcileError::Interrupted),
            Err(oneshot::error::TryRecvError::Empty) => {}
        }
        let together = std::mem::take(&mut *lock(&line.waiting));
        self.write(namespace, now, together).await;
        own.try_recv().unwrap_or(Err(ReconcileError::Interrupted))
    }

    /// Makes all changes in one write, and tells each who waits what became of the own.
    async fn write(&self, namespace: &str, now: i64, together: Vec<Waiting>) {
        let mut refused: Vec<Option<LedgerError>> = Vec::new();
        let written = self.write_changes(namespace, now, &together, &mut refused).await;
        let failed = written.err().map(Arc::new);
        let refused = refused.into_iter().chain(std::iter::repeat_with(|| None));
        for (waiting, refused) in together.into_iter().zip(refused) {
            let outcome = match (refused, &failed) {
                (Some(error), _) => Err(ReconcileError::Ledger(error)),
                (None, Some(error)) => Err(ReconcileError::Together(Arc::clone(error))),
                (None, None) => Ok(()),
            };
            // One whose turn has ended meanwhile does not listen any more.
            let _gone = waiting.done.send(outcome);
        }
    }

    async fn write_changes(
        &self,
        namespace: &str,
        now: i64,
        together: &[Waiting],
        refused: &mut Vec<Option<LedgerError>>,
    ) -> Outcome {
        let objects: Api<ConfigMap> = Api::namespaced(self.client.clone(), &self.operator_namespace);
        let mut tries = 0;
        loop {
            tries += 1;
            let (before, mut ledger) = read_ledger(&self.client, &self.operator_namespace, namespace).await?;
            let mut has_changed = ledger.forget(now);
            refused.clear();
            for waiting in together {
                let made = (waiting.change)(&mut ledger);
                has_changed |= *made.as_ref().unwrap_or(&false);
                refused.push(made.err());
            }
            if !has_changed {
                return Ok(());
            }
            let document = ledger.document().map_err(ReconcileError::Ledger)?;
            let object = objects::ledger(&self.operator_namespace, namespace, before, document);
            let name = objects::ledger_name(namespace);
            let parameters = PostParams { field_manager: Some(FIELD_MANAGER.to_owned()), ..PostParams::default() };
            let written = if object.metadata.resource_version.is_some() {
                objects.replace(&name, &parameters, &object).await
            } else {
                objects.create(&parameters, &object).await
            };
            match written.map_err(ReconcileError::kube("write the ledger")) {
                Ok(_) => return Ok(()),
                Err(error) if error.is_conflict() && tries < LEDGER_TRIES => {}
                Err(error) => return Err(error),
            }
        }
    }
}
