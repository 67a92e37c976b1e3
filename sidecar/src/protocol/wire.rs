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

use crate::duplex::Duplex;
use crate::tls::broken_off;
use crate::upstream::Transport;

/// What is known of a connection's bytes, by whoever uses the connection.
#[derive(Default)]
pub struct Wire {
    /// How often something came.
    heard: Cell<u64>,
    failure: Cell<Option<Reason>>,
    /// Of whoever reads, while nothing comes.
    reader: RefCell<Option<Waker>>,
    /// Of whoever wants to know when the first bytes have come.
    first: RefCell<Option<Waker>>,
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

    /// Wakes somebody once when the first bytes have come, unless they have.
    pub(super) fn tell_first(&self, waker: &Waker) {
        if self.heard.get() == 0 {
            *self.first.borrow_mut() = Some(waker.clone());
        }
    }

    fn hear(&self) {
        self.heard.set(self.heard.get() + 1);
        if self.heard.get() == 1
            && let Some(first) = self.first.take()
        {
            first.wake();
        }
    }

    /// Ends it now, for a reason that is told.
    pub fn cut(&self, reason: Reason) {
        if self.failure.get().is_none() {
            self.failure.set(Some(reason));
        }
        if let Some(reader) = self.reader.take() {
            reader.wake();
        }
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

    /// Fails once it was cut.
    fn check(&self) -> io::Result<()> {
        match self.failure.get() {
            Some(reason) => Err(io::Error::new(io::ErrorKind::ConnectionAborted, reason.code())),
            None => Ok(()),
        }
    }
}

/// A connection that is watched so.
pub(super) struct Watched {
    stream: Transport,
    wire: Rc<Wire>,
}

impl Watched {
    pub(super) fn new(stream: Transport, wire: &Rc<Wire>) -> Self {
        Self { stream, wire: Rc::clone(wire) }
    }

    pub(super) fn is_secured(&self) -> bool {
        matches!(self.stream, Transport::Tls(_))
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
        self.wire.check()?;
        let before = buffer.filled().len();
        let polled = Pin::new(&mut self.stream).poll_read(cx, buffer);
        match &polled {
            // Nobody cuts a connection without TLS.
            Poll::Pending if self.is_secured() => {
                let mut reader = self.wire.reader.borrow_mut();
                match &mut *reader {
                    Some(reader) => reader.clone_from(cx.waker()),
                    None => *reader = Some(cx.waker().clone()),
                }
            }
            Poll::Ready(Err(error)) => self.wire.failure.set(self.wire.failure.get().or_else(|| broken_off(error))),
            Poll::Ready(Ok(())) if buffer.filled().len() > before => self.wire.hear(),
            _ => {}
        }
        polled
    }
}

impl AsyncWrite for Watched {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        self.wire.check()?;
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
        self.wire.check()?;
        Pin::new(&mut self.stream).poll_write_vectored(cx, buffers)
    }
}
