//! The table of reasons: frozen, whole, and one code per cause.

use std::collections::BTreeSet;

use sidecar_decide::Reason;
use sidecar_decide::reason::{Facts, Side};

/// Writes the frozen table once as a list, and once as a match that does not compile when a variant is added.
macro_rules! frozen {
    ($($variant:ident = $code:literal $side:ident $http:expr, $grpc:expr, $alert:expr;)*) => {
        const FROZEN: &[(Reason, &str, Side, Option<u16>, Option<u8>, Option<u8>)] =
            &[$((Reason::$variant, $code, Side::$side, $http, $grpc, $alert)),*];

        fn frozen_code(reason: Reason) -> &'static str {
            match reason { $(Reason::$variant => $code),* }
        }
    };
}

// Codes are in users' rows, queries and dashboards: a change here breaks them.
frozen! {
    TlsNoCertificate = "tls_no_certificate" Client None, None, Some(116);
    TlsUnknownCa = "tls_unknown_ca" Client None, None, Some(48);
    TlsSelfSigned = "tls_self_signed" Client None, None, Some(48);
    TlsExpired = "tls_expired" Client None, None, Some(45);
    TlsNotYetValid = "tls_not_yet_valid" Client None, None, Some(45);
    TlsRevoked = "tls_revoked" Client None, None, Some(44);
    TlsCrlExpired = "tls_crl_expired" Client None, None, Some(48);
    TlsWrongPurpose = "tls_wrong_purpose" Client None, None, Some(43);
    TlsBadSignature = "tls_bad_signature" Client None, None, Some(51);
    TlsUnsupportedExtension = "tls_unsupported_extension" Client None, None, Some(42);
    TlsWeak = "tls_weak" Client None, None, Some(51);
    TlsConstraint = "tls_constraint" Client None, None, Some(46);
    TlsMalformed = "tls_malformed" Client None, None, Some(42);
    TlsUnknownSni = "tls_unknown_sni" Client None, None, Some(112);
    TlsNothingInCommon = "tls_nothing_in_common" Client None, None, None;
    TlsProtocol = "tls_protocol" Client None, None, None;
    TlsClientAlert = "tls_client_alert" Client None, None, None;
    TlsTimeout = "tls_timeout" Client None, None, None;
    PolicyNoCertificate = "policy_no_certificate" Client Some(403), Some(7), None;
    PolicyNoIdentity = "policy_no_identity" Client Some(403), Some(7), None;
    PolicyAmbiguous = "policy_ambiguous" Client Some(403), Some(7), None;
    PolicyNotAllowed = "policy_not_allowed" Client Some(403), Some(7), None;
    PolicyIdentitySuspended = "policy_identity_suspended" Client Some(403), Some(7), None;
    PolicyIdentityRevoked = "policy_identity_revoked" Client Some(403), Some(7), None;
    PolicyCertificateRevoked = "policy_certificate_revoked" Client Some(403), Some(7), None;
    PolicyIssuedTooEarly = "policy_issued_too_early" Client Some(403), Some(7), None;
    PolicyIdentityUnwritable = "policy_identity_unwritable" Client Some(403), Some(7), None;
    RouteMisdirected = "route_misdirected" Client Some(421), Some(14), None;
    RouteNoHost = "route_no_host" Client Some(404), Some(12), None;
    RouteNoPath = "route_no_path" Client Some(404), Some(12), None;
    RouteNoMethod = "route_no_method" Client Some(405), Some(12), None;
    RouteNoMatch = "route_no_match" Client Some(404), Some(12), None;
    RouteNoProtocol = "route_no_protocol" Gate Some(501), Some(12), None;
    RouteInvalid = "route_invalid" Gate Some(500), Some(13), None;
    RouteBadPath = "route_bad_path" Client Some(400), Some(13), None;
    LimitConnections = "limit_connections" Gate Some(503), Some(14), None;
    LimitBodySize = "limit_body_size" Client Some(413), Some(8), None;
    LimitIdentitySize = "limit_identity_size" Client Some(431), Some(8), None;
    LimitPending = "limit_pending" Gate Some(503), Some(14), None;
    LimitStreams = "limit_streams" Gate Some(503), Some(14), None;
    LimitTunnels = "limit_tunnels" Gate Some(503), Some(14), None;
    LimitHandshakes = "limit_handshakes" Gate Some(503), Some(14), None;
    LimitIdle = "limit_idle" Client Some(408), Some(4), None;
    GateDrainTimeout = "gate_drain_timeout" Gate Some(503), Some(14), None;
    GateCertificateExpired = "gate_certificate_expired" Gate Some(503), Some(14), None;
    UpstreamNoEndpoint = "upstream_no_endpoint" Upstream Some(503), Some(14), None;
    UpstreamDns = "upstream_dns" Upstream Some(503), Some(14), None;
    UpstreamEjected = "upstream_ejected" Upstream Some(503), Some(14), None;
    UpstreamUnhealthy = "upstream_unhealthy" Upstream Some(503), Some(14), None;
    UpstreamPoolFull = "upstream_pool_full" Upstream Some(503), Some(14), None;
    UpstreamConnect = "upstream_connect" Upstream Some(502), Some(14), None;
    UpstreamTls = "upstream_tls" Upstream Some(502), Some(14), None;
    UpstreamTlsUntrusted = "upstream_tls_untrusted" Upstream Some(502), Some(14), None;
    UpstreamTlsExpired = "upstream_tls_expired" Upstream Some(502), Some(14), None;
    UpstreamTlsRevoked = "upstream_tls_revoked" Upstream Some(502), Some(14), None;
    UpstreamTlsPeer = "upstream_tls_peer" Upstream Some(502), Some(14), None;
    UpstreamTlsRefused = "upstream_tls_refused" Upstream Some(502), Some(14), None;
    UpstreamTimeout = "upstream_timeout" Upstream Some(504), Some(4), None;
    UpstreamReset = "upstream_reset" Upstream Some(502), Some(14), None;
    UpstreamUpgrade = "upstream_upgrade" Upstream Some(502), Some(14), None;
    ClientClosed = "client_closed" Client Some(499), Some(1), None;
    ClientTimeout = "client_timeout" Client Some(408), Some(4), None;
    ClientMalformed = "client_malformed" Client Some(400), Some(13), None;
}

fn camel_case(code: &str) -> String {
    let word = |word: &str| word[..1].to_ascii_uppercase() + &word[1..];
    code.split('_').map(word).collect()
}

#[test]
fn the_table_is_the_frozen_one() {
    for (reason, code, side, http, grpc, alert) in FROZEN {
        let condition = camel_case(code);
        let facts = Facts { code, condition: condition.leak(), side: *side, http: *http, grpc: *grpc, alert: *alert };
        assert_eq!(reason.facts(), facts);
        assert_eq!((reason.code(), reason.to_string(), frozen_code(*reason)), (*code, (*code).to_owned(), *code));
    }
}

#[test]
fn all_has_every_variant_once_and_in_order() {
    let frozen: Vec<_> = FROZEN.iter().map(|row| row.0).collect();
    assert_eq!(Reason::ALL.as_slice(), frozen);
    assert_eq!(Reason::ALL.iter().collect::<BTreeSet<_>>().len(), FROZEN.len());
}

#[test]
fn codes_and_conditions_are_unique_and_one_name_in_two_spellings() {
    let codes: BTreeSet<_> = Reason::ALL.iter().map(|reason| reason.code()).collect();
    let conditions: BTreeSet<_> = Reason::ALL.iter().map(|reason| reason.facts().condition).collect();
    assert_eq!((codes.len(), conditions.len()), (FROZEN.len(), FROZEN.len()));
    for reason in Reason::ALL {
        assert_eq!(reason.facts().condition, camel_case(reason.code()));
        assert_eq!(reason.facts().condition, format!("{reason:?}"));
    }
}

/// A stage fixes how far the client got, and so what it can be told.
#[test]
fn each_stage_answers_on_its_own_protocol() {
    for reason in Reason::ALL {
        let facts = reason.facts();
        let (stage, _) = reason.code().split_once('_').expect("a stage and a cause");
        let answers = (facts.http.is_some(), facts.grpc.is_some());
        let expected = match stage {
            "tls" => (false, false),
            "policy" | "route" | "limit" | "gate" | "upstream" | "client" => (true, true),
            other => panic!("{reason}: `{other}` is no stage"),
        };
        assert_eq!(answers, expected, "{reason}");
        assert!(facts.alert.is_none() || stage == "tls", "{reason} is told after the handshake");
        assert!(facts.http.is_none_or(|status| (400..600).contains(&status)), "{reason} is an error");
        assert!(facts.grpc.is_none_or(|status| (1..=16).contains(&status)), "{reason} is a gRPC error");
    }
}

/// A status says whose fault it is: 4xx is the client's. A gate that is full is no client's fault.
#[test]
fn sides_fit_their_statuses() {
    for reason in Reason::ALL {
        let Facts { side, http, .. } = reason.facts();
        let by_status = match http {
            None | Some(400..500) => Side::Client,
            Some(_) if reason.code().starts_with("upstream_") => Side::Upstream,
            Some(_) => Side::Gate,
        };
        assert_eq!(side, by_status, "{reason}");
    }
}
