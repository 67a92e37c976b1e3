//! Closing gently. A socket that is closed while its client is still sending is reset, and the reset overtakes what the
//! client was told last: an alert, a 413. So the gate says that it is done, listens a moment, and only then closes.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::{Sleep, sleep};

use crate::limits::{LINGER_BYTES, LINGER_TIMEOUT};

/// A stream whose shutdown is over when the client has closed too, or has been listened to for long enough.
pub struct Lingering<S> {
    stream: S,
    /// Once it is being closed.
    listening: Option<Listening>,
}

struct Listening {
    deadline: Pin<Box<Sleep>>,
    bytes_left: usize,
    is_shut_down: bool,
}

impl<S> Lingering<S> {
    /// A stream that will be closed gently.
    pub fn new(stream: S) -> Self {
        Self { stream, listening: None }
    }
}

impl Listening {
    fn begin() -> Self {
        Self { deadline: Box::pin(sleep(LINGER_TIMEOUT)), bytes_left: LINGER_BYTES, is_shut_down: false }
    }

    /// Ignores what comes; ready when there is no more reason to listen.
    fn poll(&mut self, stream: &mut (impl AsyncRead + Unpin), cx: &mut Context<'_>) -> Poll<()> {
        let mut ignored = [0; 1024];
        while self.bytes_left > 0 {
            let mut buffer = ReadBuf::new(&mut ignored);
            match ready!(Pin::new(&mut *stream).poll_read(cx, &mut buffer)) {
                Ok(()) if !buffer.filled().is_empty() => {
                    self.bytes_left = self.bytes_left.saturating_sub(buffer.filled().len());
                }
                // Closed, or broken: either way nobody is there to be told anything.
                Ok(()) | Err(_) => break,
            }
        }
        Poll::Ready(())
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Lingering<S> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(cx, buffer)
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> AsyncWrite for Lingering<S> {
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
        let listening = this.listening.get_or_insert_with(Listening::begin);
        if listening.deadline.as_mut().poll(cx).is_ready() {
            return Poll::Ready(Ok(()));
        }
        if !listening.is_shut_down {
            // A client that reads nothing holds this up, so the deadline counts here too.
            ready!(Pin::new(&mut this.stream).poll_shutdown(cx))?;
            listening.is_shut_down = true;
        }
        listening.poll(&mut this.stream, cx).map(Ok)
    }
}
