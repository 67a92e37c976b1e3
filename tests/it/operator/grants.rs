//! Services and Secrets of other namespaces: used only where a ReferenceGrant says so, whether Gateway API is installed or
//! not. The API servers are these tests' own, because a definition is everybody's.

use std::sync::OnceLock;
use std::time::Duration;

use postern_tests::apiserver::{ApiServer, Namespace};
use postern_tests::operator::Operator;
use serde_json::{Value, json};

use super::backends::{slice, stock, upstream};
use super::certificates::{OURS, Web, carried};
use super::scene::Scene;

const ROUTE: &str = "proxyroute/orders";
/// Whether the kind is served is asked every ten seconds.
const DISCOVERY: Duration = Duration::from_secs(40);

/// The kind as Gateway API has it, as far as a route needs it.
fn definition() -> Value {
    let text = json!({"type": "string"});
    let from = json!({
        "type": "object", "required": ["group", "kind", "namespace"],
        "properties": {"group": text, "kind": text, "namespace": text},
    });
    let to = json!({
        "type": "object", "required": ["group", "kind"], "properties": {"group": text, "kind": text, "name": text},
    });
    let list = |items: &Value| json!({"type": "array", "items": items, "maxItems": 16, "minItems": 1});
    let spec = json!({
        "type": "object", "required": ["from", "to"], "properties": {"from": list(&from), "to": list(&to)},
    });
    json!({
        "apiVersion": "apiextensions.k8s.io/v1", "kind": "CustomResourceDefinition",
        "metadata": {
            "name": "referencegrants.gateway.networking.k8s.io",
            "annotations": {"api-approved.kubernetes.io": "unapproved, a stand-in for tests"},
        },
        "spec": {
            "group": "gateway.networking.k8s.io", "scope": "Namespaced",
            "names": {"kind": "ReferenceGrant", "plural": "referencegrants", "singular": "referencegrant"},
            "versions": [{
                "name": "v1beta1", "served": true, "storage": true,
                "schema": {"openAPIV3Schema": {"type": "object", "properties": {"spec": spec}}},
            }],
        },
    })
}

/// A grant for routes of a namespace to ask a Service.
fn grant(namespace: &str, service: &str) -> Value {
    granting(namespace, "Service", service)
}

/// A grant for routes of a namespace.
fn granting(namespace: &str, kind: &str, name: &str) -> Value {
    json!({
        "apiVersion": "gateway.networking.k8s.io/v1beta1", "kind": "ReferenceGrant", "metadata": {"name": "orders"},
        "spec": {
            "from": [{"group": "postern.dev", "kind": "ProxyRoute", "namespace": namespace}],
            "to": [{"group": "", "kind": kind, "name": name}],
        },
    })
}

/// Gateway API is installed.
fn install(namespace: &Namespace<'_>) {
    namespace.apply(&definition()).unwrap();
    let name = "crd/referencegrants.gateway.networking.k8s.io";
    namespace.run(&["wait", "--for=condition=Established", "--timeout=30s", name]).unwrap();
}

#[test]
fn a_service_of_another_namespace_is_asked_where_a_grant_permits_it() {
    static SERVER: OnceLock<ApiServer> = OnceLock::new();
    let server = SERVER.get_or_init(|| ApiServer::start().unwrap());
    let mut scene = Scene::start_on(server);
    let stores = server.namespace("stores").unwrap();
    scene.operator = Operator::start_for(&scene.own, &[&scene.namespace, &stores], &[]).unwrap();
    let upstream = upstream();
    stores.apply(&stock(80)).unwrap();
    stores.apply(&slice("stock-1", &upstream, &json!({"ready": true}))).unwrap();
    let mut route = scene.route(&["billing"]);
    let backend = json!({"name": "stock", "namespace": stores.name, "port": 80});
    route["spec"]["rules"][0]["backendRefs"] = json!([backend]);
    scene.apply(&scene.service());
    scene.client("billing");
    scene.apply(&route);
    scene.pods(&["orders-1"]);
    // Nothing waits for a kind that is not there.
    scene.wait_programmed(1);
    let message = scene.wait_condition(ROUTE, "ResolvedRefs", "False", "RefNotPermitted");
    let expected = format!(
        "spec.rules[0].backendRefs[0]: Service {0}/stock is of another namespace, and no ReferenceGrant there permits ProxyRoutes of {1} to ask it",
        stores.name, scene.namespace.name
    );
    assert_eq!(message, expected);
    scene.keep_certificate("billing");
    scene.wait_answer("orders-1", "billing", (Some(500), Some("route_invalid")));

    // Installed later, it is found.
    install(&stores);
    stores.apply(&grant(&scene.namespace.name, "stock")).unwrap();
    let resolved = |status: &str, reason: &str| {
        scene.wait_condition_within(DISCOVERY, ROUTE, "ResolvedRefs", status, reason);
    };
    resolved("True", "ResolvedRefs");
    scene.wait_answer("orders-1", "billing", (Some(200), None));
    assert!(upstream.requests() > 0);

    // Another Service's is not this one's, and one that is gone permits nothing.
    stores.apply(&grant(&scene.namespace.name, "other")).unwrap();
    resolved("False", "RefNotPermitted");
    scene.wait_answer("orders-1", "billing", (Some(500), Some("route_invalid")));
    stores.apply(&grant(&scene.namespace.name, "stock")).unwrap();
    resolved("True", "ResolvedRefs");
    stores.run(&["delete", "referencegrant/orders"]).unwrap();
    resolved("False", "RefNotPermitted");

    // The kind goes with all there are, and comes again.
    stores.apply(&grant(&scene.namespace.name, "stock")).unwrap();
    resolved("True", "ResolvedRefs");
    stores.run(&["delete", "crd/referencegrants.gateway.networking.k8s.io"]).unwrap();
    resolved("False", "RefNotPermitted");
    scene.wait_answer("orders-1", "billing", (Some(500), Some("route_invalid")));
    install(&stores);
    stores.apply(&grant(&scene.namespace.name, "stock")).unwrap();
    resolved("True", "ResolvedRefs");
    scene.wait_answer("orders-1", "billing", (Some(200), None));
}

#[test]
fn a_certificate_of_another_namespace_is_shown_where_a_grant_permits_it() {
    static SERVER: OnceLock<ApiServer> = OnceLock::new();
    let server = SERVER.get_or_init(|| ApiServer::start().unwrap());
    let mut scene = Scene::start_on(server);
    let central = server.namespace("central").unwrap();
    scene.operator = Operator::start_for(&scene.own, &[&scene.namespace, &central], &[]).unwrap();
    let web = Web::new(&scene);
    central.apply(&web.secret("web 1")).unwrap();
    let mut route = scene.route(&["billing"]);
    route["spec"]["listener"]["tls"] = json!({"certificateRefs": [{"name": "web-tls", "namespace": central.name}]});
    scene.apply(&scene.service());
    scene.client("billing");
    scene.apply(&route);
    scene.pods(&["orders-1"]);
    // Nothing waits for a kind that is not there.
    scene.wait_programmed(1);
    let message = scene.wait_condition(ROUTE, "ResolvedRefs", "False", "RefNotPermitted");
    let expected = format!(
        "spec.listener.tls.certificateRefs[0]: Secret {0}/web-tls is of another namespace, and no ReferenceGrant there permits ProxyRoutes of {1} to name it",
        central.name, scene.namespace.name
    );
    assert_eq!(message, expected);
    scene.keep_certificate("billing");
    scene.wait_answer("orders-1", "billing", (Some(200), None));
    assert_eq!(web.shown(&scene), OURS);

    let resolved = |status: &str, reason: &str| {
        scene.wait_condition_within(DISCOVERY, ROUTE, "ResolvedRefs", status, reason);
    };
    install(&central);
    // What may be asked may not be shown.
    central.apply(&grant(&scene.namespace.name, "web-tls")).unwrap();
    central.apply(&granting(&scene.namespace.name, "Secret", "web-tls")).unwrap();
    resolved("True", "ResolvedRefs");
    web.wait_shown(&scene, "web 1");
    // What changes in the other namespace is seen, too.
    central.apply(&web.secret("web 2")).unwrap();
    web.wait_shown(&scene, "web 2");

    // A permission that is withdrawn takes the key with it.
    central.apply(&grant(&scene.namespace.name, "web-tls")).unwrap();
    resolved("False", "RefNotPermitted");
    web.wait_shown(&scene, OURS);
    assert_eq!(carried(&scene), [""; 0]);
    central.apply(&granting(&scene.namespace.name, "Secret", "web-tls")).unwrap();
    resolved("True", "ResolvedRefs");
    web.wait_shown(&scene, "web 2");
}
