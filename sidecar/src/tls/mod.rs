//! TLS termination: who may connect is decided during the handshake, and every refusal leaves a row.

mod handshake;
mod key;
mod path;
mod peer;
mod reason;
mod slots;
mod ticket;
mod verifier;

pub use handshake::{Failure, accept};
pub use key::ServerKey;
pub use peer::{Standing, TlsPeer};
pub use slots::{ServerLeaf, Slots, TlsContext};
pub use ticket::TicketKeys;
