//! Upstreams: how many connections the process may have to them, making one, and what is known of each address.

mod endpoint;
mod transport;

use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use sidecar_decide::Reason;
use thiserror::Error;
use tokio::net::TcpStream;
use tokio::sync::Notify;
use tokio::time::timeout;

pub use endpoint::{Condition, EndpointReport, EndpointState, Endpoints};
pub use transport::Transport;

use crate::tls::{Secured, UpstreamTls};

/// How many connections to upstreams the process may have, so that what it needs besides always finds a file.
#[derive(Debug)]
pub struct Budget {
    open: AtomicUsize,
    limit: usize,
    wanted: Notify,
}

/// A place in the budget, for as long as a connection lives.
#[derive(Debug)]
pub struct Place(Arc<Budget>);

impl Budget {
    /// A budget of that many connections.
    pub fn new(limit: usize) -> Arc<Self> {
        Arc::new(Self { open: AtomicUsize::new(0), limit, wanted: Notify::new() })
    }

    /// Connections open now, idle ones included.
    pub fn open(&self) -> usize {
        self.open.load(Ordering::Relaxed)
    }

    /// Connections that may be open.
    pub fn limit(&self) -> usize {
        self.limit
    }

    /// Asks all workers for idle connections to endpoints that a request waits for.
    pub fn want(&self) {
        self.wanted.notify_waiters();
    }

    /// Resolves when somebody has asked since this was called.
    pub fn wanted(&self) -> impl Future<Output = ()> {
        self.wanted.notified()
    }

    fn take(self: &Arc<Self>) -> Option<Place> {
        if self.open.fetch_add(1, Ordering::Relaxed) < self.limit {
            return Some(Place(Arc::clone(self)));
        }
        self.open.fetch_sub(1, Ordering::Relaxed);
        None
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.0.open.fetch_sub(1, Ordering::Relaxed);
    }
}

/// No connection to an upstream could be made.
#[derive(Debug, Error)]
pub enum ConnectError {
    /// TCP said no.
    #[error("connect: {0}")]
    Refused(#[from] io::Error),
    /// Nothing answered.
    #[error("connect: no answer within {0:?}")]
    Timeout(Duration),
    /// The budget is used up.
    #[error("connect: all connections to upstreams are in use")]
    Full,
    /// HTTP could not start on the connection.
    #[error("connect: {0}")]
    Protocol(String),
    /// There is no TLS with whoever answered.
    #[error("connect: {0}")]
    Tls(Reason),
}

/// Connects to an address, without TLS.
///
/// # Errors
/// When no connection can be made in time.
pub async fn connect(
    address: SocketAddr,
    time: Duration,
    budget: &Arc<Budget>,
) -> Result<(TcpStream, Place), ConnectError> {
    let place = budget.take().ok_or(ConnectError::Full)?;
    let stream = timeout(time, dial(address)).await.map_err(|_| ConnectError::Timeout(time))??;
    Ok((stream, place))
}

/// Connects to an address with TLS, all in the same time.
///
/// # Errors
/// When no connection can be made in time, or none that is secured.
pub async fn connect_tls(
    address: SocketAddr,
    time: Duration,
    budget: &Arc<Budget>,
    tls: &UpstreamTls,
) -> Result<(Transport, Place, Secured), ConnectError> {
    let place = budget.take().ok_or(ConnectError::Full)?;
    let connecting = async { tls.connect(dial(address).await?).await.map_err(ConnectError::Tls) };
    let (stream, secured) = timeout(time, connecting).await.map_err(|_| ConnectError::Timeout(time))??;
    Ok((Transport::Tls(Box::new(stream)), place, secured))
}

async fn dial(address: SocketAddr) -> io::Result<TcpStream> {
    let stream = TcpStream::connect(address).await?;
    // A request's head must not wait for the acknowledgement of the one before (Nagle's algorithm).
    stream.set_nodelay(true)?;
    Ok(stream)
}
