//! An allowed request on its way to an upstream, and the response on its way back.

use std::cell::RefCell;
use std::rc::Rc;
use std::sync::Arc;

use http::StatusCode;
use http::header::{EXPECT, HeaderMap};
use http_body::Body as _;
use sidecar_decide::filter::HeaderChanges;
use sidecar_decide::{Reason, Rule, Verdict};

use super::attempt::{Answered, Candidates, Exchange, Patience};
use super::body::{Begun, Upload, download};
use super::connection::{Connection, View};
use super::gate::Gate;
use super::http::{POSTERN_REASON, Passage, refuse};
use super::record::Draft;
use super::tunnel::{self, Asked};
use crate::filter::{self, Origin};
use crate::log::Copied;
use crate::message_type::Reading;
use crate::protocol::{Body, Head, Outgoing, Request, Response, Upgrade, Version, strip_hop_by_hop, upstream_host};

/// Sends a request to one of its rule's endpoints and answers with what comes back.
pub(super) async fn forward(
    connection: &Rc<Connection>,
    view: &View,
    passage: Passage,
    request: Request,
    mut draft: Draft,
) -> Response {
    let generation = &view.served.generation;
    let rule = &generation.snapshot.rules[passage.rule];
    let Some(candidates) = Candidates::of(&connection.gate, &view.served, passage.rule) else {
        return refuse(draft, Reason::RouteInvalid, Some(request.body));
    };
    let Request { head, body, upgrade } = request;
    // Its body would be the other protocol's to understand.
    let upgrade = upgrade.filter(|_| body.is_end_stream());
    let asked = upgrade.map(|upgrade| Asked::enter(&connection.gate, &generation.limits, upgrade, &head));
    let asked = match asked.transpose() {
        Ok(asked) => asked,
        Err(reason) => {
            draft.refused(reason);
            return refuse(draft, reason, Some(body));
        }
    };
    let upgrade = asked.as_ref().map(|asked| &asked.upgrade);
    let reading = (!body.is_end_stream()).then(|| Reading::of(&head.headers));
    let head = match outgoing_head(connection, view, &passage, head, upgrade, &draft) {
        Ok(head) => head,
        Err(reason) => {
            draft.decided(&generation.rule_scopes[passage.rule], Verdict::Refused, Some(reason));
            return refuse(draft, reason, Some(body));
        }
    };
    let (max_bytes, names) = (generation.limits.request_body_bytes, &generation.snapshot.gate_names);
    let upload = reading.map(|reading| Upload::new(body, max_bytes, Arc::clone(names), reading));
    draft.uploads(upload.clone(), copies(&connection.gate, rule));
    draft.trace(|trace| trace.ask(&passage.target));
    let own = RefCell::default();
    let mut exchange = Exchange {
        outgoing: Outgoing { head, body: upload.as_ref().map_or(Body::EMPTY, Upload::body) },
        target: &passage.target,
        candidates,
        patience: Patience::of(&rule.timeouts),
        upload,
        draft: &mut draft,
        alarm: if connection.version == Version::Http1 { &connection.alarm } else { &own },
        watch: None,
        is_trying: false,
    };
    match exchange.run().await {
        Ok(answered) if answered.received.status == StatusCode::SWITCHING_PROTOCOLS => match asked {
            Some(asked) => tunnel::switch(connection, asked, answered, &rule.filters.response, draft),
            // Nothing was to be switched, so nobody can speak what would follow.
            None => {
                let unwanted = draft.unwanted();
                refuse(draft, Reason::UpstreamUpgrade, unwanted)
            }
        },
        Ok(answered) if asked.as_ref().is_some_and(|asked| asked.upgrade.is_feigned(answered.received.status)) => {
            refuse(draft, Reason::UpstreamUpgrade, None)
        }
        Ok(answered) => respond(answered, &rule.filters.response, draft).await,
        Err(reason) => {
            if reason == Reason::LimitBodySize {
                draft.decided(&generation.rule_scopes[passage.rule], Verdict::Refused, Some(reason));
            }
            let unwanted = draft.unwanted();
            refuse(draft, reason, unwanted)
        }
    }
}

/// What the row keeps of the request's body and of the response's, of which nothing has come yet.
fn copies(gate: &Gate, rule: &Rule) -> [Option<Copied>; 2] {
    let Some(bodies) = rule.capture.as_ref().and_then(|capture| capture.bodies) else { return [None, None] };
    let most = usize::try_from(bodies.max_bytes).unwrap_or(0);
    [bodies.request, bodies.response].map(|is_asked| is_asked.then(|| Copied::new(gate.log.bodies(), most)))
}

fn outgoing_head(
    connection: &Connection,
    view: &View,
    passage: &Passage,
    head: Head,
    upgrade: Option<&Upgrade>,
    draft: &Draft,
) -> Result<Head, Reason> {
    let Head { method, mut headers, .. } = head;
    // The gate itself answers 100 (Continue) as soon as the upstream takes the body (RFC 9110 §10.1.1).
    strip_hop_by_hop(&mut headers, &EXPECT);
    if let Some(upgrade) = upgrade {
        upgrade.ask(&mut headers);
    }
    upstream_host(&mut headers, &passage.host);
    let snapshot = &view.served.generation.snapshot;
    let rule = &snapshot.rules[passage.rule];
    let (request_id, traceparent) = (draft.request_id(), draft.traceparent());
    let origin = Origin { peer: connection.peer_address(), is_tls: connection.is_tls(), request_id, traceparent };
    filter::depart(snapshot, rule, origin, |asked| connection.told(view, asked), &mut headers)?;
    Ok(Head { method, target: passage.target.clone(), headers })
}

/// The head of a response as the client is to get it.
pub(super) fn returned_head(mut headers: HeaderMap, changes: &HeaderChanges) -> HeaderMap {
    // Only the gate speaks for the gate.
    strip_hop_by_hop(&mut headers, &POSTERN_REASON);
    changes.apply(&mut headers);
    headers
}

async fn respond(answered: Answered, changes: &HeaderChanges, mut draft: Draft) -> Response {
    let Answered { lease, received, watch, deadline } = answered;
    let Ok(begun) = Begun::of(received.body).await else {
        let reason = lease.connection.wire().failure().unwrap_or(Reason::UpstreamReset);
        if let Some(watch) = &watch {
            watch.interrupted(reason);
        }
        let unwanted = draft.unwanted();
        return refuse(draft, reason, unwanted);
    };
    let headers = returned_head(received.headers, changes);
    draft.edit(|record| record.status = Some(received.status.as_u16()));
    draft.note_grpc(&headers);
    let reading = if draft.says_message() { Reading::Nothing } else { Reading::of(&headers) };
    Response::new(received.status, headers, download(begun, (lease, watch), draft, reading, deadline))
}
