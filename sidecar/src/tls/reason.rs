//! The reasons of a failed handshake: webpki's and rustls' errors become the reason table's.

use std::io;
use std::sync::Arc;

use rustls::{AlertDescription, CertificateError, Error, OtherError};
use sidecar_decide::{CertificateFacts, Reason};

/// Why a presented certificate was refused.
pub(super) fn certificate_reason(error: &webpki::Error, facts: &CertificateFacts) -> Reason {
    use webpki::Error as E;
    #[expect(deprecated, reason = "webpki still returns the variants without context in places")]
    match error {
        E::UnknownIssuer if facts.self_issued => Reason::TlsSelfSigned,
        E::CaUsedAsEndEntity if facts.self_issued => Reason::TlsSelfSigned,
        E::UnknownIssuer => Reason::TlsUnknownCa,
        E::CertExpired { .. } | E::InvalidCertValidity => Reason::TlsExpired,
        E::CertNotValidYet { .. } => Reason::TlsNotYetValid,
        E::CertRevoked => Reason::TlsRevoked,
        E::CrlExpired { .. } => Reason::TlsCrlExpired,
        E::RequiredEkuNotFound | E::RequiredEkuNotFoundContext(_) | E::EmptyEkuExtension => Reason::TlsWrongPurpose,
        E::InvalidSignatureForPublicKey | E::SignatureAlgorithmMismatch => Reason::TlsBadSignature,
        E::UnsupportedCriticalExtension => Reason::TlsUnsupportedExtension,
        E::UnsupportedSignatureAlgorithm
        | E::UnsupportedSignatureAlgorithmContext(_)
        | E::UnsupportedSignatureAlgorithmForPublicKey
        | E::UnsupportedSignatureAlgorithmForPublicKeyContext(_) => Reason::TlsWeak,
        E::NameConstraintViolation
        | E::PathLenConstraintViolated
        | E::EndEntityUsedAsCa
        | E::CaUsedAsEndEntity
        | E::MaximumPathDepthExceeded
        | E::MaximumPathBuildCallsExceeded
        | E::MaximumSignatureChecksExceeded
        | E::MaximumNameConstraintComparisonsExceeded => Reason::TlsConstraint,
        _ => Reason::TlsMalformed,
    }
}

/// The error rustls is told, which chooses the alert: the one that the reason table has; a test pins it.
pub(super) fn certificate_error(reason: Reason, cause: webpki::Error) -> Error {
    let told = match reason {
        Reason::TlsUnknownCa | Reason::TlsSelfSigned => CertificateError::UnknownIssuer,
        Reason::TlsExpired => CertificateError::Expired,
        Reason::TlsNotYetValid => CertificateError::NotValidYet,
        Reason::TlsRevoked => CertificateError::Revoked,
        Reason::TlsCrlExpired => CertificateError::ExpiredRevocationList,
        Reason::TlsWrongPurpose => CertificateError::InvalidPurpose,
        Reason::TlsBadSignature => CertificateError::BadSignature,
        Reason::TlsUnsupportedExtension => CertificateError::UnhandledCriticalExtension,
        #[expect(deprecated, reason = "the variant without context chooses the same alert and needs no data")]
        Reason::TlsWeak => CertificateError::UnsupportedSignatureAlgorithm,
        Reason::TlsConstraint => CertificateError::Other(OtherError(Arc::new(cause))),
        _ => CertificateError::BadEncoding,
    };
    told.into()
}

/// Why a handshake failed that the verifier did not refuse. `None` where the client simply went away.
pub(super) fn handshake_reason(error: &io::Error) -> Option<Reason> {
    let inner = error.get_ref().and_then(|inner| inner.downcast_ref::<Error>());
    match inner? {
        Error::NoCertificatesPresented => Some(Reason::TlsNoCertificate),
        Error::PeerIncompatible(_) | Error::NoApplicationProtocol => Some(Reason::TlsNothingInCommon),
        Error::AlertReceived(_) => Some(Reason::TlsClientAlert),
        // The handshake's own signature is checked by rustls, after the verifier accepted the chain.
        Error::InvalidCertificate(
            CertificateError::UnsupportedSignatureAlgorithmContext { .. }
            | CertificateError::UnsupportedSignatureAlgorithmForPublicKeyContext { .. },
        ) => Some(Reason::TlsWeak),
        Error::InvalidCertificate(_) => Some(Reason::TlsBadSignature),
        _ => Some(Reason::TlsProtocol),
    }
}

/// Why there is no TLS with an upstream, as rows have it: what is to be done about it, and no finer.
pub(super) fn upstream_reason(error: &Error) -> Reason {
    use AlertDescription as A;
    use CertificateError as C;
    match error {
        // Nothing in common is nobody's refusal.
        Error::AlertReceived(A::NoApplicationProtocol | A::ProtocolVersion | A::InsufficientSecurity) => {
            Reason::UpstreamTls
        }
        Error::AlertReceived(_) => Reason::UpstreamTlsRefused,
        Error::InvalidCertificate(C::Expired | C::NotValidYet) => Reason::UpstreamTlsExpired,
        Error::InvalidCertificate(C::Revoked | C::ExpiredRevocationList) => Reason::UpstreamTlsRevoked,
        Error::InvalidCertificate(C::NotValidForName) => Reason::UpstreamTlsPeer,
        // With the signature over the handshake, which rustls checks after the verifier has accepted the chain.
        Error::InvalidCertificate(_) => Reason::UpstreamTlsUntrusted,
        _ => Reason::UpstreamTls,
    }
}

/// Why a stream to an upstream broke off; `None` where TLS is not what failed. In TLS 1.3 a server judges the gate's
/// certificate when the handshake has ended for the gate.
pub fn broken_off(error: &io::Error) -> Option<Reason> {
    error.get_ref().and_then(|inner| inner.downcast_ref::<Error>()).map(upstream_reason)
}
