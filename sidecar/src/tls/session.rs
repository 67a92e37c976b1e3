//! A TLS stream whose session can still be asked while somebody else serves the stream: rustls keeps the client's
//! certificates there, and a copy of them for each connection would be kept for nothing.

use std::cell::RefCell;
use std::io;
use std::pin::Pin;
use std::rc::{Rc, Weak};
use std::task::{Context, Poll};

use rustls::pki_types::CertificateDer;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio_rustls::server::TlsStream;

use crate::duplex::Duplex;

/// The stream. It is closed when this is dropped, whoever holds a [`Session`] of it.
pub struct SessionStream(Rc<RefCell<TlsStream<TcpStream>>>);

/// Its session, as long as the stream is there.
pub struct Session(Weak<RefCell<TlsStream<TcpStream>>>);

impl SessionStream {
    /// Of a finished handshake.
    pub fn new(stream: TlsStream<TcpStream>) -> Self {
        Self(Rc::new(RefCell::new(stream)))
    }

    /// Its session.
    pub fn session(&self) -> Session {
        Session(Rc::downgrade(&self.0))
    }

    /// Never held over a wait, and nobody asks the session while the stream is polled.
    fn poll<T>(&self, poll: impl FnOnce(Pin<&mut TlsStream<TcpStream>>) -> T) -> T {
        poll(Pin::new(&mut *self.0.borrow_mut()))
    }
}

impl Session {
    /// Lets `look` see the certificates the client sent, its own first; those of its first handshake where it resumed a
    /// session. `None` where the stream is gone or the client sent none.
    pub fn chain<T>(&self, look: impl FnOnce(&[CertificateDer<'static>]) -> T) -> Option<T> {
        let stream = self.0.upgrade()?;
        let stream = stream.try_borrow().ok()?;
        stream.get_ref().1.peer_certificates().map(look)
    }
}

impl Duplex for SessionStream {
    fn break_off(&self) {
        self.0.borrow().break_off();
    }

    fn poll_cut_short(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.poll(|stream| stream.poll_cut_short(cx))
    }
}

impl AsyncRead for SessionStream {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        self.poll(|stream| stream.poll_read(cx, buffer))
    }
}

impl AsyncWrite for SessionStream {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        self.poll(|stream| stream.poll_write(cx, bytes))
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        self.poll(|stream| stream.poll_write_vectored(cx, slices))
    }

    fn is_write_vectored(&self) -> bool {
        self.0.borrow().is_write_vectored()
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.poll(|stream| stream.poll_flush(cx))
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.poll(|stream| stream.poll_shutdown(cx))
    }
}
