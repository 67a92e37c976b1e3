//! The one table of reasons: what each is called, whose fault it is, and how it looks on every protocol.

use std::fmt;

/// Why something was refused or failed. Closed: one variant per cause.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Reason {
    /// The client presented no certificate where one is required.
    TlsNoCertificate,
    /// The certificate's chain ends in no bundle of the listener.
    TlsUnknownCa,
    /// The certificate names itself as its issuer: no authority vouches for it.
    TlsSelfSigned,
    /// The certificate, or one above it, has expired.
    TlsExpired,
    /// The certificate, or one above it, is not valid yet.
    TlsNotYetValid,
    /// The certificate's serial number is revoked.
    TlsRevoked,
    /// The revocation list of an authority in the chain is older than it may be.
    TlsCrlExpired,
    /// The certificate's extended key usage does not include client authentication (RFC 5280 §4.2.1.12).
    TlsWrongPurpose,
    /// A signature in the chain or over the handshake does not verify.
    TlsBadSignature,
    /// A critical extension is not understood (RFC 5280 §4.2).
    TlsUnsupportedExtension,
    /// A key or signature algorithm in the chain is not accepted.
    TlsWeak,
    /// The chain breaks a constraint of a CA in it: name, path length, or a CA used as a leaf.
    TlsConstraint,
    /// The certificate cannot be parsed.
    TlsMalformed,
    /// The client asks for a name that no certificate of the gate has.
    TlsUnknownSni,
    /// Client and gate share no version, suite or group.
    TlsNothingInCommon,
    /// The client broke the TLS protocol, or does not speak TLS.
    TlsProtocol,
    /// The client ended the handshake with an alert: it does not accept the gate.
    TlsClientAlert,
    /// The handshake took too long.
    TlsTimeout,
    /// The rule asks for a certificate and the connection has none.
    PolicyNoCertificate,
    /// The certificate verifies and is no known identity's.
    PolicyNoIdentity,
    /// The certificate matches two identities and so has none.
    PolicyAmbiguous,
    /// The identity is known and the rule does not allow it.
    PolicyNotAllowed,
    /// The identity is suspended.
    PolicyIdentitySuspended,
    /// The identity is revoked.
    PolicyIdentityRevoked,
    /// The certificate's serial number was revoked while its connection was open.
    PolicyCertificateRevoked,
    /// The identity's certificates are accepted from a later time on.
    PolicyIssuedTooEarly,
    /// A rule tells the application of the caller, and its certificate has something that no header field can carry.
    PolicyIdentityUnwritable,
    /// The host is outside the names of the certificate that the connection was opened with.
    RouteMisdirected,
    /// No route serves the host.
    RouteNoHost,
    /// No rule matches the path.
    RouteNoPath,
    /// A rule matches the path, none the method.
    RouteNoMethod,
    /// A rule matches path and method, none the headers and the query.
    RouteNoMatch,
    /// The rule refers to something that does not exist.
    RouteInvalid,
    /// The path cannot be normalised safely.
    RouteBadPath,
    /// Too many connections are open.
    LimitConnections,
    /// The request's body is too large.
    LimitBodySize,
    /// What a rule tells the application of the caller is too much for a request's head.
    LimitIdentitySize,
    /// Too many requests wait for their response's head, and have for too long.
    LimitPending,
    /// Too many requests and connections are being passed on.
    LimitStreams,
    /// Too many handshakes are under way.
    LimitHandshakes,
    /// Nothing passed on the connection for too long.
    LimitIdle,
    /// What the connection carried had not ended when the time to finish was over: the gate was stopped, or its listener
    /// went.
    GateDrainTimeout,
    /// The gate's certificate was replaced, and the connection had not moved when the one it presented expired.
    GateCertificateExpired,
    /// The rule's backends have no address.
    UpstreamNoEndpoint,
    /// Every address of the rule's backends failed, and is left out for a while.
    UpstreamEjected,
    /// The gate has as many connections to upstreams as it may have.
    UpstreamPoolFull,
    /// No connection to the upstream could be made.
    UpstreamConnect,
    /// The upstream did not answer in time.
    UpstreamTimeout,
    /// The upstream ended the exchange before its response was complete.
    UpstreamReset,
    /// The client went away before it was answered.
    ClientClosed,
    /// The client did not send its request in time.
    ClientTimeout,
    /// The client's request is not valid HTTP.
    ClientMalformed,
}

/// Whose fault a reason is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Side {
    /// The caller's: it may not, or it asks wrongly.
    Client,
    /// The configuration's or the gate's own.
    Gate,
    /// The workload's behind the gate.
    Upstream,
}

/// One row of the table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Facts {
    /// In rows, metric labels and the response header: snake_case.
    pub code: &'static str,
    /// In conditions and events: CamelCase.
    pub condition: &'static str,
    /// Whose fault it is.
    pub side: Side,
    /// HTTP status of the answer, or of the row where the client got none.
    pub http: Option<u16>,
    /// gRPC status code of the answer.
    pub grpc: Option<u8>,
    /// TLS alert the gate sends (RFC 8446 §6); `None` where it sends none, or one that depends on the error.
    pub alert: Option<u8>,
}

impl Reason {
    /// Every reason, in the table's order.
    pub const ALL: [Self; 52] = [
        Self::TlsNoCertificate,
        Self::TlsUnknownCa,
        Self::TlsSelfSigned,
        Self::TlsExpired,
        Self::TlsNotYetValid,
        Self::TlsRevoked,
        Self::TlsCrlExpired,
        Self::TlsWrongPurpose,
        Self::TlsBadSignature,
        Self::TlsUnsupportedExtension,
        Self::TlsWeak,
        Self::TlsConstraint,
        Self::TlsMalformed,
        Self::TlsUnknownSni,
        Self::TlsNothingInCommon,
        Self::TlsProtocol,
        Self::TlsClientAlert,
        Self::TlsTimeout,
        Self::PolicyNoCertificate,
        Self::PolicyNoIdentity,
        Self::PolicyAmbiguous,
        Self::PolicyNotAllowed,
        Self::PolicyIdentitySuspended,
        Self::PolicyIdentityRevoked,
        Self::PolicyCertificateRevoked,
        Self::PolicyIssuedTooEarly,
        Self::PolicyIdentityUnwritable,
        Self::RouteMisdirected,
        Self::RouteNoHost,
        Self::RouteNoPath,
        Self::RouteNoMethod,
        Self::RouteNoMatch,
        Self::RouteInvalid,
        Self::RouteBadPath,
        Self::LimitConnections,
        Self::LimitBodySize,
        Self::LimitIdentitySize,
        Self::LimitPending,
        Self::LimitStreams,
        Self::LimitHandshakes,
        Self::LimitIdle,
        Self::GateDrainTimeout,
        Self::GateCertificateExpired,
        Self::UpstreamNoEndpoint,
        Self::UpstreamEjected,
        Self::UpstreamPoolFull,
        Self::UpstreamConnect,
        Self::UpstreamTimeout,
        Self::UpstreamReset,
        Self::ClientClosed,
        Self::ClientTimeout,
        Self::ClientMalformed,
    ];

    /// What the reason looks like everywhere.
    #[must_use]
    pub const fn facts(self) -> Facts {
        use Reason as R;
        match self {
            R::TlsNoCertificate => tls("tls_no_certificate", "TlsNoCertificate", Some(116)),
            R::TlsUnknownCa => tls("tls_unknown_ca", "TlsUnknownCa", Some(48)),
            R::TlsSelfSigned => tls("tls_self_signed", "TlsSelfSigned", Some(48)),
            R::TlsExpired => tls("tls_expired", "TlsExpired", Some(45)),
            R::TlsNotYetValid => tls("tls_not_yet_valid", "TlsNotYetValid", Some(45)),
            R::TlsRevoked => tls("tls_revoked", "TlsRevoked", Some(44)),
            R::TlsCrlExpired => tls("tls_crl_expired", "TlsCrlExpired", Some(48)),
            R::TlsWrongPurpose => tls("tls_wrong_purpose", "TlsWrongPurpose", Some(43)),
            R::TlsBadSignature => tls("tls_bad_signature", "TlsBadSignature", Some(51)),
            R::TlsUnsupportedExtension => tls("tls_unsupported_extension", "TlsUnsupportedExtension", Some(42)),
            R::TlsWeak => tls("tls_weak", "TlsWeak", Some(51)),
            R::TlsConstraint => tls("tls_constraint", "TlsConstraint", Some(46)),
            R::TlsMalformed => tls("tls_malformed", "TlsMalformed", Some(42)),
            R::TlsUnknownSni => tls("tls_unknown_sni", "TlsUnknownSni", Some(112)),
            R::TlsNothingInCommon => tls("tls_nothing_in_common", "TlsNothingInCommon", None),
            R::TlsProtocol => tls("tls_protocol", "TlsProtocol", None),
            R::TlsClientAlert => tls("tls_client_alert", "TlsClientAlert", None),
            R::TlsTimeout => tls("tls_timeout", "TlsTimeout", None),
            R::PolicyNoCertificate => http("policy_no_certificate", "PolicyNoCertificate", Side::Client, 403, 7),
            R::PolicyNoIdentity => http("policy_no_identity", "PolicyNoIdentity", Side::Client, 403, 7),
            R::PolicyAmbiguous => http("policy_ambiguous", "PolicyAmbiguous", Side::Client, 403, 7),
            R::PolicyNotAllowed => http("policy_not_allowed", "PolicyNotAllowed", Side::Client, 403, 7),
            R::PolicyIdentitySuspended => {
                http("policy_identity_suspended", "PolicyIdentitySuspended", Side::Client, 403, 7)
            }
            R::PolicyIdentityRevoked => http("policy_identity_revoked", "PolicyIdentityRevoked", Side::Client, 403, 7),
            R::PolicyCertificateRevoked => {
                http("policy_certificate_revoked", "PolicyCertificateRevoked", Side::Client, 403, 7)
            }
            R::PolicyIssuedTooEarly => http("policy_issued_too_early", "PolicyIssuedTooEarly", Side::Client, 403, 7),
            R::PolicyIdentityUnwritable => {
                http("policy_identity_unwritable", "PolicyIdentityUnwritable", Side::Client, 403, 7)
            }
            R::RouteMisdirected => http("route_misdirected", "RouteMisdirected", Side::Client, 421, 14),
            R::RouteNoHost => http("route_no_host", "RouteNoHost", Side::Client, 404, 12),
            R::RouteNoPath => http("route_no_path", "RouteNoPath", Side::Client, 404, 12),
            R::RouteNoMethod => http("route_no_method", "RouteNoMethod", Side::Client, 405, 12),
            R::RouteNoMatch => http("route_no_match", "RouteNoMatch", Side::Client, 404, 12),
            R::RouteInvalid => http("route_invalid", "RouteInvalid", Side::Gate, 500, 13),
            R::RouteBadPath => http("route_bad_path", "RouteBadPath", Side::Client, 400, 13),
            R::LimitConnections => http("limit_connections", "LimitConnections", Side::Gate, 503, 14),
            R::LimitBodySize => http("limit_body_size", "LimitBodySize", Side::Client, 413, 8),
            R::LimitIdentitySize => http("limit_identity_size", "LimitIdentitySize", Side::Client, 431, 8),
            R::LimitPending => http("limit_pending", "LimitPending", Side::Gate, 503, 14),
            R::LimitStreams => http("limit_streams", "LimitStreams", Side::Gate, 503, 14),
            R::LimitHandshakes => http("limit_handshakes", "LimitHandshakes", Side::Gate, 503, 14),
            R::LimitIdle => http("limit_idle", "LimitIdle", Side::Client, 408, 4),
            R::GateDrainTimeout => http("gate_drain_timeout", "GateDrainTimeout", Side::Gate, 503, 14),
            R::GateCertificateExpired => {
                http("gate_certificate_expired", "GateCertificateExpired", Side::Gate, 503, 14)
            }
            R::UpstreamNoEndpoint => http("upstream_no_endpoint", "UpstreamNoEndpoint", Side::Upstream, 503, 14),
            R::UpstreamEjected => http("upstream_ejected", "UpstreamEjected", Side::Upstream, 503, 14),
            R::UpstreamPoolFull => http("upstream_pool_full", "UpstreamPoolFull", Side::Upstream, 503, 14),
            R::UpstreamConnect => http("upstream_connect", "UpstreamConnect", Side::Upstream, 502, 14),
            R::UpstreamTimeout => http("upstream_timeout", "UpstreamTimeout", Side::Upstream, 504, 4),
            R::UpstreamReset => http("upstream_reset", "UpstreamReset", Side::Upstream, 502, 14),
            R::ClientClosed => http("client_closed", "ClientClosed", Side::Client, 499, 1),
            R::ClientTimeout => http("client_timeout", "ClientTimeout", Side::Client, 408, 4),
            R::ClientMalformed => http("client_malformed", "ClientMalformed", Side::Client, 400, 13),
        }
    }

    /// The code in rows, metric labels and the response header.
    #[must_use]
    pub const fn code(self) -> &'static str {
        self.facts().code
    }
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.code())
    }
}

/// A refused handshake: the client gets an alert and no HTTP.
const fn tls(code: &'static str, condition: &'static str, alert: Option<u8>) -> Facts {
    Facts { code, condition, side: Side::Client, http: None, grpc: None, alert }
}

const fn http(code: &'static str, condition: &'static str, side: Side, status: u16, grpc: u8) -> Facts {
    Facts { code, condition, side, http: Some(status), grpc: Some(grpc), alert: None }
}
