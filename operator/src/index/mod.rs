//! What the cluster looks like, as far as it concerns sidecars: watched, pruned, and mapped to whom a change concerns.

mod backends;
pub mod cluster;
pub mod concern;
pub mod grant;
pub mod held;
pub mod name;
mod optional;
pub mod pod;
pub mod service;
pub mod slice;
mod watch;

pub use backends::{ServicePort, Unresolved, named_services};
pub use cluster::{Cluster, Object, ObjectKind, Source};
pub use grant::Grant;
pub use held::{ContentDigest, Entries, Held, HeldKind};
pub use name::ObjectName;
pub use optional::served;
pub use pod::Pod;
pub use service::Service;
pub use slice::Slice;
pub use watch::{Index, Scope};
