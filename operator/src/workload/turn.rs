//! The turns: a workload's from what there is to what its pods have said, and a route's, which is its status.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::join_all;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use k8s_openapi::jiff::Timestamp;
use kube::api::{Patch, PatchParams};
use kube::{Api, Client};
use postern_crds::{ConditionStatus, ConditionType, ProxyRoute, Reason};
use serde_json::json;
use sidecar_config::CONTRACT_MAX;
use sidecar_config::identities::KnownIdentity;
use sidecar_decide::snapshot::AcceptedTrust;
use thiserror::Error;
use tokio::sync::Semaphore;
use tokio::time::Instant;
use tracing::{Instrument, error_span};

use super::apply::{Applied, ApplyError, Writer};
use super::ask::Asker;
use super::authorities::Authorities;
use super::backends;
use super::board::{Board, Heard, Report};
use super::content::{Deed, Write};
use super::enclosed;
use super::leaf;
use super::memory::{Memories, Memory, PackedIdentities};
use super::observe::{Observed, observe};
use super::plan::{Common, Plan, plan};
use super::status::{View, status};
use super::touch::{self, TouchError};
use super::trust::Trusts;
use super::validate::{Refused, Validated, alone};
use crate::FIELD_MANAGER;
use crate::authority::{LoadError, Signer};
use crate::events::Events;
use crate::events::transition::of_route;
use crate::identity::directory::Directory;
use crate::identity::{ReconcileError, Reconciler};
use crate::index::{Index, Object, ObjectName, Pod, essentials};
use crate::inject::audit::{AuditError, Auditor};
use crate::inject::upkeep::{Upkeep, UpkeepError};
use crate::limits::{ASK_AGAIN_FIRST, ASK_AGAIN_LONGEST, ASK_SETTLED, BETWEEN_WRITES, CALM, CHUNK_BYTES, TOUCHES};
use crate::metrics::Metrics;
use crate::pki::names::Names;
use crate::queue::{Key, Outcome, Pace, Queue, spread};
use crate::references::Certificates;

/// Why a turn failed.
#[derive(Debug, Error)]
pub enum TurnError {
    /// An object could not be written.
    #[error(transparent)]
    Apply(#[from] ApplyError),
    /// A pod could not be touched.
    #[error(transparent)]
    Touch(#[from] TouchError),
    /// Part `trust` would be refused by every sidecar: a mistake in this program, or in the authorities.
    #[error("part trust would be refused: {0}")]
    Trust(String),
    /// The name of an object that cannot be done without belongs to something that is not ours.
    #[error("{0} is in the way: the operator did not make it; rename it")]
    Taken(ObjectName),
    /// Nobody knows who signs.
    #[error(transparent)]
    Authority(#[from] LoadError),
    /// A client could not be given what it asks for.
    #[error(transparent)]
    Client(#[from] ReconcileError),
    /// A ledger cannot be read, and what it revokes must not be forgotten.
    #[error("ledger {0}: {1}")]
    Ledger(ObjectName, String),
    /// What was written cannot be read.
    #[error("cannot read {0}: {1}")]
    Read(ObjectName, Box<kube::Error>),
    /// The webhook could not be looked after.
    #[error(transparent)]
    Webhook(#[from] UpkeepError),
    /// It cannot be told which pods have no sidecar.
    #[error(transparent)]
    Audit(#[from] AuditError),
    /// A status could not be written.
    #[error("cannot write the status of {0}: {1}")]
    Status(ObjectName, Box<kube::Error>),
}

/// Takes the turns of workloads and routes.
pub struct Worker {
    pub(crate) client: Client,
    pub(crate) index: Arc<Index>,
    pub(crate) queue: Arc<Queue>,
    pub(crate) metrics: Arc<Metrics>,
    pub(crate) events: Events,
    pub(crate) board: Board,
    pub(crate) asker: Asker,
    pub(crate) writer: Writer,
    pub(crate) signer: Signer,
    pub(crate) names: Names,
    pub(crate) trusts: Trusts,
    pub(crate) authorities: Authorities,
    pub(crate) certificates: Certificates,
    pub(crate) reconciler: Reconciler,
    pub(crate) quota: usize,
    pub(crate) certificate_seconds: i64,
    pub(crate) operator_namespace: String,
    pub(crate) started: Instant,
    pub(crate) memories: Memories,
    pub(crate) upkeep: Upkeep,
    pub(crate) auditor: Auditor,
}

/// Clients that the sidecars of a workload have to know.
#[must_use]
pub fn known(directory: &Directory, validated: &Validated, trust: &AcceptedTrust) -> Vec<KnownIdentity> {
    let needs = || validated.needs.values();
    let mut named: BTreeSet<_> = needs().flat_map(|needs| &needs.identities).cloned().collect();
    for (namespace, labels) in needs().flat_map(|needs| &needs.selectors) {
        named.extend(directory.select(namespace, labels).map(|entry| entry.known.name.clone()));
    }
    let bundles = trust.bundles.iter().map(|bundle| bundle.name.to_string()).collect();
    directory.known(&named, &bundles)
}

impl Worker {
    /// A workload's turn.
    ///
    /// # Errors
    /// When something could not be written. What was written before stays, and the next turn goes on from there.
    pub async fn workload(&self, workload: &ObjectName) -> Result<Outcome, TurnError> {
        let memory = self.memories.of(workload);
        let mut memory = memory.lock().await;
        let observed = error_span!("observe").in_scope(|| observe(&self.index.cluster(), workload));
        if observed.is_ending || observed.pods.iter().all(|pod| pod.is_ending) {
            return self.leave(workload, observed.is_ending).await;
        }
        let Some((trust, unreadable)) = self.trusts.accepted(&workload.namespace) else {
            // Trust comes first, always; its turn asks for this one.
            return Ok(Outcome::Done);
        };
        let newest = memory.newest_version(&observed.pods);
        let validated = self.validate(&observed, newest, &mut memory).instrument(error_span!("validate")).await?;
        let known = known(&self.index.cluster().directory(&self.names), &validated, &trust);
        let backends = backends::look(&self.index.cluster(), &validated.policy);
        let certificates = self.certificates(&observed, &validated.policy).await;
        let now = Timestamp::now().as_second();
        let written = memory.identities.as_ref().filter(|last| last.is_there(&self.index.cluster(), workload));
        let common = Common {
            issuer: &self.signer.issuer(),
            names: &self.names,
            certificate_seconds: self.certificate_seconds,
            trust: &trust,
            unreadable: &unreadable,
            known: &known,
            written_identities: written.map(|last| last.document),
            chunk_bytes: CHUNK_BYTES,
            backends: &backends,
            certificates: &certificates,
            newest,
            now,
        };
        let mut plan = error_span!("plan").in_scope(|| plan(&observed, &validated, common));
        let trusted = self.written_bundles(workload);
        let applied = self.apply(&observed, &plan, &mut memory, now).instrument(error_span!("apply")).await?;
        if self.written_bundles(workload) != trusted {
            // The namespace may trust somebody in vain now.
            self.queue.add(Key::Trust(workload.namespace.clone()), Pace::Gathered);
        }
        if let Some(taken) = applied.taken.first() {
            let refused = name_taken(taken);
            plan.routes.values_mut().for_each(|verdict| verdict.accepted = Err(refused.clone()));
        }
        self.touch(&observed.pods).instrument(error_span!("touch")).await?;
        let heard = self.ask(&observed.pods, &mut memory).instrument(error_span!("ask")).await;
        let is_acknowledged = all_have(&heard, &[("policy", &plan.expected.policy)]);
        // Nobody tells when what is in the way is gone.
        let is_written = applied.taken.is_empty() && applied.problems.is_empty();
        let is_settled = is_written && is_acknowledged && all_have(&heard, &plan.expected.others());
        if is_acknowledged && heard.iter().any(|(_, heard)| matches!(heard, Heard::Answered(_))) {
            // Every started pod has it: it is what a pod falls back to that is started later.
            self.writer.set(&plan.good).instrument(error_span!("promote")).await?;
        }
        let report = Report {
            generations: observed.generations(),
            pods: heard,
            policy_revision: plan.expected.policy,
            problems: applied.problems,
            routes: plan.routes,
        };
        self.report(&observed, report);
        memory.lagging = if is_settled { 0 } else { memory.lagging.saturating_add(1) };
        let until_look = plan.next_look.and_then(|at| u64::try_from((at - now).max(1)).ok()).map(Duration::from_secs);
        let waits = [Some(pause(workload, memory.lagging)), applied.later, until_look];
        Ok(waits.into_iter().flatten().min().map_or(Outcome::Done, Outcome::Again))
    }

    /// Takes in what was found out, and wakes whoever has to know.
    fn report(&self, observed: &Observed, report: Report) {
        let news = self.board.set(&observed.workload, report);
        if news.trusts {
            self.wake_clients();
        }
        if news.versions {
            self.queue.add(Key::Audit, Pace::After(CALM));
        }
        for route in &observed.routes {
            self.queue.add(Key::Route(ObjectName::of(&**route)), Pace::Now);
        }
    }

    /// A turn names nothing of others any more.
    pub(crate) fn unfollow(&self, key: &Key) {
        self.certificates.leave(key);
        self.authorities.follow(key, &BTreeSet::new());
    }

    /// Writes what the plan says: certificates at once, the rest at most once in a while.
    async fn apply(
        &self,
        observed: &Observed,
        plan: &Plan,
        memory: &mut Memory,
        now: i64,
    ) -> Result<Summary, TurnError> {
        let mut summary = Summary::default();
        for leaf in &plan.leaves {
            let held = observed.secrets.iter().find(|held| held.name == leaf.name);
            let content = match (&leaf.due, held.and_then(|held| held.entries.as_deref())) {
                (None, None) => continue,
                (None, Some(entries)) => leaf::mended(entries, &leaf.name, &observed.workload.name, &leaf.carried),
                (Some((reason, request)), _) => {
                    tracing::info!(secret = %leaf.name, reason = reason.as_str(), "issuing a certificate");
                    let (issuer, workload) = (self.signer.issuer(), &observed.workload.name);
                    match leaf::make(&issuer, &leaf.name, workload, request, &leaf.carried, now) {
                        Ok(content) => content,
                        // What is served does not wait for it.
                        Err(error) => {
                            tracing::error!(secret = %leaf.name, %error, "no certificate");
                            summary.problems.push(format!("{}: {error}", leaf.name));
                            continue;
                        }
                    }
                }
            };
            summary.enter(&content.name, self.writer.set(&content).await?);
        }
        if !plan.identities.is_empty() {
            memory.identities = Some(PackedIdentities::of(plan));
        }
        let writes: Vec<_> = plan.identities.iter().chain([&plan.endpoints, &plan.policy]).collect();
        let is_due = |write: &&&Write| match write {
            Write::Set(content) => self.writer.deed(content) != Deed::Nothing,
            Write::Remove(kind, name) => self.index.cluster().held(*kind, name).is_some(),
            Write::Keep => false,
        };
        let due: Vec<_> = writes.iter().filter(is_due).collect();
        if due.is_empty() {
            memory.remember(&plan.policy, &summary.taken);
            return Ok(summary);
        }
        if let Some(wait) = memory.written.and_then(|at| (at + BETWEEN_WRITES).checked_duration_since(Instant::now())) {
            summary.later = Some(wait);
            return Ok(summary);
        }
        for write in due {
            match write {
                Write::Set(content) => summary.enter(&content.name, self.writer.set(content).await?),
                Write::Remove(kind, name) => summary.enter(name, self.writer.remove(*kind, name).await?),
                Write::Keep => {}
            }
        }
        memory.written = Some(Instant::now());
        memory.remember(&plan.policy, &summary.taken);
        Ok(summary)
    }

    /// Touches those pods that have not been told of everything yet.
    pub(super) async fn touch(&self, pods: &[Arc<Pod>]) -> Result<(), TurnError> {
        let due: Vec<_> = {
            let cluster = self.index.cluster();
            let pods = pods.iter().map(|pod| (pod, touch::value(&cluster, pod)));
            pods.filter(|(pod, value)| touch::is_due(cluster.pod(&pod.name).unwrap_or(pod), value)).collect()
        };
        let places = Semaphore::new(TOUCHES);
        let touched = due.iter().map(|(pod, value)| async {
            // The semaphore is never closed; without it there is one bound less.
            let _place = places.acquire().await;
            touch::touch(&self.client, &self.index, pod, value).await
        });
        join_all(touched).await.into_iter().collect::<Result<Vec<_>, _>>()?;
        Ok(())
    }

    /// Asks all pods whose sidecar has started, and remembers what they said.
    async fn ask(&self, pods: &[Arc<Pod>], memory: &mut Memory) -> Vec<(Arc<Pod>, Heard)> {
        let pods: Vec<_> = pods.iter().filter(|pod| !pod.is_ending).collect();
        memory.heard.retain(|uid, _| pods.iter().any(|pod| pod.uid == *uid && pod.is_started));
        let asked = pods.iter().map(|pod| async { if pod.counts() { Some(self.asker.ask(pod).await) } else { None } });
        let answers = join_all(asked).await;
        let now = Instant::now();
        let heard = pods.iter().zip(answers).map(|(pod, answer)| {
            let heard = match answer {
                None => Heard::NotStarted,
                Some(answer) => {
                    let answer = answer.map(|answer| memory.shared(answer));
                    memory.heard.entry(pod.uid.clone()).or_default().hear(answer, now)
                }
            };
            (Arc::clone(pod), heard)
        });
        heard.collect()
    }

    /// A route's turn: its status, of what is known of all its workloads.
    ///
    /// # Errors
    /// When it could not be written.
    pub async fn route(&self, name: &ObjectName) -> Result<Outcome, TurnError> {
        let (route, workloads, services) = {
            let cluster = self.index.cluster();
            let Some(route) = cluster.route(name).cloned() else { return Ok(Outcome::Done) };
            let (workloads, services) = (cluster.workloads_of(&route), enclosed::bypassing(&cluster, &route));
            (route, workloads, services)
        };
        let mut reports = BTreeMap::new();
        for workload in workloads {
            match self.board.report(&workload) {
                Some(report) if report.is_about(&route) => drop(reports.insert(workload, report)),
                // Its turn comes, and asks for this one again: half of the truth would be another status.
                _ => return Ok(Outcome::Done),
            }
        }
        let alone = alone(&route, &self.names.trust_domain, CONTRACT_MAX);
        let view = View::of(&route, alone, services, &reports);
        let status = status(&route, &view, &Time(Timestamp::now()));
        let generation = route.metadata.generation.unwrap_or_default();
        let is_programmed = status.conditions.iter().any(|condition| {
            condition.type_ == ConditionType::Programmed.as_str() && condition.status == ConditionStatus::True.as_str()
        });
        if route.status.as_ref() == Some(&status) {
            return Ok(Outcome::Done);
        }
        let api = Api::<ProxyRoute>::namespaced(self.client.clone(), &name.namespace);
        let patch = json!({
            "apiVersion": "postern.dev/v1alpha1",
            "kind": "ProxyRoute",
            "metadata": {"name": name.name, "uid": route.metadata.uid},
            "status": status,
        });
        let parameters = PatchParams::apply(FIELD_MANAGER).force();
        let patch = Patch::Apply(patch);
        let written = api.patch_status(&name.name, &parameters, &patch);
        match written.instrument(error_span!("report")).await {
            Ok(mut written) => {
                if is_programmed {
                    self.metrics.route_programmed(name, generation);
                }
                let before = route.status.as_ref().map(|status| status.conditions.as_slice()).unwrap_or_default();
                self.events.tell(&*route, of_route(before, &status.conditions));
                essentials(&mut written.metadata);
                self.index.written(Object::Route(Arc::new(written)));
                Ok(Outcome::Done)
            }
            // It is gone, or another one: that is seen soon.
            Err(kube::Error::Api(error)) if error.code == 404 || error.code == 409 => Ok(Outcome::Done),
            Err(error) => Err(TurnError::Status(name.clone(), Box::new(error))),
        }
    }
}

/// What came of writing.
#[derive(Debug, Default)]
struct Summary {
    /// Names that belong to others.
    taken: Vec<ObjectName>,
    /// When what was held back may be written.
    later: Option<Duration>,
    /// What there is to say of it.
    problems: Vec<String>,
}

impl Summary {
    fn enter(&mut self, name: &ObjectName, applied: Applied) {
        match applied {
            Applied::Unchanged | Applied::Written => {}
            Applied::Taken => self.taken.push(name.clone()),
            Applied::Later => self.problems.push(format!("{name} is being deleted")),
        }
    }
}

/// How long until sidecars are asked again, after so many turns in a row in which somebody lagged behind.
fn pause(workload: &ObjectName, lagging: u32) -> Duration {
    match lagging {
        0 => ASK_SETTLED + spread(workload, ASK_SETTLED / 5),
        turns => (ASK_AGAIN_FIRST * (1 << turns.min(8).saturating_sub(1))).min(ASK_AGAIN_LONGEST),
    }
}

/// Why nothing is served that takes an object of a name.
fn name_taken(name: &ObjectName) -> Refused {
    let advice = "the name is needed and belongs to something that the operator did not make; rename it";
    Refused { reason: Reason::NameTaken, message: format!("{name}: {advice}") }
}

/// Whether every started pod has parts at these revisions.
fn all_have(heard: &[(Arc<Pod>, Heard)], expected: &[(&str, &String)]) -> bool {
    heard.iter().all(|(_, heard)| match heard {
        Heard::NotStarted => true,
        Heard::Silent(_) | Heard::Unreachable(_) => false,
        Heard::Answered(answer) => expected.iter().all(|(part, revision)| {
            answer.parts.get(*part).is_some_and(|part| part.loaded == **revision && part.refused.is_none())
        }),
    })
}
