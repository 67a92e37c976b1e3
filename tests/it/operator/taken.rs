//! Objects that are in the way of the operator's: they are left as they are, and whoever wrote the route is told.

use serde_json::{Value, json};

use super::scene::Scene;

fn config_map(name: &str) -> Value {
    json!({
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": {"name": name, "labels": {"team": "blue"}},
        "data": {"policy.json": "mine"},
    })
}

fn secret(name: &str) -> Value {
    json!({
        "apiVersion": "v1",
        "kind": "Secret",
        "metadata": {"name": name},
        "type": "Opaque",
        "stringData": {"tls.key": "mine"},
    })
}

#[test]
fn what_is_not_ours_is_left_alone_and_told() {
    let scene = Scene::start();
    let (policy, identity) = ("postern-policy-orders", "postern-id-orders-orders");
    scene.apply(&config_map(policy));
    scene.apply(&secret(identity));
    let version = |object: &str| {
        let object = scene.namespace.object(object).unwrap().unwrap();
        (object["metadata"]["resourceVersion"].clone(), object["metadata"]["uid"].clone())
    };
    let objects = [format!("configmap/{policy}"), format!("secret/{identity}")];
    let before = objects.each_ref().map(|object| version(object));
    scene.apply(&scene.route(&["billing"]));
    scene.pods(&["orders-1"]);
    let message = scene.wait_condition("proxyroute/orders", "Accepted", "False", "NameTaken");
    assert!(objects.iter().any(|object| message.contains(object.split('/').nth(1).unwrap())), "{message}");
    scene.wait_condition("proxyroute/orders", "Ready", "False", "NameTaken");
    assert_eq!(objects.each_ref().map(|object| version(object)), before, "neither was touched");
    // Whoever takes them away gets what was asked for.
    for object in &objects {
        scene.namespace.run(&["delete", object]).unwrap();
    }
    scene.wait_condition("proxyroute/orders", "Programmed", "True", "Programmed");
}
