//! One handshake: from an accepted socket to a TLS stream, or to a reason.

use std::io;
use std::net::IpAddr;
use std::pin::pin;
use std::sync::Arc;

use rustls::HandshakeKind;
use rustls::pki_types::CertificateDer;
use rustls::server::Acceptor;
use sidecar_decide::{CertificateFacts, Reason, ServerCertificate};
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;
use tokio::time::{Instant, timeout_at};
use tokio_rustls::LazyConfigAcceptor;
use tokio_rustls::server::TlsStream;

use super::groups::Groups;
use super::path::VerifiedPath;
use super::peer::TlsPeer;
use super::reason::handshake_reason;
use super::slots::Slots;
use super::ticket::{Seen, Ticket};
use crate::client_stream::ClientStream;
use crate::limit::Turns;
use crate::limits::{HANDSHAKE_TIMEOUT, HANDSHAKE_TURN_TIMEOUT};

/// A finished handshake.
pub struct Accepted {
    /// The stream; what is read from it is plaintext.
    pub stream: TlsStream<TcpStream>,
    /// The client.
    pub peer: TlsPeer,
    /// The name it asked for.
    pub sni: Option<Arc<str>>,
    /// Whether it resumed a session instead of showing its certificate.
    pub is_resumed: bool,
    /// Whether its chain was known from an earlier handshake; `None` where it presented none.
    pub is_known: Option<bool>,
    /// Where it has reached the gate, if it asked for no name.
    pub reached: Option<IpAddr>,
    /// The certificate it was shown.
    pub certificate: Arc<ServerCertificate>,
}

/// A handshake that failed.
pub struct Failure {
    /// The stream, to close it gently; `None` where it is gone.
    pub stream: Option<TcpStream>,
    /// Why; `None` where the client went away before its first byte, which is no decision.
    pub reason: Option<Reason>,
    /// The client, as far as it got.
    pub peer: TlsPeer,
    /// The name it asked for.
    pub sni: Option<Arc<str>>,
}

impl Failure {
    /// A failure before anything was learned of the client.
    fn early(stream: Option<TcpStream>, reason: Option<Reason>) -> Self {
        Self { stream, reason, peer: TlsPeer::default(), sni: None }
    }

    /// Closes the stream so that the client gets to read the alert it was sent.
    pub async fn linger(self) {
        if let Some(stream) = self.stream {
            // Whichever way it ends, the connection is over.
            let _ended = ClientStream::new(stream).shutdown().await;
        }
    }
}

/// Performs the handshake on a stream.
pub async fn accept(stream: TcpStream, slots: &Slots, turns: &Turns) -> Result<Accepted, Box<Failure>> {
    let deadline = Instant::now() + HANDSHAKE_TIMEOUT;
    match timeout_at(deadline, stream.peek(&mut [0])).await {
        Ok(Ok(1..)) => {}
        Ok(Ok(0) | Err(_)) => return Err(Box::new(Failure::early(None, None))),
        Err(_) => return Err(Box::new(Failure::early(Some(stream), Some(Reason::TlsTimeout)))),
    }
    // What has not sent a byte waits for free; from here on it costs memory.
    let patience = deadline.min(Instant::now() + HANDSHAKE_TURN_TIMEOUT);
    let Ok(_turn) = timeout_at(patience, turns.next()).await else {
        return Err(Box::new(Failure::early(Some(stream), Some(Reason::LimitHandshakes))));
    };
    let mut hello = pin!(LazyConfigAcceptor::new(Acceptor::default(), stream));
    let hello = match timeout_at(deadline, hello.as_mut()).await {
        Ok(Ok(hello)) => hello,
        Ok(Err(error)) => {
            let reason = handshake_reason(&error).unwrap_or(Reason::ClientClosed);
            return Err(Box::new(Failure::early(hello.take_io(), Some(reason))));
        }
        Err(_) => return Err(Box::new(Failure::early(hello.take_io(), Some(Reason::TlsTimeout)))),
    };
    let sni: Option<Arc<str>> = hello.client_hello().server_name().map(Into::into);
    let reached = if sni.is_none() { local_address(&hello.io) } else { None };
    let chosen = match slots.choose(sni.as_deref(), reached) {
        Ok(chosen) => chosen,
        Err(reason) => {
            let mut stream = hello.io;
            // Where the client does not take the alert, there is nobody to tell.
            let _sent = timeout_at(deadline, stream.write_all(&alert(reason))).await;
            return Err(Box::new(Failure {
                stream: Some(stream),
                reason: Some(reason),
                peer: TlsPeer::default(),
                sni,
            }));
        }
    };
    // The versions come from this build's own provider, so the configuration cannot be inconsistent.
    let Ok(slot) = slots.take(Groups::of(&hello.client_hello())) else {
        return Err(Box::new(Failure::early(None, Some(Reason::TlsProtocol))));
    };
    slot.shown.set(chosen.certified);
    let finished = timeout_at(deadline, hello.into_stream(Arc::clone(&slot.config)).into_fallible()).await;
    let Seen { mut peer, resumed, is_known } = slot.take();
    if !matches!(finished, Ok(Ok(_))) {
        // The chain may have verified; that the client has the key was not shown.
        peer.path = None;
    }
    let outcome = match finished {
        Ok(Ok(stream)) => {
            let session = stream.get_ref().1;
            let is_resumed = session.handshake_kind() == Some(HandshakeKind::Resumed);
            if is_resumed {
                let leaf = session.peer_certificates().and_then(<[_]>::first);
                peer = resumed.zip(leaf).map(|(ticket, leaf)| resume(&ticket, leaf)).unwrap_or_default();
            }
            Ok(Accepted { stream, peer, sni, is_resumed, is_known, reached, certificate: chosen.certificate })
        }
        Ok(Err((error, stream))) => {
            let reason = Some(reason(&peer, &error));
            Err(Box::new(Failure { stream: Some(stream), reason, peer, sni }))
        }
        Err(_) => Err(Box::new(Failure { stream: None, reason: Some(Reason::TlsTimeout), peer, sni })),
    };
    slots.give_back(slot);
    outcome
}

/// The client of a resumed session: the certificate it showed once, and what that rested on.
fn resume(ticket: &Ticket, leaf: &CertificateDer<'_>) -> TlsPeer {
    let facts = CertificateFacts::of(leaf).ok();
    // Both are of one ticket; this makes sure that nothing is vouched for but the certificate that was verified.
    let is_its = |path: &&Arc<VerifiedPath>| facts.as_ref().is_some_and(|facts| facts.sha256 == path.leaf);
    let path = ticket.path.as_ref().filter(is_its).cloned();
    TlsPeer { facts: facts.map(Arc::new), path, refused: None }
}

/// Where the client has reached the gate; IPv4 as such, whatever kind of socket took it.
fn local_address(stream: &TcpStream) -> Option<IpAddr> {
    Some(stream.local_addr().ok()?.ip().to_canonical())
}

/// A record with the fatal alert of a reason (RFC 8446 §5.1, §6), for a client that no TLS connection is made with.
fn alert(reason: Reason) -> [u8; 7] {
    const ALERT: u8 = 21;
    const FATAL: u8 = 2;
    const INTERNAL_ERROR: u8 = 80;
    [ALERT, 3, 3, 0, 2, FATAL, reason.facts().alert.unwrap_or(INTERNAL_ERROR)]
}

/// What the verifier said comes first: rustls' error then only repeats it.
fn reason(peer: &TlsPeer, error: &io::Error) -> Reason {
    peer.refused.or_else(|| handshake_reason(error)).unwrap_or(Reason::ClientClosed)
}
