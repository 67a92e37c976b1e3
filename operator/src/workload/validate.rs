//! Which routes of a workload can be served: rendered, and accepted with the sidecar's own code, one after the other.
//!
//! What is refused is left out and its route says so; one bad route never takes another down.

use std::collections::BTreeMap;
use std::sync::Arc;

use postern_crds::{ProxyRoute, Reason};
use sidecar_config::policy::{Listener, Policy};
use sidecar_config::{ContractVersion, Part};
use sidecar_decide::snapshot::AcceptedPolicy;
use sidecar_decide::{Problem, accept};

use super::document::smallest_version;
use crate::index::ObjectName;
use crate::render::{self, Needs, Rendered};

/// Why a route is not served.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refused {
    /// In one word.
    pub reason: Reason,
    /// In some more.
    pub message: String,
}

impl Refused {
    fn new(reason: Reason, message: impl Into<String>) -> Self {
        Self { reason, message: message.into() }
    }
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
    /// Each route with its hash, or why it is not served.
    pub routes: BTreeMap<ObjectName, Result<String, Refused>>,
}

/// Judges routes, the oldest first. `newest` is the newest contract version that all sidecars read which have started.
#[must_use]
pub fn validate(routes: &[Arc<ProxyRoute>], trust_domain: &str, newest: ContractVersion) -> Validated {
    let mut judge =
        Judge { listeners: BTreeMap::new(), policy: Policy::default(), limits: false, forwarding: false, newest };
    let mut verdicts = BTreeMap::new();
    let mut needs = BTreeMap::new();
    let mut rendered = Vec::new();
    for route in routes {
        let name = ObjectName::of(&**route);
        match render::route(route, trust_domain) {
            Ok(one) => rendered.push((name, one)),
            Err(error) => drop(verdicts.insert(name, Err(Refused::new(Reason::Invalid, error.to_string())))),
        }
    }
    // Who defines a listener is heard before those who join it, whatever their ages.
    for (name, one) in rendered.iter().filter(|(_, one)| !one.joins) {
        if let Err(refused) = judge.define(name, &one.listener) {
            verdicts.insert(name.clone(), Err(refused));
        }
    }
    for (name, one) in rendered {
        if verdicts.contains_key(&name) {
            continue;
        }
        let verdict = judge.add(&one);
        if verdict.is_ok() {
            needs.insert(name.clone(), one.needs);
        }
        verdicts.insert(name, verdict);
    }
    judge.drop_unused();
    let accepted = judge.accept().unwrap_or_else(|_| nothing());
    let routes = verdicts.into_iter().map(|(name, verdict)| {
        let hash = accepted.routes.iter().find(|(route, _)| route.name == name.to_string());
        let hash = hash.map(|(_, hash)| hash.to_string()).unwrap_or_default();
        (name, verdict.map(|()| hash))
    });
    Validated { routes: routes.collect(), policy: judge.policy, needs, accepted }
}

/// An empty policy, which nothing can be wrong with.
fn nothing() -> AcceptedPolicy {
    let Policy { listeners, limits, forwarding, .. } = Policy::default();
    debug_assert!(accept::policy(&Policy::default()).is_ok());
    match accept::policy(&Policy::default()) {
        Ok(accepted) => accepted,
        Err(refusal) => AcceptedPolicy {
            revision: refusal.revision,
            listeners,
            routes: Vec::new(),
            limits,
            trusted_hops: forwarding.trusted_hops,
        },
    }
}

/// The policy in the making.
struct Judge {
    /// Who defined a listener, by its port.
    listeners: BTreeMap<u16, (ObjectName, Listener)>,
    policy: Policy,
    limits: bool,
    forwarding: bool,
    newest: ContractVersion,
}

impl Judge {
    fn define(&mut self, name: &ObjectName, listener: &Listener) -> Result<(), Refused> {
        let port = listener.address.port();
        match self.listeners.get(&port) {
            None => {
                self.listeners.insert(port, (name.clone(), listener.clone()));
                Ok(())
            }
            Some((_, known)) if known == listener => Ok(()),
            Some((older, _)) => {
                let advice = "make both the same, write only the port, or choose another one";
                let message = format!("spec.listener: port {port} is defined in another way by {older}; {advice}");
                Err(Refused::new(Reason::Conflicted, message))
            }
        }
    }

    /// Adds a route if the policy stays acceptable with it.
    fn add(&mut self, rendered: &Rendered) -> Result<(), Refused> {
        let before = self.policy.clone();
        let port = rendered.listener.address.port();
        let listener = self.listeners.get(&port).map_or(&rendered.listener, |(_, defined)| defined);
        if !self.policy.listeners.iter().any(|known| known.name == listener.name) {
            self.policy.listeners.push(listener.clone());
            self.policy.listeners.sort_by_key(|listener| listener.address.port());
        }
        self.policy.routes.push(rendered.route.clone());
        let sets = (rendered.limits.clone().filter(|_| !self.limits), rendered.forwarding.filter(|_| !self.forwarding));
        if let Some(limits) = &sets.0 {
            self.policy.limits = limits.clone();
        }
        if let Some(forwarding) = &sets.1 {
            self.policy.forwarding = *forwarding;
        }
        if let Err(refused) = self.judge() {
            self.policy = before;
            return Err(refused);
        }
        self.limits |= sets.0.is_some();
        self.forwarding |= sets.1.is_some();
        Ok(())
    }

    fn judge(&self) -> Result<(), Refused> {
        if let Err(problems) = self.accept() {
            let index = self.policy.routes.len().saturating_sub(1);
            let told: Vec<_> = problems.iter().map(|problem| told(problem, index)).collect();
            return Err(Refused::new(Reason::Invalid, told.join("; ")));
        }
        let value = serde_json::to_value(&self.policy).unwrap_or_default();
        let needed = smallest_version(Part::Policy, &value);
        if needed > self.newest {
            let newest = self.newest;
            let message = format!(
                "it takes contract {needed}, and a sidecar of the workload reads no more than {newest}; restart its pods with newer sidecars"
            );
            return Err(Refused::new(Reason::NeedsNewerSidecar, message));
        }
        Ok(())
    }

    fn accept(&self) -> Result<AcceptedPolicy, Vec<Problem>> {
        accept::policy(&self.policy).map_err(|refusal| refusal.problems)
    }

    /// A listener nobody is served on would only refuse.
    fn drop_unused(&mut self) {
        let Policy { listeners, routes, .. } = &mut self.policy;
        listeners.retain(|listener| routes.iter().any(|route| route.listener == listener.name));
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
