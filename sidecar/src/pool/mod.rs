//! A worker's connections to upstreams: for each endpoint a shelf of idle ones, and a queue of requests that wait for one.

mod secured;
mod shared;
mod shelf;

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::rc::{Rc, Weak};
use std::sync::Arc;
use std::time::Duration;

use sidecar_decide::Revision;
use tokio::sync::Notify;
use tokio::time::{Instant, sleep};

pub use shelf::{Lease, Line, Shelf};

use crate::limits::IDLE_SWEEP_MIN;
use crate::tls::UpstreamTls;
use crate::upstream::{Budget, EndpointState};

/// Revisions of the trust and of the identities that servers are judged by.
pub type Trust = (Option<Revision>, Option<Revision>);

/// The pool of one worker.
pub struct Pool {
    budget: Arc<Budget>,
    /// By where the endpoint's state lies in memory, which stays there as long as its shelf.
    shelves: RefCell<HashMap<usize, Rc<Shelf>>>,
    /// Those with TLS that no generation uses any more, while something is still under way there.
    closed: RefCell<Vec<Weak<Shelf>>>,
    /// What servers are judged by.
    trust: RefCell<Trust>,
    /// Whether somebody looks for what has been idle too long, or has expired.
    is_swept: Cell<bool>,
    /// There may be something earlier to look for.
    sooner: Notify,
}

impl Pool {
    /// An empty pool whose connections count in a budget.
    pub fn new(budget: Arc<Budget>) -> Rc<Self> {
        Rc::new(Self {
            budget,
            shelves: RefCell::default(),
            closed: RefCell::default(),
            trust: RefCell::default(),
            is_swept: Cell::new(false),
            sooner: Notify::new(),
        })
    }

    /// The shelves of these endpoints, in their order. Those of other endpoints are closed: what is in use there is not
    /// kept when it comes back.
    pub fn serve(
        self: &Rc<Self>,
        endpoints: &[Arc<EndpointState>],
        tls: &[Option<Arc<UpstreamTls>>],
        trust: Trust,
    ) -> Vec<Rc<Shelf>> {
        let mut before = std::mem::take(&mut *self.shelves.borrow_mut());
        let mut shelves = self.shelves.borrow_mut();
        let served = endpoints.iter().zip(tls).map(|(endpoint, tls)| {
            let key = Arc::as_ptr(endpoint).addr();
            let shelf = before.remove(&key).unwrap_or_else(|| Shelf::new(endpoint, self));
            shelf.serve(tls.as_ref());
            shelves.insert(key, Rc::clone(&shelf));
            shelf
        });
        let served: Vec<_> = served.collect();
        before.values().for_each(|shelf| shelf.close());
        drop(shelves);
        let secured = before.values().filter(|shelf| shelf.endpoint().is_secured());
        self.closed.borrow_mut().extend(secured.map(Rc::downgrade));
        let is_other = *self.trust.borrow() != trust;
        *self.trust.borrow_mut() = trust;
        self.judge_closed(&served, tls, is_other);
        served
    }

    /// Judges what is under way on closed shelves by what is said of their address today. Where nothing is, it was judged
    /// right as long as trust is the same, and is cut when trust is another one: nobody is left to ask.
    fn judge_closed(&self, served: &[Rc<Shelf>], tls: &[Option<Arc<UpstreamTls>>], is_other: bool) {
        self.closed.borrow_mut().retain(|closed| {
            let Some(closed) = closed.upgrade() else { return false };
            let endpoint = closed.endpoint();
            let here = || served.iter().zip(tls).filter(|(shelf, _)| shelf.endpoint().address() == endpoint.address());
            let same = here().find(|(shelf, _)| shelf.endpoint().tls() == endpoint.tls());
            match same.or_else(|| here().find(|(_, tls)| tls.is_some())) {
                Some((_, tls)) => closed.serve(tls.as_ref()),
                None if is_other => closed.serve(None),
                None => {}
            }
            true
        });
    }

    fn budget(&self) -> &Arc<Budget> {
        &self.budget
    }

    /// Closes an idle connection of whatever endpoint, to make room for another.
    fn close_one_idle(&self) -> bool {
        self.shelves.borrow().values().any(|shelf| shelf.close_idle(1) > 0)
    }

    /// Has what is idle too long closed, from the first idle connection to the last: an idle worker has no timer.
    fn sweep(self: &Rc<Self>) {
        if !self.is_swept.replace(true) {
            tokio::task::spawn_local(Rc::clone(self).run_sweep());
        }
    }

    /// There is a connection that may expire earlier than what is looked for.
    fn look_sooner(self: &Rc<Self>) {
        self.sweep();
        self.sooner.notify_one();
    }

    async fn run_sweep(self: Rc<Self>) {
        loop {
            // Made before the shelves are looked at, so that nobody's wish falls between the two.
            let wanted = self.budget.wanted();
            let Some(pause) = self.sweep_once() else {
                self.is_swept.set(false);
                return;
            };
            tokio::select! {
                () = sleep(pause) => {}
                () = wanted => {}
                () = self.sooner.notified() => {}
            }
        }
    }

    /// Closes what is too old, and what requests of other workers wait for; how long to wait until the next time, while
    /// anything is idle or can expire.
    fn sweep_once(&self) -> Option<Duration> {
        let now = Instant::now();
        let shelves = self.shelves.borrow();
        let closed = self.closed.borrow().iter().filter_map(Weak::upgrade).collect::<Vec<_>>();
        let pauses = shelves.values().chain(&closed).filter_map(|shelf| shelf.sweep(now));
        pauses.min().map(|pause| pause.max(IDLE_SWEEP_MIN))
    }
}
