//! What is not plain HTTP/1.1: gRPC and WebSocket, by servers and clients on libraries that nobody here wrote.

use serde_json::{Value, json};

use crate::calls::told;
use crate::scene::{IMAGE, Scene, Served, restricted, rule};

/// Beside the application a gRPC server and one of WebSockets, on loopback as well.
fn talking(served: &mut Served) {
    let container = |name: &str, command: &[&str]| json!({"name": name, "image": IMAGE, "command": command, "securityContext": restricted()});
    let containers = &mut served.application["spec"]["template"]["spec"]["containers"];
    let containers = containers.as_array_mut().unwrap();
    containers.push(container("grpc", &["grpc", "server", "127.0.0.1:9090"]));
    containers.push(container("websocket", &["websocket", "serve", "127.0.0.1:8081"]));
    let rules = served.route["spec"]["rules"].as_array_mut().unwrap();
    for (folder, port, protocol) in [("postern.test.Echo", 9090, "HTTP2"), ("chat", 8081, "HTTP")] {
        let mut rule = rule(folder, "billing");
        rule["name"] = json!(protocol.to_lowercase());
        rule["backendRefs"] = json!([{"localPort": port, "protocol": protocol}]);
        rules.push(rule);
    }
}

#[test]
fn grpc_and_websockets_pass_a_gate() {
    let scene = Scene::serving_with("protocols", talking);
    // A pod that is ready is not yet one that the Service sends to; curl waits for it.
    scene.call(Some("billing"), "/orders/7");
    let grpc = |client: &str, method: &str, messages: &[&str]| -> Value {
        let (host, folder) = (scene.host(), format!("/clients={client}"));
        let words = ["exec", "client", "--", "grpc", "client", &host, &folder, method];
        serde_json::from_str(&scene.kubectl(&[&words, messages].concat()).unwrap()).unwrap()
    };
    let answered = |outcome: &Value| [outcome["code"].clone(), outcome["received"].clone()];
    assert_eq!(answered(&grpc("billing", "Unary", &["hello"])), [json!("OK"), json!(["hello"])]);
    assert_eq!(answered(&grpc("billing", "Stream", &["one", "two"])), [json!("OK"), json!(["one", "two"])]);
    assert_eq!(answered(&grpc("reports", "Unary", &["hello"])), [json!("PermissionDenied"), Value::Null]);
    let websocket = |client: &str| {
        let talk = format!("cd /clients && exec websocket talk wss://{}/chat {client}", scene.host());
        let words = ["-n", &scene.namespace, "exec", "client", "--", "sh", "-c", &talk];
        scene.cluster.kubectl(&words, "").unwrap()
    };
    let said = websocket("billing");
    assert_eq!((said.code, said.text().as_str()), (Some(0), "4001 chat\n4001 chat\n"), "{}", said.stderr);
    let refused = websocket("reports");
    assert!(refused.stderr.starts_with("status 403 policy_not_allowed"), "{refused:?}");
    let name = |identity: &str| json!(format!("{}/{identity}", scene.namespace));
    let allowed =
        |kind: &str, status: u16| [json!(kind), json!("allowed"), Value::Null, name("billing"), json!(status)];
    let denied =
        |status: u16| [json!("request"), json!("refused"), json!("policy_not_allowed"), name("reports"), json!(status)];
    let expected = [
        allowed("request", 200),
        allowed("request", 200),
        allowed("request", 200),
        denied(200),
        allowed("tunnel", 101),
        allowed("tunnel", 101),
        denied(403),
    ];
    let rows: Vec<_> = scene.rows("deployment/orders", expected.len()).iter().map(told).collect();
    assert_eq!(rows, expected);
}
