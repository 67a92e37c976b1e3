//! A worker's connections to upstreams: idle ones by address, the last used first.

use std::cell::RefCell;
use std::collections::HashMap;
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;

use tokio::net::TcpStream;
use tokio::time::{Instant, sleep};

use crate::limits::{IDLE_CONNECTION_TIMEOUT, IDLE_CONNECTIONS_PER_ADDRESS};
use crate::protocol::{self, Upstream};
use crate::upstream::{Budget, ConnectError, Place, connect};

/// The pool of one worker.
pub struct Pool {
    budget: Arc<Budget>,
    idle: RefCell<HashMap<SocketAddr, Vec<Idle>>>,
}

struct Idle {
    connection: Upstream,
    place: Place,
    since: Instant,
}

/// A connection that is in use.
pub struct Lease {
    /// The connection.
    pub connection: Upstream,
    /// Where it goes.
    pub address: SocketAddr,
    place: Place,
    /// Whether it served a request before, so that the other side may be closing it just now.
    pub is_reused: bool,
}

impl Pool {
    /// An empty pool whose connections count in a budget.
    pub fn new(budget: Arc<Budget>) -> Self {
        Self { budget, idle: RefCell::default() }
    }

    /// A connection to an address: the idle one that was used last, or a new one.
    ///
    /// # Errors
    /// When no connection can be made.
    pub async fn lease(&self, address: SocketAddr) -> Result<Lease, ConnectError> {
        if let Some((connection, place)) = self.take_idle(address) {
            return Ok(Lease { connection, address, place, is_reused: true });
        }
        self.lease_new(address).await
    }

    /// A new connection to an address.
    ///
    /// # Errors
    /// When none can be made.
    pub async fn lease_new(&self, address: SocketAddr) -> Result<Lease, ConnectError> {
        let (stream, place) = self.dial(address).await?;
        let connection = protocol::connect(stream).await.map_err(|error| ConnectError::Protocol(error.to_string()))?;
        Ok(Lease { connection, address, place, is_reused: false })
    }

    /// A new connection to an address, for whatever is spoken on it; it never comes back to the pool.
    ///
    /// # Errors
    /// When none can be made.
    pub async fn dial(&self, address: SocketAddr) -> Result<(TcpStream, Place), ConnectError> {
        match connect(address, &self.budget).await {
            // What waits for other addresses makes room.
            Err(ConnectError::Full) if self.close_one_idle() => connect(address, &self.budget).await,
            connected => connected,
        }
    }

    fn close_one_idle(&self) -> bool {
        self.idle.borrow_mut().values_mut().any(|connections| connections.pop().is_some())
    }

    fn take_idle(&self, address: SocketAddr) -> Option<(Upstream, Place)> {
        let mut idle = self.idle.borrow_mut();
        let connections = idle.get_mut(&address)?;
        connections.retain(|idle| !idle.connection.is_closed());
        // One whose last response has just ended may still be on its way to being ready.
        let ready = connections.iter().rposition(|idle| idle.connection.is_ready())?;
        let idle = connections.remove(ready);
        Some((idle.connection, idle.place))
    }

    /// Takes back a connection whose response was read to its end.
    pub fn give_back(self: &Rc<Self>, lease: Lease) {
        if lease.connection.is_closed() {
            return;
        }
        let mut idle = self.idle.borrow_mut();
        let is_first = idle.is_empty();
        let connections = idle.entry(lease.address).or_default();
        if connections.len() < IDLE_CONNECTIONS_PER_ADDRESS {
            connections.push(Idle { connection: lease.connection, place: lease.place, since: Instant::now() });
        }
        if is_first {
            tokio::task::spawn_local(Rc::clone(self).sweep());
        }
    }

    /// Closes what has been idle too long, until nothing is left: an idle worker has no timer.
    async fn sweep(self: Rc<Self>) {
        loop {
            sleep(IDLE_CONNECTION_TIMEOUT / 2).await;
            let mut idle = self.idle.borrow_mut();
            idle.retain(|_, connections| {
                connections
                    .retain(|idle| !idle.connection.is_closed() && idle.since.elapsed() < IDLE_CONNECTION_TIMEOUT);
                !connections.is_empty()
            });
            if idle.is_empty() {
                return;
            }
        }
    }
}
