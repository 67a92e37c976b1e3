//! What the cluster looks like, as far as it concerns sidecars: watched, pruned, and mapped to whom a change concerns.

mod again;
mod backends;
pub mod cluster;
pub mod concern;
pub mod grant;
pub mod held;
pub mod kinds;
pub mod name;
mod optional;
pub mod pairs;
pub mod pod;
pub mod service;
mod serving;
pub mod slice;
mod watch;
mod whole;

pub(crate) use again::watched;
pub use backends::{ServicePort, Unresolved, named_services};
pub use cluster::{Cluster, Object, ObjectKind, Source};
pub use grant::{Grant, Granted};
pub use held::{ContentDigest, Entries, Held, HeldKind};
pub(crate) use kinds::essentials;
pub use name::ObjectName;
pub use optional::served;
pub use pairs::Pairs;
pub use pod::Pod;
pub use service::Service;
pub use serving::{OPERATOR_LABEL, Scope};
pub use slice::Slice;
pub use watch::Index;
