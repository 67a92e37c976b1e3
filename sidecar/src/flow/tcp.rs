//! The life of a connection whose bytes are passed on as they come: decided once, connected, then both ways to its end.
//! One row, when it ends.

use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;

use sidecar_decide::{Decision, Reason, Verdict, route};
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;
use tokio::time::Instant;
use tokio_rustls::server::TlsStream;

use super::attempt::Candidates;
use super::connection::{Connection, View};
use super::record::{Draft, blank, microseconds};
use super::relay::{Passed, Relay};
use crate::client_stream::ClientStream;
use crate::ending::{End, Ending};
use crate::limits::ATTEMPTS;
use crate::log::Kind;
use crate::pool::Line;

/// Serves a connection after its handshake, until both ends have closed, or until it is cut.
pub(super) async fn serve(connection: Rc<Connection>, stream: TlsStream<TcpStream>) {
    let view = connection.view();
    let mut row = Row { draft: Some(draft(&connection, &view)), passed: Passed::default() };
    let decided = decide(&connection, &view);
    if let Ok((rule, decision)) = decided {
        let scope = &view.served.generation.rule_scopes[rule];
        row.edit(|draft| draft.decided(scope, decision.verdict, decision.reason));
    }
    let rule = match (decided, refused(decided)) {
        (Ok((rule, _)), None) => rule,
        (_, reason) => {
            row.finish(reason);
            // Whichever way it ends, the connection is over.
            let _ended = ClientStream::new(stream).shutdown().await;
            return;
        }
    };
    let passing = async {
        let (upstream, _line) = connect(&connection, &view, rule, &mut row).await?;
        Relay::new(stream, upstream, &connection.gate.relay_buffer, &row.passed).run().await
    };
    let ended = tokio::select! {
        ended = passing => ended.err(),
        reason = is_cut(&connection.ending) => Some(reason),
    };
    row.finish(ended);
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
    let rule = listener.table.find(&route::Request { host, path: "/", method, headers, query: None })?;
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

/// Resolves when a connection has to end at once. It carries one thing, so that being asked to finish changes nothing.
async fn is_cut(ending: &Ending) -> Reason {
    let mut known = End::Open;
    loop {
        known = ending.beyond(known).await;
        if let End::Cut(reason) = known {
            return reason;
        }
    }
}

/// Connects to one of the rule's addresses: the one whose turn it is, or the next that answers.
async fn connect(
    connection: &Connection,
    view: &View,
    rule: usize,
    row: &mut Row,
) -> Result<(TcpStream, Line), Reason> {
    let limits = &view.served.generation.snapshot.limits;
    row.open(|draft| draft.enter(limits))?;
    // Counted until it is connected, as a request is until it is answered.
    let pended = connection.gate.pend(limits).await;
    let _pending = row.open(|draft| pended.map_err(|reason| draft.refused(reason)))?;
    let candidates = Candidates::of(&connection.gate, &view.served, rule).ok_or(Reason::RouteInvalid)?;
    let mut failed = None;
    let mut tried = [0; ATTEMPTS];
    for attempts in 0..ATTEMPTS {
        let endpoint = match candidates.next(&tried[..attempts]) {
            Ok(endpoint) => endpoint,
            Err(reason) => return Err(failed.unwrap_or(reason)),
        };
        tried[attempts] = endpoint;
        let watch = candidates.watch(endpoint);
        let (shelf, asked) = (&candidates.shelves[endpoint], Instant::now());
        let connected = shelf.line().await;
        row.tried(shelf.endpoint().address(), asked, connected.is_ok());
        match connected {
            Ok(connected) => {
                if let Some(watch) = watch {
                    watch.connected();
                }
                return Ok(connected);
            }
            Err(error) => {
                failed = Some(error.reason());
                if let Some(watch) = watch {
                    watch.failed(error.reason());
                }
            }
        }
    }
    Err(failed.unwrap_or(Reason::UpstreamNoEndpoint))
}

/// The connection's row. Dropped before it is finished, it says that the client went away.
struct Row {
    draft: Option<Draft>,
    passed: Passed,
}

impl Row {
    fn edit(&mut self, edit: impl FnOnce(&mut Draft)) {
        if let Some(draft) = &mut self.draft {
            edit(draft);
        }
    }

    /// The draft; there is one until the row is finished.
    fn open<T>(&mut self, edit: impl FnOnce(&mut Draft) -> Result<T, Reason>) -> Result<T, Reason> {
        self.draft.as_mut().map_or(Err(Reason::ClientClosed), edit)
    }

    fn tried(&mut self, address: SocketAddr, asked: Instant, is_connected: bool) {
        self.edit(|draft| {
            draft.edit(|record| {
                record.upstream = Some(address);
                record.attempts += 1;
                record.connect_us = is_connected.then(|| microseconds(asked.elapsed()));
            });
        });
    }

    fn finish(mut self, failure: Option<Reason>) {
        self.count();
        if let Some(draft) = self.draft.take() {
            draft.finish(failure);
        }
    }

    fn count(&mut self) {
        let (up, down) = (self.passed.up.get(), self.passed.down.get());
        self.edit(|draft| {
            draft.edit(|record| {
                record.request_bytes = up;
                record.response_bytes = down;
            });
        });
    }
}

impl Drop for Row {
    /// Still open where its task was ended: what has passed until then belongs to the row.
    fn drop(&mut self) {
        self.count();
    }
}
