//! Which endpoint a request goes to: first the backend, by the weights of the rule, then one of its endpoints.
//!
//! Nothing here waits, and chance is a value, so that all of it is tested as tables.

mod random;
#[cfg(test)]
mod tests;

use std::cell::RefCell;

use sidecar_config::backend::LoadBalancerType;
use sidecar_decide::{Backend, EndpointIndex};

pub use random::Random;

/// A worker's place in the turns of one rule.
#[derive(Debug, Default)]
pub struct Balancer {
    /// What each backend is still owed.
    owed: RefCell<Vec<i64>>,
    /// Whose turn it is in each backend.
    next: RefCell<Vec<usize>>,
    /// Backends that were found to have nobody, while one is chosen.
    passed: RefCell<Vec<bool>>,
}

/// An endpoint whose turn it is, and the backend that it was chosen for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Chosen {
    /// Which of the rule's backends.
    pub backend: usize,
    /// One of its endpoints.
    pub endpoint: EndpointIndex,
}

/// What a choice depends on besides the turns.
pub struct Choice<'a, L> {
    /// How an endpoint of a backend is chosen.
    pub kind: LoadBalancerType,
    /// Endpoints that were tried for this request.
    pub tried: &'a [EndpointIndex],
    /// What an endpoint has to do; `None` while it is not to be used.
    pub load: L,
    /// Chance.
    pub random: &'a Random,
}

impl<L: Fn(EndpointIndex) -> Option<usize>> Choice<'_, L> {
    /// Whether it is a request's own turn, and not one that it takes because the endpoint of its turn failed.
    fn is_first(&self) -> bool {
        self.tried.is_empty()
    }

    /// What an endpoint has to do, if it may be chosen.
    fn load(&self, endpoint: EndpointIndex) -> Option<usize> {
        if self.tried.contains(&endpoint) { None } else { (self.load)(endpoint) }
    }
}

impl Balancer {
    /// The endpoint that a request goes to; `None` where there is none to choose.
    pub fn choose<L>(&self, backends: &[Backend], choice: &Choice<'_, L>) -> Option<Chosen>
    where
        L: Fn(EndpointIndex) -> Option<usize>,
    {
        let mut next = self.next.borrow_mut();
        next.resize(backends.len(), 0);
        match backends {
            // The share of one is all.
            [only] if only.weight > 0 => {
                let endpoint = endpoint(&only.endpoints, &mut next[0], choice)?;
                Some(Chosen { backend: 0, endpoint })
            }
            [_] | [] => None,
            _ => self.choose_by_weight(backends, &mut next, choice),
        }
    }

    /// Smooth weighted round robin: of those that have somebody the one that is owed most, so that the turns of one are
    /// spread over all. A backend that has nobody leaves its share to the others.
    fn choose_by_weight<L>(&self, backends: &[Backend], next: &mut [usize], choice: &Choice<'_, L>) -> Option<Chosen>
    where
        L: Fn(EndpointIndex) -> Option<usize>,
    {
        let (mut owed, mut passed) = (self.owed.borrow_mut(), self.passed.borrow_mut());
        owed.resize(backends.len(), 0);
        passed.clear();
        passed.extend(backends.iter().map(|backend| backend.weight == 0));
        loop {
            let candidates = (0..backends.len()).filter(|index| !passed[*index]);
            let weight = |index: usize| i64::from(backends[index].weight);
            // The first of equals, as the document has them.
            let best = candidates.rev().max_by_key(|index| owed[*index] + weight(*index))?;
            let Some(chosen) = endpoint(&backends[best].endpoints, &mut next[best], choice) else {
                passed[best] = true;
                continue;
            };
            for index in (0..backends.len()).filter(|index| choice.is_first() && !passed[*index]) {
                owed[index] += weight(index);
                owed[best] -= weight(index);
            }
            return Some(Chosen { backend: best, endpoint: chosen });
        }
    }
}

/// One endpoint of a backend.
fn endpoint<L>(endpoints: &[EndpointIndex], next: &mut usize, choice: &Choice<'_, L>) -> Option<EndpointIndex>
where
    L: Fn(EndpointIndex) -> Option<usize>,
{
    match choice.kind {
        LoadBalancerType::RoundRobin => in_turn(endpoints, next, choice),
        LoadBalancerType::LeastRequest => less_busy(endpoints, next, choice),
    }
}

/// The next that may be chosen.
fn in_turn<L>(endpoints: &[EndpointIndex], next: &mut usize, choice: &Choice<'_, L>) -> Option<EndpointIndex>
where
    L: Fn(EndpointIndex) -> Option<usize>,
{
    let first = next.checked_rem(endpoints.len())?;
    let mut turns = (first..endpoints.len()).chain(0..first);
    let turn = turns.find(|turn| choice.load(endpoints[*turn]).is_some())?;
    if choice.is_first() {
        *next = turn + 1;
    }
    Some(endpoints[turn])
}

/// The less busy of two at random, which spreads load nearly as well as asking all and does not send everybody to the
/// same one; where neither may be chosen, any that may.
fn less_busy<L>(endpoints: &[EndpointIndex], next: &mut usize, choice: &Choice<'_, L>) -> Option<EndpointIndex>
where
    L: Fn(EndpointIndex) -> Option<usize>,
{
    if endpoints.len() < 2 {
        return in_turn(endpoints, next, choice);
    }
    let one = choice.random.below(endpoints.len());
    // Any but the first one.
    let other = (one + 1 + choice.random.below(endpoints.len() - 1)) % endpoints.len();
    let (one, other) = (endpoints[one], endpoints[other]);
    match (choice.load(one), choice.load(other)) {
        (Some(busy), Some(other_busy)) => Some(if other_busy < busy { other } else { one }),
        (Some(_), None) => Some(one),
        (None, Some(_)) => Some(other),
        (None, None) => in_turn(endpoints, next, choice),
    }
}
