//! What a request finds out about the endpoint that it went to, told to whoever decides which of them are used.

use std::rc::Rc;

use sidecar_decide::{EndpointIndex, Reason, Target};

use super::gate::Served;
use crate::health::Failure;
use crate::upstream::EndpointState;

/// One try, at an endpoint that is left out when it fails too often.
pub(super) struct Watch {
    served: Rc<Served>,
    rule: usize,
    endpoint: EndpointIndex,
}

impl Watch {
    /// A try of a request of this rule; `None` where nobody wants to know.
    pub(super) fn of(served: &Rc<Served>, rule: usize, endpoint: EndpointIndex) -> Option<Self> {
        let policy = served.shelves[endpoint].endpoint().policy();
        policy.outlier_detection.is_some().then(|| Self { served: Rc::clone(served), rule, endpoint })
    }

    /// The head of an answer came.
    pub(super) fn answered(&self, status: u16) {
        self.weigh(self.endpoint().answered(status));
    }

    /// It took a connection, of which nothing more is known.
    pub(super) fn connected(&self) {
        self.endpoint().succeeded(Failure::LocalOrigin);
    }

    /// There is no answer for this reason, which may be somebody else's fault.
    pub(super) fn failed(&self, reason: Reason) {
        let is_its_own = matches!(
            reason,
            Reason::UpstreamConnect
                | Reason::UpstreamTimeout
                | Reason::UpstreamReset
                | Reason::UpstreamTls
                | Reason::UpstreamTlsUntrusted
                | Reason::UpstreamTlsExpired
                | Reason::UpstreamTlsRevoked
                | Reason::UpstreamTlsPeer
                | Reason::UpstreamTlsRefused
        );
        if is_its_own {
            self.weigh(self.endpoint().failed(Failure::LocalOrigin));
        }
    }

    /// The whole answer came.
    pub(super) fn completed(&self) {
        self.endpoint().succeeded(Failure::Interrupted);
    }

    /// It ended before its end for this reason. One that takes too long may wait for a client that reads slowly.
    pub(super) fn interrupted(&self, reason: Reason) {
        if reason == Reason::UpstreamReset {
            self.weigh(self.endpoint().failed(Failure::Interrupted));
        }
    }

    fn endpoint(&self) -> &EndpointState {
        self.served.shelves[self.endpoint].endpoint()
    }

    fn weigh(&self, failure: Option<Failure>) {
        let Some(failure) = failure else { return };
        let members = members(&self.served, self.rule);
        self.endpoint().eject(failure, members.iter().map(|index| self.served.shelves[*index].endpoint()));
    }
}

/// The endpoints that requests of a rule may go to, each once.
pub(super) fn members(served: &Served, rule: usize) -> Vec<EndpointIndex> {
    let Target::Backends(backends) = &served.generation.snapshot.rules[rule].target else { return Vec::new() };
    let used = backends.iter().filter(|backend| backend.weight > 0);
    let mut members: Vec<_> = used.flat_map(|backend| backend.endpoints.iter().copied()).collect();
    members.sort_unstable();
    members.dedup();
    members
}
