//! What a route's status says: a function of one snapshot, so that its conditions never contradict each other. Pure.

use std::collections::BTreeMap;
use std::sync::Arc;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use postern_crds::condition::{Verdict as Condition, conditions};
use postern_crds::proxyroute::{ProxyRouteStatus, Totals, WorkloadStatus};
use postern_crds::{ConditionStatus, ConditionType, ProxyRoute, Reason};

use super::board::{Heard, Report};
use super::enclosed::{self, Ways};
use super::plan::Missing;
use super::validate::Refused;
use crate::index::ObjectName;
use crate::index::cluster::selects;
use crate::limits::{REFUSED_MESSAGE_BYTES, STATUS_WORKLOADS, WORKLOAD_MESSAGE_BYTES};

/// What becomes of a route whose change is refused.
const SERVED_ON: &str = "the form that was accepted last is served on";

/// How a form fares that is served instead of what a route says.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Kept {
    /// Pods whose sidecar has started.
    pub started: u32,
    /// Those of them that have it.
    pub loaded: u32,
}

/// What is known of a route as of one moment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct View {
    /// Why it is not served as it is, if it is not.
    pub refused: Option<Refused>,
    /// The form that was accepted last, if that is served somewhere.
    pub kept: Option<Kept>,
    /// What it refers to in vain.
    pub missing: Vec<Missing>,
    /// What is known of ways around its gates.
    pub ways: Ways,
    /// Whether it may be ready although there is a way around the gate.
    pub allow_bypass: bool,
    /// Its workloads, by name.
    pub workloads: Vec<WorkloadStatus>,
}

impl View {
    /// Of a route with the reports of all workloads that it selects. `alone` is what is wrong with the route by itself,
    /// `services` are those that send past its gates.
    #[must_use]
    pub fn of(
        route: &ProxyRoute,
        alone: Option<Refused>,
        services: Vec<String>,
        reports: &BTreeMap<ObjectName, Arc<Report>>,
    ) -> Self {
        let name = ObjectName::of(route);
        let verdicts = || reports.values().filter_map(|report| report.routes.get(&name));
        let refused = alone.or_else(|| verdicts().find_map(|verdict| verdict.accepted.clone().err()));
        let mut missing: Vec<_> = verdicts().flat_map(|verdict| verdict.missing.iter().cloned()).collect();
        missing.sort();
        missing.dedup();
        let workloads = reports.iter().map(|(workload, report)| workload_status(route, &workload.name, report));
        let ways = Ways::of(route, services, reports);
        let kept = refused.as_ref().and_then(|_| kept(route, reports));
        Self { refused, kept, missing, ways, allow_bypass: route.spec.allow_bypass, workloads: workloads.collect() }
    }
}

/// How the form fares that was accepted last, in all workloads that have one.
fn kept(route: &ProxyRoute, reports: &BTreeMap<ObjectName, Arc<Report>>) -> Option<Kept> {
    let name = ObjectName::of(route);
    let mut found = None;
    for report in reports.values() {
        let Some(hash) = report.routes.get(&name).and_then(|verdict| verdict.kept.as_ref()) else { continue };
        let kept: &mut Kept = found.get_or_insert_default();
        let started = report.pods.iter().filter(|(pod, heard)| selects(route, pod) && *heard != Heard::NotStarted);
        for (_, heard) in started {
            kept.started += 1;
            let has_it = matches!(heard, Heard::Answered(answer) if answer.routes.get(&name.to_string()) == Some(hash));
            kept.loaded += u32::from(has_it);
        }
    }
    found
}

/// How a route fares in the pods of one workload.
fn workload_status(route: &ProxyRoute, workload: &str, report: &Report) -> WorkloadStatus {
    let name = ObjectName::of(route);
    let hash = report.routes.get(&name).and_then(|verdict| verdict.accepted.as_ref().ok());
    let mut status = WorkloadStatus { name: workload.to_owned(), ..WorkloadStatus::default() };
    let before = route.status.iter().flat_map(|status| &status.workloads).find(|before| before.name == workload);
    let was_unreachable = before.is_some_and(|before| before.unreachable > 0);
    let mut messages: Vec<String> = report.problems.clone();
    for (pod, heard) in report.pods.iter().filter(|(pod, _)| selects(route, pod)) {
        status.pods += 1;
        if *heard != Heard::NotStarted {
            status.started += 1;
        }
        match heard {
            Heard::NotStarted => {}
            // After a restart it takes a while to know again what was known before.
            Heard::Silent(_) if !was_unreachable => {}
            Heard::Silent(why) | Heard::Unreachable(why) => {
                status.unreachable += 1;
                messages.push(format!("{}: {why}", pod.name.name));
            }
            Heard::Answered(answer) => {
                let loaded = answer.routes.get(&name.to_string());
                let policy = answer.parts.get("policy");
                if hash.is_some() && loaded == hash {
                    status.programmed += 1;
                } else if let Some(policy) = policy.filter(|part| part.refused.is_some()) {
                    // What it refused before is no answer to what is there now.
                    let is_this = policy.refused.as_ref() == Some(&report.policy_revision);
                    let why = policy.why.as_deref().unwrap_or("it does not say why");
                    if is_this || policy.refused.as_deref() == Some("unreadable") {
                        status.rejected += 1;
                        messages.push(format!("{}: {why}", pod.name.name));
                    }
                }
            }
        }
    }
    status.message = cut(messages.into_iter().next().unwrap_or_default(), WORKLOAD_MESSAGE_BYTES);
    status
}

/// As much of a message as there is room for.
fn cut(mut message: String, bytes: usize) -> String {
    let mut end = message.len().min(bytes);
    while !message.is_char_boundary(end) {
        end -= 1;
    }
    message.truncate(end);
    message
}

/// What is so.
#[must_use]
pub fn verdicts(view: &View) -> Vec<Condition> {
    let accepted = match &view.refused {
        None => condition(ConditionType::Accepted, ConditionStatus::True, Reason::Accepted, "it can be served"),
        Some(Refused { reason, message }) => {
            let message = match view.kept {
                None => message.clone(),
                Some(_) => format!("{}; {SERVED_ON}", cut(message.clone(), REFUSED_MESSAGE_BYTES)),
            };
            condition(ConditionType::Accepted, ConditionStatus::False, *reason, message)
        }
    };
    let resolved = resolved(view);
    let programmed = programmed(view);
    let enclosed = enclosed::verdict(&view.ways);
    let ready = ready(&[&accepted, &resolved, &programmed], &enclosed, view.allow_bypass);
    vec![accepted, resolved, programmed, enclosed, ready]
}

fn condition(kind: ConditionType, status: ConditionStatus, reason: Reason, message: impl Into<String>) -> Condition {
    Condition { kind, status, reason, message: message.into() }
}

fn resolved(view: &View) -> Condition {
    let kind = ConditionType::ResolvedRefs;
    match &view.refused {
        Some(Refused { reason, .. }) => {
            condition(kind, ConditionStatus::Unknown, *reason, "what is not accepted is not looked into")
        }
        None if view.missing.is_empty() => {
            condition(kind, ConditionStatus::True, Reason::ResolvedRefs, "everything it refers to is there")
        }
        None => {
            let reason = view.missing.first().map_or(Reason::RefNotFound, |missing| missing.reason);
            let told: Vec<_> = view.missing.iter().map(|missing| missing.message.as_str()).collect();
            condition(kind, ConditionStatus::False, reason, told.join("; "))
        }
    }
}

fn programmed(view: &View) -> Condition {
    let kind = ConditionType::Programmed;
    let totals = totals(&view.workloads);
    let message = || {
        let first = view.workloads.iter().find(|workload| !workload.message.is_empty());
        first.map(|workload| format!(": {}: {}", workload.name, workload.message)).unwrap_or_default()
    };
    let Totals { pods, started, programmed, rejected, unreachable, .. } = totals;
    if let Some(Refused { reason, .. }) = &view.refused {
        let why = match view.kept {
            None => "it is not accepted, and so not served".to_owned(),
            Some(Kept { started, loaded }) => {
                format!("as it is it is not accepted; {SERVED_ON}: {loaded} of {started} started pods have it")
            }
        };
        return condition(kind, ConditionStatus::False, *reason, why);
    }
    if started == 0 {
        let why = if pods == 0 {
            "it selects no pod with a sidecar".to_owned()
        } else {
            format!("none of {pods} pods has started")
        };
        return condition(kind, ConditionStatus::False, Reason::NoPods, why);
    }
    if programmed == started {
        return condition(
            kind,
            ConditionStatus::True,
            Reason::Programmed,
            format!("all of {started} started pods have it"),
        );
    }
    if rejected > 0 {
        let why = format!("{rejected} of {started} pods have refused it{}", message());
        return condition(kind, ConditionStatus::False, Reason::Rejected, why);
    }
    if programmed + unreachable < started {
        let why = format!("{programmed} of {started} pods have it{}", message());
        return condition(kind, ConditionStatus::False, Reason::Pending, why);
    }
    let why = format!("{unreachable} of {started} pods do not answer{}", message());
    condition(kind, ConditionStatus::Unknown, Reason::Unreachable, why)
}

fn ready(parts: &[&Condition], enclosed: &Condition, allow_bypass: bool) -> Condition {
    let kind = ConditionType::Ready;
    let enclosed = Some(enclosed).filter(|_| !allow_bypass);
    let all = || parts.iter().copied().chain(enclosed);
    let of = |status| all().find(|part| part.status == status);
    match of(ConditionStatus::False).or_else(|| of(ConditionStatus::Unknown)) {
        Some(part) => condition(kind, part.status, part.reason, format!("{}: {}", part.kind, part.message)),
        None => condition(kind, ConditionStatus::True, Reason::Ready, "it is served"),
    }
}

fn totals(workloads: &[WorkloadStatus]) -> Totals {
    let sum = |count: fn(&WorkloadStatus) -> u32| workloads.iter().map(count).sum();
    Totals {
        workloads: u32::try_from(workloads.len()).unwrap_or(u32::MAX),
        pods: sum(|workload| workload.pods),
        started: sum(|workload| workload.started),
        programmed: sum(|workload| workload.programmed),
        rejected: sum(|workload| workload.rejected),
        unreachable: sum(|workload| workload.unreachable),
    }
}

/// The status of a route, as of now. What stays the same keeps its times.
#[must_use]
pub fn status(route: &ProxyRoute, view: &View, now: &Time) -> ProxyRouteStatus {
    let before = route.status.as_ref().map(|status| status.conditions.as_slice()).unwrap_or_default();
    let generation = route.metadata.generation.unwrap_or_default();
    ProxyRouteStatus {
        conditions: conditions(&verdicts(view), generation, before, now),
        workloads: view.workloads.iter().take(STATUS_WORKLOADS).cloned().collect(),
        totals: Some(totals(&view.workloads)),
    }
}

#[cfg(test)]
mod tests;
