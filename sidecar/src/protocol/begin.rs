//! How a client without TLS begins: with HTTP/1.1, or with HTTP/2 because it knows that the server speaks it.

use std::io;

use tokio::net::TcpStream;
use tokio::time::{sleep, timeout};

use super::{Closing, Version};
use crate::limits::{FIRST_REQUEST_GRACE, REQUEST_HEAD_TIMEOUT};

/// How the preface of HTTP/2 begins (RFC 9113 §3.4); no request of HTTP/1.1 may.
const PREFACE_START: &[u8] = b"PRI ";

/// Why there is nothing to serve.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NoRequest {
    /// The client ended before its first byte.
    Closed,
    /// No byte came in time.
    Timeout,
    /// The listener is closing.
    Closing,
}

/// The version a client begins with, once its first bytes are there. They are looked at and not taken.
///
/// A client that sends less than four bytes at first is taken for one of HTTP/1.1, which those of HTTP/2 do not do.
///
/// # Errors
/// When there is nothing to serve.
pub async fn first_version(stream: &TcpStream, mut closing: Closing) -> Result<Version, NoRequest> {
    let mut start = [0; PREFACE_START.len()];
    let closed = async {
        let _told_or_gone = closing.wait_for(|closing| *closing).await;
        sleep(FIRST_REQUEST_GRACE).await;
    };
    let peeked: io::Result<usize> = tokio::select! {
        peeked = timeout(REQUEST_HEAD_TIMEOUT, stream.peek(&mut start)) => peeked.map_err(|_| NoRequest::Timeout)?,
        () = closed => return Err(NoRequest::Closing),
    };
    match peeked {
        Ok(0) | Err(_) => Err(NoRequest::Closed),
        Ok(_) if start == PREFACE_START => Ok(Version::Http2),
        Ok(_) => Ok(Version::Http1),
    }
}
