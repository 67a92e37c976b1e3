//! What a request's message is, where its rule depends on that: the first bytes of its body, before it is decided.
//!
//! Only where a rule asks. Bodies of others are not waited for, and whoever sends none is decided by its head.

use sidecar_decide::message_type::RootScan;
use sidecar_decide::route::{self, Sent};
use sidecar_decide::{MessageType, Reason, path};
use tokio::time::timeout;

use super::body::reason_of;
use super::connection::{Connection, View};
use super::http::host_of;
use super::record::Draft;
use crate::limits::{MESSAGE_PIECES, MESSAGE_WAIT};
use crate::message_type::Message;
use crate::protocol::{Inbound, Request};

/// What is known of a request's message, once all is known that its rule depends on.
///
/// # Errors
/// Why there is no waiting for it, or it did not come.
pub(super) async fn message(
    connection: &Connection,
    view: &View,
    request: &mut Request,
    draft: &mut Draft,
) -> Result<Sent, Reason> {
    let listener = view.listener.and_then(|index| view.served.generation.snapshot.listeners.get(index));
    let Some(table) = listener.map(|listener| &listener.table).filter(|table| table.asks_for_messages()) else {
        return Ok(Sent::Nothing);
    };
    if http_body::Body::is_end_stream(&request.body) {
        return Ok(Sent::Nothing);
    }
    let sent = Sent::of(&request.head.headers);
    if sent != Sent::Unread || !depends(table, request) {
        return Ok(sent);
    }
    // It holds some of its body, as who waits for an upstream does.
    let limits = &view.served.generation.limits;
    let _pending = connection.gate.pend(limits).await.map_err(|reason| draft.refused(reason))?;
    let found = timeout(MESSAGE_WAIT, root(&mut request.body)).await.unwrap_or(Err(Reason::ClientTimeout))?;
    draft.edit(|record| record.message_type = found.map(Message::Known));
    Ok(found.map_or(Sent::Nothing, Sent::Known))
}

/// Whether the rule of a request depends on its message; not where there will be none for another reason.
fn depends(table: &route::RouteTable, request: &Request) -> bool {
    let head = &request.head;
    let (Ok(host), Ok(path)) = (host_of(head), path::normalise(head.target.path())) else { return false };
    let (method, headers, query) = (&head.method, &head.headers, head.target.query());
    table.depends_on_message(&route::Request { host, path: &path, method, headers, query, message: Sent::Unread })
}

/// What its first bytes say; `None` where there are none.
async fn root(body: &mut Inbound) -> Result<Option<MessageType>, Reason> {
    let mut scan = RootScan::new();
    let mut found = None;
    let look = |bytes: &[u8]| {
        found = scan.feed(bytes);
        found.is_some()
    };
    body.look(MESSAGE_PIECES, look).await.map_err(|error| reason_of(&error))?;
    Ok(found.or_else(|| scan.ended()))
}
