//! What every connection of a worker works with.

use std::cell::RefCell;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use sidecar_decide::Reason;
use sidecar_decide::reason::Side;

use super::live::Live;
use super::relay::RelayBuffer;
use crate::balance::{Balancer, Chosen, Random};
use crate::config::{BackendScope, Generation};
use crate::filter::RequestIds;
use crate::limit::{Limits, Pend, Place, Turns, UnderWay};
use crate::log;
use crate::log::Scope;
use crate::message_type::Message;
use crate::metrics::{Amount, Cells, Handshakes, Outcome, PlaceName};
use crate::pool::{Pool, Shelf};
use crate::telemetry::Tracer;

/// A worker's handles to what its connections need.
pub struct Gate {
    served: RefCell<Rc<Served>>,
    /// Open connections of clients.
    pub live: Live,
    /// Connections to upstreams.
    pool: Rc<Pool>,
    /// Chance.
    pub random: Random,
    /// Ids of requests.
    pub request_ids: RequestIds,
    /// Where rows go.
    pub log: log::Sender,
    /// Traces of requests, if there are to be any.
    pub tracer: Option<Tracer>,
    /// What the worker counts.
    pub cells: Cells,
    /// What tunnels, and connections that are passed on as they are, are read into.
    pub relay_buffer: RelayBuffer,
    /// Counts of handshakes and connections, of all workers.
    pub handshakes: Arc<Handshakes>,
    /// The worker's handshakes.
    pub handshake_turns: Turns,
    /// What is under way in all workers.
    pub under_way: UnderWay,
}

/// A generation as one worker serves it.
pub struct Served {
    /// The generation.
    pub generation: Arc<Generation>,
    /// The worker's turns, by rule.
    pub balancers: Vec<Balancer>,
    /// The worker's connections, by endpoint.
    pub shelves: Vec<Rc<Shelf>>,
}

impl Served {
    /// Begins to serve a generation.
    fn new(generation: Arc<Generation>, pool: &Rc<Pool>) -> Rc<Self> {
        let balancers = generation.snapshot.rules.iter().map(|_| Balancer::default()).collect();
        let snapshot = &generation.snapshot;
        let trust = (snapshot.trust_revision.clone(), snapshot.identities_revision.clone());
        let shelves = pool.serve(&generation.endpoints, &generation.upstream_tls, trust);
        Rc::new(Self { generation, balancers, shelves })
    }
}

/// What is asked for a request or a connection. It holds on to no generation: some last for hours.
pub struct Asked {
    backend: Arc<BackendScope>,
    shelf: Rc<Shelf>,
}

impl Asked {
    /// What was chosen for something that falls under this rule.
    pub fn new(served: &Served, rule: usize, chosen: Chosen) -> Self {
        let backend = Arc::clone(&served.generation.backend_scopes[rule][chosen.backend]);
        Self { backend, shelf: Rc::clone(&served.shelves[chosen.endpoint]) }
    }
}

impl Gate {
    /// A gate that serves a generation.
    pub fn new(
        generation: Arc<Generation>,
        pool: Rc<Pool>,
        (log, tracer): (log::Sender, Option<Tracer>),
        cells: Cells,
        handshakes: Arc<Handshakes>,
        under_way: UnderWay,
    ) -> Self {
        Self {
            served: RefCell::new(Served::new(generation, &pool)),
            live: Live::default(),
            pool,
            random: Random::new(),
            request_ids: RequestIds::default(),
            log,
            tracer,
            cells,
            relay_buffer: RelayBuffer::default(),
            handshakes,
            handshake_turns: Turns::new(Arc::clone(&under_way.handshakes)),
            under_way,
        }
    }

    /// A place for something that is to be passed on to its end, or why there is none.
    pub fn stream(&self, limits: &Limits) -> Result<Place, Reason> {
        self.under_way.streams.take(limits.streams).ok_or(Reason::LimitStreams)
    }

    /// A place for a request that is to become a tunnel, or why there is none.
    pub fn tunnel(&self, limits: &Limits) -> Result<Place, Reason> {
        self.under_way.tunnels.take(limits.tunnels).ok_or(Reason::LimitTunnels)
    }

    /// A place among what the upstreams owe an answer, as soon as there is one, or why there is none.
    pub async fn pend(&self, limits: &Limits) -> Result<Pend, Reason> {
        self.under_way.pending.enter(limits.pending).await.ok_or(Reason::LimitPending)
    }

    /// Resolves when another connection may be accepted.
    pub async fn room(&self) {
        let bounds = self.served().generation.limits.pending;
        self.under_way.pending.room(bounds).await;
    }

    /// What is served now. A request keeps it to its end.
    pub fn served(&self) -> Rc<Served> {
        Rc::clone(&self.served.borrow())
    }

    /// Serves another generation from the next request on.
    pub fn serve(&self, generation: Arc<Generation>) {
        *self.served.borrow_mut() = Served::new(generation, &self.pool);
    }

    /// Counts what became of a try, by the backend that it was for: how many addresses one has, and for how long, nobody
    /// knows beforehand. A reason that is not the upstream's fault is not counted.
    pub fn count_upstream(&self, asked: &Asked, outcome: Outcome, duration: Duration) {
        if let Some(reason) = outcome.reason {
            if reason.facts().side != Side::Upstream {
                return;
            }
            asked.shelf.endpoint().note_failure(reason);
        }
        let BackendScope { name, counted } = &*asked.backend;
        let amount = Amount { duration, ..Amount::default() };
        self.cells.count(counted, || PlaceName::Backend((**name).into()), outcome, &amount);
    }

    /// Counts what was decided at a place.
    pub fn count(&self, scope: &Scope, outcome: Outcome, amount: &Amount) {
        let text = |value: &Option<Box<str>>| value.clone().unwrap_or_default();
        let name =
            || PlaceName::Rule { listener: text(&scope.listener), route: text(&scope.route), rule: text(&scope.rule) };
        self.cells.count(&scope.counted, name, outcome, amount);
    }

    /// Counts what a request was about that was counted there.
    pub fn count_message(&self, scope: &Scope, message: &Message) {
        self.cells.count_message(&scope.counted, message);
    }
}
