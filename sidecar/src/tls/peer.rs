//! What a handshake learned about the client, refused or not.

use std::sync::Arc;

use sidecar_decide::{CertificateFacts, Reason};

use super::path::VerifiedPath;

/// The client's certificate and what became of it.
#[derive(Clone, Debug, Default)]
pub struct TlsPeer {
    /// What the presented leaf says; `None` where there was none or it could not be parsed.
    pub facts: Option<Arc<CertificateFacts>>,
    /// What its chain rests on; `None` unless it was verified.
    pub path: Option<Arc<VerifiedPath>>,
    /// Why it was refused.
    pub refused: Option<Reason>,
}

impl TlsPeer {
    /// Names of the bundles its chain ended in when it was verified.
    pub fn bundles(&self) -> impl Iterator<Item = &Arc<str>> {
        self.path.iter().flat_map(|path| path.bundles())
    }
}

/// How a client that was verified before stands under the trust of today.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Standing {
    /// Names of the bundles that still vouch for it.
    pub bundles: Vec<Arc<str>>,
    /// Why it would not be let in any more, if it would not.
    pub refused: Option<Reason>,
}
