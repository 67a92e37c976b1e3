//! One HTTP/1.1 connection to an upstream.

use std::rc::Rc;

use http::{HeaderMap, StatusCode};
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use sidecar_decide::Reason;
use tokio::task::AbortHandle;

use super::wire::{Watched, Wire};
use super::{Body, Head, Inbound};
use crate::limits::REQUEST_HEADERS;
use crate::upstream::Transport;

/// A connection to an upstream that requests can be sent on, one after the other.
pub struct Upstream {
    sender: http1::SendRequest<Body>,
    wire: Rc<Wire>,
    /// Drives the connection; ended with it.
    driver: AbortHandle,
}

/// A request on its way to an upstream.
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
    /// None of its bytes were sent, and here it is again.
    Unsent(Box<Outgoing>),
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

/// Speaks HTTP/1.1 on a connection of bytes.
///
/// # Errors
/// When hyper cannot start on it.
pub async fn connect(stream: Transport) -> Result<Upstream, hyper::Error> {
    let wire = Rc::new(Wire::default());
    let stream = TokioIo::new(Watched::new(stream, &wire));
    let (sender, connection) = http1::Builder::new().max_headers(REQUEST_HEADERS).handshake(stream).await?;
    // How the connection ends is told to whoever waits for a response on it.
    let driver = tokio::task::spawn_local(async move {
        let _ended = connection.await;
    });
    wire.driven_by(driver.abort_handle());
    Ok(Upstream { sender, wire, driver: driver.abort_handle() })
}

impl Upstream {
    /// Whether a request can be sent now.
    pub fn is_ready(&self) -> bool {
        self.sender.is_ready()
    }

    /// Whether the other side has closed it.
    pub fn is_closed(&self) -> bool {
        self.sender.is_closed()
    }

    /// Its bytes.
    pub fn wire(&self) -> &Rc<Wire> {
        &self.wire
    }

    /// Sends a request and waits for its response's head.
    ///
    /// # Errors
    /// With the request again where none of it was sent.
    pub async fn send(&mut self, request: Outgoing) -> Result<Received, NotSent> {
        // The one whose last response has just ended needs a moment, or finds out that it is closed.
        if self.sender.ready().await.is_err() {
            return Err(NotSent::Unsent(Box::new(request)));
        }
        let heard = self.wire.heard();
        match self.sender.try_send_request(request.into_message()).await {
            Ok(response) => {
                let (parts, body) = response.into_parts();
                Ok(Received { status: parts.status, headers: parts.headers, body: Inbound::new(body) })
            }
            Err(mut error) => match error.take_message() {
                Some(message) => Err(NotSent::Unsent(Box::new(Outgoing::of(message)))),
                None => Err(NotSent::Broken {
                    error: error.into_error(),
                    answered: self.wire.heard() > heard,
                    failure: self.wire.failure(),
                }),
            },
        }
    }
}

impl Drop for Upstream {
    /// Whoever lets go of a connection in the middle of an exchange wants it to end there: left alone, hyper would wait
    /// for an upstream that has answered early to take the rest of the request's body.
    fn drop(&mut self) {
        self.driver.abort();
    }
}

impl Outgoing {
    fn into_message(self) -> http::Request<Body> {
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
