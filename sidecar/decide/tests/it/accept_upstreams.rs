//! TLS to backends, as documents say it: what may not be left out, what must be there, and which servers are the right
//! ones.

use serde_json::{Value, json};
use sidecar_config::policy::Policy;
use sidecar_config::upstream::BackendTls;
use sidecar_decide::{Snapshot, Target, accept};

use crate::fixture::{Documents, expected, listener, read, told};

/// A policy of one rule with this backend.
fn policy(protocol: &str, backend: &Value) -> Value {
    let mut listener = listener("main", 8443);
    listener["protocol"] = json!(protocol);
    let rule = json!({"name": "r", "allow": [{"verified": "ours"}], "backends": [backend]});
    json!({"listeners": [listener], "routes": [{"name": "a/r", "listener": "main", "rules": [rule]}]})
}

fn backend(tls: &Value) -> Value {
    json!({"address": "10.0.0.1:8443", "tls": tls})
}

#[test]
fn who_a_server_must_be_is_always_said() {
    const TRUST: &str = "is empty; name the bundles of part trust that the server's certificate may come from";
    const NOBODY: &str =
        "says neither serverName nor peers, so that any server of its bundles would do; write who it must be";
    let name = |name: &str| {
        let advice = "is no server's name; write the one its certificate has, such as `orders.shop.example`";
        ("serverName", format!("`{name}` {advice}"))
    };
    let peer = |peer: &str| {
        let advice = "is not a SPIFFE ID; write one such as `spiffe://demo.local/ns/shop/sa/orders`, \
                      or end it in `/*` for all below it";
        ("peers[0]", format!("`{peer}` {advice}"))
    };
    let table = [
        (json!({"trust": ["ours"]}), vec![("", NOBODY.to_owned())]),
        (json!({"trust": [], "peers": ["spiffe://a/b"]}), vec![("trust", TRUST.to_owned())]),
        (json!({"trust": []}), vec![("trust", TRUST.to_owned()), ("", NOBODY.to_owned())]),
        (json!({"trust": ["ours"], "serverName": "a b"}), vec![name("a b")]),
        (json!({"trust": ["ours"], "serverName": "*.a.test"}), vec![name("*.a.test")]),
        (json!({"trust": ["ours"], "serverName": "10.0.0.1"}), vec![name("10.0.0.1")]),
        (json!({"trust": ["ours"], "serverName": "a.test."}), vec![name("a.test.")]),
        (json!({"trust": ["ours"], "serverName": ""}), vec![name("")]),
        (json!({"trust": ["ours"], "serverName": "a:443"}), vec![name("a:443")]),
        (json!({"trust": ["ours"], "peers": ["https://a/b"]}), vec![peer("https://a/b")]),
        (json!({"trust": ["ours"], "peers": ["spiffe://a/b/../c"]}), vec![peer("spiffe://a/b/../c")]),
        (json!({"trust": ["ours"], "serverName": "orders"}), vec![]),
        (json!({"trust": ["ours"], "serverName": "a-1.B_2.test", "peers": ["spiffe://a/b/*"]}), vec![]),
    ];
    for (tls, problems) in table {
        let result = accept::policy(&read(policy("HTTPS", &backend(&tls))));
        let found = result.map_or_else(|refusal| told(&refusal.problems), |_| Vec::new());
        let place = |field: &str| {
            let dot = if field.is_empty() { "" } else { "." };
            format!("policy.routes[0].rules[0].backends[0].tls{dot}{field}")
        };
        let problems: Vec<_> = problems.into_iter().map(|(field, detail)| (place(field), detail)).collect();
        assert_eq!(found, problems, "{tls}");
    }
}

#[test]
fn bytes_that_are_passed_on_are_not_put_into_anything() {
    let tls = json!({"trust": ["ours"], "serverName": "a.test"});
    let mut backend = backend(&tls);
    backend["protocol"] = json!("HTTP2");
    let refusal = accept::policy(&read::<Policy>(policy("TLS", &backend))).expect_err("nothing is spoken there");
    let advice = "bytes are passed on as they are on listener `main`, which is `TLS`; \
                  leave it out, or serve the route on an `HTTPS` or `HTTP` listener";
    let place = "policy.routes[0].rules[0].backends[0]";
    let (tls, protocol) = (format!("{place}.tls"), format!("{place}.protocol"));
    assert_eq!(told(&refusal.problems), expected(&[(&tls, advice), (&protocol, advice)]));
}

fn linked(tls: &Value) -> (Snapshot, Vec<(String, String)>) {
    let policy = policy("HTTPS", &backend(tls));
    let (snapshot, problems) = Documents { policy, ..Documents::default() }.link();
    (snapshot, told(&problems))
}

/// What is missing refuses the rule: a server is not known by half of what it must be known by.
#[test]
fn what_a_backend_needs_and_is_not_there_refuses_its_rule() {
    let table = [
        (
            json!({"trust": ["ours", "absent"], "serverName": "a.test"}),
            "trust[1]",
            "there is no bundle `absent`; name one of trust.bundles",
        ),
        (
            json!({"trust": ["ours"], "peers": ["spiffe://partner.example/*"]}),
            "peers",
            "no bundle in trust vouches for SPIFFE trust domain `partner.example`; \
             add it to trust.bundles.NAME.vouchesFor.spiffe of the bundle whose it is",
        ),
        (
            json!({"trust": ["ours"], "serverName": "a.test", "mode": "Mutual"}),
            "mode",
            "the gate has no certificate to show; give part identity a chain and a key, or write `Simple`",
        ),
    ];
    for (tls, field, detail) in table {
        let (snapshot, problems) = linked(&tls);
        let place = format!("policy.routes[0].rules[0].backends[0].tls.{field}");
        assert_eq!(problems, [(place, detail.to_owned())]);
        assert_eq!(snapshot.rules[0].target, Target::Invalid, "{tls}");
        assert_eq!(snapshot.endpoints, []);
    }
}

/// Who is the right server: URIs of its certificate, bundles that its chain ends in.
#[test]
fn a_server_is_known_by_its_spiffe_id_under_a_bundle_that_vouches() {
    let peers = ["spiffe://demo.local/ns/shop/sa/orders", "spiffe://demo.local/ns/test/*"];
    let (snapshot, problems) = linked(&json!({"trust": ["ours", "partner"], "peers": peers}));
    assert_eq!(problems, []);
    let tls = snapshot.endpoints[0].tls.as_deref().expect("TLS");
    assert!(tls.is_by_identity());
    let orders = "spiffe://demo.local/ns/shop/sa/orders";
    let table: [(&[&str], &[&str], bool); 10] = [
        (&[orders], &["ours"], true),
        (&[orders], &["partner", "ours"], true),
        (&[orders], &["partner"], false),
        (&[orders], &[], false),
        (&["https://orders", orders], &["ours"], true),
        (&[orders, "spiffe://demo.local/ns/test/a"], &["ours"], false),
        (&["spiffe://demo.local/ns/shop/sa/orders2"], &["ours"], false),
        (&["spiffe://demo.local/ns/test/sa/a"], &["ours"], true),
        (&["spiffe://demo.local/ns/test"], &["ours"], false),
        (&[], &["ours"], false),
    ];
    for (uris, bundles, is_right) in table {
        let uris: Vec<_> = uris.iter().map(|uri| (*uri).to_owned()).collect();
        let ended = snapshot.bundles.iter().filter(|bundle| bundles.contains(&&*bundle.name));
        assert_eq!(tls.is_peer(&uris, ended), is_right, "{uris:?} {bundles:?}");
    }
}

/// Revisions of documents that say nothing about TLS are as before; what is the default is left out.
#[test]
fn what_is_not_said_is_not_written() {
    let tls: BackendTls = read(json!({"trust": ["ours"], "serverName": "a.test", "mode": "Simple", "peers": []}));
    assert_eq!(serde_json::to_value(&tls).expect("JSON"), json!({"trust": ["ours"], "serverName": "a.test"}));
}
