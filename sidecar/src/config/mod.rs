//! Configuration: files become documents, documents become generations that the workers serve.

mod generation;
mod publish;
mod read;
mod watch;

pub use generation::{Generation, ListenerKey};
pub use publish::{Finding, Publisher};
pub use read::{ReadError, Reading, read};
pub use watch::{Change, Changes, watch};
