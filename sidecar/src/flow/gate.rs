//! What every connection of a worker works with.

use std::cell::RefCell;
use std::rc::Rc;
use std::sync::Arc;

use super::live::Live;
use crate::balance::{Balancer, Random};
use crate::config::Generation;
use crate::log;
use crate::metrics::{Cells, Handshakes};
use crate::pool::{Pool, Shelf};

/// A worker's handles to what its connections need.
pub struct Gate {
    served: RefCell<Rc<Served>>,
    /// Open connections of clients.
    pub live: Live,
    /// Connections to upstreams.
    pool: Rc<Pool>,
    /// Chance.
    pub random: Random,
    /// Where rows go.
    pub log: log::Sender,
    /// Counts of requests.
    pub cells: Cells,
    /// Counts of handshakes and connections, of all workers.
    pub handshakes: Arc<Handshakes>,
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
        let shelves = pool.serve(&generation.endpoints);
        Rc::new(Self { generation, balancers, shelves })
    }
}

impl Gate {
    /// A gate that serves a generation.
    pub fn new(
        generation: Arc<Generation>,
        pool: Rc<Pool>,
        log: log::Sender,
        cells: Cells,
        handshakes: Arc<Handshakes>,
    ) -> Self {
        let served = RefCell::new(Served::new(generation, &pool));
        Self { served, live: Live::default(), pool, random: Random::new(), log, cells, handshakes }
    }

    /// What is served now. A request keeps it to its end.
    pub fn served(&self) -> Rc<Served> {
        Rc::clone(&self.served.borrow())
    }

    /// Serves another generation from the next request on.
    pub fn serve(&self, generation: Arc<Generation>) {
        *self.served.borrow_mut() = Served::new(generation, &self.pool);
        self.cells.new_generation();
    }
}
