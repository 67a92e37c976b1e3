//! One handshake: from an accepted socket to a TLS stream, or to a reason.

use std::io;

use rustls::server::Acceptor;
use sidecar_decide::Reason;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::time::{Instant, timeout_at};
use tokio_rustls::LazyConfigAcceptor;
use tokio_rustls::server::TlsStream;

use super::peer::TlsPeer;
use super::reason::handshake_reason;
use super::slots::Slots;
use crate::limits::HANDSHAKE_TIMEOUT;

/// A finished handshake.
pub struct Accepted<S> {
    /// The stream; what is read from it is plaintext.
    pub stream: TlsStream<S>,
    /// The client.
    pub peer: TlsPeer,
    /// The name it asked for.
    pub sni: Option<Box<str>>,
}

/// A handshake that failed.
pub struct Failure {
    /// Why; `None` where the client went away before its first byte, which is no decision.
    pub reason: Option<Reason>,
    /// The client, as far as it got.
    pub peer: TlsPeer,
    /// The name it asked for.
    pub sni: Option<Box<str>>,
}

/// Performs the handshake on a stream.
pub async fn accept<S>(stream: S, slots: &Slots) -> Result<Accepted<S>, Box<Failure>>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let deadline = Instant::now() + HANDSHAKE_TIMEOUT;
    let fail = |reason| Box::new(Failure { reason, peer: TlsPeer::default(), sni: None });
    let hello = match timeout_at(deadline, LazyConfigAcceptor::new(Acceptor::default(), stream)).await {
        Ok(Ok(hello)) => hello,
        Ok(Err(error)) => return Err(fail(handshake_reason(&error))),
        Err(_) => return Err(fail(Some(Reason::TlsTimeout))),
    };
    let sni: Option<Box<str>> = hello.client_hello().server_name().map(Into::into);
    // The versions come from this build's own provider, so the configuration cannot be inconsistent.
    let Ok(slot) = slots.take() else { return Err(fail(Some(Reason::TlsProtocol))) };
    let finished = timeout_at(deadline, hello.into_stream(std::sync::Arc::clone(&slot.config))).await;
    let peer = slot.verifier.take();
    let outcome = match finished {
        Ok(Ok(stream)) => Ok(Accepted { stream, peer, sni }),
        Ok(Err(error)) => Err(Box::new(Failure { reason: Some(reason(&peer, &error)), peer, sni })),
        Err(_) => Err(Box::new(Failure { reason: Some(Reason::TlsTimeout), peer, sni })),
    };
    slots.give_back(slot);
    outcome
}

/// What the verifier said comes first: rustls' error then only repeats it.
fn reason(peer: &TlsPeer, error: &io::Error) -> Reason {
    peer.refused.or_else(|| handshake_reason(error)).unwrap_or(Reason::ClientClosed)
}
