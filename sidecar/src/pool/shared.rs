//! Connections of one shelf that take many requests at once (HTTP/2).

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::time::Duration;

use sidecar_decide::{Limiter, Reason};
use tokio::sync::{Notify, Semaphore, SemaphorePermit};
use tokio::time::{Instant, timeout_at};

use super::shelf::{Busy, Free, Held, Hold, Lease, LeaseError, Shelf, add_since, reason_of};
use crate::limits::UPSTREAM_STREAMS;
use crate::protocol::Upstream;

/// A connection that several requests share.
pub(super) struct SharedLine {
    connection: Upstream,
    held: RefCell<Held>,
    /// Requests under way on it.
    streams: Cell<usize>,
    /// When the last of them ended.
    idle_since: Cell<Instant>,
    /// It takes no more of them.
    is_leaving: Cell<bool>,
}

/// A request's part of a shared connection.
pub(super) struct Stream {
    line: Rc<SharedLine>,
    shelf: Rc<Shelf>,
}

/// What one request gets of a shared connection.
pub(super) struct Part {
    pub(super) connection: Upstream,
    pub(super) stream: Stream,
    /// Whether the connection has had a request before.
    pub(super) is_reused: bool,
}

impl Part {
    fn of(line: &Rc<SharedLine>, shelf: &Rc<Shelf>, is_reused: bool) -> Option<Self> {
        let connection = line.connection.share()?;
        line.streams.set(line.streams.get() + 1);
        let stream = Stream { line: Rc::clone(line), shelf: Rc::clone(shelf) };
        Some(Self { connection, stream, is_reused })
    }
}

/// The shared connections of a shelf.
pub(super) struct SharedLines {
    lines: RefCell<Vec<Rc<SharedLine>>>,
    /// One request at a time makes a connection, and those that come meanwhile wait for its streams.
    opening: Semaphore,
    /// How many could not be made, and why not the last.
    failures: Cell<(u64, Reason)>,
    /// A stream has ended, or may begin that could not.
    freed: Rc<Notify>,
    /// How many more requests will have room on the connection that is being made, while one is.
    room: Cell<Option<usize>>,
}

impl Default for SharedLines {
    fn default() -> Self {
        Self {
            lines: RefCell::default(),
            opening: Semaphore::new(1),
            failures: Cell::new((0, Reason::UpstreamConnect)),
            freed: Rc::default(),
            room: Cell::new(None),
        }
    }
}

impl SharedLine {
    fn takes_another(&self, shelf: &Shelf, now: Instant) -> bool {
        !self.is_leaving.get()
            && self.streams.get() < self.connection.streams()
            && !self.connection.is_closed()
            && !shelf.is_worn(&self.held.borrow(), || now)
    }

    /// Whether nobody needs it any more.
    fn is_over(&self, shelf: &Shelf, now: Instant) -> bool {
        let is_useless = || self.is_leaving.get() || shelf.is_worn(&self.held.borrow(), || now);
        self.connection.is_closed() || (self.streams.get() == 0 && is_useless())
    }
}

impl Stream {
    /// Lets no further request begin on the connection.
    pub(super) fn leave(&self) {
        self.line.is_leaving.set(true);
    }
}

impl Drop for Stream {
    fn drop(&mut self) {
        self.line.streams.set(self.line.streams.get() - 1);
        if self.line.streams.get() == 0 {
            self.line.idle_since.set(Instant::now());
            self.shelf.has_idle_line();
        }
        self.shelf.shared.freed.notify_one();
    }
}

/// A connection is being made, for as long as this lives.
struct Opens<'a>(&'a Cell<Option<usize>>);

impl<'a> Opens<'a> {
    fn begin(room: &'a Cell<Option<usize>>) -> Self {
        // One is the request's own that makes it.
        room.set(usize::try_from(UPSTREAM_STREAMS - 1).ok());
        Self(room)
    }
}

impl Drop for Opens<'_> {
    fn drop(&mut self) {
        self.0.set(None);
    }
}

impl SharedLines {
    /// Told when a connection takes more requests than before.
    pub(super) fn room(&self) -> &Rc<Notify> {
        &self.freed
    }

    /// Goes with the connection that is being made, if one is and will have room.
    fn join(&self) -> bool {
        let Some(left) = self.room.get().and_then(|room| room.checked_sub(1)) else { return false };
        self.room.set(Some(left));
        true
    }

    /// Which limit ends the wait of who has waited long enough.
    fn limiter(&self) -> Limiter {
        if self.room.get().is_some() { Limiter::PoolPendingTimeout } else { Limiter::PoolMaxConnections }
    }

    /// How many connections could not be made until now.
    fn failures(&self) -> u64 {
        self.failures.get().0
    }

    /// One more could not be made.
    fn failed(&self, reason: Reason) {
        self.failures.set((self.failures() + 1, reason));
    }

    /// Why the last one could not be made, if that was since then.
    fn failure_since(&self, failures: u64) -> Option<Reason> {
        let (now, reason) = self.failures.get();
        (now > failures).then_some(reason)
    }

    /// A part of a connection that has room, which is one of those made after `born`, if that is said: the first of them,
    /// so that the others become idle. And whether it has had a request before.
    fn take(&self, shelf: &Rc<Shelf>, born: Option<Instant>) -> Option<Part> {
        let now = Instant::now();
        let mut lines = self.lines.borrow_mut();
        lines.retain(|line| !line.is_over(shelf, now));
        let is_wanted = |line: &&Rc<SharedLine>| {
            born.is_none_or(|born| line.held.borrow().born >= born) && line.takes_another(shelf, now)
        };
        let line = Rc::clone(lines.iter().find(is_wanted)?);
        drop(lines);
        let requests = line.held.borrow().requests;
        line.held.borrow_mut().requests = requests.saturating_add(1);
        Part::of(&line, shelf, requests > 0)
    }

    /// Shares a new connection, and takes the first part of it.
    fn enter(&self, shelf: &Rc<Shelf>, connection: Upstream, held: Held) -> Option<Part> {
        let line = Rc::new(SharedLine {
            connection,
            held: RefCell::new(held),
            streams: Cell::new(0),
            idle_since: Cell::new(Instant::now()),
            is_leaving: Cell::new(false),
        });
        let part = Part::of(&line, shelf, false);
        if !shelf.is_closed() {
            self.lines.borrow_mut().push(line);
        }
        part
    }

    /// Closes up to so many that are idle, those first that were made first; how many it were.
    pub(super) fn close_idle(&self, most: usize) -> usize {
        let mut left = most;
        self.lines.borrow_mut().retain(|line| {
            let is_closed = left > 0 && line.streams.get() == 0;
            left -= usize::from(is_closed);
            !is_closed
        });
        most - left
    }

    /// Closes what nobody needs any more, and what has been idle for so long; whether any other is idle.
    pub(super) fn sweep(&self, shelf: &Shelf, now: Instant, time: Duration) -> bool {
        let mut lines = self.lines.borrow_mut();
        lines.retain(|line| {
            let is_idle_long = line.streams.get() == 0 && now.duration_since(line.idle_since.get()) >= time;
            !is_idle_long && !line.is_over(shelf, now)
        });
        lines.iter().any(|line| line.streams.get() == 0)
    }

    /// How many are idle.
    fn idle(&self) -> usize {
        self.lines.borrow().iter().filter(|line| line.streams.get() == 0).count()
    }

    /// Keeps none: each ends with its requests.
    pub(super) fn clear(&self) {
        self.lines.borrow_mut().clear();
    }
}

impl Shelf {
    /// A stream of a connection with room, or of a new one, or the first that comes free in time. A `fresh` one is of a
    /// connection that is made after this was asked.
    pub(super) async fn lease_stream(
        self: &Rc<Self>,
        fresh: bool,
        waited: &mut Option<Duration>,
    ) -> Result<Lease, LeaseError> {
        let (asked, failures) = (Instant::now(), self.shared.failures());
        let born = fresh.then_some(asked);
        if let Some(part) = self.shared.take(self, born) {
            return Ok(self.lease_part(part));
        }
        let end = asked + self.endpoint.pool().pending_timeout.as_std();
        let turn = if let Ok(turn) = self.shared.opening.try_acquire() {
            turn
        } else {
            let turn = self.wait_for_turn(end).await;
            add_since(asked, waited);
            let turn = turn?;
            if let Some(part) = self.shared.take(self, born) {
                return Ok(self.lease_part(part));
            }
            if let Some(reason) = self.shared.failure_since(failures) {
                return Err(LeaseError::Failed(reason));
            }
            turn
        };
        let permit = match self.endpoint.try_permit().or_else(|| self.make_room()) {
            Some(permit) => permit,
            None => {
                let begun = Instant::now();
                let free = self.wait_for_stream(end).await;
                add_since(begun, waited);
                match free? {
                    Free::Lease(lease) => return Ok(lease),
                    Free::Permit(permit) => permit,
                }
            }
        };
        let opens = Opens::begin(&self.shared.room);
        let made = self.make(permit).await.inspect_err(|error| self.shared.failed(reason_of(error)));
        drop((opens, turn));
        let (connection, held) = made?;
        let part = self.shared.enter(self, connection, held);
        part.map(|part| self.lease_part(part)).ok_or(LeaseError::Failed(Reason::UpstreamConnect))
    }

    /// Waits for the turn to make a connection, or for the one that is being made. Who will have room on that one has been
    /// given to it, and waits for none.
    async fn wait_for_turn(self: &Rc<Self>, end: Instant) -> Result<SemaphorePermit<'_>, LeaseError> {
        let joined = self.shared.join().then(|| Busy::new(self));
        let waiting = joined.is_none().then(|| self.endpoint.wait().ok_or(LeaseError::Full(Limiter::PoolMaxPending)));
        let _waiting = waiting.transpose()?;
        let turn = timeout_at(end, self.shared.opening.acquire()).await;
        turn.ok().and_then(Result::ok).ok_or_else(|| LeaseError::Full(self.shared.limiter()))
    }

    fn lease_part(self: &Rc<Self>, part: Part) -> Lease {
        let Part { connection, stream, is_reused } = part;
        Lease { connection, hold: Hold::Stream(stream), busy: Busy::new(self), is_reused }
    }

    /// Waits until a stream ends here, or for the right to make a connection because one ended anywhere. Nobody else of
    /// this worker does so at the same time.
    async fn wait_for_stream(self: &Rc<Self>, end: Instant) -> Result<Free, LeaseError> {
        let _waiting = self.endpoint.wait().ok_or(LeaseError::Full(Limiter::PoolMaxPending))?;
        if let Some(pool) = self.pool.upgrade() {
            pool.budget().want();
        }
        let freed = async {
            loop {
                self.shared.freed.notified().await;
                if let Some(part) = self.shared.take(self, None) {
                    return Free::Lease(self.lease_part(part));
                }
            }
        };
        let either = async {
            tokio::select! {
                biased;
                free = freed => Some(free),
                permit = self.endpoint.permit() => permit.map(Free::Permit),
            }
        };
        timeout_at(end, either).await.ok().flatten().ok_or(LeaseError::Full(Limiter::PoolMaxConnections))
    }

    /// A shared connection has nothing to do.
    fn has_idle_line(&self) {
        let most = usize::try_from(self.endpoint.pool().max_idle).unwrap_or(usize::MAX);
        let excess = self.shared.idle().saturating_sub(if self.is_closed() { 0 } else { most });
        self.shared.close_idle(excess);
        self.shared.sweep(self, Instant::now(), Duration::MAX);
        if let Some(pool) = self.pool.upgrade() {
            pool.sweep();
        }
    }
}
