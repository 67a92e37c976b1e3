//! A stream whose first bytes must come in time. hyper waits for the preface of an HTTP/2 connection (RFC 9113 §3.4)
//! without a limit, and its pings begin only afterwards.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::{Sleep, sleep};

use crate::limits::HANDSHAKE_TIMEOUT;

/// Bytes of the preface.
const PREFACE_BYTES: usize = 24;

/// A stream that fails where its preface does not come within the time of a handshake.
pub(super) struct Prompt<S> {
    stream: S,
    waiting: Option<Waiting>,
}

struct Waiting {
    deadline: Pin<Box<Sleep>>,
    bytes_left: usize,
}

impl<S> Prompt<S> {
    pub(super) fn new(stream: S) -> Self {
        let waiting = Waiting { deadline: Box::pin(sleep(HANDSHAKE_TIMEOUT)), bytes_left: PREFACE_BYTES };
        Self { stream, waiting: Some(waiting) }
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Prompt<S> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let this = &mut *self;
        let filled = buffer.filled().len();
        let read = Pin::new(&mut this.stream).poll_read(cx, buffer);
        let Some(waiting) = &mut this.waiting else { return read };
        match read {
            Poll::Ready(result) => {
                waiting.bytes_left = waiting.bytes_left.saturating_sub(buffer.filled().len() - filled);
                if waiting.bytes_left == 0 {
                    this.waiting = None;
                }
                Poll::Ready(result)
            }
            Poll::Pending if waiting.deadline.as_mut().poll(cx).is_ready() => {
                Poll::Ready(Err(io::ErrorKind::TimedOut.into()))
            }
            Poll::Pending => Poll::Pending,
        }
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Prompt<S> {
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
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}
