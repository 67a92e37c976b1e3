//! Tables: a route as it is applied, and what of it a sidecar is told, accepted with the sidecar's own code.

use kube::CustomResourceExt;
use postern_crds::ProxyRoute;
use serde_json::{Value, json};
use sidecar_config::policy::Policy;
use sidecar_decide::accept;

use super::{Rendered, route};

fn spec(more: &Value) -> Value {
    let mut spec = json!({
        "podSelector": {"matchLabels": {"app": "orders"}},
        "listener": {"port": 8443},
        "rules": [rule(&json!({}))],
    });
    merge(&mut spec, more);
    spec
}

fn rule(more: &Value) -> Value {
    let mut rule = json!({"name": "all", "allow": [{"verified": {}}], "backendRefs": [{"localPort": 8080}]});
    merge(&mut rule, more);
    rule
}

fn merge(into: &mut Value, more: &Value) {
    for (name, value) in more.as_object().expect("an object") {
        if value.is_null() {
            into.as_object_mut().expect("an object").remove(name);
        } else {
            into[name] = value.clone();
        }
    }
}

fn object(spec: &Value) -> ProxyRoute {
    let metadata = json!({"name": "orders", "namespace": "shop"});
    let object =
        json!({"apiVersion": "postern.dev/v1alpha1", "kind": "ProxyRoute", "metadata": metadata, "spec": spec});
    serde_json::from_value(object).expect("a route")
}

fn rendered(spec: &Value) -> Rendered {
    let rendered = route(&object(spec), "demo.local").expect("it can be rendered");
    let policy = Policy {
        listeners: vec![rendered.listener.clone()],
        routes: vec![rendered.route.clone()],
        limits: rendered.limits.clone().unwrap_or_default(),
        forwarding: rendered.forwarding.unwrap_or_default(),
    };
    if let Err(refusal) = accept::policy(&policy) {
        panic!("a sidecar would refuse it: {:?}", refusal.problems);
    }
    rendered
}

fn document(value: &impl serde::Serialize) -> Value {
    serde_json::to_value(value).expect("a document")
}

#[test]
fn a_route_is_what_its_objects_say() {
    let found = rendered(&spec(&json!({"hostnames": ["orders.shop.svc"]})));
    let expected = json!({
        "name": "shop/orders",
        "listener": "port-8443",
        "podSelector": {"matchLabels": {"app": "orders"}},
        "hostnames": ["orders.shop.svc"],
        "rules": [{
            "name": "all",
            "matches": [],
            "allow": [{"verified": "postern"}],
            "mode": "Enforce",
            "backends": [{"address": "127.0.0.1:8080"}],
        }],
    });
    assert_eq!(document(&found.route), expected);
    assert!(found.joins && found.limits.is_none() && found.forwarding.is_none());
}

#[test]
fn listeners() {
    let tls = |more: Value| {
        let mut tls = json!({"clientAuth": "Required", "minVersion": "1.2", "trust": ["postern"]});
        merge(&mut tls, &more);
        tls
    };
    let partner = json!([{"name": "partner", "caCertificateRefs": [{"kind": "ConfigMap", "name": "partner-ca"}]}]);
    let rows = [
        (json!({"port": 8443}), "0.0.0.0:8443", "HTTPS", tls(json!({}))),
        (json!({"port": 8443, "address": "Loopback"}), "127.0.0.1:8443", "HTTPS", tls(json!({}))),
        (json!({"port": 80, "protocol": "HTTP"}), "0.0.0.0:80", "HTTP", Value::Null),
        (
            json!({"port": 9, "protocol": "TLS", "tls": {"minVersion": "1.3"}}),
            "0.0.0.0:9",
            "TLS",
            tls(json!({"minVersion": "1.3"})),
        ),
        (
            json!({"port": 1, "tls": {"clientAuth": "Optional", "unknownServerName": "Refuse"}}),
            "0.0.0.0:1",
            "HTTPS",
            tls(json!({"clientAuth": "Optional", "unknownServerName": "Refuse"})),
        ),
        (
            json!({"port": 1, "tls": {"trust": partner}}),
            "0.0.0.0:1",
            "HTTPS",
            tls(json!({"trust": ["postern", "shop/partner-ca"]})),
        ),
        (
            json!({"port": 1, "tls": {"clientAuth": "None", "trust": partner}}),
            "0.0.0.0:1",
            "HTTPS",
            tls(json!({"clientAuth": "None", "trust": []})),
        ),
    ];
    for (listener, address, protocol, tls) in rows {
        // Allowed on each kind of listener.
        let rules = json!([rule(&json!({"allow": [{"anyone": {}}]}))]);
        let found = rendered(&spec(&json!({"listener": listener, "rules": rules}))).listener;
        let port = listener["port"].clone();
        let mut expected =
            json!({"name": format!("port-{port}"), "address": address, "protocol": protocol, "tls": tls});
        if tls.is_null() {
            merge(&mut expected, &json!({"tls": null}));
        }
        assert_eq!(document(&found), expected, "{listener}");
    }
}

#[test]
fn callers() {
    let rows = [
        (json!({"identity": {"name": "billing"}}), json!({"identity": "shop/billing"})),
        (json!({"identity": {"name": "billing", "namespace": "web"}}), json!({"identity": "web/billing"})),
        (
            json!({"identitySelector": {"matchLabels": {"tier": "a"}}}),
            json!({"identitySelector": {"matchLabels": {"tier": "a"}}}),
        ),
        (
            json!({"serviceAccount": {"name": "front"}}),
            json!({"serviceAccount": {"namespace": "shop", "name": "front", "trustDomain": "demo.local"}}),
        ),
        (
            json!({"serviceAccount": {"namespace": "web", "name": "front", "trustDomain": "other.local"}}),
            json!({"serviceAccount": {"namespace": "web", "name": "front", "trustDomain": "other.local"}}),
        ),
        (json!({"spiffe": "spiffe://demo.local/ns/web/*"}), json!({"spiffe": "spiffe://demo.local/ns/web/*"})),
        (json!({"verified": {}}), json!({"verified": "postern"})),
        (json!({"verified": {"trust": "partner"}}), json!({"verified": "shop/partner-ca"})),
        (json!({"anyone": {}}), json!({"anyone": {}})),
    ];
    let trust = json!([{"name": "partner", "caCertificateRefs": [{"name": "partner-ca"}]}]);
    for (entry, expected) in rows {
        let rules = json!([rule(&json!({"allow": [entry]}))]);
        let found = rendered(&spec(&json!({"listener": {"port": 1, "tls": {"trust": trust}}, "rules": rules})));
        assert_eq!(document(&found.route.rules[0].allow), json!([expected]), "{entry}");
        assert_eq!(found.needs.bundles.keys().collect::<Vec<_>>(), ["shop/partner-ca"]);
    }
    let named = [json!({"identity": {"name": "a"}}), json!({"identity": {"name": "b", "namespace": "web"}})];
    let rules = json!([rule(&json!({"allow": named}))]);
    let found = rendered(&spec(&json!({"rules": rules})));
    assert_eq!(found.needs.identities.iter().collect::<Vec<_>>(), ["shop/a", "web/b"]);
}

#[test]
fn rules_and_backends() {
    let all = json!({
        "matches": [{
            "path": {"type": "Template", "value": "/orders/{id}"},
            "method": "GET",
            "headers": [{"name": "x-a", "value": "1"}],
            "queryParams": [{"name": "q", "type": "RegularExpression", "value": "a+"}],
            "messageType": "EndDevice",
        }],
        "mode": "Audit",
        "filters": [
            {"forwardIdentity": {"xForwardedClientCert": ["Hash", "URI"], "headers": [{"name": "x-who", "value": "Identity"}]}},
            {"requestHeaderModifier": {"set": [{"name": "x-b", "value": "2"}], "remove": ["x-c"]}},
            {"responseHeaderModifier": {"add": [{"name": "x-d", "value": "3"}]}},
            {"urlRewrite": {"hostname": "inner.example", "path": {"type": "ReplaceFullPath", "replaceFullPath": "/all"}}},
        ],
        "timeouts": {"request": "10s", "backendRequest": "2s"},
    });
    let backends = [
        (json!({"localPort": 8080, "weight": 3}), json!({"address": "127.0.0.1:8080", "weight": 3})),
        (json!({"host": "a.example", "port": 80}), json!({"host": "a.example", "port": 80})),
        (
            json!({"localPort": 1, "protocol": "HTTP2", "tls": {"serverName": "a.example"}}),
            json!({"address": "127.0.0.1:1", "protocol": "HTTP2", "tls": {"serverName": "a.example", "trust": ["postern"]}}),
        ),
        (
            json!({"localPort": 1, "tls": {"mode": "Mutual", "peers": ["spiffe://demo.local/*"]}}),
            json!({"address": "127.0.0.1:1", "tls": {"mode": "Mutual", "trust": ["postern"], "peers": ["spiffe://demo.local/*"]}}),
        ),
    ];
    for (backend, expected) in backends {
        let mut more = all.clone();
        more["backendRefs"] = json!([backend]);
        let found = rendered(&spec(&json!({"rules": [rule(&more)]})));
        let found = document(&found.route.rules[0]);
        assert_eq!(found["backends"], json!([expected]), "{backend}");
        assert_eq!(found["matches"][0]["path"], json!({"type": "Template", "value": "/orders/{id}"}));
        assert_eq!(
            found["matches"][0]["queryParams"],
            json!([{"name": "q", "type": "RegularExpression", "value": "a+"}])
        );
        assert_eq!(found["matches"][0]["messageType"], "EndDevice");
        assert_eq!((&found["mode"], &found["timeouts"]), (&json!("Audit"), &all["timeouts"]));
        assert_eq!(found["filters"][0], all["filters"][0]);
        assert_eq!(
            found["filters"][3],
            json!({"urlRewrite": {"hostname": "inner.example", "path": {"type": "ReplaceFullPath", "value": "/all"}}})
        );
    }
    let redirect = json!({"scheme": "https", "path": {"type": "ReplacePrefixMatch", "replacePrefixMatch": "/b"}, "statusCode": 301});
    let more = json!({
        "backendRefs": null,
        "matches": [{"path": {"type": "PathPrefix", "value": "/a"}}],
        "filters": [{"requestRedirect": redirect}],
    });
    let found = document(&rendered(&spec(&json!({"rules": [rule(&more)]}))).route.rules[0]);
    let expected = json!({"scheme": "https", "path": {"type": "ReplacePrefixMatch", "value": "/b"}, "statusCode": 301});
    assert_eq!(found["filters"], json!([{"requestRedirect": expected}]));
}

#[test]
fn what_is_set_for_all_of_a_workload() {
    let limits = json!({
        "maxConnections": 5, "maxRequestBodySize": "1Mi", "maxPendingRequests": 6, "pendingTimeout": "2s",
        "maxStreams": 7, "maxTunnels": 8,
    });
    let policy = json!({
        "loadBalancer": {"type": "LeastRequest"},
        "pool": {"maxConnections": 9, "idleTimeout": "5s"},
        "healthCheck": {"http": {"path": "/well"}, "interval": "3s"},
        "outlierDetection": {"maxEjectionPercent": 100},
    });
    let more = json!({"limits": limits, "forwarding": {"trustedHops": 2}, "backendPolicy": policy});
    let found = rendered(&spec(&more));
    assert_eq!(document(&found.limits), limits);
    assert_eq!(document(&found.forwarding), json!({"trustedHops": 2}));
    let backend = document(&found.route.backend_policy);
    assert_eq!(backend["loadBalancer"], json!({"type": "LeastRequest"}));
    assert_eq!((&backend["pool"]["maxConnections"], &backend["pool"]["idleTimeout"]), (&json!(9), &json!("5s")));
    assert_eq!(
        (&backend["healthCheck"]["http"]["path"], &backend["healthCheck"]["interval"]),
        (&json!("/well"), &json!("3s"))
    );
    assert_eq!(backend["outlierDetection"]["maxEjectionPercent"], json!(100));
}

#[test]
fn what_is_captured() {
    let capture = json!({
        "headers": [{"name": "X-Tenant", "as": "Keep"}, {"name": "authorization", "as": "Sha256"}],
        "query": [{"name": "page*", "as": "Mask"}],
        "cookies": [{"name": "theme", "as": "Drop"}],
        "bodies": {"request": true, "maxBytes": 100},
    });
    let found = document(&rendered(&spec(&json!({"capture": capture}))).route.capture);
    let mut expected = capture;
    // What is meant anyway is left out.
    expected["headers"][0] = json!({"name": "X-Tenant"});
    assert_eq!(found, expected);
    assert_eq!(rendered(&spec(&json!({}))).route.capture, None);
}

#[test]
fn the_api_knows_the_secrets_that_the_gate_knows() {
    let secrets = sidecar_decide::capture::SECRETS.map(|name| format!("'{name}'")).join(", ");
    let definition = serde_json::to_string(&ProxyRoute::crd()).expect("a definition");
    assert!(
        definition.contains(&format!("self.name.lowerAscii() in [{secrets}]")),
        "in crds/src/proxyroute/capture.rs"
    );
}

#[test]
fn what_a_document_cannot_say_is_told_with_its_place() {
    let rows = [
        (json!({"backendPolicy": {"pool": {"maxAge": "1d"}}}), "spec.backendPolicy.pool.maxAge: "),
        (json!({"limits": {"maxRequestBodySize": "99999999999Gi"}}), "spec.limits.maxRequestBodySize: "),
        (
            json!({"rules": [rule(&json!({"allow": [{"verified": {"trust": "nobody"}}]}))]}),
            "spec.rules[0].allow[0].verified.trust: ",
        ),
        (json!({"rules": [rule(&json!({"allow": [{}]}))]}), "spec.rules[0].allow[0]: "),
        (json!({"rules": [rule(&json!({"backendRefs": [{"port": 1}]}))]}), "spec.rules[0].backendRefs[0]: "),
        (json!({"rules": [rule(&json!({"filters": [{}]}))]}), "spec.rules[0].filters[0]: "),
        (json!({"rules": [rule(&json!({"timeouts": {"request": "soon"}}))]}), "spec.rules[0].timeouts.request: "),
    ];
    for (more, place) in rows {
        let error = route(&object(&spec(&more)), "demo.local").expect_err("it cannot be said").to_string();
        assert!(error.starts_with(place), "{error}");
    }
}
