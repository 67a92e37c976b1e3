//! What is counted: cells that one worker writes and every scrape reads.

mod cells;
mod exposition;
mod upstreams;

pub use cells::{Cells, Handshakes, Registry};
pub use exposition::{Sources, render};
