//! Bytes both ways, from whatever carries them: a socket, TLS, a stream of HTTP/2.

use bytes::Bytes;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpStream, UnixStream};
use tokio_rustls::server::TlsStream;

/// A stream of bytes both ways that can also break off.
pub trait Duplex: AsyncRead + AsyncWrite + Unpin {
    /// Has its other end find a break, and no end, when it is dropped: nobody is to take a part for the whole.
    fn break_off(&self);
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
}
