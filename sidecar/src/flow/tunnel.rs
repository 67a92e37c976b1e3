//! What follows a request that was upgraded: bytes both ways, whatever they mean, to the end. The request's row becomes
//! the tunnel's, because it was one decision.

use std::cell::RefCell;
use std::rc::Rc;

use sidecar_decide::Reason;
use sidecar_decide::filter::HeaderChanges;

use super::attempt::Answered;
use super::connection::{Connection, View};
use super::forward::returned_head;
use super::gate::Gate;
use super::http::{refusal_of, refuse};
use super::record::Draft;
use super::relay::Relay;
use crate::duplex::Opened;
use crate::ending::Ending;
use crate::limit::{Limits, Place};
use crate::log::Kind;
use crate::pool::Lease;
use crate::protocol::{Head, Response, Upgrade, Version};

/// What a client asked for.
pub(super) struct Asked {
    pub(super) upgrade: Upgrade,
    /// The request as it was decided.
    head: Head,
    place: Place,
}

impl Asked {
    /// Takes a place among the tunnels before anybody is asked for one.
    ///
    /// # Errors
    /// Why there is none.
    pub(super) fn enter(gate: &Gate, limits: &Limits, upgrade: Upgrade, head: &Head) -> Result<Self, Reason> {
        let place = gate.tunnel(limits)?;
        Ok(Self { upgrade, head: head.clone(), place })
    }
}

/// Answers a request whose upstream says that it goes on with another protocol.
pub(super) fn switch(
    connection: &Rc<Connection>,
    asked: Asked,
    answered: Answered,
    changes: &HeaderChanges,
    mut draft: Draft,
) -> Response {
    // Its time was for the answer; a tunnel takes as long as it takes.
    let Answered { lease, received, watch, deadline: _ } = answered;
    let Asked { upgrade, head, place } = asked;
    if !upgrade.is_agreed(received.status, &received.headers) {
        return refuse(draft, Reason::UpstreamUpgrade, None);
    }
    // How a tunnel ends is up to both of its ends.
    if let Some(watch) = watch {
        watch.completed();
    }
    let mut headers = returned_head(received.headers, changes);
    let status = upgrade.answer(&mut headers);
    draft.edit(|record| {
        record.kind = Kind::Tunnel;
        record.status = Some(status.as_u16());
    });
    draft.leave();
    let open = Open::enter(connection, head, place);
    Response::switching(status, headers, Box::new(move |client| Box::pin(pass(open, client, lease, draft))))
}

/// Passes bytes on until both ends have ended, or the tunnel is cut.
async fn pass(open: Open, client: Opened, lease: Lease, draft: Draft) {
    let wire = Rc::clone(lease.connection.wire());
    let passing = async {
        let (upstream, line) = lease.switch().await.ok_or(Reason::UpstreamReset)?;
        let relayed = Relay::new(client, upstream, &open.connection.gate.relay_buffer, draft.passed()).run().await;
        relayed.map_err(|reason| line.failure().unwrap_or(reason))
    };
    // TLS to the upstream, or who judges it, knows better why it ended.
    let better = |reason| if reason == Reason::UpstreamReset { wire.failure().unwrap_or(reason) } else { reason };
    let ended = tokio::select! {
        ended = passing => ended.err().map(better),
        reason = open.tunnel.ending.cut_short() => Some(reason),
        // A client that does not read holds up whoever would find it out.
        reason = wire.cut_short() => Some(reason),
    };
    draft.finish(ended);
}

/// The tunnels of a connection while they are open.
#[derive(Default)]
pub(super) struct Tunnels(RefCell<Vec<Rc<Tunnel>>>);

struct Tunnel {
    /// What it was let in for.
    head: Head,
    ending: Ending,
}

/// A tunnel's place among them, for as long as it lives.
struct Open {
    connection: Rc<Connection>,
    tunnel: Rc<Tunnel>,
    _place: Place,
}

impl Open {
    fn enter(connection: &Rc<Connection>, head: Head, place: Place) -> Self {
        let tunnel = Rc::new(Tunnel { head, ending: Ending::default() });
        connection.tunnels.0.borrow_mut().push(Rc::clone(&tunnel));
        connection.gate.live.tunnels(|open| open + 1);
        let open = Self { connection: Rc::clone(connection), tunnel, _place: place };
        // The policy may have changed while the upstream was asked.
        connection.tunnels.review(connection, &connection.view());
        open
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        self.connection.tunnels.0.borrow_mut().retain(|tunnel| !Rc::ptr_eq(tunnel, &self.tunnel));
        self.connection.gate.live.tunnels(|open| open - 1);
    }
}

impl Tunnels {
    /// Cuts those that would not be let in any more. A connection that is a tunnel goes with it.
    pub(super) fn review(&self, connection: &Connection, view: &View) {
        // A listener that is gone lets its connections end.
        if view.listener.is_none() {
            return;
        }
        for tunnel in self.0.borrow().iter() {
            match refusal_of(view, &tunnel.head) {
                Some(reason) if connection.version == Version::Http1 => connection.cut(reason),
                Some(reason) => drop(tunnel.ending.cut(reason)),
                None => {}
            }
        }
    }
}
