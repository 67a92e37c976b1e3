//! The request log: every decision a row in SQLite, written by a thread of its own that never holds traffic up.
//!
//! Workers send a [`Record`] into a bounded queue and go on; the `log` thread gathers records into batches, one
//! transaction each. What finds the queue full is counted in [`Stats`], never waited for and never lost silently.

mod arrivals;
mod bodies;
mod chain;
mod compare;
mod encode;
mod explain;
mod export;
mod filter;
mod follow;
mod guard;
mod handle;
mod ids;
mod insert;
mod links;
mod print;
mod prune;
pub mod query;
mod queue;
mod record;
mod refusals;
mod remote;
mod salt;
mod schema;
mod sealed;
mod segments;
mod ship;
mod stats;
mod store;
mod tally;
mod verify;
mod walk;
mod writer;

#[cfg(test)]
mod tests;

use std::path::PathBuf;

pub use bodies::{BODIES_BYTES, Bodies, BodyRoom, Copied, Missed};
pub use chain::Chain;
pub use explain::{Found, find};
pub use export::export;
pub use filter::{Filter, fingerprint, serial, statuses, trace_id};
pub use follow::follow;
pub use guard::bound_memory;
pub use links::Chained;
pub use print::{Output, safe};
pub use queue::{QUEUE_ROWS, Receiver, Sender, channel};
pub use record::{
    Client, Interned, Kind, Network, Peer, PeerFacts, Record, Scope, ScopeFacts, TEXT_MAX, clip, clip_shared,
};
pub use remote::Remote;
pub use sealed::{BodyKey, OpenError, Opened, Which};
pub use segments::{Sizes, Unread};
pub use ship::{Lost, ShipOptions, ShipStats, Shipper, start_shipper};
pub use stats::{CaptureLoss, DropReason, PruneReason, SegmentForm, Stats};
pub use store::StoreError;
pub use tally::{By, TopOptions, top};
pub use verify::{Fault, Verified, VerifyError, verify};
pub use walk::{Order, Progress, yield_to_the_gate};
pub use writer::{Summary, Writer, WriterOptions, start};

/// Where a log is read.
#[derive(Debug)]
pub enum Store {
    /// The files of one gate.
    Files(PathBuf),
    /// What many gates have sent to PostgreSQL.
    Server(Box<Remote>),
}
