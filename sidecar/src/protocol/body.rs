//! Bodies: streamed, never gathered.

use std::collections::VecDeque;
use std::error::Error as _;
use std::future::poll_fn;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use http_body::{Body as _, Frame, SizeHint};
use hyper::body::Incoming;
use thiserror::Error;

use super::wakes::Wakes;

/// Why a body ended before its end.
#[derive(Debug, Error)]
pub enum BodyError {
    /// The side it comes from broke off.
    #[error("the body broke off: {0}")]
    Broken(#[source] hyper::Error),
    /// What came is no body: a bad chunk, a bad trailer.
    #[error("the body is malformed: {0}")]
    Malformed(#[source] hyper::Error),
    /// Its stream was reset before its end.
    #[error("the stream was reset")]
    Reset,
    /// It is larger than allowed.
    #[error("the body is too large")]
    TooLarge,
    /// The gate has cut the connection it comes from.
    #[error("the connection was cut")]
    Cut,
    /// The request has its answer, and nobody reads the rest.
    #[error("the body is not wanted any more")]
    Unwanted,
    /// It takes longer than allowed.
    #[error("the body takes too long")]
    TooSlow,
}

impl BodyError {
    fn of(error: hyper::Error) -> Self {
        // hyper has no kind for it: its decoder of chunks says so in the error below (RFC 9112 §7.1). An end that
        // comes too early is of another kind.
        let kind = error.source().and_then(|source| source.downcast_ref()).map(io::Error::kind);
        match kind {
            Some(io::ErrorKind::InvalidInput | io::ErrorKind::InvalidData) => Self::Malformed(error),
            _ => Self::Broken(error),
        }
    }
}

/// A body that is being received, from a client or from an upstream.
pub struct Inbound {
    incoming: Incoming,
    /// Whether its end is not its end unless the stream says so: hyper takes a stream that was reset without an error for
    /// one that has ended.
    must_end: bool,
    /// Of the task that receives it, where it comes by HTTP/1.1 from an upstream.
    wakes: Option<Arc<Wakes>>,
    /// What somebody has looked at and nobody has taken.
    seen: VecDeque<Frame<Bytes>>,
}

impl Inbound {
    pub(super) fn new(incoming: Incoming) -> Self {
        Self { incoming, must_end: false, wakes: None, seen: VecDeque::new() }
    }

    /// A response's; by HTTP/2 there are no `wakes`.
    pub(super) fn of_response(incoming: Incoming, wakes: Option<&Arc<Wakes>>) -> Self {
        Self { incoming, must_end: wakes.is_none(), wakes: wakes.cloned(), seen: VecDeque::new() }
    }

    /// Shows what comes to `look`, at most so many pieces, until that has seen enough; all of it is still to be taken.
    ///
    /// # Errors
    /// When it breaks off before.
    pub async fn look(&mut self, pieces: usize, mut look: impl FnMut(&[u8]) -> bool) -> Result<(), BodyError> {
        for _ in 0..pieces {
            let next = poll_fn(|cx| self.poll_incoming(cx)).await;
            let Some(frame) = next.transpose()? else { break };
            let is_enough = frame.data_ref().is_none_or(|data| look(data));
            self.seen.push_back(frame);
            if is_enough {
                break;
            }
        }
        Ok(())
    }

    fn poll_incoming(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        let Self { incoming, wakes, .. } = self;
        let mut take = || {
            let frame = Pin::new(&mut *incoming).poll_frame(cx);
            (frame, incoming.is_end_stream())
        };
        let frame = ready!(match wakes {
            Some(wakes) => wakes.while_taking(take),
            None => take().0,
        });
        if frame.is_none() && self.must_end && !self.incoming.is_end_stream() {
            return Poll::Ready(Some(Err(BodyError::Reset)));
        }
        Poll::Ready(frame.map(|frame| frame.map_err(BodyError::of)))
    }
}

impl http_body::Body for Inbound {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        match self.seen.pop_front() {
            Some(frame) => Poll::Ready(Some(Ok(frame))),
            None => self.poll_incoming(cx),
        }
    }

    fn is_end_stream(&self) -> bool {
        self.seen.is_empty() && self.incoming.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        let mut hint = self.incoming.size_hint();
        let seen: u64 = self.seen.iter().filter_map(Frame::data_ref).map(|data| data.len() as u64).sum();
        if let Some(upper) = hint.upper() {
            hint.set_upper(upper + seen);
        }
        hint.set_lower(hint.lower() + seen);
        hint
    }
}

/// A body that is being sent: some bytes at hand, or a stream that somebody watches.
pub enum Body {
    /// These bytes, or none.
    Bytes(Bytes),
    /// A stream. One box a message, so that neither hyper nor the pool is generic over who watches it.
    Stream(Pin<Box<dyn http_body::Body<Data = Bytes, Error = BodyError>>>),
}

impl Body {
    /// No body.
    pub const EMPTY: Self = Self::Bytes(Bytes::new());
}

impl Default for Body {
    fn default() -> Self {
        Self::EMPTY
    }
}

impl http_body::Body for Body {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        match &mut *self {
            Self::Bytes(bytes) if bytes.is_empty() => Poll::Ready(None),
            Self::Bytes(bytes) => Poll::Ready(Some(Ok(Frame::data(std::mem::take(bytes))))),
            Self::Stream(stream) => stream.as_mut().poll_frame(cx),
        }
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Self::Bytes(bytes) => bytes.is_empty(),
            Self::Stream(stream) => stream.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Self::Bytes(bytes) => SizeHint::with_exact(bytes.len() as u64),
            Self::Stream(stream) => stream.size_hint(),
        }
    }
}
