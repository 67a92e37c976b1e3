//! What each reason means to whoever finds it in a row: its cause, and what to do. The pages of the request log say the same.

use crate::reason::Reason;

/// One reason in words.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Explanation {
    /// What happened.
    pub cause: &'static str,
    /// What would have let it pass, or what to look at.
    pub remedy: &'static str,
}

/// Makes a match of the table, so that no reason can be forgotten.
macro_rules! explanations {
    ($($reason:ident: $cause:literal, $remedy:literal;)+) => {
        impl Reason {
            /// The reason in words.
            #[must_use]
            pub const fn explanation(self) -> Explanation {
                match self {
                    $(Self::$reason => Explanation { cause: $cause, remedy: $remedy },)+
                }
            }
        }
    };
}

explanations! {
    TlsNoCertificate:
        "no certificate where one is required",
        "give the client its certificate and key";
    TlsUnknownCa:
        "the chain ends in no bundle of the listener",
        "send the intermediates along; compare `issuer` with the roots of the bundle; name the bundle in the \
         listener's `tls.trust`";
    TlsSelfSigned:
        "the certificate is signed by its own key and is no root of a bundle",
        "have it signed by a CA that a bundle has";
    TlsExpired:
        "the certificate, or one above it, has expired",
        "renew it; compare the clocks";
    TlsNotYetValid:
        "the certificate, or one above it, is not valid yet",
        "compare the clocks";
    TlsRevoked:
        "the certificate's serial number is in `trust.revocations.serials`, or it or one above it is in a \
         revocation list of the bundle",
        "nothing, or find out who uses it";
    TlsCrlExpired:
        "a revocation list of an authority in the chain is past its nextUpdate: nobody can say whether the \
         certificate is revoked",
        "fetch the new list; `postern_crl_next_update_timestamp_seconds` warns before";
    TlsWrongPurpose:
        "its extended key usage does not include client authentication",
        "issue it with `clientAuth`";
    TlsBadSignature:
        "a signature in the chain or over the handshake does not verify; that of an authority with an RSA key \
         under 2048 bits never does",
        "issue certificate and key anew";
    TlsUnsupportedExtension:
        "a critical extension that is not understood",
        "issue it without, or not critical";
    TlsWeak:
        "a key or signature algorithm that is not accepted: SHA-1, an RSA key under 2048 bits, another curve",
        "ECDSA P-256 or P-384, Ed25519, or RSA from 2048 bits, with SHA-256 or better";
    TlsConstraint:
        "a constraint of a CA is broken: name, path length, or a CA used as a leaf",
        "look at the constraints in the chain";
    TlsMalformed:
        "the certificate cannot be parsed",
        "issue it anew";
    TlsUnknownSni:
        "it asks for a name (`sni`) that none of the gate's certificates has, on a listener that refuses those",
        "a scan, or a certificate is missing in `identity`";
    TlsNothingInCommon:
        "no TLS version, cipher suite, group or ALPN protocol in common",
        "the client is old, or `minVersion` is too new for it";
    TlsProtocol:
        "the TLS protocol was broken, or it is not TLS",
        "often plain HTTP sent to a TLS port";
    TlsClientAlert:
        "the client ended the handshake: it does not accept the gate",
        "give the client the root of the gate's own certificate; check the name it connects to";
    TlsTimeout:
        "the handshake took more than 10 s; a connection that sends nothing too",
        "a port scan, a bad network, or a TCP health check that stays open";
    PolicyNoCertificate:
        "the rule wants a certificate and the connection has none",
        "the listener's `clientAuth` is `Optional` or `None`: the client must present one";
    PolicyNoIdentity:
        "the certificate verifies and is no known identity's",
        "add a recogniser; compare `san` and `bundle` with it";
    PolicyAmbiguous:
        "the certificate matches two identities and so has none",
        "make the recognisers distinct";
    PolicyNotAllowed:
        "the identity is known and the rule does not allow it",
        "add it to the rule's `allow`, if it should be there";
    PolicyIdentitySuspended:
        "the identity is suspended",
        "take it out of `trust.revocations` when it may come back";
    PolicyIdentityRevoked:
        "the identity is revoked",
        "nothing, or find out who uses it";
    PolicyCertificateRevoked:
        "the certificate's serial number was revoked while its connection was open. The next handshake is refused \
         with `tls_revoked`",
        "nothing, or find out who uses it";
    PolicyIssuedTooEarly:
        "the certificate is valid from before the identity's `acceptIssuedAfter`",
        "give the client its newer certificate";
    PolicyIdentityUnwritable:
        "the rule tells the application of the caller, and its certificate has a name that no header field can \
         carry without doubt, such as a quotation mark in a URI. Also in mode `Audit`",
        "give the client another certificate, or forward other facts";
    RouteMisdirected:
        "the host is not one of the certificate that the connection was opened with (`sni`)",
        "clients with HTTP/2 make another connection by themselves; others mix up two names";
    RouteNoHost:
        "no route of the listener serves the host",
        "compare `host` with `hostnames`";
    RouteNoPath:
        "no rule matches the path",
        "compare `path` with `matches`";
    RouteNoMethod:
        "a rule matches the path, none the method; the response's `Allow` has those of host and path",
        "compare `method` with `matches`";
    RouteNoMatch:
        "a rule matches path and method, none the headers, the query and the type of the message",
        "compare what the client sends with `headers` and `queryParams`, of which no row tells, and \
         `message_type` with `messageType`";
    RouteNoProtocol:
        "a stream of HTTP/2 is to go on with another protocol than WebSocket (`:protocol` of an extended CONNECT)",
        "ask for it on HTTP/1.1, if it exists there";
    RouteInvalid:
        "the rule names endpoints that do not exist",
        "`validate` says which";
    RouteBadPath:
        "the path is ambiguous, or the target has none (`CONNECT`, `OPTIONS *`)",
        "mostly an attack or a broken client";
    LimitConnections:
        "too many connections are open. The connection is closed without an answer; `status` is NULL",
        "find out who has so many open, or raise `maxConnections`";
    LimitBodySize:
        "the request's body is larger than `maxRequestBodySize`",
        "raise it, or send less";
    LimitIdentitySize:
        "what the rule tells the application of the caller is more than 16 KiB. Also in mode `Audit`",
        "forward less: a hash instead of the certificate, the certificate instead of its chain";
    LimitPending:
        "as many requests as `maxPendingRequests` wait for their response's head, and have for `pendingTimeout`. \
         On a `TLS` listener: connections to the application that are not made yet; `status` is NULL",
        "is the application slow? else raise `maxPendingRequests`";
    LimitStreams:
        "as many requests and connections as `maxStreams` are being passed on",
        "responses that do not end, or clients that do not read; else raise it";
    LimitTunnels:
        "as many requests as `maxTunnels` have been upgraded, or are about to be",
        "raise it, or find out who keeps so many open";
    LimitHandshakes:
        "as many handshakes as may be are under way, and there was no turn for this one within 5 s. The \
         connection is closed; `status` is NULL",
        "find out who begins so many";
    LimitIdle:
        "nothing passed for an hour on a connection of a `TLS` listener or in a tunnel, or for 60 s after its \
         application had ended. It is closed; `status` is NULL, or the tunnel's 101 or 200",
        "let client or application send something now and then (TCP's keep-alive is not enough)";
    GateDrainTimeout:
        "the gate was stopped, or the listener removed, and this had not ended when `drainTimeout` was over. The \
         connection is cut",
        "a longer `drainTimeout`, or shorter requests";
    GateCertificateExpired:
        "the gate's certificate was replaced, and the connection had not moved to the new one when the old one \
         expired. The connection is cut",
        "a client that ignores GOAWAY and `Connection: close`, or a request longer than the time between renewal \
         and expiry";
    UpstreamNoEndpoint:
        "the rule's backends have no address",
        "fill the set of endpoints";
    UpstreamDns:
        "the rule's backends are names that have no address: DNS says so, or no server has answered yet, or for a day",
        "the gate's messages `a name has no address`; `postern_dns_names`";
    UpstreamEjected:
        "every address of the rule's backends failed too often and is left out for a while; only with \
         `maxEjectionPercent` 100. None was asked",
        "the rows before: what did the addresses fail with?";
    UpstreamUnhealthy:
        "no address of the rule's backends passes its health checks. None was asked",
        "the gate's messages `an upstream is unhealthy` say why";
    UpstreamPoolFull:
        "all connections that `backendPolicy.pool` allows to the address are in use, and `maxPending` requests \
         wait already or this one waited `pendingTimeout`; or the gate has as many as the limit of open files \
         allows",
        "`postern_upstream_requests_pending`, `postern_upstream_connections_open`; is the application slow? raise \
         `maxConnections`, or the hard limit of open files";
    UpstreamConnect:
        "no connection could be made, or none took the request; up to three addresses were tried, \
         `connectTimeout` each",
        "is the application running, and on that address?";
    UpstreamTls:
        "no TLS with the upstream: it does not speak it, shares no version or suite with the gate, or ended the \
         connection",
        "does the backend need `tls`?";
    UpstreamTlsUntrusted:
        "its certificate does not verify under the bundles in `tls.trust`",
        "is the bundle the right one, and the chain whole? `logLevel` `Debug` says more";
    UpstreamTlsExpired:
        "its certificate, or one above it, is not valid now; open connections are cut when it expires",
        "renew it";
    UpstreamTlsRevoked:
        "its certificate, one above it or the identity it is recognised as is revoked or suspended, or a \
         revocation list about it is too old; open connections are cut",
        "nothing, or find out why it is revoked";
    UpstreamTlsPeer:
        "its certificate verifies and is somebody else's: not one of `tls.peers`, or without `tls.serverName`",
        "is the address the right one?";
    UpstreamTlsRefused:
        "it ended TLS with an alert: it does not accept the gate",
        "does it want a certificate (`mode` `Mutual`), and trust the gate's?";
    UpstreamTimeout:
        "no response's head within 60 s of the last byte of the request that the upstream took, or the rule's \
         `timeouts` were over. Where the response had begun, `status` is the upstream's",
        "the application is slow";
    UpstreamReset:
        "the upstream ended the exchange before its response was complete. Where the response had begun, `status` \
         is the upstream's and the client's connection or stream breaks off. Of a tunnel: it broke off, or ended \
         without TLS' own end; what came before was passed on",
        "look into the application's log";
    UpstreamUpgrade:
        "the upstream answered 101 to a request that asked for no upgrade, or for another protocol than it now \
         wants to speak; for a WebSocket on HTTP/2 also: without the right `Sec-WebSocket-Accept`, or with a \
         success that is no 101",
        "look into the application's log";
    ClientClosed:
        "the client went away before the response was complete, or in the middle of its handshake",
        "mostly nothing; `duration_us` says how long it waited";
    ClientTimeout:
        "no request within 60 s of the handshake or of the connection (HTTP/1.1), or no more of a body for 60 s; \
         not the first bytes of one within 10 s where a rule depends on the type of its message",
        "a client that opens connections ahead, or is slow";
    ClientMalformed:
        "not valid HTTP, a head that is too large (`status` is 431), no host or two, a chunk of the body that is \
         none. On HTTP/2 a connection that had to be ended for it (`status` is NULL); a stream that is refused \
         alone has no row",
        "look at the client";
}
