//! Clients with certificates. What they cost does not matter: only the proxy's processor time is compared.

mod alarm;
mod connections;
mod foreign;
mod requests;
mod tls;

pub use self::connections::Handshake;
pub use self::foreign::Foreign;
pub use self::requests::{Answer, Connections, Version};
pub use self::tls::{Exchange, TlsClient};
