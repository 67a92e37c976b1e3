//! The life of a connection and of a request.

mod attempt;
mod body;
mod capture;
mod connection;
mod forward;
mod gate;
mod grpc;
mod http;
mod kept;
mod live;
mod peek;
mod record;
mod relay;
mod rest;
mod tcp;
mod tunnel;
mod watch;

pub use connection::{Door, serve};
pub use gate::Gate;
