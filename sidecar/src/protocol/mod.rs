//! The seam to HTTP: the only folder that knows hyper. Everything else sees our own request, body and response.

mod begin;
mod body;
mod client;
mod headers;
mod multiplex;
mod post;
mod runtime;
mod server;
mod stream;
mod upgrade;
mod wakes;
mod wire;

use http::{HeaderMap, Method, StatusCode, Uri};

pub use begin::{NoRequest, first_version};
pub use body::{Body, BodyError, Inbound};
pub use client::{NotSent, Outgoing, Received, Upstream, connect};
pub use headers::{strip_hop_by_hop, upstream_host};
pub use post::post;
pub use server::{Closing, ServeError, serve};
pub use upgrade::{Tunnel, Upgrade};
pub use wire::Wire;

/// The HTTP version of a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Version {
    /// HTTP/1.1, or 1.0 from an old client.
    Http1,
    /// HTTP/2.
    Http2,
}

impl Version {
    /// The version a TLS connection agreed on by ALPN (RFC 7301); HTTP/1.1 without it.
    pub fn of_alpn(protocol: Option<&[u8]>) -> Self {
        match protocol {
            Some(b"h2") => Self::Http2,
            _ => Self::Http1,
        }
    }

    /// As rows have it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Http1 => "HTTP/1.1",
            Self::Http2 => "HTTP/2",
        }
    }
}

/// A request as it arrived.
pub struct Request {
    /// Its head.
    pub head: Head,
    /// Its body.
    pub body: Inbound,
    /// What its client would rather go on with than HTTP.
    pub upgrade: Option<Upgrade>,
}

/// A request's head.
#[derive(Clone, Default)]
pub struct Head {
    /// The method.
    pub method: Method,
    /// The target as the client wrote it.
    pub target: Uri,
    /// The fields.
    pub headers: HeaderMap,
}

/// A response on its way to a client.
pub struct Response {
    /// The status.
    pub status: StatusCode,
    /// The fields.
    pub headers: HeaderMap,
    /// The body.
    pub body: Body,
    /// What follows, where HTTP ends with it.
    pub tunnel: Option<Tunnel>,
}
