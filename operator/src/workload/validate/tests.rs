//! Tables: routes of one workload, and which of them are served.

use std::sync::Arc;

use postern_crds::{ProxyRoute, Reason};
use serde_json::{Value, json};
use sidecar_config::CONTRACT_MAX;

use super::{Validated, validate};
use crate::index::ObjectName;

fn route(name: &str, listener: &Value, more: &Value) -> Arc<ProxyRoute> {
    let mut spec = json!({
        "podSelector": {"matchLabels": {"app": "orders"}},
        "listener": listener,
        "hostnames": [format!("{name}.shop.svc")],
        "rules": [{"name": "all", "allow": [{"verified": {}}], "backendRefs": [{"localPort": 8080}]}],
    });
    for (name, value) in more.as_object().expect("an object") {
        spec[name] = value.clone();
    }
    let metadata = json!({"name": name, "namespace": "shop"});
    let object =
        json!({"apiVersion": "postern.dev/v1alpha1", "kind": "ProxyRoute", "metadata": metadata, "spec": spec});
    Arc::new(serde_json::from_value(object).expect("a route"))
}

fn judged(routes: &[Arc<ProxyRoute>]) -> Validated {
    validate(routes, "demo.local", CONTRACT_MAX)
}

/// Why a route is not served.
fn why(validated: &Validated, name: &str) -> Option<(Reason, String)> {
    let verdict = &validated.routes[&ObjectName::new("shop", name)];
    verdict.as_ref().err().map(|refused| (refused.reason, refused.message.clone()))
}

fn plain() -> Value {
    json!({"port": 8443})
}

#[test]
fn a_route_that_is_served_has_its_hash() {
    let found = judged(&[route("a", &plain(), &json!({})), route("b", &plain(), &json!({}))]);
    assert_eq!(found.policy.listeners.len(), 1, "they share the port");
    for (document, hash) in &found.accepted.routes {
        let (_, name) = document.name.split_once('/').expect("namespace and name");
        assert_eq!(found.routes[&ObjectName::new("shop", name)], Ok(hash.to_string()));
    }
    assert_eq!(found.accepted.routes.len(), 2);
}

#[test]
fn one_bad_route_takes_no_other_down() {
    let bad = json!({"rules": [{
        "name": "all",
        "matches": [{"path": {"type": "Exact", "value": "/a//b"}}],
        "allow": [{"verified": {}}],
        "backendRefs": [{"localPort": 8080}],
    }]});
    let unspeakable = json!({"limits": {"maxRequestBodySize": "99999999999Gi"}});
    let routes = [
        route("a", &plain(), &json!({})),
        route("bad", &json!({"port": 9443}), &bad),
        route("unspeakable", &plain(), &unspeakable),
        route("z", &plain(), &json!({})),
    ];
    let found = judged(&routes);
    let names: Vec<_> = found.policy.routes.iter().map(|route| route.name.as_str()).collect();
    assert_eq!(names, ["shop/a", "shop/z"]);
    assert_eq!(found.policy.listeners.len(), 1, "nobody is served on the other port");
    let (reason, message) = why(&found, "bad").expect("it is refused");
    assert_eq!(reason, Reason::Invalid);
    assert!(message.starts_with("spec.rules[0].matches[0].path.value: "), "{message}");
    let (reason, message) = why(&found, "unspeakable").expect("it is refused");
    assert_eq!(reason, Reason::Invalid);
    assert!(message.starts_with("spec.limits.maxRequestBodySize: "), "{message}");
    assert_eq!((why(&found, "a"), why(&found, "z")), (None, None));
}

#[test]
fn a_port_is_as_the_oldest_route_defines_it() {
    let newer = json!({"port": 8443, "tls": {"minVersion": "1.3"}});
    let older = json!({"port": 8443, "address": "All", "tls": {}});
    let joins = route("joins", &plain(), &json!({}));
    let found = judged(&[joins, route("older", &older, &json!({})), route("newer", &newer, &json!({}))]);
    let expected = "spec.listener: port 8443 is defined in another way by shop/older; make both the same, write only the port, or choose another one";
    assert_eq!(why(&found, "newer"), Some((Reason::Conflicted, expected.to_owned())));
    assert_eq!((why(&found, "joins"), why(&found, "older")), (None, None));
    let same = judged(&[route("older", &older, &json!({})), route("newer", &older, &json!({}))]);
    assert_eq!(why(&same, "newer"), None);
}

#[test]
fn of_what_is_set_for_all_the_oldest_is_heard() {
    let limits = |count: u32| json!({"limits": {"maxConnections": count}, "forwarding": {"trustedHops": count}});
    let routes = [route("a", &plain(), &json!({})), route("b", &plain(), &limits(1)), route("c", &plain(), &limits(2))];
    let found = judged(&routes);
    assert_eq!((found.policy.limits.max_connections, found.policy.forwarding.trusted_hops), (1, 1));
}

#[test]
fn nothing_is_written_that_a_sidecar_cannot_read() {
    let old = "1.0".parse().expect("a version");
    let found = validate(&[route("a", &plain(), &json!({}))], "demo.local", old);
    let (reason, message) = why(&found, "a").expect("it is refused");
    assert_eq!(reason, Reason::NeedsNewerSidecar);
    assert!(message.contains("1.0"), "{message}");
    assert!(found.policy.routes.is_empty() && found.policy.listeners.is_empty());
}

#[test]
fn without_routes_there_is_a_policy_that_serves_nobody() {
    let found = judged(&[]);
    assert_eq!(found.policy, sidecar_config::policy::Policy::default());
    assert!(found.accepted.routes.is_empty());
}
