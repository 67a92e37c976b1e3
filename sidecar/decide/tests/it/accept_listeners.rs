//! Listeners of each protocol: what they need, and what may be served on them.

use serde_json::{Value, json};
use sidecar_config::policy::{ClientAuth, Protocol, TlsVersion};
use sidecar_decide::Reason::{self, RouteNoHost};
use sidecar_decide::accept;

use crate::fixture::{Documents, asked, expected, found, listener, read, rule, told};

const ANYONE: &str = "policy.routes[0].rules[0].allow[0]";

/// A listener `main` of a protocol, without `tls`.
fn bare(protocol: &str, address: &str) -> Value {
    json!({"name": "main", "address": address, "protocol": protocol})
}

/// A route of these rules on listener `main`.
fn serving(rules: &[Value]) -> Value {
    json!([{"name": "a/b", "listener": "main", "rules": rules}])
}

fn problems(listener: &Value, routes: &Value, rows: &[(&str, &str)]) {
    let document = json!({"listeners": [listener], "routes": routes});
    match accept::policy(&read(document)) {
        Ok(_) => assert_eq!(rows, [], "accepted"),
        Err(refusal) => assert_eq!(told(&refusal.problems), expected(rows)),
    }
}

#[test]
fn tls_settings_are_where_tls_is() {
    const MISSING: &str =
        "is missing; write `tls = { trust = [\"NAME\"] }` with the bundles whose certificates are accepted";
    for protocol in ["HTTPS", "TLS"] {
        problems(&bare(protocol, "0.0.0.0:1"), &json!([]), &[("policy.listeners[0].tls", MISSING)]);
    }
    problems(&bare("HTTP", "0.0.0.0:1"), &json!([]), &[]);
    let mut with = bare("HTTP", "0.0.0.0:1");
    with["tls"] = json!({});
    let detail = "has no meaning with protocol `HTTP`; leave it out, or write `HTTPS`";
    problems(&with, &json!([]), &[("policy.listeners[0].tls", detail)]);
}

#[test]
fn names_of_certificates_are_names_and_few() {
    let mut with = listener("main", 1);
    with["tls"]["certificates"] = json!(["a/web", ""]);
    let detail = "is empty; give it a name";
    problems(&with, &json!([]), &[("policy.listeners[0].tls.certificates[1]", detail)]);
    with["tls"]["certificates"] = json!(vec!["a/web"; 65]);
    let detail = "are 65; at most 64 are allowed";
    problems(&with, &json!([]), &[("policy.listeners[0].tls.certificates", detail)]);
}

#[test]
fn without_certificates_only_anyone_is_allowed() {
    const DETAIL: &str = "nobody has a certificate on listener `main`, which is `HTTP`; \
                          write `allow = [{ anyone = {} }]`, or serve the route on a listener with TLS";
    let table = [
        (json!([{"anyone": {}}]), None),
        (json!([{"identity": "a/b"}]), Some(ANYONE)),
        (json!([{"verified": "ours"}]), Some(ANYONE)),
        (json!([{"spiffe": "spiffe://demo.local/x"}]), Some(ANYONE)),
        (json!([{"serviceAccount": {"namespace": "a", "name": "b"}}]), Some(ANYONE)),
        (json!([{"identitySelector": {"matchLabels": {"a": "b"}}}]), Some(ANYONE)),
        (json!([{"anyone": {}}, {"identity": "a/b"}]), Some("policy.routes[0].rules[0].allow[1]")),
    ];
    // Loopback is no exception: nobody has a certificate there either.
    for address in ["0.0.0.0:1", "127.0.0.1:1", "[::]:1", "[::1]:1"] {
        for (allow, place) in &table {
            let routes = serving(&[rule("r", &json!([]), allow)]);
            let rows: Vec<_> = place.iter().map(|place| (*place, DETAIL)).collect();
            problems(&bare("HTTP", address), &routes, &rows);
        }
    }
}

#[test]
fn nothing_is_matched_where_bytes_are_passed_on() {
    let mut tls = listener("main", 8443);
    tls["protocol"] = json!("TLS");
    let anyone = json!([{"anyone": {}}]);
    problems(&tls, &serving(&[rule("r", &json!([]), &anyone)]), &[]);
    let rules = [rule("r", &json!([{"method": "GET"}]), &anyone), rule("s", &json!([]), &anyone)];
    problems(
        &tls,
        &serving(&rules),
        &[
            (
                "policy.routes[0].rules[0].matches",
                "nothing can be matched on listener `main`, which is `TLS`; leave it out, or serve the route on an `HTTPS` listener",
            ),
            (
                "policy.routes[0].rules[1]",
                "is never reached: on listener `main`, which is `TLS`, the first rule matches everything; keep one rule, and tell routes apart by hostnames",
            ),
        ],
    );
}

#[test]
fn a_snapshot_knows_each_protocol() {
    let mut raw = listener("raw", 1);
    raw["protocol"] = json!("TLS");
    raw["tls"]["minVersion"] = json!("1.3");
    let listeners = [bare("HTTP", "127.0.0.1:2"), raw, listener("web", 3)];
    let documents = Documents { policy: json!({"listeners": listeners}), ..Documents::default() };
    let (snapshot, problems) = documents.link();
    assert_eq!(problems, []);
    let known = snapshot.listeners.iter().map(|listener| {
        let name: &str = &listener.name;
        (name, listener.protocol, listener.client_auth, listener.min_version, listener.bundles.len())
    });
    assert_eq!(
        known.collect::<Vec<_>>(),
        [
            ("main", Protocol::Http, ClientAuth::None, TlsVersion::V1_2, 0),
            ("raw", Protocol::Tls, ClientAuth::Required, TlsVersion::V1_3, 2),
            ("web", Protocol::Https, ClientAuth::Required, TlsVersion::V1_2, 2),
        ]
    );
}

#[test]
fn the_name_a_client_asks_for_chooses_among_routes() {
    let mut tls = listener("main", 8443);
    tls["protocol"] = json!("TLS");
    let route = |name: &str, hostnames: Value| {
        let rules = [rule("r", &json!([]), &json!([{"anyone": {}}]))];
        json!({"name": name, "listener": "main", "hostnames": hostnames, "rules": rules})
    };
    let named = [route("a/one", json!(["db.example.com"])), route("a/below", json!(["*.example.com"]))];
    let link = |routes: &[Value]| {
        let policy = json!({"listeners": [tls], "routes": routes});
        Documents { policy, ..Documents::default() }.link().0
    };
    let (snapshot, with_any) = (link(&named), link(&[&named[..], &[route("a/any", json!([]))]].concat()));
    let table: [(&str, Result<&str, Reason>, &str); 4] = [
        ("db.example.com", Ok("a/one"), "a/one"),
        ("DB.Example.com", Ok("a/one"), "a/one"),
        ("x.example.com", Ok("a/below"), "a/below"),
        // No name at all, too.
        ("", Err(RouteNoHost), "a/any"),
    ];
    for (sni, named, any) in table {
        let request = asked(sni, "/", &http::Method::CONNECT);
        assert_eq!(found(&snapshot, "main", &request), named, "{sni}");
        assert_eq!(found(&with_any, "main", &request), Ok(any), "{sni}");
    }
}

#[test]
fn limits() {
    let check = |limits: Value, rows: &[(&str, &str)]| match accept::policy(&read(json!({"limits": limits}))) {
        Ok(_) => assert_eq!(rows, [], "accepted"),
        Err(refusal) => assert_eq!(told(&refusal.problems), expected(rows)),
    };
    check(json!({"maxPendingRequests": 1, "maxStreams": 1_000_000, "pendingTimeout": "60s"}), &[]);
    check(json!({"maxTunnels": 1}), &[]);
    check(json!({"pendingTimeout": "0s"}), &[]);
    check(
        json!({"maxPendingRequests": 0, "maxStreams": 1_000_001, "maxTunnels": 0, "pendingTimeout": "60001ms"}),
        &[
            ("policy.limits.maxPendingRequests", "is 0; write a number from 1 to 1000000"),
            ("policy.limits.maxStreams", "is 1000001; write a number from 1 to 1000000"),
            ("policy.limits.maxTunnels", "is 0; write a number from 1 to 1000000"),
            ("policy.limits.pendingTimeout", "is more than a minute, in which nothing would be accepted; write less"),
        ],
    );
}
