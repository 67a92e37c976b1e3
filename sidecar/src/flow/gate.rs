//! What every connection of a worker works with.

use std::cell::RefCell;
use std::rc::Rc;
use std::sync::Arc;

use super::live::Live;
use super::relay::RelayBuffer;
use crate::balance::RoundRobin;
use crate::config::Generation;
use crate::log;
use crate::metrics::{Cells, Handshakes};
use crate::pool::Pool;

/// A worker's handles to what its connections need.
pub struct Gate {
    served: RefCell<Rc<Served>>,
    /// Open connections of clients.
    pub live: Live,
    /// Connections to upstreams.
    pub pool: Rc<Pool>,
    /// Where rows go.
    pub log: log::Sender,
    /// Counts of requests.
    pub cells: Cells,
    /// Counts of connections that are passed on as they are.
    pub connection_cells: Cells,
    /// What those are read into.
    pub relay_buffer: RelayBuffer,
    /// Counts of handshakes and connections, of all workers.
    pub handshakes: Arc<Handshakes>,
}

/// A generation as one worker serves it.
pub struct Served {
    /// The generation.
    pub generation: Arc<Generation>,
    /// The worker's turns, by rule.
    pub turns: Vec<RoundRobin>,
}

impl Served {
    /// Begins to serve a generation.
    pub fn new(generation: Arc<Generation>) -> Rc<Self> {
        let turns = generation.snapshot.rules.iter().map(|_| RoundRobin::default()).collect();
        Rc::new(Self { generation, turns })
    }
}

impl Gate {
    /// A gate that serves a generation.
    pub fn new(
        generation: Arc<Generation>,
        pool: Pool,
        log: log::Sender,
        (cells, connection_cells): (Cells, Cells),
        handshakes: Arc<Handshakes>,
    ) -> Self {
        Self {
            served: RefCell::new(Served::new(generation)),
            live: Live::default(),
            pool: Rc::new(pool),
            log,
            cells,
            connection_cells,
            relay_buffer: RelayBuffer::default(),
            handshakes,
        }
    }

    /// What is served now. A request keeps it to its end.
    pub fn served(&self) -> Rc<Served> {
        Rc::clone(&self.served.borrow())
    }

    /// Serves another generation from the next request on.
    pub fn serve(&self, generation: Arc<Generation>) {
        *self.served.borrow_mut() = Served::new(generation);
        self.cells.new_generation();
        self.connection_cells.new_generation();
    }
}
