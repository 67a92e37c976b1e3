//! Configuration: files become documents, documents become generations that the workers serve.

mod bytes;
mod generation;
mod keep;
mod publish;
mod read;
mod volume;
mod watch;

pub use bytes::FileBytes;
pub use generation::{BackendScope, Generation, ListenerKey};
pub use keep::{Keeper, Kept, Stats as KeepStats, recall_settings};
pub use publish::{Finding, Publisher, Reloads};
pub use read::{Offered, ReadError, Reading, read};
pub use watch::{Change, Changes, watch};
