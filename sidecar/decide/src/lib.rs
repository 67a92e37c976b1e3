//! What the gate decides, as pure functions: no IO, no clock, no async.
//!
//! Documents of the contract arrive typed, files and certificates as parsed facts. [`accept`] turns each part into its
//! accepted form or a list of [`Problem`]s; [`link()`] joins the accepted parts into one immutable [`Snapshot`];
//! [`RouteTable::find`], [`Directory::resolve`] and [`policy::decide`] answer for one request. The operator accepts
//! what it writes with this same code.

pub mod accept;
pub mod budget;
pub mod capture;
pub mod certificate;
pub mod crl;
mod explanation;
pub mod filter;
mod hash;
pub mod identity;
pub mod limiter;
mod link;
pub mod message_type;
pub mod path;
mod pattern;
pub mod policy;
pub mod probe;
mod problem;
mod quick;
pub mod reason;
pub mod route;
pub mod server;
pub mod snapshot;
pub mod spiffe;
pub mod upstream;

pub use accept::Files;
pub use certificate::{Certificate, CertificateFacts};
pub use crl::RevocationList;
pub use explanation::Explanation;
pub use hash::Revision;
pub use identity::{Caller, Directory, Who};
pub use limiter::Limiter;
pub use link::link;
pub use message_type::MessageType;
pub use policy::{Decision, Verdict};
pub use problem::{Problem, Refusal};
pub use reason::Reason;
pub use route::RouteTable;
pub use server::ServerCertificate;
pub use snapshot::{Backend, Endpoint, EndpointIndex, Listener, Parts, Resolved, Rule, Snapshot, Target};
pub use upstream::UpstreamTls;
