//! One HTTP/1.1 connection to an upstream.

use std::cell::Cell;
use std::io;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll};

use http::header::UPGRADE;
use http::{HeaderMap, StatusCode};
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt, ReadBuf};
use tokio::net::TcpStream;
use tokio::task::JoinHandle;

use super::{Body, Head, Inbound};
use crate::duplex::{Duplex, Opened};
use crate::limits::REQUEST_HEADERS;

/// A connection to an upstream that requests can be sent on, one after the other.
pub struct Upstream {
    sender: http1::SendRequest<Body>,
    /// Whether a byte has come since the last request was sent.
    answered: Rc<Cell<bool>>,
    /// Whether the last request asked to go on with another protocol.
    asked_to_switch: Rc<Cell<bool>>,
    /// Drives the connection; ended with it. What is left of the connection, if it was asked to switch.
    driver: JoinHandle<Option<Opened>>,
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
    },
}

/// Speaks HTTP/1.1 on a connected socket.
///
/// # Errors
/// When hyper cannot start on it.
pub async fn connect(stream: TcpStream) -> Result<Upstream, hyper::Error> {
    let answered = Rc::new(Cell::new(false));
    let stream = TokioIo::new(Watched { stream, answered: Rc::clone(&answered) });
    let (sender, connection) = http1::Builder::new().max_headers(REQUEST_HEADERS).handshake(stream).await?;
    let asked_to_switch = Rc::new(Cell::new(false));
    let was_asked = Rc::clone(&asked_to_switch);
    // How the connection ends is told to whoever waits for a response on it.
    let driver = tokio::task::spawn_local(async move {
        let parts = connection.without_shutdown().await.ok()?;
        let mut stream = parts.io.into_inner();
        if was_asked.get() {
            return Some(Opened { stream: Box::new(stream), first: parts.read_buf });
        }
        let _gone = stream.shutdown().await;
        None
    });
    Ok(Upstream { sender, answered, asked_to_switch, driver })
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

    /// Sends a request and waits for its response's head.
    ///
    /// # Errors
    /// With the request again where none of it was sent.
    pub async fn send(&mut self, request: Outgoing) -> Result<Received, NotSent> {
        // The one whose last response has just ended needs a moment, or finds out that it is closed.
        if self.sender.ready().await.is_err() {
            return Err(NotSent::Unsent(Box::new(request)));
        }
        self.answered.set(false);
        self.asked_to_switch.set(request.head.headers.contains_key(UPGRADE));
        match self.sender.try_send_request(request.into_message()).await {
            Ok(response) => {
                let (parts, body) = response.into_parts();
                Ok(Received { status: parts.status, headers: parts.headers, body: Inbound::new(body) })
            }
            Err(mut error) => match error.take_message() {
                Some(message) => Err(NotSent::Unsent(Box::new(Outgoing::of(message)))),
                None => Err(NotSent::Broken { error: error.into_error(), answered: self.answered.get() }),
            },
        }
    }
}

impl Upstream {
    /// The connection itself, on which HTTP has ended with the last response; `None` where it has ended too.
    pub async fn switch(mut self) -> Option<Opened> {
        (&mut self.driver).await.ok().flatten()
    }
}

/// A connection that tells whether anything came: an upstream that closes without a byte has not begun to answer.
struct Watched {
    stream: TcpStream,
    answered: Rc<Cell<bool>>,
}

impl Duplex for Watched {
    fn break_off(&self) {
        self.stream.break_off();
    }
}

impl AsyncRead for Watched {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        let polled = Pin::new(&mut self.stream).poll_read(cx, buffer);
        if buffer.filled().len() > before {
            self.answered.set(true);
        }
        polled
    }
}

impl AsyncWrite for Watched {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffers: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write_vectored(cx, buffers)
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
