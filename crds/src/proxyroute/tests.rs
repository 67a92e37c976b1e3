//! What the types say about what was written.

use super::*;

fn allow(json: &str) -> Allow {
    serde_json::from_str(json).unwrap()
}

#[test]
fn an_entry_says_one_thing() {
    let entries = [
        (r#"{"anyone": {}}"#, Some(Caller::Anyone)),
        (r#"{"spiffe": "spiffe://a/b"}"#, Some(Caller::Spiffe("spiffe://a/b"))),
        (r#"{"verified": {}}"#, Some(Caller::Verified(&Verified { trust: None }))),
        // Neither gets past the schema; whoever reads them all the same admits nobody.
        ("{}", None),
        (r#"{"anyone": {}, "verified": {}}"#, None),
    ];
    for (json, caller) in entries {
        assert_eq!(allow(json).caller(), caller, "{json}");
    }
}

#[test]
fn a_backend_is_in_one_place() {
    let backends = [
        (r#"{"localPort": 8080}"#, Some(BackendTarget::Local(8080))),
        (r#"{"name": "stock", "port": 80}"#, Some(BackendTarget::Service { name: "stock", port: 80 })),
        (r#"{"name": "stock"}"#, None),
        (r#"{"name": "stock", "host": "a.example", "port": 80}"#, None),
        (r#"{"host": "a.example", "port": 80}"#, Some(BackendTarget::Host { host: "a.example", port: 80 })),
        (r#"{"host": "a"}"#, None),
        (r#"{"localPort": 8080, "port": 80}"#, None),
        (r#"{"localPort": 8080, "host": "b", "port": 80}"#, None),
    ];
    for (json, target) in backends {
        let backend: BackendRef = serde_json::from_str(json).unwrap();
        assert_eq!((backend.target(), backend.weight), (target, 1), "{json}");
    }
}

#[test]
fn a_selector_wants_all_its_labels() {
    let labels = |json: &str| serde_json::from_str::<Labels>(json).unwrap();
    let selector = Selector { match_labels: labels(r#"{"app": "orders", "tier": "gold"}"#) };
    let rows = [
        (r#"{"app": "orders", "tier": "gold", "more": "x"}"#, true),
        (r#"{"app": "orders"}"#, false),
        (r#"{"app": "orders", "tier": "silver"}"#, false),
    ];
    for (pod, is_selected) in rows {
        assert_eq!(selector.selects(&labels(pod)), is_selected, "{pod}");
    }
}

#[test]
fn a_listener_that_only_has_a_port_is_no_definition() {
    for (json, is_definition) in [(r#"{"port": 1}"#, false), (r#"{"port": 1, "tls": {}}"#, true)] {
        assert_eq!(serde_json::from_str::<Listener>(json).unwrap().is_definition(), is_definition);
    }
}
