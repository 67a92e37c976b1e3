//! All routes of a workload in one policy: of two that cannot be served together, the older is. Pure.
//!
//! Whether a policy is accepted is asked for as many routes at once as have no need to be told apart: for all of them
//! first, for half as many after a refusal, for twice as many after that went well.

use std::collections::{BTreeMap, HashMap};
use std::ops::Range;

use postern_crds::Reason;
use sidecar_config::ContractVersion;
use sidecar_config::policy::{Listener, Policy};
use sidecar_decide::accept;
use sidecar_decide::route::{RouteClaim, claims};
use sidecar_decide::snapshot::AcceptedPolicy;

use super::validate::{Candidate, Refused, acceptable, policy_of};
use crate::render::Rendered;

/// Who defines which listener. Whoever does is heard before those who join it, whatever their ages.
#[derive(Debug, Default)]
pub(super) struct Listeners {
    /// By port: who, and what.
    defined: BTreeMap<u16, (usize, Listener)>,
    /// Why a route cannot be served as it is.
    conflicts: BTreeMap<usize, Refused>,
}

impl Listeners {
    pub(super) fn of(candidates: &[Candidate]) -> Self {
        let mut all = Self::default();
        for (index, candidate) in candidates.iter().enumerate() {
            let is_refused = match &candidate.new {
                Err(_) => true,
                Ok(new) if new.joins => false,
                Ok(new) => match all.define(index, &new.listener, candidates) {
                    Ok(()) => false,
                    Err(refused) => {
                        all.conflicts.insert(index, refused);
                        true
                    }
                },
            };
            if let Some(kept) = candidate.kept.as_ref().filter(|kept| is_refused && !kept.joins) {
                // It is left out where it does not fit.
                let _ = all.define(index, &kept.listener, candidates);
            }
        }
        // A listener that nobody defines any more stays as those had it who joined it.
        for (index, candidate) in candidates.iter().enumerate() {
            if let (Err(_), Some(kept)) = (&candidate.new, &candidate.kept) {
                all.defined.entry(kept.listener.address.port()).or_insert_with(|| (index, kept.listener.clone()));
            }
        }
        all
    }

    fn define(&mut self, index: usize, listener: &Listener, candidates: &[Candidate]) -> Result<(), Refused> {
        let port = listener.address.port();
        match self.defined.get(&port) {
            None => drop(self.defined.insert(port, (index, listener.clone()))),
            Some((_, known)) if known == listener => {}
            Some((older, _)) => {
                let older = &candidates[*older].name;
                let advice = "make both the same, write only the port, or choose another one";
                let message = format!("spec.listener: port {port} is defined in another way by {older}; {advice}");
                return Err(Refused::new(Reason::Conflicted, message));
            }
        }
        Ok(())
    }

    /// A form with the listener that it is served on; `None` where it has another one in mind.
    fn placed(&self, form: &Rendered) -> Option<Rendered> {
        let listener = self.defined.get(&form.listener.address.port()).map(|(_, listener)| listener);
        match listener {
            Some(listener) if form.joins => Some(Rendered { listener: listener.clone(), ..form.clone() }),
            Some(listener) => (*listener == form.listener).then(|| form.clone()),
            None => Some(form.clone()),
        }
    }

    /// Whether others may have joined what a route defines as it is.
    fn are_of(&self, index: usize, candidate: &Candidate) -> bool {
        let is_as_it_is = candidate.new.is_ok() && !self.conflicts.contains_key(&index);
        is_as_it_is && self.defined.values().any(|(definer, _)| *definer == index)
    }
}

/// What came of it.
pub(super) struct Merged {
    /// What is served of which route, in the order of the policy.
    pub(super) served: Vec<(usize, Rendered)>,
    /// Why a route is not served as it is.
    pub(super) refused: BTreeMap<usize, Refused>,
    pub(super) policy: Policy,
    pub(super) accepted: AcceptedPolicy,
    /// Routes that were handed to the sidecar's code, each as often as it was.
    pub(super) effort: usize,
}

/// A route whose listener others may have joined is refused: all is to be seen without that.
pub(super) struct Unsettled {
    pub(super) index: usize,
    pub(super) refused: Refused,
    pub(super) effort: usize,
}

/// The policy in the making: what is settled of the oldest routes.
pub(super) struct Merge<'a> {
    candidates: &'a [Candidate],
    listeners: &'a Listeners,
    newest: ContractVersion,
    claimed: HashMap<(u16, RouteClaim), Vec<usize>>,
    merged: Merged,
}

impl<'a> Merge<'a> {
    pub(super) fn new(candidates: &'a [Candidate], listeners: &'a Listeners, newest: ContractVersion) -> Self {
        let merged = Merged {
            served: Vec::new(),
            refused: BTreeMap::new(),
            policy: Policy::default(),
            accepted: nothing(),
            effort: 0,
        };
        Self { candidates, listeners, newest, claimed: HashMap::new(), merged }
    }

    /// Settles one route after the other, the oldest first.
    pub(super) fn run(mut self) -> Result<Merged, Unsettled> {
        let (mut start, mut step) = (0, self.candidates.len().max(1));
        while start < self.candidates.len() {
            let end = start.saturating_add(step).min(self.candidates.len());
            match self.settle(start..end) {
                Ok(()) => {
                    start = end;
                    step = step.saturating_mul(2);
                }
                Err(_) if end - start > 1 => {
                    self.forget(start);
                    step = (end - start) / 2;
                }
                Err(refused) => {
                    if self.listeners.are_of(start, &self.candidates[start]) {
                        return Err(Unsettled { index: start, refused, effort: self.merged.effort });
                    }
                    self.refuse(start, refused);
                    (start, step) = (end, 1);
                }
            }
        }
        Ok(self.merged)
    }

    /// # Errors
    /// With what is wrong with any of them, unless it is known of which.
    fn settle(&mut self, range: Range<usize>) -> Result<(), Refused> {
        let before = self.merged.served.len();
        for index in range {
            self.choose(index)?;
        }
        if self.merged.served.len() == before { Ok(()) } else { self.judge() }
    }

    /// A route as it is, if nothing older is in its way; else as it was.
    fn choose(&mut self, index: usize) -> Result<(), Refused> {
        let candidate = &self.candidates[index];
        let refused = match (&candidate.new, self.listeners.conflicts.get(&index)) {
            (Err(refused), _) | (Ok(_), Some(refused)) => refused.clone(),
            (Ok(new), None) => match self.collision(index, new) {
                None => {
                    self.serve(index, new);
                    return Ok(());
                }
                Some(refused) if self.listeners.are_of(index, candidate) => return Err(refused),
                Some(refused) => refused,
            },
        };
        self.merged.refused.insert(index, refused);
        if let Some(kept) = &candidate.kept {
            self.serve(index, kept);
        }
        Ok(())
    }

    /// What older routes ask for like this one, where both are served.
    fn collision(&self, index: usize, form: &Rendered) -> Option<Refused> {
        let port = form.listener.address.port();
        let pods = |index: usize| &self.candidates[index].pods;
        claims(&form.route).find_map(|(rule, claim)| {
            let key = (port, claim);
            let meets = |older: &&usize| pods(**older).iter().any(|pod| pods(index).contains(pod));
            let older = self.claimed.get(&key)?.iter().find(meets)?;
            let (older, claim) = (&self.candidates[*older].name, &key.1);
            let advice = "match something else there, or leave it to one of the two";
            let message = format!("spec.rules[{rule}]: {claim} is what older {older} matches, too; {advice}");
            Some(Refused::new(Reason::Conflicted, message))
        })
    }

    /// Serves a form, unless its listener is another one now. Of what an older route matches, too, nothing reaches it:
    /// it comes later in the policy.
    fn serve(&mut self, index: usize, form: &Rendered) {
        let Some(form) = self.listeners.placed(form) else { return };
        let port = form.listener.address.port();
        for (_, claim) in claims(&form.route) {
            self.claimed.entry((port, claim)).or_default().push(index);
        }
        self.merged.served.push((index, form));
    }

    /// Whether everything that is served can be served together.
    fn judge(&mut self) -> Result<(), Refused> {
        let policy = policy_of(self.merged.served.iter().map(|(_, form)| form));
        let names: Vec<_> = self.merged.served.iter().map(|(index, _)| &self.candidates[*index].name).collect();
        self.merged.effort += names.len();
        self.merged.accepted = acceptable(&policy, &names, self.newest)?;
        self.merged.policy = policy;
        Ok(())
    }

    /// Forgets what was settled of all routes from one on.
    fn forget(&mut self, start: usize) {
        self.merged.served.retain(|(index, _)| *index < start);
        self.merged.refused.retain(|index, _| *index < start);
        self.claimed.values_mut().for_each(|owners| owners.retain(|index| *index < start));
    }

    /// Serves a route as it was if it cannot be served as it is, and not at all if not even that.
    fn refuse(&mut self, index: usize, refused: Refused) {
        let was_refused = self.merged.refused.get(&index).cloned();
        let is_new = was_refused.is_none();
        self.forget(index);
        self.merged.refused.insert(index, was_refused.unwrap_or(refused));
        if let Some(kept) = self.candidates[index].kept.as_ref().filter(|_| is_new) {
            self.serve(index, kept);
            if self.judge().is_err() {
                let refused = self.merged.refused.remove(&index);
                self.forget(index);
                self.merged.refused.extend(refused.map(|refused| (index, refused)));
            }
        }
    }
}

/// What serves nobody, and nothing can be wrong with.
fn nothing() -> AcceptedPolicy {
    let policy = Policy::default();
    accept::policy(&policy).unwrap_or_else(|refusal| AcceptedPolicy {
        revision: refusal.revision,
        listeners: policy.listeners,
        routes: Vec::new(),
        limits: policy.limits,
        trusted_hops: policy.forwarding.trusted_hops,
    })
}
