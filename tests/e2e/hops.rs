//! From pod to pod: an application that knows of no TLS asks its own gate on loopback, and that one the other's.

use serde_json::{Value, json};

use crate::calls::told;
use crate::scene::{IMAGE, PORT, Scene, restricted, rootless};

/// Each gate has a row: the first says where the request went, the second who came.
#[test]
fn a_pod_calls_another_through_both_gates() {
    let scene = Scene::serving("hops");
    let front_too = json!({"serviceAccount": {"namespace": scene.namespace, "name": "front"}});
    let patch = json!([{"op": "add", "path": "/spec/rules/0/allow/-", "value": front_too}]).to_string();
    scene.kubectl(&["patch", "proxyroute/orders", "--type=json", "-p", &patch]).unwrap();
    scene.apply(&json!({"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": "front"}}));
    let host = format!("orders.{}.svc.cluster.local", scene.namespace);
    scene.apply(&outgoing(&host));
    scene.apply(&front());
    scene.wait("pod/front", "Ready").unwrap();
    for route in ["front", "orders"] {
        scene.wait(&format!("proxyroute/{route}"), "Ready").unwrap();
    }
    let authority = format!("host: {host}:{PORT}");
    let call =
        ["exec", "front", "-c", "app", "--", "curl", "-sS", "-i", "-H", &authority, "http://127.0.0.1:9000/orders/7"];
    let answer = scene.kubectl(&call).unwrap();
    assert!(answer.starts_with("HTTP/1.1 200") && answer.ends_with("order 7\n"), "{answer}");
    let expected = [json!("request"), json!("allowed"), Value::Null, Value::Null, json!(200)];
    let (sent, came) = (scene.rows("pod/front", 1), scene.rows("deployment/orders", 1));
    for rows in [&sent, &came] {
        assert_eq!(rows.iter().map(told).collect::<Vec<_>>(), std::slice::from_ref(&expected));
    }
    assert_eq!(came[0]["san"], format!("URI:spiffe://cluster.local/ns/{}/sa/front", scene.namespace));
}

/// What the gate of `front` does with what comes to it on loopback.
fn outgoing(host: &str) -> Value {
    json!({
        "apiVersion": "postern.dev/v1alpha1",
        "kind": "ProxyRoute",
        "metadata": {"name": "front"},
        "spec": {
            "podSelector": {"matchLabels": {"app": "front"}},
            "listener": {"port": 9000, "address": "Loopback", "protocol": "HTTP"},
            "rules": [{
                "name": "orders",
                "allow": [{"anyone": {}}],
                "backendRefs": [{"name": "orders", "port": PORT, "tls": {"mode": "Mutual", "serverName": host}}],
            }],
        },
    })
}

fn front() -> Value {
    let container =
        json!({"name": "app", "image": IMAGE, "command": ["tail", "-f", "/dev/null"], "securityContext": restricted()});
    json!({
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": "front", "labels": {"app": "front"}},
        "spec": {
            "serviceAccountName": "front",
            "containers": [container],
            "securityContext": rootless(),
            "terminationGracePeriodSeconds": 0,
        },
    })
}
