//! What all workers know of one address: how many connections it has, how much it does, who waits for it.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Weak};

use sidecar_config::backend::PoolPolicy;
use sidecar_config::upstream::BackendProtocol;
use sidecar_decide::Endpoint;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::protocol::Version;

/// A number that each request changes, alone on its cache lines, so that workers do not slow each other down.
#[derive(Debug, Default)]
#[repr(align(128))]
struct Padded(AtomicUsize);

/// One address as it is used in one way, shared by all workers. It outlives a generation for as long as one uses it.
#[derive(Debug)]
pub struct EndpointState {
    endpoint: Endpoint,
    connections: Arc<Semaphore>,
    pending: AtomicUsize,
    in_flight: Padded,
}

impl EndpointState {
    /// One that nothing is known of yet.
    pub fn new(endpoint: Endpoint) -> Arc<Self> {
        let connections = usize::try_from(endpoint.policy.pool.max_connections).unwrap_or(usize::MAX);
        let connections = Arc::new(Semaphore::new(connections.min(Semaphore::MAX_PERMITS)));
        Arc::new(Self { endpoint, connections, pending: AtomicUsize::new(0), in_flight: Padded::default() })
    }

    /// Where it is.
    pub fn address(&self) -> SocketAddr {
        self.endpoint.address
    }

    /// Whether it is spoken to with TLS only.
    pub fn is_secured(&self) -> bool {
        self.endpoint.tls.is_some()
    }

    /// What is spoken with it.
    pub fn version(&self) -> Version {
        match self.endpoint.protocol {
            BackendProtocol::Http => Version::Http1,
            BackendProtocol::Http2 => Version::Http2,
        }
    }

    /// Bounds on its connections.
    pub fn pool(&self) -> &PoolPolicy {
        &self.endpoint.policy.pool
    }

    /// The right to one more connection, if there is one left.
    pub fn try_permit(&self) -> Option<OwnedSemaphorePermit> {
        Arc::clone(&self.connections).try_acquire_owned().ok()
    }

    /// The right to one more connection, as soon as one is left; those who wait get it in their order.
    pub async fn permit(&self) -> Option<OwnedSemaphorePermit> {
        Arc::clone(&self.connections).acquire_owned().await.ok()
    }

    /// Requests that wait for a connection, of all workers.
    pub fn pending(&self) -> usize {
        self.pending.load(Ordering::Relaxed)
    }

    /// Counts a request as waiting for as long as the guard lives; `None` where enough wait.
    pub fn wait(&self) -> Option<Waiting<'_>> {
        let most = usize::try_from(self.pool().max_pending).unwrap_or(usize::MAX);
        let waiting = Waiting(self);
        (self.pending.fetch_add(1, Ordering::Relaxed) < most).then_some(waiting)
    }

    /// Counts a request that is sent.
    pub fn begin(&self) {
        self.in_flight.0.fetch_add(1, Ordering::Relaxed);
    }

    /// Counts its end.
    pub fn end(&self) {
        self.in_flight.0.fetch_sub(1, Ordering::Relaxed);
    }

    /// Requests it has to do, those that wait included.
    pub fn load(&self) -> usize {
        self.in_flight.0.load(Ordering::Relaxed) + self.pending()
    }
}

/// A request that waits.
#[derive(Debug)]
pub struct Waiting<'a>(&'a EndpointState);

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.0.pending.fetch_sub(1, Ordering::Relaxed);
    }
}

/// The endpoints of all generations that are in use, so that a new one finds what the old one knew.
#[derive(Debug, Default)]
pub struct Endpoints {
    known: HashMap<Endpoint, Weak<EndpointState>>,
}

impl Endpoints {
    /// The states of these endpoints, in their order.
    pub fn of(&mut self, endpoints: &[Endpoint]) -> Vec<Arc<EndpointState>> {
        self.known.retain(|_, state| state.strong_count() > 0);
        let states = endpoints.iter().map(|endpoint| {
            let known = self.known.get(endpoint).and_then(Weak::upgrade);
            known.unwrap_or_else(|| {
                let state = EndpointState::new(endpoint.clone());
                self.known.insert(endpoint.clone(), Arc::downgrade(&state));
                state
            })
        });
        states.collect()
    }
}
