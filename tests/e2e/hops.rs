//! From pod to pod: an application that knows of no TLS asks its own gate on loopback, and that one the other's.

use serde_json::{Value, json};

use crate::calls::told;
use crate::scene::{IMAGE, PORT, Scene, as_words, restricted, rootless};

/// Each gate has a row: the first says where the request went, the second who came. An init container gets through as the
/// application does, because its gate is there before it.
#[test]
fn a_pod_calls_another_through_both_gates_while_it_begins_too() {
    let scene = Scene::serving_with("hops", |served| {
        let front_too = json!({"serviceAccount": {"name": "front"}});
        served.route["spec"]["rules"][0]["allow"].as_array_mut().unwrap().push(front_too);
    });
    scene.call(Some("billing"), "/orders/7");
    scene.apply(&json!({"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": "front"}}));
    let host = format!("orders.{}.svc.cluster.local", scene.namespace);
    scene.apply(&outgoing(&host));
    scene.apply(&front(&host));
    scene.wait("pod/front", "Ready").unwrap();
    for route in ["front", "orders"] {
        scene.wait(&format!("proxyroute/{route}"), "Ready").unwrap();
    }
    let calling = calling(&host);
    let answer = scene.kubectl(&[&["exec", "front", "-c", "app", "--"], &as_words(&calling)[..]].concat()).unwrap();
    let said = scene.kubectl(&["logs", "front", "-c", "early"]).unwrap();
    for answer in [answer, said] {
        assert!(answer.starts_with("HTTP/1.1 200") && answer.ends_with("order 7\n"), "{answer}");
    }
    let expected = [json!("request"), json!("allowed"), Value::Null, Value::Null, json!(200)];
    let own = format!("URI:spiffe://cluster.local/ns/{}/sa/front", scene.namespace);
    let (sent, came) = (scene.rows("pod/front", 2), scene.rows("deployment/orders", 3).split_off(1));
    for rows in [&sent, &came] {
        assert_eq!(rows.iter().map(told).collect::<Vec<_>>(), [expected.clone(), expected.clone()]);
    }
    assert!(came.iter().all(|row| row["san"] == own), "{came:?}");
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

/// By way of the own gate.
fn calling(host: &str) -> Vec<String> {
    let words = format!("curl -sS -i --max-time 20 -H host:{host}:{PORT} http://127.0.0.1:9000/orders/7");
    words.split(' ').map(str::to_owned).collect()
}

fn front(host: &str) -> Value {
    let container = |name: &str, command: &[&str]| json!({"name": name, "image": IMAGE, "command": command, "securityContext": restricted()});
    json!({
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": "front", "labels": {"app": "front"}},
        "spec": {
            "serviceAccountName": "front",
            "initContainers": [container("early", &as_words(&calling(host)))],
            "containers": [container("app", &["tail", "-f", "/dev/null"])],
            "securityContext": rootless(),
            "terminationGracePeriodSeconds": 0,
        },
    })
}
