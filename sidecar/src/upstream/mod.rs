//! Making a connection to an upstream.

use std::io;
use std::net::SocketAddr;

use thiserror::Error;
use tokio::net::TcpStream;
use tokio::time::timeout;

use crate::limits::CONNECT_TIMEOUT;
use crate::protocol::{self, Upstream};

/// No connection to an upstream could be made.
#[derive(Debug, Error)]
pub enum ConnectError {
    /// TCP said no.
    #[error("connect: {0}")]
    Refused(#[from] io::Error),
    /// Nothing answered.
    #[error("connect: no answer within {CONNECT_TIMEOUT:?}")]
    Timeout,
    /// HTTP could not start on the connection.
    #[error("connect: {0}")]
    Protocol(String),
}

/// Connects to an address.
///
/// # Errors
/// When no connection can be made in time.
pub async fn connect(address: SocketAddr) -> Result<Upstream, ConnectError> {
    let stream = timeout(CONNECT_TIMEOUT, TcpStream::connect(address)).await.map_err(|_| ConnectError::Timeout)??;
    // A request's head must not wait for the acknowledgement of the one before (Nagle's algorithm).
    stream.set_nodelay(true)?;
    protocol::connect(stream).await.map_err(|error| ConnectError::Protocol(error.to_string()))
}
