//! What a handshake learned about the client, refused or not.

use std::sync::Arc;

use sidecar_decide::{CertificateFacts, Reason};

/// The client's certificate and what became of it.
#[derive(Clone, Debug, Default)]
pub struct TlsPeer {
    /// What the presented leaf says; `None` where there was none or it could not be parsed.
    pub facts: Option<Arc<CertificateFacts>>,
    /// Names of the bundles its chain ends in; empty unless it was verified.
    pub bundles: Vec<Arc<str>>,
    /// Why it was refused.
    pub refused: Option<Reason>,
}
