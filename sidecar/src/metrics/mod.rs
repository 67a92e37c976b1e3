//! What is counted: cells that one worker writes and every scrape adds up.

mod exposition;
mod handshakes;
mod messages;
mod place;
mod registry;
mod traffic;
mod upstreams;

pub use exposition::{Sources, render};
pub use handshakes::Handshakes;
pub use place::{Amount, Counted, Event, Outcome, PlaceName};
pub use registry::{Cells, Registry};
