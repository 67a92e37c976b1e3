//! The API of Postern: what users apply, `ProxyRoute` and `ClientIdentity`, and what they are told. No IO.
//!
//! The types are what the operator reads and writes; [`definition`] makes of them what the API server is told: schemas
//! with bounds, rules and documentation. Whatever passes the schema can be read into the types, so that nobody who may
//! create an object can stop the operator from reading the others.

#![expect(clippy::duplicated_attributes, reason = "columns of one type each say so to the derive macro")]

pub mod clientidentity;
pub mod condition;
#[cfg(feature = "generate")]
pub mod generate;
pub mod proxyroute;
pub mod schema;
pub mod trust;
pub mod words;

pub use clientidentity::{ClientIdentity, ClientIdentitySpec, ClientIdentityStatus};
pub use condition::{Condition, ConditionStatus, ConditionType, Reason};
pub use proxyroute::{ProxyRoute, ProxyRouteSpec, ProxyRouteStatus};
pub use words::{Duration, Size, UtcTime};

/// The API group of both kinds.
pub const GROUP: &str = "postern.dev";
