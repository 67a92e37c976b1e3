//! Serves one client connection: requests to a handler, its responses back.

use std::cell::{Cell, RefCell};
use std::convert::Infallible;
use std::error::Error as _;
use std::future::{Future, poll_fn};
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::task::Poll;

use bytes::Bytes;
use http::Method;
use http::header::{CONNECTION, HeaderMap, HeaderValue};
use hyper::body::Incoming;
use hyper::ext::Protocol;
use hyper::server::conn::{http1, http2};
use hyper::service::service_fn;
use hyper::upgrade::OnUpgrade;
use hyper_util::rt::TokioIo;
use thiserror::Error;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::sleep;

use super::runtime::{HeadTimer, LocalExecutor, TokioTimer};
use super::stream::Http2Stream;
use super::{Body, Head, Inbound, Request, Response, Tunnel, Upgrade, Version};
use crate::client_stream::ClientStream;
use crate::duplex::{Duplex, Opened};
use crate::ending::{End, Ending};
use crate::limits::{
    FIRST_REQUEST_GRACE, HTTP1_BUFFER_BYTES, REQUEST_HEAD_BYTES, REQUEST_HEAD_TIMEOUT, STREAMS_PER_CONNECTION,
};

/// Turns `true` when connections are to end after what they are doing.
pub type Closing = watch::Receiver<bool>;

/// How a connection ended that did not end well.
#[derive(Debug, Error)]
pub enum ServeError {
    /// The client sent something that is not HTTP.
    #[error("not valid HTTP: {source}")]
    Malformed {
        /// Status of the answer; HTTP/2 has none for a whole connection.
        status: Option<u16>,
        /// What hyper says.
        source: hyper::Error,
    },
    /// The client did not send a request's head in time.
    #[error("no request within the time limit")]
    Timeout,
    /// The connection broke.
    #[error("the connection broke: {0}")]
    Broken(#[source] hyper::Error),
}

/// What a connection's requests have come to.
#[derive(Default)]
struct Exchanges {
    /// Whether there was one.
    asked: Cell<bool>,
    /// What follows the last of them, if HTTP ends with it.
    tunnel: Cell<Option<Tunnel>>,
    /// What goes on on streams of HTTP/2, once there was any.
    streams: RefCell<Option<JoinSet<()>>>,
}

impl Exchanges {
    /// Lets what follows a response begin when that one is sent.
    fn follow(&self, stream: OnUpgrade, tunnel: Tunnel) {
        let mut streams = self.streams.borrow_mut();
        let streams = streams.get_or_insert_default();
        // What has ended is forgotten here, because a connection may see many.
        while streams.try_join_next().is_some() {}
        streams.spawn_local(async move {
            // Where the response could not be sent, the tunnel is dropped, which is told in its row.
            if let Ok(upgraded) = stream.await {
                tunnel(Opened::new(Http2Stream::new(upgraded))).await;
            }
        });
    }
}

/// Serves a connection until it ends, or until `closing` and what is in flight then.
///
/// # Errors
/// When the connection ended on an error that no handler saw.
pub async fn serve<S, H, F>(
    stream: S,
    version: Version,
    handler: H,
    mut closing: Closing,
    ending: Rc<Ending>,
) -> Result<(), ServeError>
where
    S: Duplex + 'static,
    H: Fn(Request) -> F + 'static,
    F: Future<Output = Response> + 'static,
{
    let exchanges = Rc::new(Exchanges::default());
    let (begun, answered, ends) = (Rc::clone(&exchanges), Rc::clone(&exchanges), Rc::clone(&ending));
    let service = service_fn(move |mut request| {
        begun.asked.set(true);
        let stream = (version == Version::Http2).then(|| hyper::upgrade::on(&mut request));
        let answer = handler(received(request));
        let (exchanges, ending) = (Rc::clone(&begun), Rc::clone(&ends));
        async move {
            let mut response = answer.await;
            if let Some(tunnel) = response.tunnel.take() {
                match stream {
                    Some(stream) => exchanges.follow(stream, tunnel),
                    None => exchanges.tunnel.set(Some(tunnel)),
                }
            } else if version == Version::Http1 && ending.asked() != End::Open {
                // HTTP/2 has GOAWAY for this.
                response.headers.insert(CONNECTION, HeaderValue::from_static("close"));
            }
            Ok::<_, Infallible>(sent(response))
        }
    });
    let told = closing.clone();
    // Resolves once; afterwards the connection alone is waited for.
    let closed = async move {
        let _told_or_gone = closing.wait_for(|closing| *closing).await;
        // hyper closes a connection at once that has had no request; its client was let in and is about to ask.
        if !answered.asked.get() {
            sleep(FIRST_REQUEST_GRACE).await;
        }
    };
    let closed = when_told(closed, told);
    match version {
        Version::Http1 => {
            let stream = TokioIo::new(ClientStream::new(stream));
            let mut connection = http1_builder().serve_connection(stream, service);
            drive(Pin::new(&mut connection), version, pin!(closed), &ending).await.map_err(ServeError::of)?;
            let parts = connection.into_parts();
            follow(parts.io.into_inner(), parts.read_buf, exchanges.tunnel.take(), &ending).await;
            Ok(())
        }
        Version::Http2 => {
            let stream = TokioIo::new(ClientStream::with_preface(stream));
            let connection = http2_builder().serve_connection(stream, service);
            let ended = drive(pin!(connection), version, pin!(closed), &ending).await.map_err(ServeError::of);
            if let Some(streams) = exchanges.streams.take() {
                see_off(streams, &ending).await;
            }
            ended
        }
    }
}

/// Polls `closed` once, to be woken, and then only after something was told: a connection is woken for every request, and to
/// ask the channel takes a lock.
async fn when_told(closed: impl Future<Output = ()>, told: Closing) {
    let mut closed = pin!(closed);
    let mut is_first = true;
    poll_fn(|cx| {
        let is_told = !matches!(told.has_changed(), Ok(false));
        if std::mem::take(&mut is_first) || is_told { closed.as_mut().poll(cx) } else { Poll::Pending }
    })
    .await;
}

/// Sees a connection of HTTP/1.1 to its end that has left HTTP, or that has nothing more to say.
async fn follow(stream: ClientStream<impl Duplex + 'static>, first: Bytes, tunnel: Option<Tunnel>, ending: &Ending) {
    let follow = async {
        match tunnel {
            // In a box, or each connection would keep room for it.
            Some(tunnel) => tunnel(Opened { stream: Box::new(stream.into_inner()), first }).await,
            // hyper leaves a connection open on which an upgrade was asked for, whatever became of it.
            None => stream.finish().await,
        }
    };
    tokio::select! {
        biased;
        // Whatever it carries is dropped, and says why in its row.
        _reason = ending.cut_short() => {}
        () = follow => {}
    }
}

/// Waits for what went on on streams of a connection that has ended.
async fn see_off(mut streams: JoinSet<()>, ending: &Ending) {
    tokio::select! {
        biased;
        _reason = ending.cut_short() => {}
        () = async { while streams.join_next().await.is_some() {} } => {}
    }
    streams.shutdown().await;
}

/// Drives a connection to its end, or to the one that is asked for.
async fn drive<C>(
    mut connection: Pin<&mut C>,
    version: Version,
    mut closed: Pin<&mut impl Future<Output = ()>>,
    ending: &Ending,
) -> hyper::Result<()>
where
    C: Future<Output = hyper::Result<()>> + Graceful,
{
    let mut known = End::Open;
    let mut is_closed = false;
    loop {
        tokio::select! {
            // What is asked from outside comes first: a busy connection may use up its task's share of time every time.
            biased;
            () = closed.as_mut(), if !is_closed => {
                is_closed = true;
                connection.as_mut().finish();
            }
            asked = ending.beyond(known) => match asked {
                // An idle HTTP/1.1 connection that is closed may meet its next request; the next answer says it instead.
                End::Open | End::Finish if version == Version::Http1 => known = asked,
                End::Open | End::Finish => {
                    known = asked;
                    connection.as_mut().finish();
                }
                End::Cut(_) => {
                    connection.as_mut().finish();
                    // What can be said at once is said: GOAWAY, or the alert that closes TLS.
                    return poll_fn(|cx| Poll::Ready(match connection.as_mut().poll(cx) {
                        Poll::Ready(ended) => ended,
                        Poll::Pending => Ok(()),
                    }))
                    .await;
                }
            },
            ended = connection.as_mut() => return ended,
        }
    }
}

/// A connection that can be asked to finish.
trait Graceful {
    fn finish(self: Pin<&mut Self>);
}

impl<I, S> Graceful for http1::Connection<I, S>
where
    I: hyper::rt::Read + hyper::rt::Write + Unpin + 'static,
    S: hyper::service::HttpService<Incoming, ResBody = Body>,
    S::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    fn finish(self: Pin<&mut Self>) {
        self.graceful_shutdown();
    }
}

impl<I, S> Graceful for http2::Connection<I, S, LocalExecutor>
where
    I: hyper::rt::Read + hyper::rt::Write + Unpin + 'static,
    S: hyper::service::HttpService<Incoming, ResBody = Body>,
    S::Future: 'static,
    S::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    fn finish(self: Pin<&mut Self>) {
        self.graceful_shutdown();
    }
}

/// Without a bound of our own on fields: with one hyper allocates room for so many for each head. Its own is 100.
fn http1_builder() -> http1::Builder {
    let mut builder = http1::Builder::new();
    builder.timer(HeadTimer::default()).header_read_timeout(REQUEST_HEAD_TIMEOUT);
    builder.max_buf_size(HTTP1_BUFFER_BYTES).max_header_size(REQUEST_HEAD_BYTES);
    builder
}

fn http2_builder() -> http2::Builder<LocalExecutor> {
    let mut builder = http2::Builder::new(LocalExecutor);
    builder
        .timer(TokioTimer)
        .max_concurrent_streams(STREAMS_PER_CONNECTION)
        .enable_connect_protocol()
        // 64 KiB fits the field's type; the constant is a size for HTTP/1.1 too.
        .max_header_list_size(u32::try_from(REQUEST_HEAD_BYTES).unwrap_or(u32::MAX))
        // An idle client that vanished without a word is found out by a ping.
        .keep_alive_interval(REQUEST_HEAD_TIMEOUT);
    builder
}

fn received(request: http::Request<Incoming>) -> Request {
    let (parts, body) = request.into_parts();
    let stream = parts.extensions.get::<Protocol>().map(|protocol| Upgrade::on_stream(protocol.as_str()));
    // The extended CONNECT is what a GET is on HTTP/1.1 (RFC 8441 §5), and is decided as that.
    let method = if matches!(stream, Some(Upgrade::Stream { .. })) { Method::GET } else { parts.method };
    let upgrade = stream.or_else(|| Upgrade::asked(parts.version, &parts.headers));
    let head = Head { method, target: parts.uri, headers: parts.headers };
    Request { head, body: Inbound::new(body), upgrade }
}

fn sent(response: Response) -> http::Response<Body> {
    let mut message = http::Response::new(response.body);
    *message.status_mut() = response.status;
    *message.headers_mut() = response.headers;
    message
}

impl ServeError {
    fn of(error: hyper::Error) -> Self {
        if error.is_parse_too_large() {
            Self::Malformed { status: Some(431), source: error }
        } else if error.is_parse() {
            Self::Malformed { status: Some(400), source: error }
        } else if is_against_http2(&error) {
            Self::Malformed { status: None, source: error }
        } else if error.is_timeout() {
            Self::Timeout
        } else {
            Self::Broken(error)
        }
    }
}

/// Whether h2 ended a connection for what its client did: frames that are none, or far too many.
fn is_against_http2(error: &hyper::Error) -> bool {
    let source = error.source().and_then(|source| source.downcast_ref::<h2::Error>());
    source.is_some_and(|source| {
        source.is_library() && source.is_go_away() && source.reason() != Some(h2::Reason::NO_ERROR)
    })
}

impl Response {
    /// A response with these parts.
    pub fn new(status: http::StatusCode, headers: HeaderMap, body: Body) -> Self {
        Self { status, headers, body, tunnel: None }
    }

    /// The last response on its connection or stream.
    pub fn switching(status: http::StatusCode, headers: HeaderMap, tunnel: Tunnel) -> Self {
        Self { tunnel: Some(tunnel), ..Self::new(status, headers, Body::EMPTY) }
    }
}
