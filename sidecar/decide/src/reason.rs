//! The one table of reasons: what each is called, whose fault it is, and how it looks on every protocol.

use std::fmt;

/// Makes the enum, the list of all its variants and their facts of one table, so that none of them can be forgotten.
macro_rules! reasons {
    ($($(#[$doc:meta])+ $reason:ident = $looks:expr;)+) => {
        /// Why something was refused or failed. Closed: one variant per cause.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
        pub enum Reason {
            $($(#[$doc])+ $reason,)+
        }

        impl Reason {
            /// How many there are.
            const COUNT: usize = [$(Self::$reason),+].len();

            /// Every reason, in the table's order.
            pub const ALL: [Self; Self::COUNT] = [$(Self::$reason),+];

            /// What the reason looks like everywhere.
            #[must_use]
            pub const fn facts(self) -> Facts {
                match self {
                    $(Self::$reason => $looks.under(stringify!($reason)),)+
                }
            }
        }
    };
}

reasons! {
    /// The client presented no certificate where one is required.
    TlsNoCertificate = tls("tls_no_certificate", Some(116));
    /// The certificate's chain ends in no bundle of the listener.
    TlsUnknownCa = tls("tls_unknown_ca", Some(48));
    /// The certificate names itself as its issuer: no authority vouches for it.
    TlsSelfSigned = tls("tls_self_signed", Some(48));
    /// The certificate, or one above it, has expired.
    TlsExpired = tls("tls_expired", Some(45));
    /// The certificate, or one above it, is not valid yet.
    TlsNotYetValid = tls("tls_not_yet_valid", Some(45));
    /// The certificate's serial number is revoked.
    TlsRevoked = tls("tls_revoked", Some(44));
    /// The revocation list of an authority in the chain is older than it may be.
    TlsCrlExpired = tls("tls_crl_expired", Some(48));
    /// The certificate's extended key usage does not include client authentication (RFC 5280 §4.2.1.12).
    TlsWrongPurpose = tls("tls_wrong_purpose", Some(43));
    /// A signature in the chain or over the handshake does not verify.
    TlsBadSignature = tls("tls_bad_signature", Some(51));
    /// A critical extension is not understood (RFC 5280 §4.2).
    TlsUnsupportedExtension = tls("tls_unsupported_extension", Some(42));
    /// A key or signature algorithm in the chain is not accepted.
    TlsWeak = tls("tls_weak", Some(51));
    /// The chain breaks a constraint of a CA in it: name, path length, or a CA used as a leaf.
    TlsConstraint = tls("tls_constraint", Some(46));
    /// The certificate cannot be parsed.
    TlsMalformed = tls("tls_malformed", Some(42));
    /// The client asks for a name that no certificate of the gate has.
    TlsUnknownSni = tls("tls_unknown_sni", Some(112));
    /// Client and gate share no version, suite or group.
    TlsNothingInCommon = tls("tls_nothing_in_common", None);
    /// The client broke the TLS protocol, or does not speak TLS.
    TlsProtocol = tls("tls_protocol", None);
    /// The client ended the handshake with an alert: it does not accept the gate.
    TlsClientAlert = tls("tls_client_alert", None);
    /// The handshake took too long.
    TlsTimeout = tls("tls_timeout", None);
    /// The rule asks for a certificate and the connection has none.
    PolicyNoCertificate = http("policy_no_certificate", Side::Client, 403, 7);
    /// The certificate verifies and is no known identity's.
    PolicyNoIdentity = http("policy_no_identity", Side::Client, 403, 7);
    /// The certificate matches two identities and so has none.
    PolicyAmbiguous = http("policy_ambiguous", Side::Client, 403, 7);
    /// The identity is known and the rule does not allow it.
    PolicyNotAllowed = http("policy_not_allowed", Side::Client, 403, 7);
    /// The identity is suspended.
    PolicyIdentitySuspended = http("policy_identity_suspended", Side::Client, 403, 7);
    /// The identity is revoked.
    PolicyIdentityRevoked = http("policy_identity_revoked", Side::Client, 403, 7);
    /// The certificate's serial number was revoked while its connection was open.
    PolicyCertificateRevoked = http("policy_certificate_revoked", Side::Client, 403, 7);
    /// The identity's certificates are accepted from a later time on.
    PolicyIssuedTooEarly = http("policy_issued_too_early", Side::Client, 403, 7);
    /// A rule tells the application of the caller, and its certificate has something that no header field can carry.
    PolicyIdentityUnwritable = http("policy_identity_unwritable", Side::Client, 403, 7);
    /// The host is outside the names of the certificate that the connection was opened with.
    RouteMisdirected = http("route_misdirected", Side::Client, 421, 14);
    /// No route serves the host.
    RouteNoHost = http("route_no_host", Side::Client, 404, 12);
    /// No rule matches the path.
    RouteNoPath = http("route_no_path", Side::Client, 404, 12);
    /// A rule matches the path, none the method.
    RouteNoMethod = http("route_no_method", Side::Client, 405, 12);
    /// A rule matches path and method, none the headers and the query.
    RouteNoMatch = http("route_no_match", Side::Client, 404, 12);
    /// A stream of HTTP/2 is to go on with another protocol than WebSocket.
    RouteNoProtocol = http("route_no_protocol", Side::Gate, 501, 12);
    /// The rule refers to something that does not exist.
    RouteInvalid = http("route_invalid", Side::Gate, 500, 13);
    /// The path cannot be normalised safely.
    RouteBadPath = http("route_bad_path", Side::Client, 400, 13);
    /// Too many connections are open.
    LimitConnections = http("limit_connections", Side::Gate, 503, 14);
    /// The request's body is too large.
    LimitBodySize = http("limit_body_size", Side::Client, 413, 8);
    /// What a rule tells the application of the caller is too much for a request's head.
    LimitIdentitySize = http("limit_identity_size", Side::Client, 431, 8);
    /// Too many requests wait for their response's head, and have for too long.
    LimitPending = http("limit_pending", Side::Gate, 503, 14);
    /// Too many requests and connections are being passed on.
    LimitStreams = http("limit_streams", Side::Gate, 503, 14);
    /// Too many requests are tunnels, or are to become some.
    LimitTunnels = http("limit_tunnels", Side::Gate, 503, 14);
    /// Too many handshakes are under way.
    LimitHandshakes = http("limit_handshakes", Side::Gate, 503, 14);
    /// Nothing passed on the connection for too long.
    LimitIdle = http("limit_idle", Side::Client, 408, 4);
    /// What the connection carried had not ended when the time to finish was over: the gate was stopped, or its listener
    /// went.
    GateDrainTimeout = http("gate_drain_timeout", Side::Gate, 503, 14);
    /// The gate's certificate was replaced, and the connection had not moved when the one it presented expired.
    GateCertificateExpired = http("gate_certificate_expired", Side::Gate, 503, 14);
    /// The rule's backends have no address.
    UpstreamNoEndpoint = http("upstream_no_endpoint", Side::Upstream, 503, 14);
    /// The rule's backends are names that have no address: DNS says so, or does not answer.
    UpstreamDns = http("upstream_dns", Side::Upstream, 503, 14);
    /// Every address of the rule's backends failed, and is left out for a while.
    UpstreamEjected = http("upstream_ejected", Side::Upstream, 503, 14);
    /// No address of the rule's backends that could be used is well: those that are asked fail their checks.
    UpstreamUnhealthy = http("upstream_unhealthy", Side::Upstream, 503, 14);
    /// The gate has as many connections to upstreams as it may have.
    UpstreamPoolFull = http("upstream_pool_full", Side::Upstream, 503, 14);
    /// No connection to the upstream could be made.
    UpstreamConnect = http("upstream_connect", Side::Upstream, 502, 14);
    /// No TLS connection to the upstream could be made.
    UpstreamTls = http("upstream_tls", Side::Upstream, 502, 14);
    /// The upstream's certificate does not verify under the bundles of its backend.
    UpstreamTlsUntrusted = http("upstream_tls_untrusted", Side::Upstream, 502, 14);
    /// The upstream's certificate, or one above it, is not valid now.
    UpstreamTlsExpired = http("upstream_tls_expired", Side::Upstream, 502, 14);
    /// The upstream's certificate or identity is revoked, or it is not known any more whether it is.
    UpstreamTlsRevoked = http("upstream_tls_revoked", Side::Upstream, 502, 14);
    /// The upstream's certificate verifies and is somebody else's.
    UpstreamTlsPeer = http("upstream_tls_peer", Side::Upstream, 502, 14);
    /// The upstream ended TLS with an alert: it does not accept the gate.
    UpstreamTlsRefused = http("upstream_tls_refused", Side::Upstream, 502, 14);
    /// The upstream did not answer in time.
    UpstreamTimeout = http("upstream_timeout", Side::Upstream, 504, 4);
    /// The upstream ended the exchange before its response was complete.
    UpstreamReset = http("upstream_reset", Side::Upstream, 502, 14);
    /// The upstream says that it goes on with a protocol that nobody has asked it for.
    UpstreamUpgrade = http("upstream_upgrade", Side::Upstream, 502, 14);
    /// The client went away before it was answered.
    ClientClosed = http("client_closed", Side::Client, 499, 1);
    /// The client did not send its request in time.
    ClientTimeout = http("client_timeout", Side::Client, 408, 4);
    /// The client's request is not valid HTTP.
    ClientMalformed = http("client_malformed", Side::Client, 400, 13);
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

impl Facts {
    const fn under(self, condition: &'static str) -> Self {
        Self { condition, ..self }
    }
}

/// A refused handshake: the client gets an alert and no HTTP.
const fn tls(code: &'static str, alert: Option<u8>) -> Facts {
    Facts { code, condition: "", side: Side::Client, http: None, grpc: None, alert }
}

const fn http(code: &'static str, side: Side, status: u16, grpc: u8) -> Facts {
    Facts { code, condition: "", side, http: Some(status), grpc: Some(grpc), alert: None }
}
