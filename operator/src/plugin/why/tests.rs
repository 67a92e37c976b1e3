//! Questions and what there is to say of them, as tables.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde_json::{Value, json};
use sidecar_decide::MessageType;
use sidecar_decide::route::Sent;

use super::change::edited;
use super::read::{Given, somebody};
use super::world::{Common, From, Question, World};
use super::{Explanation, explain};
use crate::identity::trust::TrustDocument;
use crate::index::{Cluster, Object, ObjectName, Service, Slice, Source};
use crate::pki::names::Names;
use crate::workload::trust::content;

const NOW: i64 = 1_790_000_000;

fn common() -> Common {
    let names =
        Names { trust_domain: "cluster.local".into(), cluster_domain: "cluster.local".into(), extra: BTreeMap::new() };
    Common { names, issuer: somebody(NOW).expect("somebody who signs"), now: NOW }
}

/// Route `shop/orders` with rules `read` (GET of `/orders`, for billing), `all` (below `/admin`, for ops and for those of
/// service account web/front) and `trial` (`/trial`, which only watches); route `shop/other` on another host.
fn world() -> World {
    let backend = json!([{"localPort": 8080}]);
    let path = |kind: &str, value: &str| json!({"path": {"type": kind, "value": value}});
    let mut read = path("Exact", "/orders");
    read["method"] = json!("GET");
    let rules = json!([
        {"name": "read", "matches": [read], "allow": [{"identity": {"name": "billing"}}], "backendRefs": backend},
        {
            "name": "admin",
            "matches": [path("PathPrefix", "/admin")],
            "allow": [
                {"identity": {"name": "ops"}},
                {"identitySelector": {"matchLabels": {"team": "ops"}}},
                {"serviceAccount": {"namespace": "web", "name": "front"}},
            ],
            "backendRefs": backend,
        },
        {
            "name": "trial",
            "matches": [path("Exact", "/trial")],
            "allow": [{"identity": {"name": "ops"}}],
            "mode": "Audit",
            "backendRefs": backend,
        },
    ]);
    let route = |name: &str, listener: Value, hosts: Value, rules: &Value| {
        let spec = json!({
            "podSelector": {"matchLabels": {"app": "orders"}},
            "listener": listener,
            "hostnames": hosts,
            "rules": rules,
        });
        let metadata = json!({"namespace": "shop", "name": name});
        json!({"apiVersion": "postern.dev/v1alpha1", "kind": "ProxyRoute", "metadata": metadata, "spec": spec})
    };
    let everything = json!([{"name": "all", "allow": [{"verified": {}}], "backendRefs": backend}]);
    let routes = [
        route("orders", json!({"port": 8443, "protocol": "HTTPS"}), json!(["orders.example"]), &rules),
        route("other", json!({"port": 8443}), json!(["other.example"]), &everything),
    ];
    let identity = |name: &str, labels: Value, spec: Value| {
        let metadata = json!({"namespace": "shop", "name": name, "labels": labels});
        json!({"apiVersion": "postern.dev/v1alpha1", "kind": "ClientIdentity", "metadata": metadata, "spec": spec})
    };
    let issue = |name: &str| json!({"issue": {"secretName": name}});
    let mut gone = issue("gone");
    gone["state"] = json!("Suspended");
    let digest = format!("sha256:{}", "ab".repeat(32));
    let partner =
        json!({"external": {"trust": {"caCertificateRefs": [{"name": "partner-ca"}]}, "fingerprints": [digest]}});
    let identities = [
        identity("billing", json!({}), issue("billing")),
        identity("ops", json!({"team": "ops"}), issue("ops")),
        identity("gone", json!({"team": "ops"}), gone),
        identity("partner", json!({}), partner),
    ];
    let typed = |objects: &[Value]| serde_json::from_value(json!(objects)).expect("objects");
    World {
        routes: serde_json::from_value(json!(routes)).expect("routes"),
        identities: typed(&identities),
        labels: BTreeMap::from([("app".to_owned(), "orders".to_owned())]),
        ..World::default()
    }
}

fn question(from: &str, request: &str) -> Question {
    let (method, path) = request.split_once(' ').expect("a method and a path");
    let from = match from {
        "nobody" => From::Nobody,
        uri if uri.starts_with("spiffe:") => From::Spiffe(uri.to_owned()),
        name => From::Identity(ObjectName::new("shop", name)),
    };
    Question {
        from,
        to: ObjectName::new("shop", "orders"),
        method: method.parse().expect("a method"),
        path: path.to_owned(),
        query: None,
        host: "orders.example".to_owned(),
        headers: http::HeaderMap::new(),
        message: Sent::Nothing,
    }
}

fn said(explanation: &Explanation, question: &Question) -> (String, Vec<String>) {
    let text = explanation.text(question);
    let first = text.lines().next().unwrap_or_default().to_owned();
    let change = explanation.change.iter().flatten().map(ToString::to_string).collect();
    (first, change)
}

/// Who asks for what, what is said of it, and what would turn it.
type Row = ((&'static str, &'static str), &'static str, Vec<String>);

fn route(text: &str) -> String {
    format!("ProxyRoute shop/orders: {text}")
}

fn of_those_that_pass() -> Vec<Row> {
    vec![
        (
            ("billing", "GET /orders"),
            "allowed by rule read of shop/orders",
            vec![route("remove spec.rules[0].allow[0]; a rule that allows nobody goes")],
        ),
        (
            ("ops", "GET /admin/users"),
            "allowed by rule admin of shop/orders",
            vec!["ClientIdentity shop/ops: write `spec.state: Suspended`".to_owned()],
        ),
        (
            ("billing", "GET /trial"),
            "allowed, because the rule only watches; else refused (policy_not_allowed) by rule trial of shop/orders",
            vec![route("write `spec.rules[2].mode: Enforce`")],
        ),
        (
            ("spiffe://cluster.local/ns/web/sa/front", "GET /admin"),
            "allowed by rule admin of shop/orders",
            vec![route("remove spec.rules[1].allow[2]; a rule that allows nobody goes")],
        ),
    ]
}

fn of_those_that_do_not() -> Vec<Row> {
    vec![
        (
            ("ops", "GET /orders"),
            "refused (policy_not_allowed) by rule read of shop/orders",
            vec![route(r#"add {"identity":{"name":"ops"}} to spec.rules[0].allow"#)],
        ),
        (
            ("billing", "POST /orders"),
            "refused: route_no_method",
            vec![route(r#"add {"path":{"type":"Exact","value":"/orders"},"method":"POST"} to spec.rules[0].matches"#)],
        ),
        (
            ("gone", "GET /admin/users"),
            "refused (policy_identity_suspended) by rule admin of shop/orders",
            vec!["ClientIdentity shop/gone: write `spec.state: Active`".to_owned()],
        ),
        (
            ("gone", "GET /orders"),
            "refused (policy_identity_suspended) by rule read of shop/orders",
            vec![
                "ClientIdentity shop/gone: write `spec.state: Active`".to_owned(),
                route(r#"add {"identity":{"name":"gone"}} to spec.rules[0].allow"#),
            ],
        ),
        (
            ("spiffe://cluster.local/ns/web/sa/back", "GET /admin"),
            "refused (policy_no_identity) by rule admin of shop/orders",
            vec![route(r#"add {"spiffe":"spiffe://cluster.local/ns/web/sa/back"} to spec.rules[1].allow"#)],
        ),
        (
            ("partner", "GET /orders"),
            "refused: tls_unknown_ca",
            vec![
                route(
                    r#"add {"name":"partner","caCertificateRefs":[{"kind":"ConfigMap","name":"partner-ca"}]} to spec.listener.tls.trust"#,
                ),
                route(r#"add {"identity":{"name":"partner"}} to spec.rules[0].allow"#),
            ],
        ),
        (
            ("nobody", "GET /orders"),
            "refused: tls_no_certificate",
            vec![
                route("write `spec.listener.tls.clientAuth: Optional`"),
                route(r#"add {"anyone":{}} to spec.rules[0].allow"#),
            ],
        ),
        (("billing", "GET /a/%2e%2e/b"), "refused: route_bad_path", vec![]),
    ]
}

#[test]
fn the_smallest_change_turns_the_verdict() {
    let (world, common) = (world(), common());
    for ((from, request), first, change) in of_those_that_pass().into_iter().chain(of_those_that_do_not()) {
        let question = question(from, request);
        let explanation = explain(&world, &common, &question).expect("an answer");
        assert_eq!(said(&explanation, &question), (first.to_owned(), change), "{from} {request}");
        // What is said turns it, and turns it back.
        if let Some(edits) = &explanation.change {
            let after = edited(&world, edits).decide(&common, &question).expect("a decision");
            let before = super::passes_at_all(&explanation.outcome);
            assert_ne!(super::passes_at_all(&after), before, "{from} {request}");
        }
    }
}

#[test]
fn every_rule_says_what_it_would_say_alone() {
    let (world, common) = (world(), common());
    let question = question("ops", "GET /admin/users");
    let expected = "\
allowed by rule admin of shop/orders
  rule read: does not match: route_no_path
  rule admin: matches, allowed, by allow[0] and allow[1]
  rule trial: does not match: route_no_path
It would be refused by this change, the smallest:
  ClientIdentity shop/ops: write `spec.state: Suspended`
";
    assert_eq!(explain(&world, &common, &question).expect("an answer").text(&question), expected);
}

#[test]
fn a_message_is_asked_about() {
    let (mut world, common) = (world(), common());
    world.routes[0].spec.rules[0].matches[0].message_type = Some("Time".to_owned());
    let time = MessageType::named("Time").expect("a known type");
    let rows = [
        (Sent::Known(time), "allowed by rule read of shop/orders"),
        (Sent::Known(MessageType::JSON), "refused: route_no_match"),
        (Sent::Nothing, "refused: route_no_match"),
    ];
    for (message, expected) in rows {
        let question = Question { message, ..question("billing", "GET /orders") };
        let explanation = explain(&world, &common, &question).expect("an answer");
        assert_eq!(said(&explanation, &question).0, expected, "{message:?}");
    }
}

#[test]
fn what_is_not_there_is_named() {
    let (world, common) = (world(), common());
    let refused = |question: &Question| explain(&world, &common, question).expect_err("no answer");
    let nobody = "ClientIdentity shop/stranger does not exist; make it, or write --from spiffe://…";
    assert_eq!(refused(&question("stranger", "GET /")), nobody);
    let elsewhere = Question { to: ObjectName::new("shop", "none"), ..question("ops", "GET /") };
    assert_eq!(refused(&elsewhere), "ProxyRoute shop/none does not exist, or does not select the pod");
    // Another route takes the request: its own words, and who it is.
    let other = Question { host: "other.example".to_owned(), ..question("ops", "GET /") };
    let explanation = explain(&world, &common, &other).expect("an answer");
    assert_eq!(said(&explanation, &other).0, "allowed by rule all of shop/other");
}

/// Services of namespace shop: `ready` has a pod that is, `leaving` one that is on its way out, `starting` one that is not
/// ready, `empty` none.
fn services() -> Cluster {
    let mut cluster = Cluster::default();
    for (name, ready, terminating) in [
        ("ready", Some(true), false),
        ("leaving", Some(false), true),
        ("starting", Some(false), false),
        ("empty", None, false),
    ] {
        let service = json!({"metadata": {"namespace": "shop", "name": name}, "spec": {"ports": [{"port": 80}]}});
        let service = Service::of(serde_json::from_value(service).expect("a Service"));
        cluster.set(Object::Service(Arc::new(service)), Source::List);
        let conditions = json!({"ready": ready, "serving": terminating, "terminating": terminating});
        let endpoints = ready.map(|_| json!({"addresses": ["10.0.0.1"], "conditions": conditions}));
        let labels = json!({"kubernetes.io/service-name": name});
        let slice = json!({
            "metadata": {"namespace": "shop", "name": name, "labels": labels}, "addressType": "IPv4",
            "ports": [{"name": "", "port": 8080}], "endpoints": endpoints.into_iter().collect::<Vec<_>>(),
        });
        let slice = Slice::of(serde_json::from_value(slice).expect("a slice")).expect("a Service's");
        cluster.set(Object::Slice(Arc::new(slice)), Source::List);
    }
    cluster
}

#[test]
fn who_is_let_in_and_meets_nobody_is_told_so() {
    let common = common();
    let service = |name: &str| json!({"name": name, "port": 80});
    let local = json!({"localPort": 8080});
    let invalid = |why: &str| Some(("route_invalid", why.to_owned()));
    let empty = |why: &str| Some(("upstream_no_endpoint", why.to_owned()));
    let rows = [
        (vec![local.clone()], None),
        (vec![service("ready")], None),
        // Better than nobody.
        (vec![service("leaving")], None),
        (vec![service("empty")], empty("no pod of Service shop/empty:80 is ready")),
        (
            vec![service("starting"), service("empty")],
            empty("no pod of Service shop/starting:80, nor of shop/empty:80 is ready"),
        ),
        (vec![service("empty"), service("ready")], None),
        (vec![service("empty"), local], None),
        (vec![service("gone")], invalid("there is no Service shop/gone")),
        (vec![service("ready"), service("gone")], invalid("there is no Service shop/gone")),
        (vec![json!({"name": "ready", "port": 81})], invalid("Service shop/ready has no port 81 for TCP; it has 80")),
        (
            vec![json!({"namespace": "web", "name": "far", "port": 80})],
            invalid(
                "Service web/far is of another namespace, and no ReferenceGrant there permits ProxyRoutes of shop to ask it",
            ),
        ),
        (vec![json!({"host": "example.com", "port": 80})], None),
    ];
    for (backends, expected) in rows {
        let mut world = world();
        let refs = serde_json::from_value(json!(backends)).expect("backends");
        world.routes[0].spec.rules[0].backend_refs = refs;
        let asked = question("billing", "GET /orders");
        let unknown = explain(&world, &common, &asked).expect("an answer").text(&asked);
        assert!(!unknown.contains("answered"), "nobody has looked: {unknown}");
        world.services = Some(Arc::new(services()));
        let text = explain(&world, &common, &asked).expect("an answer").text(&asked);
        let mut lines = text.lines();
        assert_eq!(lines.next(), Some("allowed by rule read of shop/orders"), "{backends:?}");
        match expected {
            Some((code, why)) => {
                assert_eq!(lines.next(), Some(&*format!("  but answered {code} by the gate: {why}")));
                let rule = format!("  rule read: matches, allowed, by allow[0], but answered {code}");
                assert_eq!(lines.next(), Some(&*rule));
            }
            None => assert_eq!(lines.next(), Some("  rule read: matches, allowed, by allow[0]"), "{backends:?}"),
        }
        // Whom the gate refuses it answers itself.
        let refused = question("ops", "GET /orders");
        let text = explain(&world, &common, &refused).expect("an answer").text(&refused);
        assert!(!text.contains("answered"), "{text}");
    }
}

/// The status of a client that has a certificate.
fn status_with(serial: &str) -> Value {
    json!({"certificate": {
        "serial": serial, "notBefore": "2026-11-20T00:00:00Z", "notAfter": "2027-11-20T00:00:00Z",
        "renewalTime": "2027-08-20T00:00:00Z", "sha256": "00", "spiffeId": "spiffe://cluster.local/ns/shop/client/billing",
        "lfdi": "00", "sfdi": "0",
    }})
}

#[test]
fn a_certificate_that_is_revoked_is_refused_before_any_rule_is_asked() {
    let common = common();
    let asked = question("billing", "GET /orders");
    for (serial, first) in [("0a:01", "refused: tls_revoked"), ("0a:02", "allowed by rule read of shop/orders")] {
        let mut world = world();
        world.revoked.insert("0a:01".to_owned());
        world.identities[0].status = Some(serde_json::from_value(status_with(serial)).expect("a status"));
        let explanation = explain(&world, &common, &asked).expect("an answer");
        let text = explanation.text(&asked);
        assert_eq!(text.lines().next(), Some(first));
        let is_named = text.contains("  certificate 0a:01, which it has now, is revoked\n");
        assert_eq!(is_named, serial == "0a:01", "{text}");
        if is_named {
            assert!(text.contains("  rule read: is not reached\n") && explanation.change.is_none(), "{text}");
        }
    }
}

/// A policy's Service and what else `kubectl get -o yaml` writes into a file, in the words of it.
#[test]
fn what_files_say_of_services_and_serial_numbers_counts() {
    let common = common();
    let asked = question("billing", "GET /orders");
    let service = json!({
        "apiVersion": "v1", "kind": "Service", "metadata": {"name": "stock"}, "spec": {"ports": [{"port": 80}]},
    });
    let slice = |is_ready: bool| {
        json!({
            "apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice", "addressType": "IPv4",
            "metadata": {"name": "stock-1", "labels": {"kubernetes.io/service-name": "stock"}},
            "ports": [{"name": "", "port": 8080}],
            "endpoints": [{"addresses": ["10.0.0.1"], "conditions": {"ready": is_ready, "serving": is_ready}}],
        })
    };
    let mut other = service.clone();
    other["metadata"]["name"] = json!("other");
    // Of another group, and of another namespace than the route's.
    let knative = json!({"apiVersion": "serving.knative.dev/v1", "kind": "Service", "metadata": {"name": "stock"}});
    let mut far = service.clone();
    far["metadata"]["namespace"] = json!("web");
    let (allowed, revoked) = ("allowed by rule read of shop/orders", "refused: tls_revoked");
    let none = "  but answered upstream_no_endpoint by the gate: no pod of Service shop/stock:80 is ready";
    let gone = "  but answered route_invalid by the gate: there is no Service shop/stock";
    let alone = "  rule read: matches, allowed, by allow[0]";
    let not_reached = "  certificate 0a:01, which it has now, is revoked";
    let rows = [
        (vec![], [allowed, alone]),
        (vec![knative], [allowed, alone]),
        // Whether it has addresses no file says.
        (vec![service.clone()], [allowed, alone]),
        (vec![service.clone(), slice(true)], [allowed, alone]),
        (vec![service.clone(), slice(false)], [allowed, none]),
        (vec![other], [allowed, gone]),
        (vec![far], [allowed, gone]),
        (vec![trust("shop", "0a:01")], [revoked, not_reached]),
        (vec![trust("shop", "0a:02")], [allowed, alone]),
        (vec![trust("web", "0a:01")], [allowed, alone]),
    ];
    let mut world = world();
    world.routes[0].spec.rules[0].backend_refs =
        serde_json::from_value(json!([{"name": "stock", "port": 80}])).expect("a backend");
    world.identities[0].status = Some(serde_json::from_value(status_with("0a:01")).expect("a status"));
    for (objects, expected) in rows {
        let mut given = Given::for_route(ObjectName::new("shop", "orders"));
        let routes = world.routes.iter().map(|route| json!(route));
        for object in routes.chain(world.identities.iter().map(|one| json!(one))).chain(objects.iter().cloned()) {
            given.add(&object, "shop").expect("an object");
        }
        let given = World { labels: world.labels.clone(), ..given.world() };
        let text = explain(&given, &common, &asked);
        let text = text.map(|explained| explained.text(&asked)).unwrap_or_else(|why| why);
        assert_eq!(text.lines().take(2).collect::<Vec<_>>(), expected, "{objects:?}");
    }
}

/// Part `trust` of a namespace as it is written, which refuses a certificate.
fn trust(namespace: &str, serial: &str) -> Value {
    let trust = json!({"revocations": {"serials": [{"bundle": "ours", "serial": serial}]}});
    let document = serde_json::from_value(trust).expect("part trust");
    let content = content(namespace, &TrustDocument { document, files: BTreeMap::new() });
    let data: BTreeMap<_, _> =
        content.entries.iter().map(|(name, bytes)| (name, String::from_utf8_lossy(bytes))).collect();
    json!({
        "apiVersion": "v1", "kind": "ConfigMap", "data": data,
        "metadata": {
            "namespace": namespace, "name": content.name.name, "labels": content.labels, "annotations": content.annotations,
        },
    })
}
