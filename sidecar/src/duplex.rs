//! Bytes both ways, from whatever carries them: a socket, TLS, a stream of HTTP/2.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::Bytes;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpStream, UnixStream};
use tokio_rustls::server::TlsStream;

/// A stream of bytes both ways that can also break off.
pub trait Duplex: AsyncRead + AsyncWrite + Unpin {
    /// Has its other end find a break, and no end, when it is dropped: nobody is to take a part for the whole.
    fn break_off(&self);

    /// Ends what is sent, after all of it was flushed, without saying that it is whole, where there is a word for that: a
    /// receiver that knows TLS (RFC 8446 §6.1) is not to take a part for the whole.
    fn poll_cut_short(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.poll_shutdown(cx)
    }
}

/// A stream that is passed on as it is from now on.
pub struct Opened {
    /// The stream.
    pub stream: Box<dyn Duplex>,
    /// What was read from it already.
    pub first: Bytes,
}

impl Opened {
    /// A stream of which nothing was read.
    pub fn new(stream: impl Duplex + 'static) -> Self {
        Self { stream: Box::new(stream), first: Bytes::new() }
    }
}

impl Duplex for TcpStream {
    fn break_off(&self) {
        // A socket that cannot be told so any more is gone already.
        let _gone = self.set_zero_linger();
    }
}

impl Duplex for UnixStream {
    /// Both ends are on this machine; whoever reads a part finds its length wrong.
    fn break_off(&self) {}
}

impl Duplex for TlsStream<TcpStream> {
    fn break_off(&self) {
        self.get_ref().0.break_off();
    }

    fn poll_cut_short(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(self.get_mut().get_mut().0).poll_shutdown(cx)
    }
}
