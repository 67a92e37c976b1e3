//! One connection to an upstream: HTTP/1.1, one request after the other, or HTTP/2, many at once.

use std::cell::Cell;
use std::future::poll_fn;
use std::pin::pin;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Waker};

use http::header::UPGRADE;
use http::{HeaderMap, StatusCode};
use hyper::body::Incoming;
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use sidecar_decide::Reason;
use tokio::io::AsyncWriteExt;
use tokio::sync::Notify;
use tokio::task::JoinHandle;
use tokio::time::timeout;

use super::multiplex::{self, Streams};
use super::wakes::Wakes;
use super::wire::{Watched, Wire};
use super::{Body, Head, Inbound, Version};
use crate::duplex::Opened;
use crate::limits::{HTTP1_BUFFER_BYTES, UPSTREAM_READY_TIME};
use crate::upstream::Transport;

/// A connection to an upstream that requests can be sent on.
pub struct Upstream {
    sender: Sender,
    wire: Rc<Wire>,
}

enum Sender {
    /// The connection is driven by a task, and ended with it.
    Http1 {
        sender: http1::SendRequest<Body>,
        /// Whether the last request asked to go on with another protocol.
        asked_to_switch: Rc<Cell<bool>>,
        /// What is left of the connection, if it was asked to switch.
        driver: JoinHandle<Option<Opened>>,
        wakes: Arc<Wakes>,
    },
    /// One of those that share a connection, which ends with the last of them.
    Http2(Streams),
}

/// A request on its way to an upstream.
#[derive(Default)]
pub struct Outgoing {
    /// Its head; the target in origin form (RFC 9112 §3.2.1).
    pub head: Head,
    /// Its body.
    pub body: Body,
}

/// A response that is being received.
pub struct Received {
    /// Its status.
    pub status: StatusCode,
    /// Its fields.
    pub headers: HeaderMap,
    /// Its body.
    pub body: Inbound,
}

/// A request that got no response.
pub enum NotSent {
    /// None of its bytes were sent, and it is where it was.
    Unsent,
    /// Some of it was sent, and the upstream says that it has done nothing with it.
    Refused,
    /// It was sent, in whole or in part, and the connection broke.
    Broken {
        /// How it broke.
        error: hyper::Error,
        /// Whether a byte of a response had come.
        answered: bool,
        /// Why, where TLS or the gate itself broke it.
        failure: Option<Reason>,
    },
}

/// Speaks HTTP on a connection of bytes. `room` is told whenever it takes more requests at once than before.
///
/// # Errors
/// When hyper cannot start on it.
pub async fn connect(stream: Transport, version: Version, room: &Rc<Notify>) -> Result<Upstream, hyper::Error> {
    let wire = Rc::new(Wire::default());
    let stream = Watched::new(stream, &wire, version);
    let sender = match version {
        Version::Http1 => connect_http1(stream, &wire).await?,
        Version::Http2 => Sender::Http2(multiplex::connect(stream, &wire, room).await?),
    };
    Ok(Upstream { sender, wire })
}

async fn connect_http1(stream: Watched, wire: &Wire) -> Result<Sender, hyper::Error> {
    // No bound of our own on fields: with one hyper allocates room for so many for each head, and without it takes 100.
    let (sender, connection) =
        http1::Builder::new().max_buf_size(HTTP1_BUFFER_BYTES).handshake(TokioIo::new(stream)).await?;
    let asked_to_switch = Rc::new(Cell::new(false));
    let was_asked = Rc::clone(&asked_to_switch);
    let wakes = Arc::new(Wakes::default());
    let waker = Waker::from(Arc::clone(&wakes));
    let woken = Arc::clone(&wakes);
    // How the connection ends is told to whoever waits for a response on it.
    let driver = tokio::task::spawn_local(async move {
        let mut driven = pin!(connection.without_shutdown());
        let ended = poll_fn(|cx| {
            woken.wake_with(cx);
            driven.as_mut().poll(&mut Context::from_waker(&waker))
        });
        let parts = ended.await.ok()?;
        let mut stream = parts.io.into_inner();
        if was_asked.get() {
            return Some(Opened { stream: Box::new(stream), first: parts.read_buf });
        }
        let _gone = stream.shutdown().await;
        None
    });
    wire.driven_by(driver.abort_handle());
    Ok(Sender::Http1 { sender, asked_to_switch, driver, wakes })
}

impl Upstream {
    /// Whether a request can be sent now.
    pub fn is_ready(&self) -> bool {
        match &self.sender {
            Sender::Http1 { sender, .. } => sender.is_ready(),
            Sender::Http2(streams) => !streams.is_closed(),
        }
    }

    /// Whether it takes no more requests: the other side has closed it, or says that it will.
    pub fn is_closed(&self) -> bool {
        match &self.sender {
            Sender::Http1 { sender, .. } => sender.is_closed(),
            Sender::Http2(streams) => streams.is_closed(),
        }
    }

    /// How many requests at once it takes.
    pub fn streams(&self) -> usize {
        match &self.sender {
            Sender::Http1 { .. } => 1,
            Sender::Http2(streams) => streams.most(),
        }
    }

    /// The same connection for another request, where it takes more than one at once.
    pub fn share(&self) -> Option<Self> {
        match &self.sender {
            Sender::Http1 { .. } => None,
            Sender::Http2(streams) => {
                Some(Self { sender: Sender::Http2(streams.clone()), wire: Rc::clone(&self.wire) })
            }
        }
    }

    /// Its bytes.
    pub fn wire(&self) -> &Rc<Wire> {
        &self.wire
    }

    /// Sends a request, which is taken from its place, and waits for its response's head.
    ///
    /// # Errors
    /// When there is none. Where none of the request was sent, it is in its place again.
    pub async fn send(&mut self, request: &mut Outgoing) -> Result<Received, NotSent> {
        let heard = self.wire.heard();
        let sent = match &mut self.sender {
            Sender::Http1 { sender, asked_to_switch, .. } => {
                asked_to_switch.set(request.head.headers.contains_key(UPGRADE));
                send_http1(sender, request).await
            }
            Sender::Http2(streams) => streams.send(request).await,
        };
        match sent {
            Ok(response) => Ok(Received::of(response, self.wakes())),
            Err(NotSent::Broken { error, answered, .. }) => {
                // Of several requests at once nobody knows whose bytes came.
                let is_alone = matches!(self.sender, Sender::Http1 { .. });
                let answered = answered || (is_alone && self.wire.heard() > heard);
                Err(NotSent::Broken { error, answered, failure: self.wire.failure() })
            }
            Err(error) => Err(error),
        }
    }

    fn wakes(&self) -> Option<&Arc<Wakes>> {
        match &self.sender {
            Sender::Http1 { wakes, .. } => Some(wakes),
            Sender::Http2(_) => None,
        }
    }

    /// The connection itself, on which HTTP has ended with the last response; `None` where it has ended too, or others
    /// share it.
    pub async fn switch(mut self) -> Option<Opened> {
        match &mut self.sender {
            Sender::Http1 { driver, .. } => driver.await.ok().flatten(),
            Sender::Http2(_) => None,
        }
    }
}

async fn send_http1(
    sender: &mut http1::SendRequest<Body>,
    request: &mut Outgoing,
) -> Result<http::Response<Incoming>, NotSent> {
    // The one whose last response has just ended needs a moment, or finds out that it is closed.
    if !sender.is_ready() && !matches!(timeout(UPSTREAM_READY_TIME, sender.ready()).await, Ok(Ok(()))) {
        return Err(NotSent::Unsent);
    }
    let sending = sender.try_send_request(std::mem::take(request).into_message());
    sending.await.map_err(|mut error| match error.take_message() {
        Some(message) => {
            *request = Outgoing::of(message);
            NotSent::Unsent
        }
        None => NotSent::Broken { error: error.into_error(), answered: false, failure: None },
    })
}

impl Drop for Upstream {
    /// Whoever lets go of a connection in the middle of an exchange wants it to end there: left alone, hyper would wait
    /// for an upstream that has answered early to take the rest of the request's body. On HTTP/2 the stream is reset.
    fn drop(&mut self) {
        if let Sender::Http1 { driver, .. } = &self.sender {
            driver.abort();
        }
    }
}

impl Received {
    fn of(response: http::Response<Incoming>, wakes: Option<&Arc<Wakes>>) -> Self {
        let (parts, body) = response.into_parts();
        let body = Inbound::of_response(body, wakes);
        Self { status: parts.status, headers: parts.headers, body }
    }
}

impl Outgoing {
    pub(super) fn into_message(self) -> http::Request<Body> {
        let mut message = http::Request::new(self.body);
        *message.method_mut() = self.head.method;
        *message.uri_mut() = self.head.target;
        *message.headers_mut() = self.head.headers;
        message
    }

    fn of(message: http::Request<Body>) -> Self {
        let (parts, body) = message.into_parts();
        Self { head: Head { method: parts.method, target: parts.uri, headers: parts.headers }, body }
    }
}

#[cfg(test)]
mod tests;
