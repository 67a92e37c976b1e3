//! Objects of others that routes name: followed while somebody names them, read when they have changed.

pub mod certificate;
pub mod follow;
pub mod interest;

pub use certificate::Certificates;
pub use follow::Follower;
pub use interest::Kind;
