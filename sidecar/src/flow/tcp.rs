//! The life of a connection whose bytes are passed on as they come: decided once, connected, then both ways to its end.
//! One row, when it ends.

use std::rc::Rc;
use std::sync::Arc;

use sidecar_decide::{Decision, Reason, Verdict, route};
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;
use tokio::time::Instant;
use tokio_rustls::server::TlsStream;

use super::attempt::Candidates;
use super::connection::{Connection, View};
use super::record::{Draft, blank};
use super::relay::Relay;
use crate::client_stream::ClientStream;
use crate::duplex::Opened;
use crate::limits::ATTEMPTS;
use crate::log::Kind;
use crate::pool::Line;

/// Serves a connection after its handshake, until both ends have closed, or until it is cut.
pub(super) async fn serve(connection: Rc<Connection>, stream: TlsStream<TcpStream>) {
    let view = connection.view();
    let mut draft = draft(&connection, &view);
    let decided = decide(&connection, &view);
    if let Ok((rule, decision)) = decided {
        draft.decided(&view.served.generation.rule_scopes[rule], decision.verdict, decision.reason);
    }
    let rule = match (decided, refused(decided)) {
        (Ok((rule, _)), None) => rule,
        (_, reason) => {
            draft.finish(reason);
            // Whichever way it ends, the connection is over.
            let _ended = ClientStream::new(stream).shutdown().await;
            return;
        }
    };
    let passing = async {
        let (upstream, _line) = connect(&connection, &view, rule, &mut draft).await?;
        let (client, upstream) = (Opened::new(stream), Opened::new(upstream));
        Relay::new(client, upstream, &connection.gate.relay_buffer, draft.passed()).run().await
    };
    let ended = tokio::select! {
        ended = passing => ended.err(),
        reason = connection.ending.cut_short() => Some(reason),
    };
    draft.finish(ended);
}

fn draft(connection: &Connection, view: &View) -> Draft {
    let mut record = blank(Kind::Connection, connection.client);
    record.time = connection.arrival.time;
    record.scope = Some(Arc::clone(&view.scope));
    record.peer.clone_from(&view.peer);
    record.sni.clone_from(&connection.sni);
    record.resumed = connection.is_resumed;
    let (gate, ending) = (Rc::clone(&connection.gate), Rc::clone(&connection.ending));
    Draft::new(gate, ending, Arc::clone(&view.scope), connection.arrival.started, Box::new(record))
}

/// Decides for the whole connection: by the name the client asked for, then who it is. With the index of the rule.
fn decide(connection: &Connection, view: &View) -> Result<(usize, Decision), Reason> {
    let snapshot = &view.served.generation.snapshot;
    let listener = view.listener.and_then(|index| snapshot.listeners.get(index)).ok_or(Reason::RouteNoHost)?;
    // Rules of such a listener have no matches, so that only the host counts.
    let (method, headers) = (&http::Method::CONNECT, &http::HeaderMap::new());
    let host = connection.sni.as_deref().unwrap_or_default();
    let rule = listener.table.find(&route::Request {
        host,
        path: "/",
        method,
        headers,
        query: None,
        message: route::Sent::Nothing,
    })?;
    Ok((rule, snapshot.decide(&snapshot.rules[rule], &view.caller)))
}

fn refused(decided: Result<(usize, Decision), Reason>) -> Option<Reason> {
    match decided {
        Ok((_, decision)) if decision.verdict == Verdict::Refused => decision.reason,
        Ok(_) => None,
        Err(reason) => Some(reason),
    }
}

/// Why a connection would be refused now that was let in before, if it would.
pub(super) fn refusal(connection: &Connection, view: &View) -> Option<Reason> {
    refused(decide(connection, view))
}

/// Connects to one of the rule's addresses: the one whose turn it is, or the next that answers.
async fn connect(
    connection: &Connection,
    view: &View,
    rule: usize,
    draft: &mut Draft,
) -> Result<(TcpStream, Line), Reason> {
    let limits = &view.served.generation.limits;
    draft.enter(limits)?;
    // Counted until it is connected, as a request is until it is answered.
    let _pending = connection.gate.pend(limits).await.map_err(|reason| draft.refused(reason))?;
    let candidates = Candidates::of(&connection.gate, &view.served, rule).ok_or(Reason::RouteInvalid)?;
    let mut failed = None;
    let mut tried = [0; ATTEMPTS];
    for attempts in 0..ATTEMPTS {
        let chosen = match candidates.next(&tried[..attempts]) {
            Ok(chosen) => chosen,
            Err(reason) => return Err(failed.unwrap_or(reason)),
        };
        tried[attempts] = chosen.endpoint;
        let watch = candidates.watch(chosen.endpoint);
        let (shelf, asked) = (&candidates.shelves[chosen.endpoint], Instant::now());
        draft.asks(candidates.asked(chosen));
        let connected = shelf.line().await;
        draft.edit(|record| {
            record.upstream = Some(shelf.endpoint().address());
            record.attempts += 1;
        });
        match connected {
            Ok(connected) => {
                draft.connected(asked.elapsed());
                if let Some(watch) = watch {
                    watch.connected();
                }
                return Ok(connected);
            }
            Err(error) => {
                failed = Some(error.reason());
                draft.upstream_failed(error.reason(), error.limiter());
                if let Some(watch) = watch {
                    watch.failed(error.reason());
                }
            }
        }
    }
    Err(failed.unwrap_or(Reason::UpstreamNoEndpoint))
}
