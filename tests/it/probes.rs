//! Probes of the application by way of the gate: it listens on loopback only, where nobody else gets.

use std::net::TcpListener;
use std::time::Duration;

use postern_tests::ca::{LeafOptions, self_signed};
use postern_tests::clients::Curl;
use postern_tests::gate::Gate;
use postern_tests::grpc_health::GrpcServer;
use postern_tests::tls_server::TlsServer;
use serde_json::{Value, json};

/// A listener that takes connections into its queue and never answers.
fn silent() -> (TcpListener, u16) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    (listener, port)
}

#[test]
fn the_gate_probes_the_application_as_it_is_told() {
    let health = GrpcServer::start().unwrap();
    let (_held, mute) = silent();
    let (dropped, closed) = silent();
    drop(dropped);
    let mut gate = Gate::start().unwrap();
    let app = gate.upstream.address().port();
    // Its certificate is of no name or address that anybody would ask for, and nobody here trusts whoever signed it.
    gate.keep("own", &self_signed(&LeafOptions::server("somewhere else")).unwrap()).unwrap();
    let server = TlsServer::start(gate.folder.path(), "own", &[]).unwrap();
    let secured = server.address().port();
    let table: [(&str, Value, u16, &str); 11] = [
        ("web/readiness", json!({"port": app, "http": {"path": "/healthz"}}), 200, "ok\n"),
        ("web/liveness", json!({"port": app, "http": {"path": "/status?code=302"}}), 200, "ok\n"),
        ("web/startup", json!({"port": app, "http": {"path": "/status?code=404"}}), 503, "status 404\n"),
        ("secured", json!({"port": secured, "http": {"path": "/", "tls": true}, "timeout": "10s"}), 200, "ok\n"),
        (
            "unsecured",
            json!({"port": app, "http": {"path": "/", "tls": true}, "timeout": "10s"}),
            503,
            "no answer: TLS: received corrupt message of type InvalidContentType\n",
        ),
        ("silent", json!({"port": mute, "timeout": "50ms", "http": {"path": "/"}}), 503, "no answer within 50ms\n"),
        ("tcp", json!({"port": mute, "tcp": {}}), 200, "ok\n"),
        ("closed", json!({"port": closed, "tcp": {}}), 503, "connect: Connection refused (os error 111)\n"),
        ("grpc", json!({"port": health.address().port(), "grpc": {}, "timeout": "10s"}), 200, "ok\n"),
        (
            "grpc/orders",
            json!({"port": health.address().port(), "grpc": {"service": "orders"}, "timeout": "10s"}),
            503,
            "gRPC: grpc-status 5\n",
        ),
        ("unknown", Value::Null, 404, "there is no such probe\n"),
    ];
    let known = table.iter().filter(|(_, probe, ..)| probe.is_object()).map(|(name, probe, ..)| {
        let mut probe = probe.clone();
        probe["name"] = json!(name);
        probe
    });
    // As injection says it: in a variable.
    let launch = gate.sidecar.launch().clone();
    gate.sidecar.kill().unwrap();
    gate.sidecar = launch.variable("POSTERN__PROBES", &Value::from_iter(known).to_string()).start_ready().unwrap();
    let status = gate.sidecar.status_address().unwrap();
    for (name, _, expected, body) in table {
        let answer = Curl::new(format!("http://{status}/probe/{name}")).within(Duration::from_secs(30)).call().unwrap();
        assert_eq!((answer.status, answer.text().as_str()), (Some(expected), body), "{name}");
    }
}
