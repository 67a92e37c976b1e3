//! Which header fields no client can set, in which spellings.

use http::header::{HeaderMap, HeaderName, HeaderValue};
use serde_json::json;
use sidecar_decide::filter::GateNames;

use crate::fixture::{Documents, listener, rule};

/// The names of a policy with one rule that tells the name of the caller in `X-Client-Name`, and one that tells nothing.
fn names(trusted_hops: u8) -> GateNames {
    let mut telling = rule("telling", &json!([]), &json!([{"anyone": {}}]));
    telling["filters"] = json!([{"forwardIdentity": {"headers": [{"name": "X-Client-Name", "value": "Identity"}]}}]);
    let route = json!({"name": "a/b", "listener": "main", "rules": [telling]});
    let policy = json!({
        "listeners": [listener("main", 8443)], "routes": [route], "forwarding": {"trustedHops": trusted_hops},
    });
    let (snapshot, problems) = Documents { policy, ..Documents::default() }.link();
    assert_eq!(problems, []);
    GateNames::clone(&snapshot.gate_names)
}

#[test]
fn what_says_who_calls_is_dropped_in_every_spelling() {
    let claims = [
        "x-forwarded-client-cert",
        "X-Forwarded-Client-Cert",
        "x_forwarded_client_cert",
        "x-forwarded_client-cert",
        "x.forwarded.client.cert",
        "X!Forwarded~Client|Cert",
        "client-cert",
        "Client_Cert",
        "client-cert-chain",
        "ssl-client-cert",
        "SSL_CLIENT_CERT",
        "ssl-client-subject-dn",
        "x-ssl-client-cert",
        "X_SSL_CLIENT_S_DN",
        "postern-reason",
        "Postern_Identity",
        "x-client-name",
        "X_Client.Name",
    ];
    let hops = [
        "x-forwarded-for",
        "X_Forwarded_For",
        "x-forwarded-proto",
        "x-forwarded-host",
        "x-forwarded-port",
        "forwarded",
        "x-real-ip",
        "X_Real_IP",
        "x-request-id",
        "x_request_id",
    ];
    let others = ["x-forwarded", "client-certificate", "x-client-names", "xx-client-name", "authorization", "cookie"];
    // What is spelled as a proxy spells it is a proxy's, where some are trusted.
    let told = ["x-forwarded-for", "x-forwarded-proto", "x-forwarded-host", "x-forwarded-port", "x-request-id"];
    let (alone, behind) = (names(0), names(1));
    let owns = |names: &GateNames, name: &str| names.owns(&HeaderName::from_bytes(name.as_bytes()).unwrap());
    for name in claims {
        assert!(owns(&alone, name) && owns(&behind, name), "{name}");
    }
    for name in hops {
        assert!(owns(&alone, name), "{name}");
        assert_eq!(owns(&behind, name), !told.contains(&name), "{name} behind a proxy");
    }
    for name in others {
        assert!(!owns(&alone, name) && !owns(&behind, name), "{name}");
    }
}

#[test]
fn every_line_of_a_field_is_dropped() {
    let mut headers = HeaderMap::new();
    for (name, value) in [("x-kept", "1"), ("x_client_name", "a"), ("x-kept", "2"), ("x_client_name", "b")] {
        headers.append(HeaderName::from_static(name), HeaderValue::from_static(value));
    }
    names(0).strip(&mut headers);
    assert_eq!(headers.iter().map(|(name, _)| name.as_str()).collect::<Vec<_>>(), ["x-kept", "x-kept"]);
}
