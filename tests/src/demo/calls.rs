//! The four calls, and what each must come to.

use anyhow::{Result, ensure};
use postern_tests::clients::Answer;

/// A call to the gate.
pub(crate) struct Call {
    /// What it shows.
    pub(crate) title: &'static str,
    /// The certificate it presents, if any: a file in the scratch directory, without its ending.
    pub(crate) certificate: Option<&'static str>,
    /// What must become of it.
    pub(crate) expected: Expected,
}

/// What must become of a call.
pub(crate) enum Expected {
    /// The upstream answers.
    Allowed,
    /// The gate answers 403 with this reason.
    Forbidden(&'static str),
    /// The gate ends the handshake; the row gives this reason.
    NoHandshake(&'static str),
}

/// In the order they are made.
pub(crate) const CALLS: [Call; 4] = [
    Call {
        title: "billing reads an order. The rule allows it:",
        certificate: Some("billing"),
        expected: Expected::Allowed,
    },
    Call {
        title: "reports is known, and the rule does not name it:",
        certificate: Some("reports"),
        expected: Expected::Forbidden("policy_not_allowed"),
    },
    Call {
        title: "Somebody without a certificate does not get past the handshake:",
        certificate: None,
        expected: Expected::NoHandshake("tls_no_certificate"),
    },
    Call {
        title: "mallory's certificate is valid, and the identity is revoked:",
        certificate: Some("mallory"),
        expected: Expected::Forbidden("policy_identity_revoked"),
    },
];

impl Expected {
    /// The reason in the call's row; none where it was allowed.
    pub(crate) fn reason(&self) -> Option<&'static str> {
        match self {
            Self::Allowed => None,
            Self::Forbidden(reason) | Self::NoHandshake(reason) => Some(reason),
        }
    }

    /// Fails unless curl got what it should.
    pub(crate) fn check(&self, answer: &Answer) -> Result<()> {
        let got = answer.status.map_or_else(|| "no answer".to_owned(), |status| format!("status {status}"));
        match self {
            Self::Allowed => ensure!(answer.status == Some(200), "expected status 200, got {got}: {}", answer.stderr),
            Self::NoHandshake(_) => ensure!(answer.status.is_none(), "expected a refused handshake, got {got}"),
            Self::Forbidden(reason) => {
                ensure!(answer.status == Some(403), "expected status 403, got {got}: {}", answer.stderr);
                let header = answer.header("postern-reason").unwrap_or("none");
                ensure!(header == *reason, "expected reason {reason}, got {header}");
            }
        }
        Ok(())
    }
}
