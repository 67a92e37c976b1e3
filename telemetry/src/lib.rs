//! What the sidecar and the operator tell of themselves in the same way: spans to a collector, a page for Prometheus, and
//! what the kernel says of the process. It makes no spans and speaks no HTTP; whoever uses it does (`Outlet`).

mod export;
pub mod limits;
pub mod page;
pub mod process;
mod stats;

pub use export::{Exporter, Outlet, Queue, Spans, collector, queue, start};
pub use stats::{SpanDrop, SpanStats};
