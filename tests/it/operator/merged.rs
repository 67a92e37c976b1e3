//! Several routes of one workload, and rules that refer to something in vain: who loses, and who must not notice.

use postern_tests::minikubelet::pod;
use serde_json::{Value, json};

use super::scene::Scene;
use crate::observed::{columns, rows};

/// A match of a path and all below it.
fn below(path: &str) -> Value {
    json!({"path": {"type": "PathPrefix", "value": path}})
}

/// A route for another client, with what its one rule matches.
fn other(scene: &Scene, name: &str, client: &str, matches: &Value) -> Value {
    let mut route = scene.route(&[client]);
    route["metadata"]["name"] = json!(name);
    route["spec"]["rules"][0]["matches"] = matches.clone();
    route
}

fn clients(scene: &Scene) {
    for client in ["billing", "reports"] {
        scene.client(client);
        scene.keep_certificate(client);
    }
}

/// Status of a call for a path.
fn asked(scene: &Scene, pod: &str, client: &str, path: &str) -> Option<u16> {
    scene.curl_path(pod, Some(client), path).call().unwrap().status
}

#[test]
fn of_two_routes_the_older_keeps_what_both_match() {
    let scene = Scene::start();
    scene.apply(&scene.service());
    scene.apply(&scene.route(&["billing"]));
    clients(&scene);
    scene.pods(&["orders-1"]);
    scene.wait_programmed(1);
    scene.apply(&other(&scene, "other", "reports", &json!([below("/")])));
    let message = scene.wait_condition("proxyroute/other", "Accepted", "False", "Conflicted");
    let orders = format!("{}/orders", scene.namespace.name);
    let expected =
        format!("spec.rules[0]: any method PathPrefix `/` of any host is what older {orders} matches, too; ");
    assert!(message.starts_with(&expected), "{message}");
    scene.wait_condition("proxyroute/other", "Programmed", "False", "Conflicted");
    scene.wait_condition("proxyroute/orders", "Programmed", "True", "Programmed");
    assert_eq!(asked(&scene, "orders-1", "reports", "/other"), Some(403));

    // It matches something else, and both are served.
    scene.apply(&other(&scene, "other", "reports", &json!([below("/other")])));
    scene.wait_condition("proxyroute/other", "Programmed", "True", "Programmed");
    let seen = |path| ["billing", "reports"].map(|client| asked(&scene, "orders-1", client, path));
    assert_eq!((seen("/"), seen("/other")), ([Some(200), Some(403)], [Some(403), Some(200)]));

    // A change for the worse costs it nothing of what it had.
    scene.apply(&other(&scene, "other", "reports", &json!([below("/"), below("/more")])));
    scene.wait_condition("proxyroute/other", "Accepted", "False", "Conflicted");
    assert_eq!((seen("/"), seen("/other")), ([Some(200), Some(403)], [Some(403), Some(200)]));
    assert_eq!(asked(&scene, "orders-1", "reports", "/more"), Some(403));
    scene.wait_condition("proxyroute/orders", "Programmed", "True", "Programmed");

    // A port that is defined in another way.
    let mut other = other(&scene, "third", "reports", &json!([below("/third")]));
    other["spec"]["listener"] = json!({"port": super::scene::PORT, "tls": {"minVersion": "1.3"}});
    let mut orders = scene.route(&["billing"]);
    orders["spec"]["listener"]["tls"] = json!({"minVersion": "1.2"});
    scene.apply(&orders);
    scene.wait_condition("proxyroute/orders", "Programmed", "True", "Programmed");
    scene.apply(&other);
    let message = scene.wait_condition("proxyroute/third", "Accepted", "False", "Conflicted");
    assert!(message.contains(&format!("defined in another way by {}/orders", scene.namespace.name)), "{message}");
}

/// One workload, two kinds of pods: each gate looks at its own labels.
#[test]
fn each_pod_serves_the_routes_that_select_it() {
    let scene = Scene::start();
    scene.apply(&scene.service());
    clients(&scene);
    for (name, track, client) in [("blue", "blue", "billing"), ("green", "green", "reports")] {
        let mut route = other(&scene, name, client, &json!([below("/")]));
        route["spec"]["podSelector"]["matchLabels"]["track"] = json!(track);
        scene.apply(&route);
        let labels = [("app", "orders"), ("track", track)];
        scene.apply(&pod(&format!("orders-{track}"), "orders", "orders", &labels));
    }
    for track in ["blue", "green"] {
        let object = format!("proxyroute/{track}");
        scene.wait_condition(&object, "Programmed", "True", "Programmed");
        let row = scene.workload(&object);
        assert_eq!([&row["pods"], &row["started"], &row["programmed"]], [&json!(1); 3], "{track}: {row}");
    }
    let seen = |pod| ["billing", "reports"].map(|client| asked(&scene, pod, client, "/"));
    assert_eq!(seen("orders-blue"), [Some(200), Some(403)]);
    assert_eq!(seen("orders-green"), [Some(403), Some(200)]);
}

#[test]
fn a_bad_reference_costs_its_rule_and_nothing_else() {
    let scene = Scene::start();
    scene.apply(&scene.service());
    let mut route = scene.route(&["billing"]);
    let mut out = route["spec"]["rules"][0].clone();
    let tls = json!({"mode": "Simple", "serverName": "out.example", "caCertificateRefs": [{"name": "nowhere"}]});
    out["name"] = json!("out");
    out["matches"] = json!([{"path": {"type": "Exact", "value": "/out"}}]);
    out["backendRefs"] = json!([{"host": "out.example", "port": 443, "tls": tls}]);
    route["spec"]["rules"].as_array_mut().unwrap().push(out);
    scene.apply(&route);
    scene.apply(&other(&scene, "other", "billing", &json!([{"path": {"type": "Exact", "value": "/other"}}])));
    clients(&scene);
    scene.pods(&["orders-1"]);
    scene.wait_programmed(1);
    let message = scene.wait_condition("proxyroute/orders", "ResolvedRefs", "False", "RefNotFound");
    assert!(message.contains(&format!("ConfigMap {}/nowhere does not exist", scene.namespace.name)), "{message}");
    scene.wait_condition("proxyroute/other", "ResolvedRefs", "True", "ResolvedRefs");
    scene.wait_answer("orders-1", "billing", (Some(200), None));
    assert_eq!(asked(&scene, "orders-1", "billing", "/other"), Some(200));
    let refused = scene.curl_path("orders-1", Some("billing"), "/out").call().unwrap();
    assert_eq!((refused.status, refused.header("postern-reason")), (Some(500), Some("route_invalid")));
    let found = scene.operator.wait_for("its row", || {
        let all = scene.kubelet.with("orders-1", |pod| Ok(rows(pod.sidecar()?, 1)))?;
        Ok(all.into_iter().find(|row| row["path"] == "/out"))
    });
    let orders = format!("{}/orders", scene.namespace.name);
    let expected = json!([orders, "out", "route_invalid", 500]);
    assert_eq!(columns(&found.unwrap(), &["route", "rule", "reason", "status"]), expected);
}
