//! What is under way in the whole process, and what is done when it is as much as may be.

mod pending;
mod places;
mod room;
mod turns;

use std::sync::Arc;

pub use pending::{Bounds, Pend, Pending};
pub use places::{Place, Places};
pub use room::{Limits, Room};
pub use turns::Turns;

/// Counts of what is under way, in all workers.
#[derive(Clone, Debug, Default)]
pub struct UnderWay {
    /// Requests that wait for their response's head.
    pub pending: Arc<Pending>,
    /// Requests and connections that are being passed on.
    pub streams: Arc<Places>,
    /// Requests that are tunnels, or are to become some.
    pub tunnels: Arc<Places>,
    /// TLS handshakes.
    pub handshakes: Arc<Places>,
}
