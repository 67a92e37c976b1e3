//! What a ProxyRoute has captured: in rows of the pods that it selects, as it says now.

use serde_json::{Value, json};

use super::scene::Scene;
use crate::observed::rows;

#[test]
fn what_a_route_has_captured_is_in_rows_of_its_pods() {
    let scene = Scene::start();
    scene.apply(&scene.service());
    let mut route = scene.route(&["billing"]);
    route["spec"]["capture"] = json!({"headers": [{"name": "X-Tenant"}, {"name": "authorization", "as": "Mask"}]});
    scene.apply(&route);
    scene.client("billing");
    scene.keep_certificate("billing");
    scene.pods(&["orders-1"]);
    scene.wait_programmed(1);
    scene.wait_answer("orders-1", "billing", (Some(200), None));
    let captured = |path: &str| {
        let curl = scene.curl_path("orders-1", Some("billing"), &format!("{path}?page=7"));
        let curl = curl.arg("-H").arg("x-tenant: blue").arg("-H").arg("authorization: Bearer hunter2");
        assert_eq!(curl.call().unwrap().status, Some(200));
        let row = scene.operator.wait_for("its row", || {
            let all = scene.kubelet.with("orders-1", |pod| Ok(rows(pod.sidecar()?, 1)))?;
            Ok(all.into_iter().find(|row| row["path"] == path))
        });
        row.unwrap()["captured"].as_str().map(|text| serde_json::from_str::<Value>(text).unwrap())
    };
    assert_eq!(captured("/first"), Some(json!({"headers": {"authorization": "***", "x-tenant": "blue"}})));
    route["spec"]["capture"] = json!({"query": [{"name": "page"}]});
    scene.apply(&route);
    scene.wait_condition("proxyroute/orders", "Programmed", "True", "Programmed");
    assert_eq!(captured("/second"), Some(json!({"query": {"page": "7"}})));
    route["spec"].as_object_mut().unwrap().remove("capture");
    scene.apply(&route);
    scene.wait_condition("proxyroute/orders", "Programmed", "True", "Programmed");
    assert_eq!(captured("/third"), None);
}
