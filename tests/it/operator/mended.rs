//! What somebody does to the operator's objects: it is undone, and nothing that passes notices.

use std::time::Instant;

use serde_json::{Value, json};

use super::scene::Scene;

/// An object's entries and our labels.
fn content(scene: &Scene, object: &str) -> Option<Value> {
    let object = scene.namespace.object(object).unwrap()?;
    Some(json!([object["data"], object["binaryData"], object["metadata"]["labels"]]))
}

fn patch(scene: &Scene, object: &str, patch: &Value) {
    scene.namespace.run(&["patch", object, "--type=merge", "--patch", &patch.to_string()]).unwrap();
}

fn wait_for(scene: &Scene, object: &str, expected: &Value) {
    let waited = scene.operator.wait_for(&format!("{object} as it was"), || {
        Ok((content(scene, object).as_ref() == Some(expected)).then_some(()))
    });
    waited.unwrap();
}

#[test]
fn what_is_edited_emptied_or_deleted_is_as_it_was() {
    let scene = Scene::start();
    scene.apply(&scene.service());
    scene.apply(&scene.route(&["billing"]));
    scene.client("billing");
    scene.pods(&["orders-1"]);
    scene.wait_condition("proxyroute/orders", "Programmed", "True", "Programmed");
    scene.wait_condition("clientidentity/billing", "Ready", "True", "Ready");
    scene.wait_promoted();
    scene.keep_certificate("billing");
    let maps = ["trust", "policy-orders", "policy-orders-good", "endpoints-orders", "identities-orders-0"];
    for object in maps.map(|name| format!("configmap/postern-{name}")) {
        let before = content(&scene, &object).unwrap();
        patch(&scene, &object, &json!({"data": {"stray": "x"}, "metadata": {"labels": {"postern.dev/stray": "x"}}}));
        wait_for(&scene, &object, &before);
        patch(&scene, &object, &json!({"data": null, "binaryData": null}));
        wait_for(&scene, &object, &before);
        scene.namespace.run(&["delete", &object]).unwrap();
        wait_for(&scene, &object, &before);
    }
    let identity = "secret/postern-id-orders-orders";
    let before = content(&scene, identity).unwrap();
    patch(&scene, identity, &json!({"data": {"stray": "eA=="}}));
    wait_for(&scene, identity, &before);
    // A key that is gone is gone: there is another one.
    patch(&scene, identity, &json!({"data": {"tls.key": "eA=="}}));
    let waited = scene.operator.wait_for("another certificate", || {
        let now = content(&scene, identity).unwrap_or_default();
        Ok((now[0]["tls.key"] != "eA==" && now[0]["tls.crt"] != before[0]["tls.crt"]).then_some(()))
    });
    waited.unwrap();
    assert_eq!(scene.call("orders-1", Some("billing")).status, Some(200));
}

#[test]
fn however_often_a_route_changes_its_policy_is_written_once_a_second() {
    let scene = Scene::start();
    scene.apply(&scene.route(&["billing"]));
    scene.pods(&["orders-1"]);
    scene.wait_condition("proxyroute/orders", "Programmed", "True", "Programmed");
    let count = || scene.writes().iter().filter(|write| write.ends_with(" configmaps/postern-policy-orders")).count();
    let (before, start) = (count(), Instant::now());
    for number in 0..12 {
        let mut route = scene.route(&["billing"]);
        route["spec"]["hostnames"] = json!([format!("host-{number}.example.com")]);
        scene.apply(&route);
    }
    scene.wait_condition("proxyroute/orders", "Programmed", "True", "Programmed");
    let elapsed = start.elapsed();
    let written = count() - before;
    assert!(scene.policies().0.contains("host-11.example.com"), "the last one counts");
    let allowed = usize::try_from(elapsed.as_secs()).unwrap() + 2;
    assert!((1..=allowed).contains(&written), "{written} writes in {elapsed:?}");
}
