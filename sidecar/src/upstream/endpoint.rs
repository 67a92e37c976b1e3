//! What all workers know of one address: how many connections it has, how much it does, who waits for it.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use sidecar_config::backend::{BackendPolicy, PoolPolicy};
use sidecar_config::upstream::BackendProtocol;
use sidecar_decide::{Endpoint, Reason};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::health::{Ejection, Ejections, Failure, Health, Outlier, Sign};
use crate::protocol::Version;

/// A number that each request changes, alone on its cache lines, so that workers do not slow each other down.
#[derive(Debug, Default)]
#[repr(align(128))]
struct Padded(AtomicUsize);

/// What an endpoint tells of itself, at one moment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EndpointReport {
    /// Where it is.
    pub address: SocketAddr,
    /// How it is used: an address that is used in several ways is several endpoints.
    pub policy: Arc<BackendPolicy>,
    /// Whether it is used.
    pub condition: Condition,
    /// Connections, idle ones included.
    pub connections: usize,
    /// Requests and connections it has been given and has not ended.
    pub in_flight: usize,
    /// Requests that wait for a connection to it.
    pub pending: usize,
    /// Why a try at it failed last, and when: seconds since the epoch.
    pub last_failure: Option<(Reason, u64)>,
}

/// Whether an endpoint is used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Condition {
    /// It is.
    Usable,
    /// It is, and its first check has not ended.
    Unchecked,
    /// It fails its checks, and gets nothing.
    Unhealthy,
    /// It failed too often, and is left out for so long.
    Ejected(Duration),
}

/// One address as it is used in one way, shared by all workers. It outlives a generation for as long as one uses it.
#[derive(Debug)]
pub struct EndpointState {
    endpoint: Endpoint,
    connections: Arc<Semaphore>,
    most_connections: usize,
    pending: AtomicUsize,
    in_flight: Padded,
    health: Sign,
    outlier: Outlier,
    ejections: Arc<Ejections>,
    /// The second since the epoch, and in the last byte the number of the reason in the table of reasons; 0 before the first.
    last_failure: AtomicU64,
}

impl EndpointState {
    /// One that nothing is known of yet.
    pub fn new(endpoint: Endpoint, ejections: &Arc<Ejections>) -> Arc<Self> {
        let most_connections = usize::try_from(endpoint.policy.pool.max_connections).unwrap_or(usize::MAX);
        let most_connections = most_connections.min(Semaphore::MAX_PERMITS);
        Arc::new(Self {
            endpoint,
            connections: Arc::new(Semaphore::new(most_connections)),
            most_connections,
            pending: AtomicUsize::new(0),
            in_flight: Padded::default(),
            health: Sign::default(),
            outlier: Outlier::new(Instant::now()),
            ejections: Arc::clone(ejections),
            last_failure: AtomicU64::new(0),
        })
    }

    /// What there is to tell of it.
    pub fn report(&self) -> EndpointReport {
        EndpointReport {
            address: self.address(),
            policy: Arc::clone(&self.endpoint.policy),
            condition: self.condition(),
            connections: self.most_connections.saturating_sub(self.connections.available_permits()),
            in_flight: self.in_flight.0.load(Ordering::Relaxed),
            pending: self.pending(),
            last_failure: self.last_failure(),
        }
    }

    /// Notes why a try at it failed.
    pub fn note_failure(&self, reason: Reason) {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
        self.last_failure.store(now << 8 | reason as u64, Ordering::Relaxed);
    }

    fn last_failure(&self) -> Option<(Reason, u64)> {
        let noted = self.last_failure.load(Ordering::Relaxed);
        let reason = Reason::ALL.get(usize::try_from(noted & 0xff).ok()?)?;
        (noted != 0).then_some((*reason, noted >> 8))
    }

    /// Whether it is used.
    pub fn condition(&self) -> Condition {
        match (self.health.health(), self.ejected()) {
            (Health::Unhealthy, _) => Condition::Unhealthy,
            (_, Some(left)) => Condition::Ejected(left),
            (Health::Unknown, None) if self.policy().health_check.is_some() => Condition::Unchecked,
            (_, None) => Condition::Usable,
        }
    }

    /// Whether it is not to be used because it fails its checks.
    pub fn is_unhealthy(&self) -> bool {
        self.health.health() == Health::Unhealthy
    }

    /// Notes what its checks have found.
    pub fn found(&self, health: Health) {
        self.health.set(health);
    }

    /// Where it is.
    pub fn address(&self) -> SocketAddr {
        self.endpoint.address
    }

    /// Who it must be, where it is spoken to with TLS.
    pub fn tls(&self) -> Option<&sidecar_decide::UpstreamTls> {
        self.endpoint.tls.as_deref()
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

    /// How it is used.
    pub fn policy(&self) -> &BackendPolicy {
        &self.endpoint.policy
    }

    /// How long it is still left out because it failed; `None` while it is not.
    pub fn ejected(&self) -> Option<Duration> {
        self.outlier.ejected(Instant::now)
    }

    /// Notes an answer of this status. A failure it is told about is one too many.
    pub fn answered(&self, status: u16) -> Option<Failure> {
        let policy = self.endpoint.policy.outlier_detection.as_ref()?;
        self.outlier.answered(matches!(status, 502..=504), policy)
    }

    /// Notes that it did not fail so.
    pub fn succeeded(&self, failure: Failure) {
        self.outlier.succeeded(failure);
    }

    /// Notes that it failed. A failure it is told about is one too many.
    pub fn failed(&self, failure: Failure) -> Option<Failure> {
        self.outlier.failed(failure, self.endpoint.policy.outlier_detection.as_ref()?)
    }

    /// Ejects it, if its peers, of which it is one, allow it.
    pub fn eject<'a>(&self, failure: Failure, peers: impl Iterator<Item = &'a Self>) {
        let Some(policy) = &self.endpoint.policy.outlier_detection else { return };
        let peers = peers.map(|peer| &peer.outlier);
        match self.ejections.eject(&self.outlier, peers, (failure, policy), Instant::now()) {
            Ejection::Done(time) => {
                tracing::warn!(address = %self.address(), failure = failure.name(), ?time, "an upstream is ejected");
            }
            Ejection::Refused => {
                let most_percent = policy.max_ejection_percent;
                tracing::warn!(address = %self.address(), failure = failure.name(), most_percent, "an upstream fails, and is not ejected");
            }
            Ejection::Already => {}
        }
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
    ejections: Arc<Ejections>,
}

impl Endpoints {
    /// Counts of ejections.
    pub fn ejections(&self) -> &Arc<Ejections> {
        &self.ejections
    }

    /// The states of these endpoints, in their order.
    pub fn of(&mut self, endpoints: &[Endpoint]) -> Vec<Arc<EndpointState>> {
        self.known.retain(|_, state| state.strong_count() > 0);
        let states = endpoints.iter().map(|endpoint| {
            let known = self.known.get(endpoint).and_then(Weak::upgrade);
            known.unwrap_or_else(|| {
                let state = EndpointState::new(endpoint.clone(), &self.ejections);
                self.known.insert(endpoint.clone(), Arc::downgrade(&state));
                state
            })
        });
        states.collect()
    }
}
