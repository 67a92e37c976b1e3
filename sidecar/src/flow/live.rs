//! The connections of a worker while they are open: judged again when trust changes, told to move when the gate's
//! certificate is replaced, cut when what they rest on has ended.

use std::cell::{Cell, RefCell};
use std::collections::{BTreeSet, VecDeque};
use std::hash::{BuildHasher, Hasher, RandomState};
use std::rc::Rc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use sidecar_decide::Reason;
use slab::Slab;
use tokio::sync::Notify;
use tokio::task::yield_now;
use tokio::time::{Instant, sleep_until};

use super::connection::Connection;
use crate::config::ListenerKey;
use crate::limits::{CLOCK_CHECK, MOVE_WINDOW, REVIEW_SLICE};

/// The open connections of one worker.
#[derive(Default)]
pub struct Live {
    connections: RefCell<Slab<Open>>,
    /// When connections end by themselves, seconds since the epoch, with their place.
    deadlines: RefCell<BTreeSet<(u64, usize)>>,
    /// Connections that present a certificate that was replaced, and when each is told to move.
    moves: RefCell<VecDeque<(Instant, usize)>>,
    /// There is something earlier to wait for.
    earlier: Notify,
    /// Tunnels open.
    tunnels: Cell<usize>,
}

struct Open {
    connection: Rc<Connection>,
    deadline: Cell<Option<u64>>,
}

/// A connection's place among the open ones, for as long as it lives.
pub(super) struct Place {
    connection: Rc<Connection>,
    index: usize,
}

impl Drop for Place {
    fn drop(&mut self) {
        self.connection.gate.live.leave(self.index);
    }
}

impl Live {
    /// Watches over a connection until its place is dropped.
    pub(super) fn enter(connection: &Rc<Connection>) -> Place {
        let live = &connection.gate.live;
        let open = Open { connection: Rc::clone(connection), deadline: Cell::new(None) };
        let index = live.connections.borrow_mut().insert(open);
        live.end_at(index, connection.expires());
        // Trust may have changed while its handshake was under way.
        if let Some(reason) = connection.view().standing {
            connection.cut(reason);
        }
        Place { connection: Rc::clone(connection), index }
    }

    fn leave(&self, index: usize) {
        let open = self.connections.borrow_mut().remove(index);
        if let Some(deadline) = open.deadline.get() {
            self.deadlines.borrow_mut().remove(&(deadline, index));
        }
    }

    /// Has a connection end at that second, unless it ends before.
    fn end_at(&self, index: usize, deadline: Option<u64>) {
        let connections = self.connections.borrow();
        let (Some(open), Some(deadline)) = (connections.get(index), deadline) else { return };
        let mut deadlines = self.deadlines.borrow_mut();
        match open.deadline.get() {
            Some(before) if before <= deadline => return,
            Some(before) => drop(deadlines.remove(&(before, index))),
            None => {}
        }
        open.deadline.set(Some(deadline));
        deadlines.insert((deadline, index));
        if deadlines.first() == Some(&(deadline, index)) {
            self.earlier.notify_one();
        }
    }

    /// Counts tunnels as they open and end.
    pub(super) fn tunnels(&self, count: impl FnOnce(usize) -> usize) {
        self.tunnels.set(count(self.tunnels.get()));
    }

    /// Whether any connection carries what was decided once.
    pub fn has_tunnels(&self) -> bool {
        self.tunnels.get() > 0
    }

    /// How many connections may have a place: each has an index below it.
    fn places(&self) -> usize {
        self.connections.borrow().capacity()
    }

    fn connection(&self, index: usize) -> Option<Rc<Connection>> {
        self.connections.borrow().get(index).map(|open| Rc::clone(&open.connection))
    }

    /// Visits every connection, in slices, so that requests on the others are not held up.
    async fn each(&self, mut visit: impl FnMut(usize, &Connection)) {
        in_slices(self.places(), |index| {
            if let Some(connection) = self.connection(index) {
                visit(index, &connection);
            }
        })
        .await;
    }

    /// Judges every connection by what is served now, and cuts those that would not be let in any more.
    pub async fn review(&self) {
        self.each(|_, connection| match connection.refusal() {
            Some(reason) => connection.cut(reason),
            None => connection.tunnels.review(connection, &connection.view()),
        })
        .await;
    }

    /// Has the connections that present a certificate of before move to the new one, one after the other; those that
    /// have not moved when theirs expires are cut.
    pub async fn rotate(&self) {
        let mut old = Vec::new();
        self.each(|index, connection| {
            if let Some(expires) = connection.replaced() {
                old.push((index, expires));
                self.end_at(index, Some(expires));
            }
        })
        .await;
        let Some(first) = old.iter().map(|(_, expires)| *expires).min() else { return };
        let left = Duration::from_secs(first.saturating_sub(unix_seconds()));
        let window = MOVE_WINDOW.min(left / 2);
        let moves = spread(window, old.len()).zip(old).map(|(after, (index, _))| (Instant::now() + after, index));
        *self.moves.borrow_mut() = moves.collect();
        self.earlier.notify_one();
    }

    /// Cuts the connections of a listener.
    pub fn cut_all(&self, listener: &ListenerKey, reason: Reason) {
        for index in 0..self.places() {
            if let Some(connection) = self.connection(index).filter(|connection| connection.listener == *listener) {
                connection.cut(reason);
            }
        }
    }

    /// Waits until a connection is due, to move or to end, and tells it. To be called again and again.
    pub async fn tend(&self) {
        let due = self.next_due();
        tokio::select! {
            () = self.earlier.notified() => return,
            () = sleep_until(due.unwrap_or_else(Instant::now)), if due.is_some() => {}
        }
        self.tell_expired();
        self.tell_to_move();
    }

    fn next_due(&self) -> Option<Instant> {
        let now = Instant::now();
        // Certificates follow the wall clock, and that one may be set.
        let expires = self.deadlines.borrow().first().map(|(second, _)| {
            let left = UNIX_EPOCH + Duration::from_secs(*second);
            now + left.duration_since(SystemTime::now()).unwrap_or_default().min(CLOCK_CHECK)
        });
        let moves = self.moves.borrow().front().map(|(at, _)| *at);
        [expires, moves].into_iter().flatten().min()
    }

    fn tell_expired(&self) {
        let now = unix_seconds();
        loop {
            let first = self.deadlines.borrow().first().copied().filter(|(second, _)| *second <= now);
            let Some((second, index)) = first else { return };
            self.deadlines.borrow_mut().remove(&(second, index));
            let connections = self.connections.borrow();
            let Some(open) = connections.get(index) else { continue };
            open.deadline.set(None);
            let is_clients = open.connection.expires().is_some_and(|expires| expires <= now);
            open.connection.cut(if is_clients { Reason::TlsExpired } else { Reason::GateCertificateExpired });
        }
    }

    fn tell_to_move(&self) {
        let now = Instant::now();
        loop {
            let due = self.moves.borrow_mut().pop_front_if(|(at, _)| *at <= now);
            let Some((_, index)) = due else { return };
            // The place may be another connection's by now.
            if let Some(connection) = self.connection(index).filter(|connection| connection.replaced().is_some()) {
                connection.ending.finish();
            }
        }
    }
}

/// Visits `0..count`, and lets others go on whenever that took a slice of time.
async fn in_slices(count: usize, mut visit: impl FnMut(usize)) {
    let mut begun = Instant::now();
    for index in 0..count {
        visit(index);
        if begun.elapsed() >= REVIEW_SLICE {
            yield_now().await;
            begun = Instant::now();
        }
    }
}

/// Times over a window, one for each of `count`, not the same at every gate.
fn spread(window: Duration, count: usize) -> impl Iterator<Item = Duration> {
    let count = u32::try_from(count).unwrap_or(u32::MAX);
    let share = window / count.max(1);
    let chance = u32::from(RandomState::new().build_hasher().finish().to_be_bytes()[0]);
    (0..count).map(move |rank| share * rank + share * chance / 256)
}

fn unix_seconds() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs()
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;
    use std::time::{Duration, Instant};

    use tokio::runtime::Builder;
    use tokio::task::yield_now;

    use super::in_slices;
    use crate::limits::REVIEW_SLICE;

    #[test]
    fn a_review_lets_others_go_on_within_a_millisecond() {
        const VISITS: u32 = 50;
        assert!(REVIEW_SLICE < Duration::from_millis(1));
        // So few of them fill a slice. A machine that is busy with something else makes it fewer yet.
        let visit = REVIEW_SLICE / 4;
        let (visits, longest) = (Cell::new(0_u32), Cell::new(0_u32));
        let review = in_slices(VISITS as usize, |_| {
            let begun = Instant::now();
            while begun.elapsed() < visit {}
            visits.set(visits.get() + 1);
        });
        let other = async {
            let mut seen = 0;
            while visits.get() < VISITS {
                longest.set(longest.get().max(visits.get() - seen));
                seen = visits.get();
                yield_now().await;
            }
        };
        let runtime = Builder::new_current_thread().build().unwrap();
        runtime.block_on(async { tokio::join!(biased; review, other) });
        assert_eq!(visits.get(), VISITS);
        assert!((1..=4).contains(&longest.get()), "{} visits without a pause", longest.get());
    }
}
