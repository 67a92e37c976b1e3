//! A small HTTP/1.1 upstream that tells what reached it.
//!
//! `/slow?ms=` answers later, `/bytes?n=` streams that many bytes, `/mirror` answers with the body it got, backwards, `/status?code=` answers with that status, `/close` ends
//! the connection without an answer, `/switch` ends it after agreeing to go on with the protocol it is asked for, `/answer`
//! says what it is told to; every other path echoes the request as JSON.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context as TaskContext, Poll};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use anyhow::{Context, Result};
use bytes::Bytes;
use http::{HeaderMap, Request, Response, StatusCode};
use http_body_util::combinators::BoxBody;
use http_body_util::{BodyExt, Full};
use hyper::body::{Body, Frame, Incoming, SizeHint};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use serde_json::{Value, json};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::oneshot;
use tokio::task::JoinSet;

/// An upstream on a thread of its own; it stops when dropped.
pub struct Upstream {
    address: SocketAddr,
    counts: Arc<Counts>,
    stop: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

#[derive(Default)]
struct Counts {
    connections: AtomicU64,
    requests: AtomicU64,
}

impl Upstream {
    /// Starts one on a free port of `127.0.0.1`.
    ///
    /// # Errors
    /// When no port can be bound or no thread started.
    pub fn start() -> Result<Self> {
        Self::start_on(SocketAddr::from(([127, 0, 0, 1], 0)))
    }

    /// Starts one on an address.
    ///
    /// # Errors
    /// When it cannot be bound or no thread started.
    pub fn start_on(address: SocketAddr) -> Result<Self> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let listener = runtime.block_on(TcpListener::bind(address)).context("bind the upstream")?;
        let address = listener.local_addr()?;
        let counts = Arc::new(Counts::default());
        let (stop, stopped) = oneshot::channel();
        let shared = Arc::clone(&counts);
        let thread = thread::Builder::new().name("upstream".to_owned()).spawn(move || {
            runtime.block_on(async {
                tokio::select! {
                    () = accept(listener, shared) => {}
                    _ = stopped => {}
                }
            });
        })?;
        Ok(Self { address, counts, stop: Some(stop), thread: Some(thread) })
    }

    /// Where it listens.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Connections it has accepted.
    #[must_use]
    pub fn connections(&self) -> u64 {
        self.counts.connections.load(Ordering::Relaxed)
    }

    /// Requests it has read.
    #[must_use]
    pub fn requests(&self) -> u64 {
        self.counts.requests.load(Ordering::Relaxed)
    }
}

impl Drop for Upstream {
    fn drop(&mut self) {
        drop(self.stop.take());
        if let Some(thread) = self.thread.take() {
            // A panic in the upstream has already been printed; dropping must not add another.
            let _ = thread.join();
        }
    }
}

/// Serves until it is dropped, and with it every connection.
async fn accept(listener: TcpListener, counts: Arc<Counts>) {
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            accepted = listener.accept() => {
                if let Ok((stream, _)) = accepted {
                    counts.connections.fetch_add(1, Ordering::Relaxed);
                    connections.spawn(serve(stream, Arc::clone(&counts)));
                }
            }
            Some(_) = connections.join_next() => {}
        }
    }
}

async fn serve(stream: TcpStream, counts: Arc<Counts>) {
    let service = service_fn(move |request| {
        counts.requests.fetch_add(1, Ordering::Relaxed);
        answer(request)
    });
    // A client that goes away in the middle is the client's business.
    let _ = http1::Builder::new().serve_connection(TokioIo::new(stream), service).await;
}

type Answer = Response<BoxBody<Bytes, Infallible>>;

async fn answer(request: Request<Incoming>) -> Result<Answer> {
    let (head, body) = request.into_parts();
    let body = body.collect().await?;
    let trailers = body.trailers().cloned().unwrap_or_default();
    let body = body.to_bytes();
    let number = |name: &str| query_number(head.uri.query().unwrap_or_default(), name);
    match head.uri.path() {
        "/close" => anyhow::bail!("closed as asked"),
        "/switch" => return switch(&head.headers),
        "/answer" => return told(&head.headers),
        "/mirror" => {
            let mirrored: Bytes = body.iter().rev().copied().collect();
            return Ok(Response::new(Full::new(mirrored).boxed()));
        }
        "/bytes" => return Ok(Response::new(Zeros { left: number("n") }.boxed())),
        "/slow" => tokio::time::sleep(Duration::from_millis(number("ms"))).await,
        _ => {}
    }
    let status = match head.uri.path() {
        "/status" => StatusCode::from_u16(u16::try_from(number("code"))?)?,
        _ => StatusCode::OK,
    };
    let echo = Full::new(Bytes::from(echo(&head, body.len(), &trailers).to_string())).boxed();
    Ok(Response::builder().status(status).header("content-type", "application/json").body(echo)?)
}

/// What the request says in `answer`, of the media type in `answer-type`.
fn told(headers: &HeaderMap) -> Result<Answer> {
    let told = |name| headers.get(name).cloned().context("it is not told what to answer");
    let body = Full::new(Bytes::copy_from_slice(told("answer")?.as_bytes())).boxed();
    Ok(Response::builder().header("content-type", told("answer-type")?).body(body)?)
}

fn switch(headers: &HeaderMap) -> Result<Answer> {
    let answer = Response::builder().status(StatusCode::SWITCHING_PROTOCOLS).header("connection", "upgrade");
    let protocol = headers.get("upgrade").context("no protocol")?;
    Ok(answer.header("upgrade", protocol).body(Full::default().boxed())?)
}

fn echo(head: &http::request::Parts, body_bytes: usize, trailers: &HeaderMap) -> Value {
    let pairs = |fields: &HeaderMap| {
        let pairs =
            fields.iter().map(|(name, value)| json!([name.as_str(), String::from_utf8_lossy(value.as_bytes())]));
        pairs.collect::<Vec<_>>()
    };
    json!({
        "method": head.method.as_str(),
        "path": head.uri.path(),
        "query": head.uri.query(),
        "headers": pairs(&head.headers),
        "bodyBytes": body_bytes,
        "trailers": pairs(trailers),
    })
}

/// The number a query gives under a name; 0 where it gives none.
fn query_number(query: &str, name: &str) -> u64 {
    let pairs = query.split('&').filter_map(|pair| pair.split_once('='));
    pairs.into_iter().find(|(key, _)| *key == name).and_then(|(_, value)| value.parse().ok()).unwrap_or(0)
}

/// A body of so many zero bytes, in pieces, so that its end is far from its start.
struct Zeros {
    left: u64,
}

impl Body for Zeros {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(mut self: Pin<&mut Self>, _: &mut TaskContext<'_>) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        static PIECE: [u8; 16 << 10] = [0; 16 << 10];
        if self.left == 0 {
            return Poll::Ready(None);
        }
        let length = usize::try_from(self.left).unwrap_or(usize::MAX).min(PIECE.len());
        self.left -= length as u64;
        Poll::Ready(Some(Ok(Frame::data(Bytes::from_static(&PIECE[..length])))))
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(self.left)
    }
}
