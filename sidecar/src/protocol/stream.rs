//! One stream of HTTP/2 as bytes both ways (RFC 8441 §5).

use std::future::Future;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use hyper::upgrade::Upgraded;
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::{Instant, Sleep, sleep};

use crate::duplex::Duplex;
use crate::limits::STREAM_CHECK;

/// What a stream has become that a client opened by an extended CONNECT.
pub(super) struct Http2Stream {
    stream: TokioIo<Upgraded>,
    /// Its client sends no more.
    is_ended: bool,
    /// When to look, from then on, whether its client is still there.
    check: Option<Pin<Box<Sleep>>>,
}

impl Http2Stream {
    pub(super) fn new(upgraded: Upgraded) -> Self {
        Self { stream: TokioIo::new(upgraded), is_ended: false, check: None }
    }

    /// Has the task come by now and then. Of a client that ends its direction first and goes away later hyper tells only
    /// who tries to send.
    fn come_again(&mut self, cx: &mut Context<'_>) {
        let check = self.check.get_or_insert_with(|| Box::pin(sleep(STREAM_CHECK)));
        while check.as_mut().poll(cx).is_ready() {
            check.as_mut().reset(Instant::now() + STREAM_CHECK);
        }
    }
}

impl Duplex for Http2Stream {
    /// hyper ends the stream and then resets it with `NO_ERROR`: there is no way to another code.
    fn break_off(&self) {}
}

impl AsyncRead for Http2Stream {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        ready!(Pin::new(&mut self.stream).poll_read(cx, buffer))?;
        if buffer.filled().len() > before {
            return Poll::Ready(Ok(()));
        }
        // hyper takes a client's reset for its end. The task that sends knows better, once it had its turn.
        if !self.is_ended {
            self.is_ended = true;
            cx.waker().wake_by_ref();
            return Poll::Pending;
        }
        match Pin::new(&mut self.stream).poll_flush(cx) {
            Poll::Ready(Err(error)) => Poll::Ready(Err(error)),
            Poll::Ready(Ok(())) | Poll::Pending => Poll::Ready(Ok(())),
        }
    }
}

impl AsyncWrite for Http2Stream {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let flushed = Pin::new(&mut self.stream).poll_flush(cx);
        if self.is_ended {
            self.come_again(cx);
        }
        flushed
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}
