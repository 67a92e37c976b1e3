//! Handshakes take turns: so many of a worker at once, the others in the order in which they came.
//!
//! HAProxy stops accepting at its limit, and Envoy has none. Here a connection is accepted and waits without any TLS
//! state, for half of its time for the handshake: a storm of clients that come back is worked off one after the other
//! instead of all becoming slow together, those who wait are seen and counted, and who has sent nothing holds no turn.

use std::sync::Arc;

use tokio::sync::{Semaphore, SemaphorePermit};

use super::places::{Place, Places};
use crate::limits::HANDSHAKES_PER_WORKER;

/// The handshakes of one worker.
#[derive(Debug)]
pub struct Turns {
    line: Semaphore,
    /// Those of all workers.
    under_way: Arc<Places>,
}

/// One handshake's turn, for as long as it lives.
#[derive(Debug)]
pub struct Turn<'a> {
    _permit: SemaphorePermit<'a>,
    _place: Option<Place>,
}

impl Turns {
    /// Of a worker; counted with those of all workers.
    pub fn new(under_way: Arc<Places>) -> Self {
        Self { line: Semaphore::new(HANDSHAKES_PER_WORKER), under_way }
    }

    /// The next turn; `None` never, as long as the worker lives.
    pub async fn next(&self) -> Option<Turn<'_>> {
        let permit = self.line.acquire().await.ok()?;
        Some(Turn { _permit: permit, _place: self.under_way.take(usize::MAX) })
    }
}
