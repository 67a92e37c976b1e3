//! Services as backends: from their EndpointSlices to calls that reach the right application.

use std::net::{IpAddr, SocketAddr, UdpSocket};

use postern_tests::upstream::Upstream;
use postern_tests::wait::PATIENCE;
use serde_json::{Value, json};

use super::prober::Prober;
use super::scene::Scene;
use crate::observed::status;

/// An address of this machine that is not loopback, which a slice must not have. It takes an interface with a route; nothing
/// is sent.
fn own_address() -> IpAddr {
    let socket = UdpSocket::bind("0.0.0.0:0").unwrap();
    // Of the block for documentation (RFC 5737): whoever has a way out has one there.
    socket.connect("192.0.2.1:9").unwrap();
    socket.local_addr().unwrap().ip()
}

pub(super) fn upstream() -> Upstream {
    Upstream::start_on(SocketAddr::new(own_address(), 0)).unwrap()
}

/// Service `stock` without a selector: its slices are the test's.
pub(super) fn stock(port: u16) -> Value {
    json!({
        "apiVersion": "v1", "kind": "Service", "metadata": {"name": "stock"},
        "spec": {"ports": [{"name": "web", "port": port, "targetPort": "http"}]},
    })
}

/// A slice with one application.
pub(super) fn slice(name: &str, upstream: &Upstream, conditions: &Value) -> Value {
    let address = upstream.address();
    json!({
        "apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice",
        "metadata": {"name": name, "labels": {"kubernetes.io/service-name": "stock"}},
        "addressType": "IPv4",
        "ports": [{"name": "web", "port": address.port(), "protocol": "TCP"}],
        "endpoints": [{"addresses": [address.ip()], "conditions": conditions}],
    })
}

/// Route `orders`, whose requests go to a Service.
fn asking(scene: &Scene, port: u16) -> Value {
    let mut route = scene.route(&["billing"]);
    route["spec"]["rules"][0]["backendRefs"] = json!([{"name": "stock", "port": port}]);
    route
}

/// Revision of the endpoints that a pod has loaded.
fn endpoints(scene: &Scene, pod: &str) -> String {
    scene.kubelet.with(pod, |pod| Ok(status(pod.sidecar()?).parts.endpoints.loaded)).unwrap()
}

/// Waits until a pod has other endpoints than before, and gives their revision.
fn wait_other(scene: &Scene, pod: &str, before: &str) -> String {
    let other = || Ok(Some(endpoints(scene, pod)).filter(|now| now != before));
    scene.operator.wait_for("other endpoints in the pod", other).unwrap()
}

fn all_good() -> Value {
    json!({"ready": true, "serving": true, "terminating": false})
}

/// Waits until each of these has had more requests than before.
fn wait_asked(scene: &Scene, upstreams: &[&Upstream]) {
    let before: Vec<_> = upstreams.iter().map(|upstream| upstream.requests()).collect();
    let are_asked =
        || Ok(upstreams.iter().zip(&before).all(|(upstream, before)| upstream.requests() > before + 3).then_some(()));
    scene.operator.wait_for("requests at each application", are_asked).unwrap();
}

#[test]
fn addresses_of_a_service_come_and_go_without_a_failed_request() {
    let scene = Scene::start();
    let (first, second) = (upstream(), upstream());
    scene.apply(&scene.service());
    scene.apply(&stock(80));
    scene.apply(&slice("stock-1", &first, &all_good()));
    scene.apply(&slice("stock-2", &second, &all_good()));
    scene.apply(&asking(&scene, 80));
    scene.client("billing");
    scene.pods(&["orders-1"]);
    scene.wait_programmed(1);
    scene.wait_condition("proxyroute/orders", "ResolvedRefs", "True", "ResolvedRefs");
    scene.keep_certificate("billing");
    scene.wait_answer("orders-1", "billing", (Some(200), None));
    scene.wait_promoted();
    let prober = Prober::start(&scene, "orders-1", "billing");
    let since = prober.wait(true, PATIENCE);
    wait_asked(&scene, &[&first, &second]);
    let (policy, mut loaded) = (scene.policy_revision(), endpoints(&scene, "orders-1"));
    let written = scene.settled_writes().len();

    // One is on its way out: it gets nothing new.
    let leaving = json!({"ready": false, "serving": true, "terminating": true});
    scene.apply(&slice("stock-1", &first, &leaving));
    loaded = wait_other(&scene, "orders-1", &loaded);
    // A request that began before may still be under way.
    wait_asked(&scene, &[&second]);
    let last = first.requests();
    wait_asked(&scene, &[&second]);
    assert_eq!(first.requests(), last, "whoever is on its way out is left out");

    // Alone it is better than nobody.
    scene.apply(&slice("stock-2", &second, &json!({"ready": false, "serving": false})));
    loaded = wait_other(&scene, "orders-1", &loaded);
    wait_asked(&scene, &[&first]);
    scene.apply(&slice("stock-2", &second, &all_good()));
    loaded = wait_other(&scene, "orders-1", &loaded);

    // Its slice is gone.
    scene.namespace.run(&["delete", "endpointslice/stock-1"]).unwrap();
    loaded = wait_other(&scene, "orders-1", &loaded);
    wait_asked(&scene, &[&second]);
    let last = first.requests();
    drop(first);
    wait_asked(&scene, &[&second]);
    assert!(last > 0 && loaded != "none");

    assert_eq!((prober.wait(true, PATIENCE), prober.cut()), (since, 0), "every request passed");
    assert_eq!(scene.policy_revision(), policy);
    let since: std::collections::BTreeSet<_> = scene.settled_writes().split_off(written).into_iter().collect();
    let expected = ["patch configmaps/postern-endpoints-orders", "patch pods/orders-1/status"];
    assert_eq!(since.iter().map(String::as_str).collect::<Vec<_>>(), expected, "the policy is not written again");
}

#[test]
fn a_service_that_is_not_there_refuses_its_rule_alone() {
    let scene = Scene::start();
    let upstream = upstream();
    scene.apply(&scene.service());
    let mut route = asking(&scene, 80);
    let own = json!({
        "name": "own", "allow": [{"anyone": {}}], "matches": [{"path": {"type": "Exact", "value": "/own"}}],
        "backendRefs": [{"localPort": scene.upstream.address().port()}],
    });
    route["spec"]["rules"].as_array_mut().unwrap().push(own);
    scene.apply(&route);
    scene.client("billing");
    scene.pods(&["orders-1"]);
    scene.wait_programmed(1);
    scene.keep_certificate("billing");
    let resolved =
        |status: &str, reason: &str| scene.wait_condition("proxyroute/orders", "ResolvedRefs", status, reason);
    let message = resolved("False", "BackendNotFound");
    let place = "spec.rules[0].backendRefs[0]";
    assert_eq!(message, format!("{place}: there is no Service {}/stock", scene.namespace.name));
    scene.wait_answer("orders-1", "billing", (Some(500), Some("route_invalid")));
    let own = scene.curl_path("orders-1", Some("billing"), "/own").call().unwrap();
    assert_eq!(own.status, Some(200), "nothing else is touched");

    let mut external = stock(80);
    external["spec"]["type"] = json!("ExternalName");
    external["spec"]["externalName"] = json!("stock.example.com");
    scene.apply(&external);
    let message = resolved("False", "InvalidKind");
    assert!(message.starts_with(place) && message.contains("`host`"), "{message}");
    scene.wait_answer("orders-1", "billing", (Some(500), Some("route_invalid")));

    scene.namespace.run(&["delete", "service/stock"]).unwrap();
    scene.apply(&stock(8080));
    // Between the two there is no Service, for the same reason with other words.
    let words = "has no port 80 for TCP; it has 8080";
    scene.wait_words("proxyroute/orders", "ResolvedRefs", "False", "BackendNotFound", words);

    scene.namespace.run(&["delete", "service/stock"]).unwrap();
    scene.apply(&stock(80));
    resolved("True", "ResolvedRefs");
    scene.wait_answer("orders-1", "billing", (Some(503), Some("upstream_no_endpoint")));
    scene.apply(&slice("stock-1", &upstream, &all_good()));
    scene.wait_answer("orders-1", "billing", (Some(200), None));
    assert!(upstream.requests() > 0);
}
