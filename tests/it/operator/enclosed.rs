//! Ways around the gate: Services that send past it, and an application that listens on more than loopback.

use std::net::SocketAddr;

use postern_tests::minikubelet::pod;
use postern_tests::upstream::Upstream;
use serde_json::{Value, json};

use super::scene::Scene;
use super::stand_in::StandIn;

const ROUTE: &str = "proxyroute/orders";

/// A Service that sends to the pods' application.
fn direct(target: &Value) -> Value {
    json!({
        "apiVersion": "v1", "kind": "Service", "metadata": {"name": "direct"},
        "spec": {"selector": {"app": "orders"}, "ports": [{"port": 80, "targetPort": target}]},
    })
}

fn upstream(address: &str) -> Upstream {
    Upstream::start_on(format!("{address}:0").parse().unwrap()).unwrap()
}

/// Route `orders` in front of an application.
fn in_front_of(scene: &Scene, address: SocketAddr) -> Value {
    let mut route = scene.route(&["billing"]);
    route["spec"]["rules"][0]["backendRefs"] = json!([{"localPort": address.port()}]);
    route
}

#[test]
fn a_service_that_sends_past_the_gate_is_told() {
    let scene = Scene::start();
    scene.apply(&scene.service());
    scene.client("billing");
    scene.apply(&scene.route(&["billing"]));
    scene.wait_condition(ROUTE, "Enclosed", "Unknown", "NotChecked");
    let port = scene.upstream.address().port();
    let mut object = pod("orders-1", "orders", "orders", &[("app", "orders")]);
    object["spec"]["containers"][0]["ports"] = json!([{"name": "web", "containerPort": port}]);
    scene.apply(&object);
    scene.wait_condition(ROUTE, "Enclosed", "True", "Enclosed");
    scene.wait_condition(ROUTE, "Ready", "True", "Ready");
    for target in [json!(port), json!("web")] {
        scene.apply(&direct(&target));
        let message = scene.wait_condition(ROUTE, "Enclosed", "False", "ServiceBypasses");
        let service = format!("{}/direct from its port 80 to {port}", scene.namespace.name);
        assert!(message.contains(&service) && !message.contains("/orders from"), "{message}");
        scene.wait_condition(ROUTE, "Ready", "False", "ServiceBypasses");
        scene.apply(&direct(&json!("gate")));
        scene.wait_condition(ROUTE, "Enclosed", "True", "Enclosed");
        scene.namespace.run(&["delete", "service/direct"]).unwrap();
    }
}

#[test]
fn an_application_that_listens_beyond_loopback_is_told() {
    let scene = Scene::start();
    let (open, closed) = (upstream("0.0.0.0"), upstream("127.3.2.1"));
    scene.apply(&scene.service());
    scene.client("billing");
    scene.apply(&in_front_of(&scene, open.address()));
    scene.pods(&["orders-1", "orders-2"]);
    let message = scene.wait_condition(ROUTE, "Enclosed", "False", "AppListensOnAllAddresses");
    // The other pod may not have told yet.
    assert!(message.contains(&format!(" at port {}", open.address().port())), "{message}");
    scene.wait_condition(ROUTE, "Ready", "False", "AppListensOnAllAddresses");

    let mut allowed = in_front_of(&scene, open.address());
    allowed["spec"]["allowBypass"] = json!(true);
    scene.apply(&allowed);
    scene.wait_condition(ROUTE, "Ready", "True", "Ready");
    scene.wait_condition(ROUTE, "Enclosed", "False", "AppListensOnAllAddresses");

    // Another port is looked at at once.
    scene.apply(&in_front_of(&scene, closed.address()));
    scene.wait_condition(ROUTE, "Enclosed", "True", "Enclosed");
    scene.wait_condition(ROUTE, "Ready", "True", "Ready");

    // Whoever cannot tell has not told that there is no way around.
    let stand_in = StandIn::start(&scene, "orders-3");
    scene.wait_words(ROUTE, "Enclosed", "Unknown", "NotChecked", "2 of 3 started pods");
    let hash = scene.kubelet.with("orders-1", |pod| Ok(crate::observed::status(pod.sidecar()?).routes)).unwrap();
    stand_in.change(|status| {
        status.routes = hash;
        status.exposed_ports = Some(vec![]);
    });
    scene.wait_condition(ROUTE, "Enclosed", "True", "Enclosed");
}
