//! What follows a request that was upgraded: bytes both ways, whatever they mean, to the end. The request's row becomes
//! the tunnel's, because it was one decision.

use std::rc::Rc;

use http::StatusCode;
use sidecar_decide::Reason;
use sidecar_decide::filter::HeaderChanges;

use super::attempt::Answered;
use super::connection::Connection;
use super::forward::returned_head;
use super::http::refuse;
use super::record::Draft;
use super::relay::Relay;
use crate::log::Kind;
use crate::protocol::{Response, Upgrade};

/// Answers a request whose upstream says that it goes on with another protocol.
pub(super) fn switch(
    connection: &Rc<Connection>,
    upgrade: &Upgrade,
    answered: Answered,
    changes: &HeaderChanges,
    mut draft: Draft,
) -> Response {
    // Its time was for the answer; a tunnel takes as long as it takes.
    let Answered { lease, received, deadline: _ } = answered;
    if !upgrade.is_agreed(received.status, &received.headers) {
        return refuse(draft, Reason::UpstreamUpgrade, None);
    }
    let mut headers = returned_head(received.headers, changes);
    upgrade.write(&mut headers);
    draft.edit(|record| {
        record.kind = Kind::Tunnel;
        record.status = Some(StatusCode::SWITCHING_PROTOCOLS.as_u16());
    });
    let connection = Rc::clone(connection);
    let tunnel = move |client| {
        let passing = async move {
            let ended = match lease.switch().await {
                Some((upstream, _line)) => {
                    Relay::new(client, upstream, &connection.gate.relay_buffer, draft.passed()).run().await
                }
                None => Err(Reason::UpstreamReset),
            };
            draft.finish(ended.err());
        };
        Box::pin(passing) as _
    };
    Response::switching(headers, Box::new(tunnel))
}
