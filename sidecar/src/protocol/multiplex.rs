//! HTTP/2 to an upstream: many requests at once on one connection.

use std::cell::Cell;
use std::convert::Infallible;
use std::error::Error as _;
use std::future::{Future as _, poll_fn};
use std::pin::pin;
use std::rc::Rc;

use http::header::HOST;
use http::uri::{Authority, PathAndQuery, Scheme};
use http::{HeaderValue, Uri};
use hyper::client::conn::http2;
use hyper_util::rt::TokioIo;
use tokio::sync::{Notify, oneshot};
use tokio::time::sleep;

use super::runtime::{LocalExecutor, TokioTimer};
use super::wire::{Watched, Wire};
use super::{Body, Head, NotSent, Outgoing};
use crate::limits::{
    REQUEST_HEAD_BYTES, UPSTREAM_LEAVE_TIME, UPSTREAM_SEND_BUFFER, UPSTREAM_STREAM_WINDOW, UPSTREAM_STREAMS,
};

type Connection = http2::Connection<TokioIo<Watched>, Body, LocalExecutor>;

/// Sends requests on a connection that others send on too.
#[derive(Clone)]
pub(super) struct Streams {
    sender: http2::SendRequest<Body>,
    /// How many at once the other side takes.
    most: Rc<Cell<usize>>,
    scheme: Scheme,
    /// Gone with the last that may send.
    _wanted: Rc<oneshot::Sender<Infallible>>,
}

/// Speaks HTTP/2 on a connection of bytes whose other side knows that it is spoken.
pub(super) async fn connect(stream: Watched, wire: &Rc<Wire>, room: &Rc<Notify>) -> Result<Streams, hyper::Error> {
    let scheme = if stream.is_secured() { Scheme::HTTPS } else { Scheme::HTTP };
    let (sender, connection) = http2::Builder::new(LocalExecutor)
        .timer(TokioTimer)
        .initial_stream_window_size(UPSTREAM_STREAM_WINDOW)
        // As much as all streams together may hold, so that a client that does not read holds up no other one's.
        .initial_connection_window_size(UPSTREAM_STREAM_WINDOW * UPSTREAM_STREAMS)
        .max_send_buf_size(UPSTREAM_SEND_BUFFER)
        .max_header_list_size(u32::try_from(REQUEST_HEAD_BYTES).unwrap_or(u32::MAX))
        .handshake(TokioIo::new(stream))
        .await?;
    let most = Rc::new(Cell::new(connection.current_max_send_streams()));
    let (wanted, unwanted) = oneshot::channel();
    let (known, room, wire) = (Rc::clone(&most), Rc::clone(room), Rc::clone(wire));
    tokio::task::spawn_local(drive(connection, known, room, wire, unwanted));
    Ok(Streams { sender, most, scheme, _wanted: Rc::new(wanted) })
}

/// Sends requests until nobody has any more, and sees to it that the connection ends then.
async fn drive(
    connection: Connection,
    known: Rc<Cell<usize>>,
    room: Rc<Notify>,
    wire: Rc<Wire>,
    mut unwanted: oneshot::Receiver<Infallible>,
) {
    let is_wanted = {
        let mut connection = pin!(connection);
        let driven = poll_fn(|cx| {
            let polled = connection.as_mut().poll(cx);
            let most = connection.current_max_send_streams();
            if most > known.replace(most) {
                room.notify_one();
            }
            // The other side's settings are the first to come, and nobody else would look at them; nor at those that
            // let requests begin again, where none can be sent.
            if wire.heard() == 0 || most == 0 {
                wire.tell_next(cx.waker());
            }
            polled
        });
        // How it ends is told to whoever waits for a response on it.
        tokio::select! {
            _ended = driven => true,
            _unwanted = &mut unwanted => false,
        }
    };
    // After GOAWAY nothing is sent any more, and responses may still come.
    if is_wanted {
        let _nobody = unwanted.await;
    }
    // hyper takes its leave in a task of its own, which waits for an upstream that does not read for ever.
    sleep(UPSTREAM_LEAVE_TIME).await;
    wire.end();
}

impl Streams {
    /// Whether it takes no more requests.
    pub(super) fn is_closed(&self) -> bool {
        self.sender.is_closed()
    }

    /// How many requests at once it takes.
    pub(super) fn most(&self) -> usize {
        self.most.get().min(usize::try_from(UPSTREAM_STREAMS).unwrap_or(usize::MAX))
    }

    /// Sends a request and waits for its response's head.
    pub(super) async fn send(
        &mut self,
        request: &mut Outgoing,
    ) -> Result<http::Response<hyper::body::Incoming>, NotSent> {
        let sending = self.sender.try_send_request(with_authority(std::mem::take(request), &self.scheme));
        sending.await.map_err(|mut error| match error.take_message() {
            Some(message) => {
                *request = with_host(message);
                NotSent::Unsent
            }
            None => not_sent(error.into_error()),
        })
    }
}

/// What became of a request that was begun. `REFUSED_STREAM` says that it was not processed, and so does GOAWAY for streams
/// above its last (RFC 9113 §8.7); h2 tells the others nothing of a GOAWAY.
fn not_sent(error: hyper::Error) -> NotSent {
    let source = error.source().and_then(|source| source.downcast_ref::<h2::Error>());
    let is_remote = source.is_some_and(h2::Error::is_remote);
    let is_unprocessed = source.is_some_and(|source| {
        source.is_remote() && (source.is_go_away() || source.reason() == Some(h2::Reason::REFUSED_STREAM))
    });
    if is_unprocessed { NotSent::Refused } else { NotSent::Broken { error, answered: is_remote, failure: None } }
}

/// The request as HTTP/2 has it: the host in the target, as `:authority` (RFC 9113 §8.3.1).
fn with_authority(request: Outgoing, scheme: &Scheme) -> http::Request<Body> {
    let mut message = request.into_message();
    let authority = message.headers_mut().remove(HOST).and_then(|host| Authority::try_from(host.as_bytes()).ok());
    let mut parts = std::mem::take(message.uri_mut()).into_parts();
    if authority.is_some() {
        parts.scheme = Some(scheme.clone());
        parts.authority = authority;
    }
    // It has a path already; a target that is no path has no authority to go with.
    parts.path_and_query.get_or_insert(PathAndQuery::from_static("/"));
    *message.uri_mut() = Uri::from_parts(parts).unwrap_or_default();
    message
}

/// The same request as it came.
fn with_host(message: http::Request<Body>) -> Outgoing {
    let (mut parts, body) = message.into_parts();
    let target = parts.uri.into_parts();
    if let Some(host) = target.authority.and_then(|authority| HeaderValue::from_str(authority.as_str()).ok()) {
        parts.headers.insert(HOST, host);
    }
    let target = target.path_and_query.map(Uri::from).unwrap_or_default();
    Outgoing { head: Head { method: parts.method, target, headers: parts.headers }, body }
}
