//! The contract between whoever writes a sidecar's configuration and the sidecar: typed, versioned documents and no IO.
//!
//! A configuration has five parts (`trust`, `identity`, `identities`, `policy`, `endpoints`) and, standalone, `settings`.
//! One or several files carry them; every file is one [`Document`]. Unknown fields are refused, because a field that is
//! ignored in a security document is a promise that is not kept.

pub mod backend;
pub mod capture;
mod document;
pub mod endpoints;
pub mod filters;
mod format;
pub mod health;
pub mod identities;
pub mod identity;
mod place;
pub mod policy;
pub mod probe;
#[cfg(feature = "schema")]
pub mod schema;
pub mod settings;
mod since;
pub mod status;
mod time;
pub mod trust;
pub mod upstream;
mod version;
mod words;

pub use document::{Document, DocumentError, Part, PartError};
pub use format::{Format, FormatError};
pub use place::Readable;
pub use since::newer_places;
pub use time::UtcTime;
pub use version::{CONTRACT_MAX, CONTRACT_MIN, ContractVersion};
pub use words::{Duration, Ratio, Size};
