//! An allowed request on its way to an upstream, and the response on its way back.

use std::rc::Rc;

use http::StatusCode;
use http::header::EXPECT;
use http_body::Body as _;
use sidecar_decide::{Reason, Verdict};

use super::attempt::{Answered, Candidates, Exchange, Patience};
use super::body::{Upload, download};
use super::connection::View;
use super::gate::Gate;
use super::http::{POSTERN_REASON, Passage, refuse};
use super::record::Draft;
use crate::protocol::{Body, Head, Outgoing, Request, Response, strip_hop_by_hop, upstream_host};

/// Sends a request to one of its rule's endpoints and answers with what comes back.
pub(super) async fn forward(
    gate: &Gate,
    view: &View,
    passage: Passage,
    request: Request,
    mut draft: Draft,
) -> Response {
    let generation = &view.served.generation;
    let rule = &generation.snapshot.rules[passage.rule];
    let Some(candidates) = Candidates::of(gate, &view.served, passage.rule) else {
        return refuse(draft, Reason::RouteInvalid, Some(request.body));
    };
    let max_bytes = generation.snapshot.limits.max_request_body_size.bytes();
    let Request { head, body } = request;
    let upload = (!body.is_end_stream()).then(|| Upload::new(body, max_bytes));
    draft.uploads(upload.clone());
    let outgoing = outgoing(&passage, head, upload.as_ref());
    let exchange = Exchange { candidates, patience: Patience::of(&rule.timeouts), upload, draft: &mut draft };
    match exchange.run(outgoing).await {
        // Nothing was to be upgraded, so nobody can speak what would follow.
        Ok(answered) if answered.received.status == StatusCode::SWITCHING_PROTOCOLS => {
            refuse(draft, Reason::UpstreamReset, None)
        }
        Ok(answered) => respond(answered, draft),
        Err(reason) => {
            if reason == Reason::LimitBodySize {
                draft.decided(&generation.rule_scopes[passage.rule], Verdict::Refused, Some(reason));
            }
            refuse(draft, reason, None)
        }
    }
}

fn outgoing(passage: &Passage, head: Head, upload: Option<&Rc<Upload>>) -> Outgoing {
    let mut headers = head.headers;
    strip_hop_by_hop(&mut headers);
    upstream_host(&mut headers, &passage.host);
    // The gate itself answers 100 (Continue) as soon as the upstream takes the body (RFC 9110 §10.1.1).
    headers.remove(EXPECT);
    let head = Head { method: head.method, target: passage.target.clone(), headers };
    Outgoing { head, body: upload.map_or(Body::EMPTY, Upload::body) }
}

fn respond(answered: Answered, mut draft: Draft) -> Response {
    let Answered { lease, received, deadline } = answered;
    let mut headers = received.headers;
    strip_hop_by_hop(&mut headers);
    // Only the gate speaks for the gate.
    headers.remove(&POSTERN_REASON);
    draft.edit(|record| record.status = Some(received.status.as_u16()));
    Response::new(received.status, headers, download(received.body, lease, draft, deadline))
}
