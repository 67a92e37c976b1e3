//! What is wrong with a route is told, and takes nothing away.

use postern_tests::wait::eventually;
use serde_json::{Value, json};

use crate::cluster::PATIENCE;
use crate::scene::Scene;

#[test]
fn a_bad_route_says_why_and_the_old_one_is_served_on() {
    let scene = Scene::serving("refused");
    assert!(scene.call(Some("billing"), "/orders/7").text().ends_with("\n200"));
    // An expression that nobody can read is what the API server lets through; the rest of it would let nobody in.
    let value = json!([{"path": {"type": "RegularExpression", "value": "/["}}]);
    let patch = json!([
        {"op": "add", "path": "/spec/rules/0/matches", "value": value},
        {"op": "replace", "path": "/spec/rules/0/allow", "value": [{"identity": {"name": "reports"}}]},
    ]);
    scene.kubectl(&["patch", "proxyroute/orders", "--type=json", "-p", &patch.to_string()]).unwrap();
    let told = eventually("what is wrong with it", PATIENCE, || {
        let route: Value = serde_json::from_str(&scene.kubectl(&["get", "proxyroute/orders", "-o", "json"])?)?;
        let conditions = route["status"]["conditions"].as_array().cloned().unwrap_or_default();
        Ok(conditions.into_iter().find(|one| one["type"] == "Accepted" && one["status"] == "False"))
    })
    .unwrap();
    let message = told["message"].as_str().unwrap();
    assert_eq!(told["reason"], "Invalid", "{told}");
    assert!(message.starts_with("spec.rules[0].matches[0].path.value: "), "{message}");
    assert!(message.ends_with("; the form that was accepted last is served on"), "{message}");
    for (client, status) in [("billing", "200"), ("reports", "403")] {
        let called = scene.call(Some(client), "/orders/7");
        assert!(called.text().ends_with(&format!("\n{status}")), "{client}: {called:?}");
    }
}
