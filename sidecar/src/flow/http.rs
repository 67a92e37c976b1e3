//! The life of a request: decided on one generation, then refused or forwarded; one row either way.

use std::borrow::Cow;
use std::pin::pin;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Instant, SystemTime};

use bytes::Bytes;
use futures_util::future::poll_immediate;
use http::header::{ALLOW, CONTENT_LENGTH, CONTENT_TYPE, HOST, HeaderMap, HeaderName, HeaderValue, LOCATION};
use http::{Method, StatusCode, Uri};
use http_body::Body as _;
use sidecar_decide::filter::{Came, Redirect, X_REQUEST_ID};
use sidecar_decide::message_type::Call;
use sidecar_decide::route::Sent;
use sidecar_decide::{MessageType, Reason, Verdict, path, route};

use super::capture::capture;
use super::connection::{Connection, View};
use super::forward::forward;
use super::grpc::{self, is_grpc};
use super::peek;
use super::record::Draft;
use super::rest::refusal;
use crate::filter::{self, Ids};
use crate::limit::Pend;
use crate::log::{Kind, Record, clip, clip_shared};
use crate::message_type::Message;
use crate::protocol::{Body, Head, Inbound, Request, Response, Upgrade, Version};

/// The response header that tells a refusal of the gate from an answer of the application.
pub(super) static POSTERN_REASON: HeaderName = HeaderName::from_static("postern-reason");

/// Where a request goes that may pass.
pub(super) struct Passage {
    /// Index of its rule.
    pub(super) rule: usize,
    /// What the upstream is asked for: the path that was matched, as its rule rewrites it, with the client's query.
    pub(super) target: Uri,
    /// Whom it is asked for.
    pub(super) host: Arc<str>,
}

impl Passage {
    /// Where the client is sent instead, if its rule sends it somewhere.
    fn redirect<'a>(&self, view: &'a View) -> Option<&'a Redirect> {
        view.served.generation.snapshot.rules[self.rule].filters.redirect.as_ref()
    }
}

/// Answers one request.
pub(super) async fn handle(connection: Rc<Connection>, mut request: Request) -> Response {
    let view = connection.view();
    let time = SystemTime::now();
    let fresh = || connection.request_ids.fresh(time);
    let ids = filter::arrive(&view.served.generation.snapshot, &mut request.head.headers, fresh);
    let mut draft = draft(&connection, &view, &request.head, time, ids);
    let decided = match peek::message(&connection, &view, &mut request, &mut draft).await {
        Ok(sent) => decide(&connection, &view, &request, sent, &mut draft),
        Err(reason) => Err(reason),
    };
    match decided {
        Ok(passage) if passage.redirect(&view).is_some() => redirect(&connection, &view, &passage, request, draft),
        Ok(passage) => match admit(&connection, &view, &mut draft).await {
            // Counted until there is a response's head: what is not answered holds back what comes.
            Ok(_pending) => forward(&connection, &view, passage, request, draft).await,
            Err(reason) => refuse(draft, reason, Some(request.body)),
        },
        Err(reason) => {
            let mut response = refuse(draft, reason, Some(request.body));
            if reason == Reason::RouteNoMethod {
                response.headers.insert(ALLOW, allowed_methods(&view, &request.head));
            }
            response
        }
    }
}

/// Waits for a place among the requests that are under way.
async fn admit(connection: &Connection, view: &View, draft: &mut Draft) -> Result<Pend, Reason> {
    let limits = &view.served.generation.limits;
    draft.enter(limits)?;
    let mut pend = pin!(connection.gate.pend(limits));
    let pend = match poll_immediate(pend.as_mut()).await {
        Some(pend) => pend,
        None => {
            let begun = Instant::now();
            let pend = pend.await;
            draft.waited(Some(begun.elapsed()));
            pend
        }
    };
    pend.map_err(|reason| draft.refused(reason))
}

fn draft(connection: &Connection, view: &View, head: &Head, time: SystemTime, ids: Ids) -> Draft {
    let mut record = Record::new(Kind::Request, time);
    record.client_addr = Some(connection.client.into());
    record.request_id = Some(ids.request);
    record.trace_id = ids.trace.map(|parent| parent.trace_id);
    let begun = Instant::now();
    let trace = connection.gate.tracer.as_ref().and_then(|tracer| tracer.begin(ids.trace.as_ref(), begun));
    record.scope = Some(Arc::clone(&view.scope));
    record.peer.clone_from(&view.peer);
    record.sni.clone_from(&connection.sni);
    record.resumed = connection.is_resumed;
    record.protocol = Some(connection.version.name());
    record.method = Some(head.method.clone());
    record.path = Some(clip(head.target.path()));
    let (gate, ending) = (Rc::clone(&connection.gate), Rc::clone(&connection.ending));
    let record = gate.log.place(record);
    let mut draft = Draft::new(gate, ending, Arc::clone(&view.scope), begun, record);
    if let Some(mut trace) = trace {
        trace.is_tls = connection.is_tls();
        draft.traces(trace);
    }
    // Nothing else is a call: 200 would tell others that they got what they asked for.
    if connection.version == Version::Http2 && head.method == Method::POST && is_grpc(&head.headers) {
        draft.speaks_grpc();
    }
    draft
}

/// Decides a request: host, path, rule, caller, size, in this order; the row says how far it got.
fn decide(
    connection: &Connection,
    view: &View,
    request: &Request,
    sent: Sent,
    draft: &mut Draft,
) -> Result<Passage, Reason> {
    let head = &request.head;
    if request.upgrade == Some(Upgrade::Unknown) {
        return Err(Reason::RouteNoProtocol);
    }
    // A tunnel is asked for, and there are none.
    if head.method == Method::CONNECT {
        return Err(Reason::RouteNoMethod);
    }
    let host = known_host(connection, head)?;
    draft.edit(|record| record.host = Some(clip_shared(&host)));
    if connection.is_misdirected(view, &host) {
        return Err(Reason::RouteMisdirected);
    }
    let path = path::normalise(head.target.path())?;
    if let Cow::Owned(path) = &path {
        draft.edit(|record| record.path = Some(clip(path)));
    }
    let snapshot = &view.served.generation.snapshot;
    let index = rule_of(view, head, sent, (&host, &path))?;
    let rule = &snapshot.rules[index];
    if let Some(rules) = &rule.capture {
        capture(&connection.gate, rules, head, draft);
    }
    if draft.is_grpc() {
        let call = Call::find(&rule.calls, &path)
            .map_or(Message::Known(MessageType::OTHER), |name| Message::Call(Arc::clone(name)));
        draft.edit(|record| record.message_type = Some(call));
    }
    draft.trace(|trace| trace.path_pattern.clone_from(&rule.path_pattern));
    let path = match &rule.filters.path {
        Some(change) => Cow::Owned(change.apply(&path)),
        None => path,
    };
    let passage = Passage { rule: index, target: upstream_target(&head.target, path)?, host };
    let decision = snapshot.decide(rule, &view.caller);
    let scope = &view.served.generation.rule_scopes[index];
    draft.decided(scope, decision.verdict, decision.reason);
    if let (Verdict::Refused, Some(reason)) = (decision.verdict, decision.reason) {
        return Err(reason);
    }
    if declared_length(&head.headers) > Some(view.served.generation.limits.request_body_bytes) {
        draft.decided(scope, Verdict::Refused, Some(Reason::LimitBodySize));
        return Err(Reason::LimitBodySize);
    }
    Ok(passage)
}

/// Index of the rule that a request falls under.
fn rule_of(view: &View, head: &Head, message: Sent, (host, path): (&str, &str)) -> Result<usize, Reason> {
    let snapshot = &view.served.generation.snapshot;
    let listener = view.listener.and_then(|index| snapshot.listeners.get(index)).ok_or(Reason::RouteNoHost)?;
    let (method, headers, query) = (&head.method, &head.headers, head.target.query());
    let find = |path: &str| listener.table.find(&route::Request { host, path, method, headers, query, message });
    let index = find(path)?;
    // Some servers cut parameters off before they look at a path; it must not lead them elsewhere.
    if let Some(bare) = path::without_parameters(path)
        && find(&bare) != Ok(index)
    {
        return Err(Reason::RouteBadPath);
    }
    Ok(index)
}

/// Why a request would be refused now that was let in before, if it would.
pub(super) fn refusal_of(view: &View, head: &Head) -> Option<Reason> {
    let rule = || rule_of(view, head, Sent::Nothing, (host_of(head)?, &path::normalise(head.target.path())?));
    let snapshot = &view.served.generation.snapshot;
    match rule().map(|rule| snapshot.decide(&snapshot.rules[rule], &view.caller)) {
        Ok(decision) if decision.verdict == Verdict::Refused => decision.reason,
        Ok(_) => None,
        Err(reason) => Some(reason),
    }
}

/// What a 405 must say (RFC 9110 §15.5.6): the methods of its host and path; none for a tunnel, which has no path.
fn allowed_methods(view: &View, head: &Head) -> HeaderValue {
    let methods = || {
        let (host, path) = (host_of(head).ok()?, path::normalise(head.target.path()).ok()?);
        let listener = view.served.generation.snapshot.listeners.get(view.listener?)?;
        let (method, headers, query) = (&head.method, &head.headers, head.target.query());
        let message = Sent::Nothing;
        let methods = listener.table.methods(&route::Request { host, path: &path, method, headers, query, message });
        HeaderValue::try_from(methods.join(", ")).ok()
    };
    let tunnel = head.method == Method::CONNECT;
    (!tunnel).then(methods).flatten().unwrap_or_else(|| HeaderValue::from_static(""))
}

/// The one host a request is for, as its connection has it where that was asked for the same one before.
fn known_host(connection: &Connection, head: &Head) -> Result<Arc<str>, Reason> {
    let named = named_host(head)?;
    let mut known = connection.host.borrow_mut();
    match &*known {
        Some(host) if host.as_bytes() == named => Ok(Arc::clone(host)),
        _ => {
            let host: Arc<str> = checked_host(named)?.into();
            *known = Some(Arc::clone(&host));
            Ok(host)
        }
    }
}

/// The one host a request is for.
pub(super) fn host_of(head: &Head) -> Result<&str, Reason> {
    checked_host(named_host(head)?)
}

/// What a request names as its host: in its target, else in its one `Host` (RFC 9112 §3.2).
fn named_host(head: &Head) -> Result<&[u8], Reason> {
    let mut fields = head.headers.get_all(HOST).iter();
    let field = match (fields.next(), fields.next()) {
        (field, None) => field,
        (_, Some(_)) => return Err(Reason::ClientMalformed),
    };
    let authority = head.target.authority().map(|authority| authority.as_str().as_bytes());
    authority.or_else(|| field.map(HeaderValue::as_bytes)).ok_or(Reason::ClientMalformed)
}

fn checked_host(named: &[u8]) -> Result<&str, Reason> {
    let host = std::str::from_utf8(named).ok().filter(|host| route::is_host(host));
    host.ok_or(Reason::ClientMalformed)
}

fn declared_length(headers: &HeaderMap) -> Option<u64> {
    headers.get(CONTENT_LENGTH)?.to_str().ok()?.parse().ok()
}

/// The target in origin form, with exactly the path that was matched.
fn upstream_target(target: &Uri, path: Cow<'_, str>) -> Result<Uri, Reason> {
    let unchanged = target.path_and_query().filter(|_| matches!(path, Cow::Borrowed(_)));
    if let Some(path_and_query) = unchanged {
        return Ok(Uri::from(path_and_query.clone()));
    }
    let mut text = path.into_owned();
    if let Some(query) = target.query() {
        text.push('?');
        text.push_str(query);
    }
    text.parse().map_err(|_| Reason::RouteBadPath)
}

/// The gate's own answer: the reason's status, and the reason for whoever has to find out why. `unwanted` is the
/// request's body where nobody else has it.
pub(super) fn refuse(mut draft: Draft, reason: Reason, unwanted: Option<Inbound>) -> Response {
    if draft.is_grpc() {
        return refuse_grpc(draft, reason);
    }
    let status = reason.facts().http.and_then(|code| StatusCode::from_u16(code).ok());
    let status = status.unwrap_or(StatusCode::FORBIDDEN);
    let body = format!("{{\"reason\":\"{reason}\"}}\n");
    let mut headers = own_headers(&draft);
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    headers.insert(&POSTERN_REASON, HeaderValue::from_static(reason.code()));
    draft.edit(|record| record.response_bytes = body.len() as u64);
    answer(draft, Some(reason), status, headers, Bytes::from(body), unwanted)
}

/// The same for gRPC: a head that is all of the answer. It does not wait for the rest of the request's body, which may have
/// no end before its client knows.
fn refuse_grpc(mut draft: Draft, reason: Reason) -> Response {
    let mut headers = own_headers(&draft);
    grpc::refuse(&mut headers, reason);
    headers.insert(&POSTERN_REASON, HeaderValue::from_static(reason.code()));
    draft.edit(|record| {
        record.status = Some(StatusCode::OK.as_u16());
        record.grpc_status = Some(grpc::status_of(reason));
    });
    draft.finish(Some(reason));
    Response::new(StatusCode::OK, headers, Body::EMPTY)
}

/// Sends an allowed client elsewhere.
fn redirect(connection: &Connection, view: &View, passage: &Passage, request: Request, draft: Draft) -> Response {
    let snapshot = &view.served.generation.snapshot;
    let filters = &snapshot.rules[passage.rule].filters;
    let arrival = filter::arrival(snapshot, connection.is_tls());
    let came = Came { headers: &request.head.headers, host: &passage.host };
    let path_and_query = passage.target.path_and_query().map_or("/", |target| target.as_str());
    let status = filters.redirect.as_ref().and_then(|redirect| StatusCode::from_u16(redirect.status()).ok());
    let location = filters.redirect.as_ref().and_then(|to| to.location(&arrival, &came, path_and_query));
    let (Some(status), Some(location)) = (status, location) else {
        return refuse(draft, Reason::RouteInvalid, Some(request.body));
    };
    let mut headers = own_headers(&draft);
    headers.insert(LOCATION, location);
    filters.response.apply(&mut headers);
    answer(draft, None, status, headers, Bytes::new(), Some(request.body))
}

/// What all the gate's own answers say: whoever is told of one can name its row.
fn own_headers(draft: &Draft) -> HeaderMap {
    let mut headers = HeaderMap::with_capacity(4);
    if let Some(id) = draft.request_id() {
        headers.insert(&X_REQUEST_ID, id);
    }
    headers
}

/// Answers with a text of the gate's own, and sends the row.
fn answer(
    mut draft: Draft,
    reason: Option<Reason>,
    status: StatusCode,
    mut headers: HeaderMap,
    text: Bytes,
    unwanted: Option<Inbound>,
) -> Response {
    draft.edit(|record| record.status = Some(status.as_u16()));
    draft.finish(reason);
    headers.insert(CONTENT_LENGTH, HeaderValue::from(text.len()));
    let body = match unwanted {
        Some(unwanted) if !unwanted.is_end_stream() => refusal(text, unwanted),
        _ => Body::Bytes(text),
    };
    Response::new(status, headers, body)
}
