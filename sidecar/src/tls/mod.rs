//! TLS termination: who may connect is decided during the handshake, and every refusal leaves a row.

mod certificates;
mod chains;
mod crl;
mod groups;
mod handshake;
mod key;
mod path;
mod peer;
mod reason;
mod session;
mod slots;
mod ticket;
mod verifier;

pub use certificates::OwnCertificates;
pub use crl::UnverifiedList;
pub use handshake::{Failure, accept};
pub use key::ServerKey;
pub use peer::{Standing, TlsPeer};
pub use session::{Session, SessionStream};
pub use slots::{Slots, TlsContext};
pub use ticket::TicketKeys;
