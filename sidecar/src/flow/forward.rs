//! An allowed request on its way to an upstream, and the response on its way back.

use std::net::SocketAddr;
use std::pin::pin;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Instant;

use http::StatusCode;
use http::header::EXPECT;
use http_body::Body as _;
use sidecar_config::policy::Protocol;
use sidecar_decide::filter::HeaderChanges;
use sidecar_decide::{Reason, Target, Verdict};
use tokio::time::timeout_at;

use super::body::{Upload, download, upload};
use super::connection::{Connection, View};
use super::gate::Gate;
use super::http::{POSTERN_REASON, Passage, refuse};
use super::record::{Draft, microseconds};
use crate::filter::{self, Origin};
use crate::limits::{ATTEMPTS, RESPONSE_HEAD_TIMEOUT};
use crate::pool::{Lease, Pool};
use crate::protocol::{
    Body, Head, NotSent, Outgoing, Received, Request, Response, Upstream, strip_hop_by_hop, upstream_host,
};
use crate::upstream::ConnectError;

/// Sends a request to one of its rule's addresses and answers with what comes back.
pub(super) async fn forward(
    connection: &Connection,
    view: &View,
    passage: Passage,
    request: Request,
    mut draft: Draft,
) -> Response {
    let generation = &view.served.generation;
    let rule = &generation.snapshot.rules[passage.rule];
    let addresses = match &rule.target {
        Target::Addresses(addresses) => addresses,
        Target::Invalid => return refuse(draft, Reason::RouteInvalid, Some(request.body)),
    };
    let Request { head, body } = request;
    let head = match outgoing_head(connection, view, &passage, head) {
        Ok(head) => head,
        Err(reason) => {
            draft.decided(&generation.rule_scopes[passage.rule], Verdict::Refused, Some(reason));
            return refuse(draft, reason, Some(body));
        }
    };
    let gate = Rc::clone(&connection.gate);
    let max_bytes = generation.snapshot.limits.max_request_body_size.bytes();
    let state = (!body.is_end_stream()).then(Upload::new);
    draft.uploads(state.clone());
    let names = &generation.snapshot.gate_names;
    let body = state.clone().map_or(Body::EMPTY, |state| upload(body, max_bytes, Arc::clone(names), state));
    let outgoing = Outgoing { head, body };
    let turn = view.served.turns[passage.rule].turn(addresses);
    match exchange(&gate.pool, turn, outgoing, state.as_deref(), &mut draft).await {
        // Nothing was to be upgraded, so nobody can speak what would follow.
        Ok((_, received)) if received.status == StatusCode::SWITCHING_PROTOCOLS => {
            refuse(draft, Reason::UpstreamReset, None)
        }
        Ok((lease, received)) => respond(gate, lease, received, &rule.filters.response, draft),
        Err(reason) => {
            if reason == Reason::LimitBodySize {
                draft.decided(&generation.rule_scopes[passage.rule], Verdict::Refused, Some(reason));
            }
            refuse(draft, reason, None)
        }
    }
}

fn outgoing_head(connection: &Connection, view: &View, passage: &Passage, head: Head) -> Result<Head, Reason> {
    let Head { method, mut headers, .. } = head;
    strip_hop_by_hop(&mut headers);
    upstream_host(&mut headers, &passage.host);
    // The gate itself answers 100 (Continue) as soon as the upstream takes the body (RFC 9110 §10.1.1).
    headers.remove(EXPECT);
    let snapshot = &view.served.generation.snapshot;
    let rule = &snapshot.rules[passage.rule];
    let is_tls = connection.listener.protocol == Protocol::Https;
    let origin = Origin { client: connection.client, is_tls, ids: &connection.gate.request_ids };
    filter::depart(snapshot, rule, &origin, |asked| connection.told(view, asked), &mut headers)?;
    Ok(Head { method, target: passage.target.clone(), headers })
}

/// Tries address after address while none of the request's bytes were sent.
async fn exchange(
    pool: &Pool,
    turn: impl Iterator<Item = SocketAddr>,
    mut outgoing: Outgoing,
    state: Option<&Upload>,
    draft: &mut Draft,
) -> Result<(Lease, Received), Reason> {
    let mut reason = Reason::UpstreamNoEndpoint;
    for address in turn.take(usize::from(ATTEMPTS)) {
        match attempt(pool, address, outgoing, state, draft).await {
            Ok(answered) => return Ok(answered),
            Err(Failed { reason: why, unsent: Some(again) }) => {
                outgoing = *again;
                reason = why;
            }
            Err(Failed { reason, unsent: None }) => return Err(reason),
        }
    }
    Err(reason)
}

/// A try that brought no response, with the request where none of it was sent.
struct Failed {
    reason: Reason,
    unsent: Option<Box<Outgoing>>,
}

/// One address: an idle connection if there is one, and a new one where that turns out to be gone.
async fn attempt(
    pool: &Pool,
    address: SocketAddr,
    mut outgoing: Outgoing,
    state: Option<&Upload>,
    draft: &mut Draft,
) -> Result<(Lease, Received), Failed> {
    let mut may_be_stale = true;
    loop {
        let asked = Instant::now();
        let leased = if may_be_stale { pool.lease(address).await } else { pool.lease_new(address).await };
        draft.edit(|record| {
            record.upstream = Some(address);
            record.attempts += 1;
        });
        let mut lease = match leased {
            Ok(lease) => lease,
            Err(ConnectError::Full) => return Err(Failed { reason: Reason::UpstreamPoolFull, unsent: None }),
            Err(_) => return Err(Failed { reason: Reason::UpstreamConnect, unsent: Some(Box::new(outgoing)) }),
        };
        if !lease.is_reused {
            draft.edit(|record| record.connect_us = Some(microseconds(asked.elapsed())));
        }
        let sent = Instant::now();
        match answer(&mut lease.connection, outgoing, state).await {
            Ok(received) => {
                draft.edit(|record| record.upstream_us = Some(microseconds(sent.elapsed())));
                return Ok((lease, received));
            }
            Err(Failed { unsent: Some(again), .. }) if lease.is_reused => {
                outgoing = *again;
                may_be_stale = false;
            }
            Err(failed) => return Err(failed),
        }
    }
}

/// Sends on one connection, and waits for the response's head as long as the request's body makes progress.
async fn answer(connection: &mut Upstream, outgoing: Outgoing, state: Option<&Upload>) -> Result<Received, Failed> {
    let begun = tokio::time::Instant::now();
    let mut sending = pin!(connection.send(outgoing));
    let outcome = loop {
        let deadline = last_progress(begun, state) + RESPONSE_HEAD_TIMEOUT;
        match timeout_at(deadline, sending.as_mut()).await {
            Ok(outcome) => break outcome,
            Err(_) if last_progress(begun, state) + RESPONSE_HEAD_TIMEOUT > deadline => {}
            Err(_) => return Err(Failed { reason: stalled(state), unsent: None }),
        }
    };
    outcome.map_err(|error| match error {
        NotSent::Unsent(again) => Failed { reason: Reason::UpstreamConnect, unsent: Some(again) },
        NotSent::Broken(_) => {
            Failed { reason: state.and_then(Upload::failed).unwrap_or(Reason::UpstreamReset), unsent: None }
        }
    })
}

/// Whose fault it is that nothing moves: the client's while it owes a part of its body.
fn stalled(state: Option<&Upload>) -> Reason {
    if state.is_none_or(Upload::ended) { Reason::UpstreamTimeout } else { Reason::ClientTimeout }
}

fn last_progress(begun: tokio::time::Instant, state: Option<&Upload>) -> tokio::time::Instant {
    state.map_or(begun, |state| state.last_progress().max(begun))
}

fn respond(gate: Rc<Gate>, lease: Lease, received: Received, changes: &HeaderChanges, mut draft: Draft) -> Response {
    let mut headers = received.headers;
    strip_hop_by_hop(&mut headers);
    // Only the gate speaks for the gate.
    headers.remove(&POSTERN_REASON);
    changes.apply(&mut headers);
    draft.edit(|record| record.status = Some(received.status.as_u16()));
    Response::new(received.status, headers, download(received.body, gate, lease, draft))
}
