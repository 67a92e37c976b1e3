//! PostgreSQL as the request log needs it: a connection that is verified or says that it is not, and the schema.
//!
//! tokio-postgres speaks; TLS is ours, because who vouches for a server is whom a file names and nobody else. sqlx, which
//! the log's SQLite goes through, adds the public web's authorities to those, and 543 KB to the sidecar against 509.

pub mod columns;
pub mod schema;
mod select;
mod session;
mod target;
mod tls;

pub use session::{Error, Failure, Session};
pub use target::{Target, TargetError};
