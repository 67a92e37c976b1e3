//! The tries of one request: endpoint after endpoint while nothing was sent, and once more where a connection that had
//! served before ended without a byte of an answer.

use std::cell::{Cell, RefCell};
use std::pin::pin;
use std::rc::Rc;
use std::time::Duration;

use http::Uri;
use sidecar_config::backend::{LoadBalancerType, Timeouts};
use sidecar_decide::{Backend, EndpointIndex, Limiter, Reason, Target};
use tokio::time::{Instant, timeout_at};

use super::body::Upload;
use super::gate::{Asked, Gate, Served};
use super::kept::KeptHead;
use super::record::{Draft, microseconds};
use super::watch::{Watch, members};
use crate::alarm::{Alarm, within};
use crate::balance::{Balancer, Choice, Chosen, Random};
use crate::limits::{ATTEMPTS, REFUSALS, RESPONSE_HEAD_TIMEOUT};
use crate::pool::{Lease, Shelf};
use crate::protocol::{Body, NotSent, Outgoing, Received, Upstream};
use crate::upstream::EndpointState;

/// Where a request may go.
pub(super) struct Candidates<'a> {
    pub(super) shelves: &'a [Rc<Shelf>],
    served: &'a Rc<Served>,
    rule: usize,
    balancer: &'a Balancer,
    backends: &'a [Backend],
    kind: LoadBalancerType,
    random: &'a Random,
    /// Whether ejected endpoints are chosen, because there are no others.
    takes_ejected: Cell<bool>,
}

impl<'a> Candidates<'a> {
    /// Those of a rule; `None` where it names endpoints that do not exist.
    pub(super) fn of(gate: &'a Gate, served: &'a Rc<Served>, rule: usize) -> Option<Self> {
        let compiled = &served.generation.snapshot.rules[rule];
        let Target::Backends(backends) = &compiled.target else { return None };
        Some(Self {
            shelves: &served.shelves,
            served,
            rule,
            balancer: &served.balancers[rule],
            backends,
            kind: compiled.load_balancer,
            random: &gate.random,
            takes_ejected: Cell::new(false),
        })
    }

    /// The next endpoint, none of those that were tried.
    ///
    /// # Errors
    /// Why there is none.
    pub(super) fn next(&self, tried: &[EndpointIndex]) -> Result<Chosen, Reason> {
        let choose = |takes_ejected: bool| {
            let load = |endpoint: EndpointIndex| {
                let endpoint = self.shelves[endpoint].endpoint();
                let is_used = !endpoint.is_unhealthy() && (takes_ejected || endpoint.ejected().is_none());
                is_used.then(|| endpoint.load())
            };
            self.balancer.choose(self.backends, &Choice { kind: self.kind, tried, load, random: self.random })
        };
        if let Some(chosen) = choose(self.takes_ejected.get()) {
            return Ok(chosen);
        }
        let reason = self.nobody();
        // Where a part has to stay, all of them are out only because some left the rule since, or because of another rule.
        if reason == Reason::UpstreamEjected && tried.is_empty() && self.keeps_some() {
            self.takes_ejected.set(true);
            return choose(true).ok_or(reason);
        }
        Err(reason)
    }

    /// Why nobody is chosen of those that are there at all.
    fn nobody(&self) -> Reason {
        let members = members(self.served, self.rule);
        let mut endpoints = members.iter().map(|member| self.shelves[*member].endpoint());
        // Whatever was found out about one that fails its checks, the checks alone keep it out.
        if endpoints.clone().any(|endpoint| !endpoint.is_unhealthy() && endpoint.ejected().is_some()) {
            return Reason::UpstreamEjected;
        }
        let is_unhealthy = endpoints.any(EndpointState::is_unhealthy);
        let is_named = self.backends.iter().any(|backend| backend.weight > 0 && backend.is_named);
        match (is_unhealthy, members.is_empty() && is_named) {
            (true, _) => Reason::UpstreamUnhealthy,
            (false, true) => Reason::UpstreamDns,
            (false, false) => Reason::UpstreamNoEndpoint,
        }
    }

    /// Whether not all of them may be ejected.
    fn keeps_some(&self) -> bool {
        let members = members(self.served, self.rule);
        let policy =
            members.first().and_then(|member| self.shelves[*member].endpoint().policy().outlier_detection.as_ref());
        policy.is_some_and(|policy| policy.max_ejection_percent < 100)
    }

    /// A try at one of them, for whoever counts it.
    pub(super) fn asked(&self, chosen: Chosen) -> Asked {
        Asked::new(self.served, self.rule, chosen)
    }

    /// A try at one of them, of which is told what becomes of it.
    pub(super) fn watch(&self, endpoint: EndpointIndex) -> Option<Watch> {
        Watch::of(self.served, self.rule, endpoint)
    }
}

/// How long a request may take.
pub(super) struct Patience {
    /// When all of it must have ended.
    whole: Option<Instant>,
    /// How long one try may take, to the end of its response.
    attempt: Option<Duration>,
    /// How long the head of a response may take where neither is said, from the request's last progress.
    head: Option<Duration>,
}

impl Patience {
    /// Of a request that has just arrived.
    pub(super) fn of(timeouts: &Timeouts) -> Self {
        let time = |timeout: Option<sidecar_config::Duration>| {
            timeout.map(sidecar_config::Duration::as_std).filter(|time| !time.is_zero())
        };
        let is_said = timeouts.request.is_some() || timeouts.backend_request.is_some();
        Self {
            whole: time(timeouts.request).map(|time| Instant::now() + time),
            attempt: time(timeouts.backend_request),
            head: (!is_said).then_some(RESPONSE_HEAD_TIMEOUT),
        }
    }

    /// When a try that began then must have ended.
    fn end_of_attempt(&self, begun: Instant) -> Option<Instant> {
        let attempt = self.attempt.map(|time| begun + time);
        attempt.into_iter().chain(self.whole).min()
    }
}

/// A response whose head has come.
pub(super) struct Answered {
    pub(super) lease: Lease,
    pub(super) received: Received,
    pub(super) watch: Option<Watch>,
    /// When its body must have come.
    pub(super) deadline: Option<Instant>,
}

/// A request that is being tried.
pub(super) struct Exchange<'a> {
    /// In place until a try sends it, so that it is not moved from one to the next.
    pub(super) outgoing: Outgoing,
    /// What it asks for, whether it was sent or not.
    pub(super) target: &'a Uri,
    pub(super) candidates: Candidates<'a>,
    pub(super) patience: Patience,
    /// Its body, if it has one.
    pub(super) upload: Option<Rc<Upload>>,
    pub(super) draft: &'a mut Draft,
    /// What each try waits with: the connection's, where its requests come one after the other, as they do but on HTTP/2.
    pub(super) alarm: &'a RefCell<Alarm>,
    /// The try that was sent and is not answered yet.
    pub(super) watch: Option<Watch>,
    /// Whether a try is under way that has not failed yet.
    pub(super) is_trying: bool,
}

/// A try that brought no response.
struct Failed {
    reason: Reason,
    /// Whether the request is there again, and may go to another endpoint.
    may_go_on: bool,
}

impl Exchange<'_> {
    /// Tries until there is a response, within the time that all of it may take.
    pub(super) async fn run(&mut self) -> Result<Answered, Reason> {
        let Some(end) = self.patience.whole else { return self.try_all().await };
        let answered = timeout_at(end, self.try_all()).await;
        answered.unwrap_or_else(|_| {
            let stalled = stalled(self.upload.as_deref(), self.draft);
            Err(self.failed(stalled, None))
        })
    }

    /// The try that was begun has failed, by a limit if there is one to name.
    fn failed(&mut self, reason: Reason, limiter: Option<Limiter>) -> Reason {
        if std::mem::take(&mut self.is_trying) {
            self.draft.upstream_failed(reason, limiter);
        }
        if let Some(watch) = self.watch.take() {
            watch.failed(reason);
        }
        reason
    }

    /// Tries endpoint after endpoint while none of the request's bytes were sent.
    async fn try_all(&mut self) -> Result<Answered, Reason> {
        let mut failed = None;
        let mut tried = [0; ATTEMPTS];
        let mut may_repeat = true;
        for attempts in 0..ATTEMPTS {
            let chosen = match self.candidates.next(&tried[..attempts]) {
                Ok(chosen) => chosen,
                Err(reason) => return Err(failed.unwrap_or(reason)),
            };
            tried[attempts] = chosen.endpoint;
            match self.try_one(chosen, &mut may_repeat).await {
                Ok(answered) => return Ok(answered),
                Err(Failed { reason, may_go_on: true }) => failed = Some(reason),
                Err(Failed { reason, may_go_on: false }) => return Err(reason),
            }
        }
        Err(failed.unwrap_or(Reason::UpstreamNoEndpoint))
    }

    /// One endpoint: an idle connection if there is one, and a new one where that turns out to be gone.
    async fn try_one(&mut self, chosen: Chosen, may_repeat: &mut bool) -> Result<Answered, Failed> {
        let mut again = Again { may_repeat, refusals: 0 };
        loop {
            let (mut lease, begun) = match self.lease(chosen, again.refusals > 0).await {
                Ok(leased) => leased,
                // Another endpoint may have room, and another may take connections.
                Err(reason) => return Err(Failed { reason, may_go_on: true }),
            };
            if let Some(upload) = self.upload.as_ref().filter(|_| lease.is_shared()) {
                upload.keep();
            }
            let kept = self.keep(&lease, *again.may_repeat);
            let heard = lease.connection.wire().heard();
            let deadline = self.patience.end_of_attempt(begun);
            let unanswered = match self.answer(&mut lease.connection, begun, deadline).await {
                Ok(received) => {
                    self.draft.edit(|record| record.upstream_us = Some(microseconds(begun.elapsed())));
                    if let Some(upload) = &self.upload {
                        upload.settle();
                    }
                    let watch = self.watch.take().inspect(|watch| watch.answered(received.status.as_u16()));
                    return Ok(Answered { lease, received, watch, deadline });
                }
                Err(unanswered) => unanswered,
            };
            if matches!(unanswered, Unanswered::Sent { reason: Reason::UpstreamTimeout, .. }) {
                lease.doubt(heard);
            }
            self.again(unanswered, kept, lease.is_reused, &mut again)?;
        }
    }

    /// A connection to an endpoint, with what the row says of it, and since when it is there.
    async fn lease(&mut self, chosen: Chosen, fresh: bool) -> Result<(Lease, Instant), Reason> {
        self.watch = None;
        let shelf = &self.candidates.shelves[chosen.endpoint];
        self.is_trying = true;
        self.draft.asks(self.candidates.asked(chosen));
        let asked = Instant::now();
        let mut waited = None;
        let leased = shelf.lease(fresh, &mut waited).await;
        self.draft.waited(waited);
        self.draft.trace(|trace| trace.asks_by_tls = shelf.endpoint().is_secured());
        self.draft.edit(|record| {
            record.upstream = Some(shelf.endpoint().address());
            record.attempts += 1;
        });
        self.watch = self.candidates.watch(chosen.endpoint);
        let lease = leased.map_err(|error| self.failed(error.reason(), error.limiter()))?;
        // One that lay there was there at once.
        if lease.is_reused && waited.is_none() {
            return Ok((lease, asked));
        }
        let now = Instant::now();
        if !lease.is_reused {
            let took = now.saturating_duration_since(asked);
            self.draft.connected(took.saturating_sub(waited.unwrap_or_default()));
        }
        Ok((lease, now))
    }

    /// Has the request sent once more to the same endpoint, on another connection; or says why not there, or not at all.
    fn again(
        &mut self,
        unanswered: Unanswered,
        kept: Option<KeptHead>,
        is_reused: bool,
        again: &mut Again<'_>,
    ) -> Result<(), Failed> {
        again.refusals += 1;
        // One that does not take a request on a connection of its own takes none.
        let is_over = !is_reused || again.refusals > REFUSALS;
        match unanswered {
            Unanswered::Unsent if is_over => {
                Err(Failed { reason: self.failed(Reason::UpstreamConnect, None), may_go_on: true })
            }
            Unanswered::Unsent => Ok(()),
            Unanswered::Refused => {
                let may_go_on = self.can_repeat() && self.renew(kept);
                if may_go_on && !is_over {
                    return Ok(());
                }
                Err(Failed { reason: self.failed(Reason::UpstreamReset, None), may_go_on })
            }
            Unanswered::Sent { reason, is_silent } => {
                let may = is_silent && is_reused && *again.may_repeat && self.is_unbegun();
                if !self.renew(kept.filter(|head| may && head.method().is_idempotent())) {
                    // Ended in silence after use, it was closed as idle connections are, and nobody failed.
                    if is_silent && is_reused {
                        self.watch = None;
                    }
                    self.failed(reason, None);
                    return Err(Failed { reason, may_go_on: false });
                }
                *again.may_repeat = false;
                Ok(())
            }
        }
    }

    /// Puts the request in its place once more; false where nothing was kept of it.
    fn renew(&mut self, kept: Option<KeptHead>) -> bool {
        let Some(head) = kept.and_then(|kept| kept.head(self.target)) else { return false };
        self.outgoing = Outgoing { head, body: self.body() };
        true
    }

    /// A head to send once more: what may be asked for twice (RFC 9110 §9.2.2) where the connection may be closing, and
    /// anything where the upstream may say that it has not begun.
    fn keep(&self, lease: &Lease, may_repeat: bool) -> Option<KeptHead> {
        let head = &self.outgoing.head;
        let may_repeat = lease.is_reused && may_repeat && head.method.is_idempotent() && self.is_unbegun();
        (may_repeat || lease.is_shared()).then(|| KeptHead::of(head))
    }

    /// Whether all of the body is there, or is kept.
    fn can_repeat(&self) -> bool {
        self.upload.as_ref().is_none_or(|upload| !upload.begun() || upload.is_kept())
    }

    /// Whether all of the body is still there.
    fn is_unbegun(&self) -> bool {
        self.upload.as_ref().is_none_or(|upload| !upload.begun())
    }

    fn body(&self) -> Body {
        self.upload.as_ref().map_or(Body::EMPTY, Upload::body)
    }

    /// Sends on one connection, and waits for the response's head as long as it may take.
    async fn answer(
        &mut self,
        connection: &mut Upstream,
        begun: Instant,
        deadline: Option<Instant>,
    ) -> Result<Received, Unanswered> {
        let upload = self.upload.as_deref();
        let mut sending = pin!(connection.send(&mut self.outgoing));
        let latest = || match self.patience.head {
            Some(time) => Some(last_progress(begun, upload) + time),
            None => deadline,
        };
        let outcome = loop {
            let Some(end) = latest() else { break sending.await };
            match within(self.alarm, end, sending.as_mut()).await {
                Some(outcome) => break outcome,
                None if latest() > Some(end) => {}
                None => return Err(Unanswered::Sent { reason: stalled(upload, self.draft), is_silent: false }),
            }
        };
        outcome.map_err(|error| match error {
            NotSent::Unsent => Unanswered::Unsent,
            NotSent::Refused => match upload.and_then(Upload::failed) {
                Some(reason) => Unanswered::Sent { reason, is_silent: false },
                None => Unanswered::Refused,
            },
            NotSent::Broken { answered, failure, .. } => {
                let reason = upload.and_then(Upload::failed).or(failure);
                let is_silent = !answered && reason.is_none();
                Unanswered::Sent { reason: reason.unwrap_or(Reason::UpstreamReset), is_silent }
            }
        })
    }
}

/// How often a request may still go to the same endpoint.
struct Again<'a> {
    /// Whether it may be asked for twice, of all endpoints.
    may_repeat: &'a mut bool,
    /// Connections that did not take it.
    refusals: u32,
}

/// What became of a request that got no response.
#[derive(Clone, Copy)]
enum Unanswered {
    /// None of it was sent, and it is in its place again.
    Unsent,
    /// Some of it was, and the upstream has done nothing with it.
    Refused,
    /// It was, in whole or in part.
    Sent {
        reason: Reason,
        /// Whether the upstream ended the connection without a byte.
        is_silent: bool,
    },
}

/// Whose fault it is that nothing moves: the client's while it owes a part of its body, and the upstream's where that does
/// not take what is there. A call of gRPC may leave its side open and owe nothing.
fn stalled(upload: Option<&Upload>, draft: &Draft) -> Reason {
    let is_owed = upload.is_some_and(Upload::is_awaited);
    if is_owed && !draft.is_grpc() { Reason::ClientTimeout } else { Reason::UpstreamTimeout }
}

fn last_progress(begun: Instant, upload: Option<&Upload>) -> Instant {
    upload.map_or(begun, |upload| upload.last_progress().max(begun))
}
