//! Accepts on one socket until told to stop, and sees its connections to their end.

use std::future::poll_fn;
use std::io;
use std::net::SocketAddr;
use std::rc::Rc;
use std::task::Poll;
use std::time::Duration;

use sidecar_decide::Reason;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::task::coop::unconstrained;
use tokio::time::{sleep, timeout};

use crate::config::ListenerKey;
use crate::flow::{self, Door, Gate};
use crate::limits::{ACCEPT_BACKOFF, CUT_TIMEOUT};
use crate::protocol::Closing;

/// One listener of one worker.
pub(super) struct Acceptor {
    pub(super) gate: Rc<Gate>,
    pub(super) key: ListenerKey,
    /// The newest; a connection keeps the one it was accepted with.
    pub(super) door: watch::Receiver<Door>,
    pub(super) closing: Closing,
    /// Time for its connections to finish once it is closing.
    pub(super) drain_timeout: Duration,
}

impl Acceptor {
    /// Accepts until closing, then lets the connections finish.
    pub(super) async fn run(self, listener: TcpListener) {
        let mut connections = JoinSet::new();
        let mut closing = self.closing.clone();
        loop {
            tokio::select! {
                accepted = self.accept(&listener) => self.take(accepted, &mut connections).await,
                Some(_ended) = connections.join_next() => {}
                _ = closing.wait_for(|closing| *closing) => break,
            }
        }
        // Connections the kernel has completed for this socket would be reset when it closes.
        while let Some(accepted) = accept_waiting(&listener).await {
            self.take(accepted, &mut connections).await;
        }
        drop(listener);
        let finished = timeout(self.drain_timeout, async { while connections.join_next().await.is_some() {} }).await;
        if finished.is_err() {
            tracing::warn!(address = %self.key.address, connections = connections.len(), "connections cut at the end of the drain timeout");
            self.gate.live.cut_all(&self.key, Reason::GateDrainTimeout);
            // Those in a handshake are not among them; what is cut ends in its next turn.
            let _ended = timeout(CUT_TIMEOUT, async { while connections.join_next().await.is_some() {} }).await;
            connections.shutdown().await;
        }
    }

    /// The next connection, once there is room for what it may ask.
    async fn accept(&self, listener: &TcpListener) -> io::Result<(TcpStream, SocketAddr)> {
        self.gate.room().await;
        listener.accept().await
    }

    async fn take(&self, accepted: io::Result<(TcpStream, SocketAddr)>, connections: &mut JoinSet<()>) {
        match accepted {
            Ok((stream, client)) => {
                // Answers are written whole; waiting for an acknowledgement would only delay them (Nagle).
                if stream.set_nodelay(true).is_err() {
                    return;
                }
                let door = self.door.borrow().clone();
                let gate = Rc::clone(&self.gate);
                let serving = flow::serve(gate, self.key.clone(), door, stream, client, self.closing.clone());
                connections.spawn_local(serving);
            }
            Err(error) => {
                tracing::warn!(address = %self.key.address, %error, "accept failed");
                sleep(ACCEPT_BACKOFF).await;
            }
        }
    }
}

/// A connection that waits in the accept queue, if one does.
async fn accept_waiting(listener: &TcpListener) -> Option<io::Result<(TcpStream, SocketAddr)>> {
    // Without tokio's budget, which would make a full queue look empty after some accepts.
    unconstrained(poll_fn(|cx| match listener.poll_accept(cx) {
        Poll::Ready(accepted) => Poll::Ready(Some(accepted)),
        Poll::Pending => Poll::Ready(None),
    }))
    .await
    .filter(Result::is_ok)
}
