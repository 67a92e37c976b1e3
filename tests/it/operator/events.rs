//! Events as kubectl shows them.

use std::collections::BTreeSet;

use serde_json::{Value, json};

use super::scene::Scene;

/// Kind, name, type and reason of each event of the namespace, and how often it was so.
fn told(scene: &Scene) -> Vec<(String, u64)> {
    let list: Value = serde_json::from_str(&scene.namespace.run(&["get", "events", "-o", "json"]).unwrap()).unwrap();
    let events = list["items"].as_array().cloned().unwrap_or_default();
    let ours = events.iter().filter(|event| event["reportingComponent"] == "postern-operator");
    let each = ours.map(|event| {
        let word = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        let about = &event["involvedObject"];
        let told = [&about["kind"], &about["name"], &event["type"], &event["reason"]].map(word).join(" ");
        (told, event["series"]["count"].as_u64().unwrap_or(1))
    });
    each.collect()
}

fn wait_told(scene: &Scene, expected: &[&str]) {
    let expected: BTreeSet<_> = expected.iter().map(|told| (*told).to_owned()).collect();
    let mut last = BTreeSet::new();
    let waited = scene.operator.wait_for("the events", || {
        last = told(scene).into_iter().map(|(told, _)| told).collect();
        Ok((last == expected).then_some(()))
    });
    waited.unwrap_or_else(|error| panic!("expected {expected:?}, it was {last:?}: {error:#}"));
}

#[test]
fn what_becomes_of_routes_and_clients_is_told_once_and_not_by_a_restart() {
    let mut scene = Scene::start();
    scene.client("billing");
    scene.apply(&scene.route(&["billing"]));
    let issued = "ClientIdentity billing Normal Issued";
    wait_told(&scene, &[issued]);
    scene.pods(&["orders-1"]);
    scene.wait_programmed(1);
    let programmed = "ProxyRoute orders Normal Programmed";
    wait_told(&scene, &[issued, programmed]);
    let shown = scene.namespace.run(&["events", "--for", "proxyroute/orders"]).unwrap();
    assert!(shown.contains("Programmed") && shown.contains("all of 1 started pods have it"), "{shown}");
    // It cannot be served, and nothing that was there is taken down.
    let mut second = scene.route(&["billing"]);
    second["metadata"]["name"] = json!("second");
    second["spec"]["rules"][0]["matches"] = json!([{"path": {"type": "RegularExpression", "value": "/a("}}]);
    scene.apply(&second);
    scene.wait_condition("proxyroute/second", "Accepted", "False", "Invalid");
    let invalid = "ProxyRoute second Warning Invalid";
    wait_told(&scene, &[issued, programmed, invalid]);
    scene.patch_identity("billing", &json!({"state": "Suspended"}));
    let (suspended, enforced) = ("ClientIdentity billing Normal Suspended", "ClientIdentity billing Normal Enforced");
    wait_told(&scene, &[issued, programmed, invalid, suspended, enforced]);
    scene.patch_identity("billing", &json!({"state": "Active"}));
    scene.wait_condition("clientidentity/billing", "Ready", "True", "Ready");
    let active = "ClientIdentity billing Normal Active";
    let all = [issued, programmed, invalid, suspended, enforced, active];
    wait_told(&scene, &all);
    // The same again is counted.
    scene.patch_identity("billing", &json!({"state": "Suspended"}));
    let again = || {
        let told = told(&scene);
        let is_counted = |event: &str| told.contains(&(event.to_owned(), 2));
        Ok((is_counted(suspended) && is_counted(enforced)).then_some(()))
    };
    scene.operator.wait_for("the second time", again).unwrap();
    let before = told(&scene);
    scene.restart_operator();
    scene.client("late");
    wait_told(&scene, &[&all[..], &["ClientIdentity late Normal Issued"]].concat());
    let after = told(&scene);
    assert_eq!(
        after.iter().filter(|event| !event.0.contains(" late ")).collect::<Vec<_>>(),
        before.iter().collect::<Vec<_>>()
    );
}
