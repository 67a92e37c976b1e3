//! What goes wrong when an identity is reconciled, and whether trying again helps.

use std::sync::Arc;

use thiserror::Error;

use crate::pki::issue::IssueError;
use crate::pki::key::KeyError;
use crate::pki::keystore::KeystoreError;
use crate::pki::ledger::LedgerError;

/// What went wrong.
#[derive(Debug, Error)]
pub enum ReconcileError {
    /// The API server.
    #[error("cannot {doing}: {source}")]
    Kube {
        /// What was to be done.
        doing: &'static str,
        /// What it said.
        source: Box<kube::Error>,
    },
    /// The ledger.
    #[error("{0}")]
    Ledger(LedgerError),
    /// The certificate.
    #[error("{0}")]
    Issue(#[from] IssueError),
    /// The key.
    #[error("the key {0}")]
    Key(#[from] KeyError),
    /// The keystore.
    #[error("{0}")]
    Keystore(#[from] KeystoreError),
    /// What was to be written together with others.
    #[error("{0}")]
    Together(Arc<ReconcileError>),
    /// Whoever was to write it along was ended.
    #[error("the ledger was not written: it took too long")]
    Interrupted,
    /// The directory does not know it: it was changed meanwhile.
    #[error("identity `{0}` is not known")]
    Unknown(String),
}

impl ReconcileError {
    pub(super) fn kube(doing: &'static str) -> impl Fn(kube::Error) -> Self {
        move |source| Self::Kube { doing, source: Box::new(source) }
    }

    /// Whether trying again may help, without anybody having changed anything.
    #[must_use]
    pub fn is_transient(&self) -> bool {
        match self {
            Self::Kube { source, .. } => match &**source {
                kube::Error::Api(status) => matches!(status.code, 404 | 409 | 429 | 500..),
                _ => true,
            },
            Self::Ledger(_) | Self::Issue(_) | Self::Keystore(_) => false,
            Self::Together(error) => error.is_transient(),
            Self::Key(_) | Self::Unknown(_) | Self::Interrupted => true,
        }
    }

    /// Whether what was to be written may be there nonetheless: nobody answered, or not whether it was taken.
    pub(super) fn is_open(&self) -> bool {
        match self {
            Self::Kube { source, .. } => match &**source {
                kube::Error::Api(status) => !(400..500).contains(&status.code),
                _ => true,
            },
            Self::Together(error) => error.is_open(),
            Self::Interrupted => true,
            Self::Ledger(_) | Self::Issue(_) | Self::Key(_) | Self::Keystore(_) | Self::Unknown(_) => false,
        }
    }

    /// Whether somebody else has written meanwhile.
    pub(super) fn is_conflict(&self) -> bool {
        match self {
            Self::Kube { source, .. } => matches!(&**source, kube::Error::Api(status) if status.code == 409),
            _ => false,
        }
    }
}
