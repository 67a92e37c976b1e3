//! One worker's connections to one endpoint.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::net::SocketAddr;
use std::rc::{Rc, Weak};
use std::sync::Arc;
use std::time::Duration;

use sidecar_decide::{Limiter, Reason};
use thiserror::Error;
use tokio::net::TcpStream;
use tokio::sync::{OwnedSemaphorePermit, oneshot};
use tokio::time::{Instant, timeout};

use super::Pool;
use super::secured::{SecuredLine, SecuredLines};
use super::shared::{SharedLines, Stream};
use crate::duplex::Opened;
use crate::limits::HANDOVERS;
use crate::protocol::{self, Upstream, Version};
use crate::tls::UpstreamTls;
use crate::upstream::{Budget, ConnectError, EndpointState, Place, Transport, connect, connect_tls};

/// The connections of one worker to one endpoint.
pub struct Shelf {
    pub(super) endpoint: Arc<EndpointState>,
    pub(super) pool: Weak<Pool>,
    /// The one used last at the end.
    idle: RefCell<Vec<Idle>>,
    /// Requests of this worker that wait, the oldest first.
    waiting: RefCell<VecDeque<oneshot::Sender<Lease>>>,
    /// No generation uses the endpoint any more.
    is_closed: Cell<bool>,
    secured: SecuredLines,
    /// Those that take many requests at once; where there are such, none of the others.
    pub(super) shared: SharedLines,
}

struct Idle {
    connection: Upstream,
    held: Held,
    since: Instant,
}

/// What goes with a connection for as long as it lives.
pub(super) struct Held {
    _place: Place,
    _permit: OwnedSemaphorePermit,
    pub(super) born: Instant,
    /// Requests that were sent on it.
    pub(super) requests: u32,
    /// Requests it went to directly from the one before.
    handovers: u8,
    /// With TLS.
    secured: Option<Rc<SecuredLine>>,
}

/// A connection that is in use.
pub struct Lease {
    /// The connection.
    pub connection: Upstream,
    /// Whether it served a request before, so that the other side may be closing it just now.
    pub is_reused: bool,
    pub(super) hold: Hold,
    pub(super) busy: Busy,
}

/// What of a connection a request has.
pub(super) enum Hold {
    /// All of it.
    Whole(Held),
    /// One of its streams.
    Stream(Stream),
}

/// What a connection takes up that is not shared, for as long as it lives.
pub struct Line {
    _place: Place,
    _permit: OwnedSemaphorePermit,
    secured: Option<Rc<SecuredLine>>,
    _busy: Busy,
}

impl Line {
    /// Why it ended, if the gate itself has cut it, or TLS.
    pub fn failure(&self) -> Option<Reason> {
        self.secured.as_ref().and_then(|line| line.failure())
    }
}

/// Counts a request as being done by its endpoint.
pub(super) struct Busy(Rc<Shelf>);

impl Busy {
    pub(super) fn new(shelf: &Rc<Shelf>) -> Self {
        shelf.endpoint.begin();
        Self(Rc::clone(shelf))
    }
}

impl Drop for Busy {
    fn drop(&mut self) {
        self.0.endpoint.end();
    }
}

/// What a request that waits gets.
pub(super) enum Free {
    Lease(Lease),
    Permit(OwnedSemaphorePermit),
}

/// Why there is no connection.
#[derive(Debug, Error)]
pub enum LeaseError {
    /// None can be made.
    #[error(transparent)]
    Connect(#[from] ConnectError),
    /// All that there may be are in use, and as many requests wait as may, or this one has waited long enough.
    #[error("all connections to the upstream are in use: {0}")]
    Full(Limiter),
    /// The one that another request was making, and this one waited for, could not be made.
    #[error("{0}")]
    Failed(Reason),
}

impl LeaseError {
    /// What the row says.
    pub fn reason(&self) -> Reason {
        match self {
            Self::Full(_) => Reason::UpstreamPoolFull,
            Self::Connect(error) => reason_of(error),
            Self::Failed(reason) => *reason,
        }
    }

    /// Which limit it is, if it is one.
    pub fn limiter(&self) -> Option<Limiter> {
        match self {
            Self::Full(limiter) => Some(*limiter),
            Self::Connect(_) | Self::Failed(_) => {
                (self.reason() == Reason::UpstreamPoolFull).then_some(Limiter::OpenFiles)
            }
        }
    }
}

impl Shelf {
    pub(super) fn new(endpoint: &Arc<EndpointState>, pool: &Rc<Pool>) -> Rc<Self> {
        Rc::new(Self {
            endpoint: Arc::clone(endpoint),
            pool: Rc::downgrade(pool),
            idle: RefCell::default(),
            waiting: RefCell::default(),
            is_closed: Cell::new(false),
            secured: SecuredLines::default(),
            shared: SharedLines::default(),
        })
    }

    /// Whose connections these are.
    pub fn endpoint(&self) -> &EndpointState {
        &self.endpoint
    }

    /// A connection: the idle one that was used last, or a new one, or the first that comes free in time. A `fresh` one
    /// has served nothing yet. To `waited` is added how long it took until the request's turn came, if it had to wait.
    ///
    /// # Errors
    /// When there is none.
    pub async fn lease(self: &Rc<Self>, fresh: bool, waited: &mut Option<Duration>) -> Result<Lease, LeaseError> {
        if self.endpoint.version() == Version::Http2 {
            return self.lease_stream(fresh, waited).await;
        }
        // One whose last response has just ended is ready in a moment: a request waits for it, where nothing else is idle.
        // To open another instead would have a busy gate open and close one again for every request.
        if !fresh && let Some(lease) = self.take_idle(Upstream::is_ready).or_else(|| self.take_idle(|_| true)) {
            return Ok(lease);
        }
        if let Some(permit) = self.endpoint.try_permit() {
            return self.open(permit).await;
        }
        if fresh && let Some(permit) = self.make_room() {
            return self.open(permit).await;
        }
        let begun = Instant::now();
        let free = self.wait(fresh).await;
        add_since(begun, waited);
        match free? {
            Free::Lease(lease) => Ok(lease),
            Free::Permit(permit) => self.open(permit).await,
        }
    }

    /// A new connection for whatever is spoken on it, which is nobody else's ever.
    ///
    /// # Errors
    /// When there is none.
    pub async fn line(self: &Rc<Self>) -> Result<(TcpStream, Line), LeaseError> {
        let permit = match self.endpoint.try_permit().or_else(|| self.make_room()) {
            Some(permit) => permit,
            None => match self.wait(true).await? {
                Free::Permit(permit) => permit,
                Free::Lease(_) => return Err(LeaseError::Full(Limiter::PoolMaxConnections)),
            },
        };
        let busy = Busy::new(self);
        let (stream, place) = self.dial(connect).await?;
        Ok((stream, Line { _place: place, _permit: permit, secured: None, _busy: busy }))
    }

    /// The right to one more connection instead of one that is idle.
    pub(super) fn make_room(&self) -> Option<OwnedSemaphorePermit> {
        if self.close_idle(1) > 0 { self.endpoint.try_permit() } else { None }
    }

    /// A connection of bytes, with its place in the budget.
    async fn dial<T>(
        &self,
        connect: impl AsyncFn(SocketAddr, Duration, &Arc<Budget>) -> Result<T, ConnectError>,
    ) -> Result<T, ConnectError> {
        let pool = self.pool.upgrade().ok_or(ConnectError::Full)?;
        let (address, time) = (self.endpoint.address(), self.endpoint.pool().connect_timeout.as_std());
        match connect(address, time, pool.budget()).await {
            // What waits for other addresses makes room.
            Err(ConnectError::Full) if pool.close_one_idle() => connect(address, time, pool.budget()).await,
            connected => connected,
        }
    }

    async fn open(self: &Rc<Self>, permit: OwnedSemaphorePermit) -> Result<Lease, LeaseError> {
        let busy = Busy::new(self);
        let (connection, held) = self.make(permit).await?;
        Ok(Lease { connection, hold: Hold::Whole(held), busy, is_reused: false })
    }

    /// A new connection that speaks what is spoken here.
    pub(super) async fn make(self: &Rc<Self>, permit: OwnedSemaphorePermit) -> Result<(Upstream, Held), ConnectError> {
        let (stream, place, secured) = if self.endpoint.is_secured() {
            let tls = self.secured.tls().ok_or(ConnectError::Tls(Reason::UpstreamTls))?;
            let connect = async |address, time, budget: &_| connect_tls(address, time, budget, &tls).await;
            // In a box: a handshake's future is large, and every request has room for it.
            let (stream, place, secured) = Box::pin(self.dial(connect)).await?;
            (stream, place, Some(secured))
        } else {
            let (stream, place) = self.dial(connect).await?;
            (Transport::Plain(stream), place, None)
        };
        let connection = protocol::connect(stream, self.endpoint.version(), self.shared.room()).await;
        let connection = connection.map_err(|error| ConnectError::Protocol(error.to_string()))?;
        let secured = secured.map(|secured| self.secured.enter(secured, connection.wire()));
        if let (Some(_), Some(pool)) = (&secured, self.pool.upgrade()) {
            pool.look_sooner();
        }
        let held = Held { _place: place, _permit: permit, born: Instant::now(), requests: 1, handovers: 0, secured };
        Ok((connection, held))
    }

    /// Waits for a connection that comes free here, or for the right to make one because one ended anywhere.
    async fn wait(&self, fresh: bool) -> Result<Free, LeaseError> {
        let waiting = self.endpoint.wait().ok_or(LeaseError::Full(Limiter::PoolMaxPending))?;
        let (sender, given) = oneshot::channel();
        // A request that needs a fresh one stands in no queue; its sender is kept, because its end would be an answer.
        let _kept = if fresh { Some(sender) } else { self.queue(sender) };
        if let Some(pool) = self.pool.upgrade() {
            pool.budget().want();
        }
        let either = async {
            tokio::select! {
                biased;
                given = given => given.map(Free::Lease).ok(),
                permit = self.endpoint.permit() => permit.map(Free::Permit),
            }
        };
        let free = timeout(self.endpoint.pool().pending_timeout.as_std(), either).await;
        drop(waiting);
        match free {
            Ok(Some(free)) => Ok(free),
            Ok(None) | Err(_) => Err(LeaseError::Full(Limiter::PoolMaxConnections)),
        }
    }

    fn queue<T>(&self, sender: oneshot::Sender<Lease>) -> Option<T> {
        let mut waiting = self.waiting.borrow_mut();
        // Where nothing comes back, those that went away are not met and have to be looked for.
        if waiting.len() > 2 * self.endpoint.pending() {
            waiting.retain(|waiting| !waiting.is_closed());
        }
        waiting.push_back(sender);
        None
    }

    fn take_idle(self: &Rc<Self>, is_wanted: impl Fn(&Upstream) -> bool) -> Option<Lease> {
        let mut idle = self.idle.borrow_mut();
        // From the one that was used last, and rarely further: the others are looked at when the shelf is swept.
        for at in (0..idle.len()).rev() {
            let is_spent = idle[at].connection.is_closed() || self.is_worn(&idle[at].held, Instant::now);
            if !is_spent && !is_wanted(&idle[at].connection) {
                continue;
            }
            let Idle { connection, mut held, .. } = idle.remove(at);
            if !is_spent {
                held.requests += 1;
                held.handovers = 0;
                return Some(Lease { connection, hold: Hold::Whole(held), busy: Busy::new(self), is_reused: true });
            }
        }
        None
    }

    /// Whether a connection takes no more requests.
    pub(super) fn is_worn(&self, held: &Held, now: impl FnOnce() -> Instant) -> bool {
        let pool = self.endpoint.pool();
        held.secured.as_ref().is_some_and(|line| line.is_done())
            || pool.max_requests_per_connection.is_some_and(|most| held.requests >= most)
            || pool.max_age.is_some_and(|age| now().duration_since(held.born) >= age.as_std())
    }

    fn take_back(self: &Rc<Self>, connection: Upstream, mut held: Held, now: Instant) {
        if connection.is_closed() || self.is_closed.get() || self.is_worn(&held, || now) {
            return;
        }
        let mut waiting = self.waiting.borrow_mut();
        waiting.retain(|waiting| !waiting.is_closed());
        let others = self.endpoint.pending().saturating_sub(waiting.len());
        // Requests of other workers, or such that need a fresh one, get the right to make one; here, not before their turn.
        if others > 0 && (waiting.is_empty() || held.handovers >= HANDOVERS) {
            return;
        }
        held.requests += 1;
        held.handovers = held.handovers.saturating_add(1);
        let mut lease = Lease { connection, hold: Hold::Whole(held), busy: Busy::new(self), is_reused: true };
        while let Some(next) = waiting.pop_front() {
            match next.send(lease) {
                Ok(()) => return,
                Err(back) => lease = back,
            }
        }
        drop(waiting);
        if let Lease { connection, hold: Hold::Whole(mut held), .. } = lease {
            held.requests -= 1;
            self.shelve(connection, held, now);
        }
    }

    fn shelve(&self, connection: Upstream, held: Held, now: Instant) {
        let most = usize::try_from(self.endpoint.pool().max_idle).unwrap_or(usize::MAX);
        let mut idle = self.idle.borrow_mut();
        if idle.len() < most {
            idle.push(Idle { connection, held, since: now });
            drop(idle);
            if let Some(pool) = self.pool.upgrade() {
                pool.sweep();
            }
        }
    }

    /// Closes up to so many idle connections, those first that were used longest ago; how many it were.
    pub(super) fn close_idle(&self, most: usize) -> usize {
        let mut idle = self.idle.borrow_mut();
        let count = most.min(idle.len());
        idle.drain(..count);
        count + self.shared.close_idle(most - count)
    }

    /// Whether no generation uses the endpoint any more.
    pub(super) fn is_closed(&self) -> bool {
        self.is_closed.get()
    }

    /// Speaks TLS so from now on, and keeps no idle connection that would be another one today.
    pub(super) fn serve(&self, tls: Option<&Arc<UpstreamTls>>) {
        self.secured.serve(tls);
        self.idle.borrow_mut().retain(|idle| idle.held.secured.as_ref().is_none_or(|line| !line.is_done()));
        self.shared.sweep(self, Instant::now(), Duration::MAX);
    }

    /// Keeps nothing any more.
    pub(super) fn close(&self) {
        self.is_closed.set(true);
        self.idle.borrow_mut().clear();
        self.shared.clear();
    }

    /// Closes what was idle too long, and what is waited for elsewhere; the time until the next look, while any is left.
    pub(super) fn sweep(&self, now: Instant) -> Option<Duration> {
        let time = self.endpoint.pool().idle_timeout.as_std();
        self.close_idle(self.endpoint.pending());
        let mut idle = self.idle.borrow_mut();
        idle.retain(|idle| {
            !idle.connection.is_closed() && now.duration_since(idle.since) < time && !self.is_worn(&idle.held, || now)
        });
        let is_any_idle = self.shared.sweep(self, now, time) || !idle.is_empty();
        let idle = is_any_idle.then_some(time / 2);
        idle.into_iter().chain(self.secured.expire()).min()
    }
}

/// What the row says.
pub(super) fn reason_of(error: &ConnectError) -> Reason {
    match error {
        ConnectError::Full => Reason::UpstreamPoolFull,
        ConnectError::Tls(reason) => *reason,
        _ => Reason::UpstreamConnect,
    }
}

impl Lease {
    /// Whether others use the connection too.
    pub fn is_shared(&self) -> bool {
        matches!(self.hold, Hold::Stream(_))
    }

    /// Nothing has come since `heard` though a request waits: where others share the connection, none shall begin on it.
    pub fn doubt(&self, heard: u64) {
        if let Hold::Stream(stream) = &self.hold
            && self.connection.wire().heard() == heard
        {
            stream.leave();
        }
    }

    /// Gives the connection back, whose response was read to its end just now.
    pub fn give_back(self, now: Instant) {
        let Self { connection, hold: Hold::Whole(held), busy, .. } = self else { return };
        let shelf = Rc::clone(&busy.0);
        drop(busy);
        shelf.take_back(connection, held, now);
    }

    /// The connection itself, for the other protocol that it goes on with; `None` where it has ended.
    pub async fn switch(self) -> Option<(Opened, Line)> {
        let Self { connection, hold: Hold::Whole(held), busy, .. } = self else { return None };
        let opened = connection.switch().await?;
        let Held { _place, _permit, secured, .. } = held;
        Some((opened, Line { _place, _permit, secured, _busy: busy }))
    }
}

/// It waited from then until now.
pub(super) fn add_since(begun: Instant, waited: &mut Option<Duration>) {
    *waited = Some(waited.unwrap_or_default() + begun.elapsed());
}

#[cfg(test)]
mod tests {
    use sidecar_decide::{Limiter, Reason};

    use super::{ConnectError, LeaseError};

    #[test]
    fn what_is_full_is_told() {
        let table = [
            (LeaseError::Full(Limiter::PoolMaxPending), Reason::UpstreamPoolFull, Some(Limiter::PoolMaxPending)),
            (LeaseError::Connect(ConnectError::Full), Reason::UpstreamPoolFull, Some(Limiter::OpenFiles)),
            (LeaseError::Failed(Reason::UpstreamPoolFull), Reason::UpstreamPoolFull, Some(Limiter::OpenFiles)),
            (LeaseError::Failed(Reason::UpstreamTls), Reason::UpstreamTls, None),
            (LeaseError::Connect(ConnectError::Protocol(String::new())), Reason::UpstreamConnect, None),
        ];
        for (error, reason, limiter) in table {
            assert_eq!((error.reason(), error.limiter()), (reason, limiter), "{error:?}");
        }
    }
}
