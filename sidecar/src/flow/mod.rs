//! The life of a connection and of a request.

mod attempt;
mod body;
mod connection;
mod forward;
mod gate;
mod http;
mod live;
mod record;

pub use connection::serve;
pub use gate::Gate;
