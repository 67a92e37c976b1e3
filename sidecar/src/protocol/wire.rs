//! The bytes of a connection to an upstream: whether any came, and why they ended where TLS or the gate ended them.

use std::cell::{Cell, RefCell};
use std::future::poll_fn;
use std::io;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, Waker};

use sidecar_decide::Reason;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::task::AbortHandle;

use super::Version;
use crate::duplex::Duplex;
use crate::tls::broken_off;
use crate::upstream::Transport;

/// What is known of a connection's bytes, by whoever uses the connection.
#[derive(Default)]
pub struct Wire {
    /// How often something came.
    heard: Cell<u64>,
    failure: Cell<Option<Reason>>,
    /// Nobody wants it any more, and it had its time to say so.
    is_over: Cell<bool>,
    /// Of whoever reads and writes, while nothing comes or nothing goes.
    waiting: RefCell<Option<Waker>>,
    /// Of whoever wants to know when the next bytes have come.
    next: RefCell<Option<Waker>>,
    /// Of a connection that does not read while its response is not wanted.
    driver: RefCell<Option<AbortHandle>>,
    /// Of what it carries, which need not be reading when it is cut.
    carried: RefCell<Option<Waker>>,
}

impl Wire {
    /// Grows whenever something comes.
    pub fn heard(&self) -> u64 {
        self.heard.get()
    }

    /// Why it ended, if it did in a way that HTTP cannot tell.
    pub fn failure(&self) -> Option<Reason> {
        self.failure.get()
    }

    /// Is driven by a task that may be ended with it.
    pub(super) fn driven_by(&self, driver: AbortHandle) {
        *self.driver.borrow_mut() = Some(driver);
    }

    /// Wakes somebody once, when the next bytes have come.
    pub(super) fn tell_next(&self, waker: &Waker) {
        *self.next.borrow_mut() = Some(waker.clone());
    }

    fn hear(&self) {
        self.heard.set(self.heard.get() + 1);
        if let Some(next) = self.next.take() {
            next.wake();
        }
    }

    /// Ends it now, for a reason that is told.
    pub fn cut(&self, reason: Reason) {
        if self.failure.get().is_none() {
            self.failure.set(Some(reason));
        }
        self.wake();
        if let Some(driver) = self.driver.take() {
            driver.abort();
        }
        if let Some(carried) = self.carried.take() {
            carried.wake();
        }
    }

    /// Resolves when it was cut: what waits for somebody else to take what came does not read, and would not find out. For
    /// one task at a time.
    pub async fn cut_short(&self) -> Reason {
        poll_fn(|cx| match self.failure.get() {
            Some(reason) => Poll::Ready(reason),
            None => {
                *self.carried.borrow_mut() = Some(cx.waker().clone());
                Poll::Pending
            }
        })
        .await
    }

    /// Ends it now, because nobody wants it any more.
    pub(super) fn end(&self) {
        self.is_over.set(true);
        self.wake();
    }

    fn wake(&self) {
        if let Some(waiting) = self.waiting.take() {
            waiting.wake();
        }
    }

    /// Fails once it was cut or has ended.
    fn check(&self) -> io::Result<()> {
        match self.failure.get() {
            Some(reason) => Err(io::Error::new(io::ErrorKind::ConnectionAborted, reason.code())),
            None if self.is_over.get() => Err(io::ErrorKind::ConnectionAborted.into()),
            None => Ok(()),
        }
    }
}

/// A connection that is watched so.
pub(super) struct Watched {
    stream: Transport,
    wire: Rc<Wire>,
    /// Whether it may be ended from outside while it waits. Without TLS nobody cuts a connection, and one for one request
    /// at a time ends with its driver.
    may_be_ended: bool,
}

impl Watched {
    pub(super) fn new(stream: Transport, wire: &Rc<Wire>, version: Version) -> Self {
        let may_be_ended = matches!(stream, Transport::Tls(_)) || version == Version::Http2;
        Self { stream, wire: Rc::clone(wire), may_be_ended }
    }

    pub(super) fn is_secured(&self) -> bool {
        matches!(self.stream, Transport::Tls(_))
    }

    /// Looks whether it was ended before `act`, and has it woken for it where that waits.
    fn unless_ended<T>(
        &mut self,
        cx: &mut Context<'_>,
        act: impl FnOnce(Pin<&mut Transport>, &mut Context<'_>) -> Poll<io::Result<T>>,
    ) -> Poll<io::Result<T>> {
        self.wire.check()?;
        let polled = act(Pin::new(&mut self.stream), cx);
        if polled.is_pending() && self.may_be_ended {
            let mut waiting = self.wire.waiting.borrow_mut();
            match &mut *waiting {
                Some(waiting) => waiting.clone_from(cx.waker()),
                None => *waiting = Some(cx.waker().clone()),
            }
        }
        polled
    }
}

impl Duplex for Watched {
    fn break_off(&self) {
        self.stream.break_off();
    }

    fn poll_cut_short(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_cut_short(cx)
    }
}

impl AsyncRead for Watched {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        let polled = self.unless_ended(cx, |stream, cx| stream.poll_read(cx, buffer));
        match &polled {
            Poll::Ready(Err(error)) => self.wire.failure.set(self.wire.failure.get().or_else(|| broken_off(error))),
            Poll::Ready(Ok(())) if buffer.filled().len() > before => self.wire.hear(),
            _ => {}
        }
        polled
    }
}

impl AsyncWrite for Watched {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        self.unless_ended(cx, |stream, cx| stream.poll_write(cx, bytes))
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.unless_ended(cx, Transport::poll_flush)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.unless_ended(cx, Transport::poll_shutdown)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffers: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        match buffers {
            // Most heads come alone, and to send one piece costs the kernel less than to gather one.
            [alone] => self.unless_ended(cx, |stream, cx| stream.poll_write(cx, alone)),
            _ => self.unless_ended(cx, |stream, cx| stream.poll_write_vectored(cx, buffers)),
        }
    }
}
