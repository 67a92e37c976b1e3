//! Who gets through a gate that a webhook has put in, and what its log says of each.

use serde_json::{Value, json};

use crate::scene::Scene;

/// Columns of a row that say who it was and what became of it.
pub(crate) fn told(row: &Value) -> [Value; 5] {
    ["kind", "verdict", "reason", "identity", "status"].map(|column| row[column].clone())
}

#[test]
fn each_call_is_answered_and_is_a_row() {
    let scene = Scene::serving("calls");
    let allowed = scene.call(Some("billing"), "/orders/7");
    assert_eq!((allowed.text().as_str(), allowed.code), ("order 7\n\n200", Some(0)), "{}", allowed.stderr);
    let nobody = scene.call(None, "/orders/7");
    assert!(nobody.code != Some(0) && nobody.stderr.contains("certificate required"), "{nobody:?}");
    let other = scene.call(Some("reports"), "/orders/7");
    assert!(other.text().ends_with("\n403"), "{other:?}");
    let rows: Vec<_> = scene.rows("deployment/orders", 3).iter().map(told).collect();
    let name = |identity: &str| json!(format!("{}/{identity}", scene.namespace));
    let expected = [
        [json!("request"), json!("allowed"), Value::Null, name("billing"), json!(200)],
        [json!("handshake"), json!("refused"), json!("tls_no_certificate"), Value::Null, Value::Null],
        [json!("request"), json!("refused"), json!("policy_not_allowed"), name("reports"), json!(403)],
    ];
    assert_eq!(rows, expected);
    let said = scene.kubectl(&["logs", "deployment/orders", "-c", "postern-sidecar"]).unwrap();
    assert!(said.contains("\"level\":\"INFO\"") && !said.contains("\"level\":\"ERROR\""), "nothing is wrong: {said}");
}
