//! TLS: who may connect is decided during the handshake, and every refusal leaves a row; and who is connected to.

pub mod blind;
mod certificates;
mod chains;
mod crl;
mod groups;
mod handshake;
mod key;
mod path;
mod peer;
mod reason;
mod server_verifier;
mod session;
mod slots;
mod ticket;
mod upstream;
mod verifier;

pub use certificates::OwnCertificates;
pub use crl::UnverifiedList;
pub use handshake::{Failure, accept};
pub use key::ServerKey;
pub use peer::{Standing, TlsPeer};
pub use reason::broken_off;
pub use session::{Session, SessionStream};
pub use slots::{Slots, TlsContext};
pub use ticket::TicketKeys;
pub use upstream::{Secured, UpstreamStanding, UpstreamTls, UpstreamTlsStates};
