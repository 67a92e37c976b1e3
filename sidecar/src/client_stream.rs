//! A client's stream, with care at both ends.
//!
//! Its first bytes must come in time: hyper waits for the preface of an HTTP/2 connection (RFC 9113 §3.4) without a
//! limit, and its pings begin only afterwards. And it is closed gently: a socket that is closed while its client is still
//! sending is reset, and the reset overtakes what the client was told last, an alert or a 413. So the gate says that it
//! is done, listens a moment, and only then closes.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt, ReadBuf};
use tokio::time::{Instant, Sleep, sleep};

use crate::limits::{HANDSHAKE_TIMEOUT, LINGER_BYTES, LINGER_STALL_TIMEOUT, LINGER_TIMEOUT};

/// Bytes of the preface of HTTP/2.
const PREFACE_BYTES: usize = 24;

/// A stream that waits for its first bytes for a while, and listens for a while when it is shut down.
pub struct ClientStream<S> {
    stream: S,
    /// Until the first bytes have come.
    waiting: Option<Moment>,
    /// Once it is being closed.
    listening: Option<Linger>,
    is_shut_down: bool,
}

/// A bounded time for some bytes.
struct Moment {
    deadline: Pin<Box<Sleep>>,
    bytes_left: usize,
}

impl<S> ClientStream<S> {
    /// A stream that will be closed gently.
    pub fn new(stream: S) -> Self {
        Self { stream, waiting: None, listening: None, is_shut_down: false }
    }

    /// A stream that fails, too, where the preface of HTTP/2 does not come within the time of a handshake.
    pub fn with_preface(stream: S) -> Self {
        let waiting = Moment { deadline: Box::pin(sleep(HANDSHAKE_TIMEOUT)), bytes_left: PREFACE_BYTES };
        Self { waiting: Some(waiting), ..Self::new(stream) }
    }

    /// The stream, for what comes after the care that is taken here.
    pub fn into_inner(self) -> S {
        self.stream
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> ClientStream<S> {
    /// Closes it, unless that was done.
    pub async fn finish(mut self) {
        if !self.is_shut_down {
            // Whichever way it ends, it is over.
            let _ended = self.shutdown().await;
        }
    }
}

/// For how long, and for how many bytes, a client is listened to that has been answered: not long if it sends nothing, and
/// longer while it is still sending what it began.
pub struct Linger {
    deadline: Pin<Box<Sleep>>,
    end: Instant,
    bytes_left: usize,
}

impl Linger {
    /// From now on.
    pub fn new() -> Self {
        let end = Instant::now() + LINGER_TIMEOUT;
        Self { deadline: Box::pin(sleep(LINGER_STALL_TIMEOUT)), end, bytes_left: LINGER_BYTES }
    }

    /// Whether there is no more reason to listen; if there is, the task wakes when there is none.
    pub fn is_over(&mut self, cx: &mut Context<'_>) -> bool {
        self.bytes_left == 0 || self.deadline.as_mut().poll(cx).is_ready()
    }

    /// So many bytes have come.
    pub fn count(&mut self, bytes: usize) {
        self.bytes_left = self.bytes_left.saturating_sub(bytes);
        self.deadline.as_mut().reset(self.end.min(Instant::now() + LINGER_STALL_TIMEOUT));
    }

    /// Ignores what comes; ready when there is no more reason to listen.
    fn poll_ignore(&mut self, stream: &mut (impl AsyncRead + Unpin), cx: &mut Context<'_>) -> Poll<()> {
        let mut ignored = [0; 1024];
        while !self.is_over(cx) {
            let mut buffer = ReadBuf::new(&mut ignored);
            match ready!(Pin::new(&mut *stream).poll_read(cx, &mut buffer)) {
                Ok(()) if !buffer.filled().is_empty() => self.count(buffer.filled().len()),
                // Closed, or broken: either way nobody is there to be told anything.
                Ok(()) | Err(_) => break,
            }
        }
        Poll::Ready(())
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for ClientStream<S> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let this = &mut *self;
        let before = buffer.filled().len();
        let read = Pin::new(&mut this.stream).poll_read(cx, buffer);
        let Some(waiting) = &mut this.waiting else { return read };
        if read.is_pending() {
            let timed_out = |()| Err(io::ErrorKind::TimedOut.into());
            return waiting.deadline.as_mut().poll(cx).map(timed_out);
        }
        waiting.bytes_left = waiting.bytes_left.saturating_sub(buffer.filled().len() - before);
        if waiting.bytes_left == 0 {
            this.waiting = None;
        }
        read
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> AsyncWrite for ClientStream<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, bytes)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write_vectored(cx, slices)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = &mut *self;
        let listening = this.listening.get_or_insert_with(Linger::new);
        if listening.is_over(cx) {
            return Poll::Ready(Ok(()));
        }
        if !this.is_shut_down {
            // A client that reads nothing holds this up, so the deadline counts here too.
            ready!(Pin::new(&mut this.stream).poll_shutdown(cx))?;
            this.is_shut_down = true;
        }
        listening.poll_ignore(&mut this.stream, cx).map(Ok)
    }
}
