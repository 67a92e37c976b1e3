//! Which routes of a workload can be served: rendered, accepted with the sidecar's own code each by itself, then together.
//!
//! What is refused is left out, or served in the form that was accepted last, and its route says so; one bad route never
//! takes another down.

use std::collections::BTreeMap;
use std::sync::Arc;

use postern_crds::{ProxyRoute, Reason};
use sidecar_config::policy::Policy;
use sidecar_config::{ContractVersion, Part};
use sidecar_decide::snapshot::AcceptedPolicy;
use sidecar_decide::{Problem, accept};

use super::document::{document, smallest_version};
use super::last_good::LastGood;
use super::merge::{Listeners, Merge, Merged, Unsettled};
use crate::index::cluster::selects;
use crate::index::{ObjectName, Pod};
use crate::limits::DOCUMENT_BYTES;
use crate::render::{self, Needs, Rendered};

/// Why a route is not served as it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refused {
    /// In one word.
    pub reason: Reason,
    /// In some more.
    pub message: String,
}

impl Refused {
    pub(super) fn new(reason: Reason, message: impl Into<String>) -> Self {
        Self { reason, message: message.into() }
    }
}

/// All that decides which routes are served.
#[derive(Clone, Copy, Debug)]
pub struct Input<'a> {
    /// The routes, the oldest first.
    pub routes: &'a [Arc<ProxyRoute>],
    /// The workload's pods: two routes meet where both select a pod.
    pub pods: &'a [Arc<Pod>],
    /// What was written last, if it is known.
    pub last: Option<&'a LastGood>,
    /// The domain of our own names.
    pub trust_domain: &'a str,
    /// The newest contract version that all sidecars read which have started.
    pub newest: ContractVersion,
}

/// The routes of a workload, judged.
#[derive(Debug)]
pub struct Validated {
    /// Part `policy`.
    pub policy: Policy,
    /// The same, accepted.
    pub accepted: AcceptedPolicy,
    /// What the routes that are served refer to, by route.
    pub needs: BTreeMap<ObjectName, Needs>,
    /// What there is to say of each route.
    pub routes: BTreeMap<ObjectName, Judged>,
    /// Routes that were handed to the sidecar's code, each as often as it was: what all of this costs.
    pub effort: usize,
}

/// A route, judged.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Judged {
    /// Its hash, or why it is not served as it is.
    pub accepted: Result<String, Refused>,
    /// The hash of the form that was accepted last, if that is served instead.
    pub kept: Option<String>,
}

/// A route with the forms in which it may be served.
#[derive(Debug)]
pub(super) struct Candidate {
    pub(super) name: ObjectName,
    /// Numbers of the pods that it selects.
    pub(super) pods: Vec<usize>,
    /// As it is.
    pub(super) new: Result<Rendered, Refused>,
    /// As it was accepted last.
    pub(super) kept: Option<Rendered>,
}

/// Judges routes.
#[must_use]
pub fn validate(input: &Input<'_>) -> Validated {
    let mut candidates: Vec<_> = input.routes.iter().map(|route| Candidate::of(route, input)).collect();
    let mut effort = candidates.len();
    loop {
        let listeners = Listeners::of(&candidates);
        match Merge::new(&candidates, &listeners, input.newest).run() {
            Ok(merged) => return validated(&candidates, merged, effort),
            Err(Unsettled { index, refused, effort: spent }) => {
                candidates[index].new = Err(refused);
                effort += spent;
            }
        }
    }
}

/// What is wrong with a route whatever others there are.
#[must_use]
pub fn alone(route: &ProxyRoute, trust_domain: &str, newest: ContractVersion) -> Option<Refused> {
    judged_alone(route, trust_domain, newest).err()
}

impl Candidate {
    fn of(route: &ProxyRoute, input: &Input<'_>) -> Self {
        let pods = input.pods.iter().enumerate().filter(|(_, pod)| !pod.is_ending && selects(route, pod));
        let kept = input.last.and_then(|last| last.form(route));
        Self {
            name: ObjectName::of(route),
            pods: pods.map(|(number, _)| number).collect(),
            new: judged_alone(route, input.trust_domain, input.newest),
            kept: kept.filter(|kept| acceptable(&policy_of([kept]), &[], input.newest).is_ok()),
        }
    }
}

fn judged_alone(route: &ProxyRoute, trust_domain: &str, newest: ContractVersion) -> Result<Rendered, Refused> {
    let rendered = render::route(route, trust_domain);
    let rendered = rendered.map_err(|error| Refused::new(Reason::Invalid, error.to_string()))?;
    acceptable(&policy_of([&rendered]), &[], newest)?;
    Ok(rendered)
}

/// Routes and what they need as one policy. A listener is as the first route has it that is served there.
pub(super) fn policy_of<'a>(forms: impl IntoIterator<Item = &'a Rendered>) -> Policy {
    let mut policy = Policy::default();
    let (mut limits, mut forwarding) = (None, None);
    for form in forms {
        if !policy.listeners.iter().any(|known| known.name == form.listener.name) {
            policy.listeners.push(form.listener.clone());
        }
        policy.routes.push(form.route.clone());
        limits = limits.or_else(|| form.limits.clone());
        forwarding = forwarding.or(form.forwarding);
    }
    policy.listeners.sort_by_key(|listener| listener.address.port());
    policy.limits = limits.unwrap_or_default();
    policy.forwarding = forwarding.unwrap_or_default();
    policy
}

/// Accepts a policy as sidecars will that read contract versions up to `newest`. `names` are those of its routes, if there
/// are several.
pub(super) fn acceptable(
    policy: &Policy,
    names: &[&ObjectName],
    newest: ContractVersion,
) -> Result<AcceptedPolicy, Refused> {
    let accepted = accept::policy(policy).map_err(|refusal| {
        let own = policy.routes.len().saturating_sub(1);
        let told: Vec<_> = refusal.problems.iter().map(|problem| told_of(problem, own, names)).collect();
        Refused::new(Reason::Invalid, told.join("; "))
    })?;
    let needed = smallest_version(Part::Policy, &serde_json::to_value(policy).unwrap_or_default());
    if needed > newest {
        let message = format!(
            "it takes contract {needed}, and a sidecar of the workload reads no more than {newest}; restart its pods with newer sidecars"
        );
        return Err(Refused::new(Reason::NeedsNewerSidecar, message));
    }
    if document(Part::Policy, policy).len() > DOCUMENT_BYTES {
        let advice = "write less, or split the workload's routes over several workloads";
        let message = format!("the policy of the workload would be larger than its object may be; {advice}");
        return Err(Refused::new(Reason::TooLarge, message));
    }
    Ok(accepted)
}

fn validated(candidates: &[Candidate], merged: Merged, effort: usize) -> Validated {
    let Merged { served, mut refused, policy, accepted, effort: spent } = merged;
    let hashes = accepted.routes.iter().map(|(_, hash)| hash.to_string());
    let mut served: BTreeMap<_, _> =
        served.into_iter().zip(hashes).map(|((index, form), hash)| (index, (form, hash))).collect();
    let (mut needs, mut routes) = (BTreeMap::new(), BTreeMap::new());
    for (index, candidate) in candidates.iter().enumerate() {
        let (form, hash) = served.remove(&index).unzip();
        let judged = match refused.remove(&index) {
            None => Judged { accepted: Ok(hash.unwrap_or_default()), kept: None },
            Some(refused) => Judged { accepted: Err(refused), kept: hash },
        };
        routes.insert(candidate.name.clone(), judged);
        if let Some(form) = form {
            needs.insert(candidate.name.clone(), form.needs);
        }
    }
    Validated { policy, accepted, needs, routes, effort: effort + spent }
}

/// A problem of a policy in the words of the object that the user wrote: of its own route, or of another's.
fn told_of(problem: &Problem, own: usize, names: &[&ObjectName]) -> String {
    let told = told(problem, own);
    let index = problem.path.strip_prefix("policy.routes[").and_then(|rest| rest.split_once(']')?.0.parse().ok());
    match index.filter(|index| *index != own).and_then(|index: usize| Some((index, names.get(index)?))) {
        Some((index, other)) => format!("beside {other}: {}", self::told(problem, index)),
        None => told,
    }
}

/// A problem in the words of the object that the user wrote.
pub(super) fn told(problem: &Problem, route: usize) -> String {
    let own = format!("policy.routes[{route}]");
    let place = match problem.path.strip_prefix(&own) {
        Some(rest) => format!("spec{}", rest.replace(".backends[", ".backendRefs[")),
        None => problem.path.replacen("policy.", "spec.", 1),
    };
    format!("{place}: {}", problem.detail)
}

#[cfg(test)]
mod tests;
