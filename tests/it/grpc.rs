//! gRPC through the real gate, with a client and a server of its most used library: what passes, and what the gate itself
//! says, in words that gRPC understands.

use std::path::Path;

use postern_tests::gate::Gate;
use postern_tests::grpc::{GrpcServer, call};
use serde_json::{Value, json};

use crate::observed::{columns, metric, newest, rows};

/// A gate whose one rule passes gRPC on to a server, for `demo/billing` alone.
fn gate(server: &GrpcServer, change: impl FnOnce(&mut Value)) -> Gate {
    Gate::start_with(|document| {
        document["version"] = json!("1.3");
        document["settings"]["workers"] = json!(1);
        document["policy"]["routes"][0]["rules"][0]["backends"] =
            json!([{ "address": server.address(), "protocol": "HTTP2" }]);
        change(document);
    })
    .unwrap()
}

/// A call by `demo/billing`, over TLS.
fn told(gate: &Gate, method: &str, messages: &[&str]) -> Value {
    call(gate.sidecar.listener("gate").unwrap(), gate.folder.path(), method, messages).unwrap()
}

fn outcome(code: &str, message: &str, received: &[&str], header: &Value, trailer: &Value) -> Value {
    let received = if received.is_empty() { Value::Null } else { json!(received) };
    json!({ "code": code, "message": message, "received": received, "header": header, "trailer": trailer })
}

#[test]
fn calls_pass_with_their_metadata_and_statuses() {
    let server = GrpcServer::start(None).unwrap();
    let gate = gate(&server, |_| {});
    let (head, tail) = (json!(["head"]), json!(["tail"]));
    let with = |code, message, received: &[&str]| outcome(code, message, received, &head, &tail);
    let without = |code, message, received: &[&str]| outcome(code, message, received, &Value::Null, &Value::Null);
    let table: [(&str, &[&str], Value, u64); 8] = [
        ("Unary", &["hello"], with("OK", "", &["hello"]), 0),
        // A status without a message is trailers alone; what is said is escaped, and comes whole.
        ("Unary", &["fail"], with("FailedPrecondition", "not yet: ü%", &[]), 9),
        ("Unary", &["deadline"], with("OK", "", &["true"]), 0),
        ("Unary", &["authority"], with("OK", "", &["localhost"]), 0),
        ("Stream", &["a", "b", "c"], without("OK", "", &["a", "b", "c"]), 0),
        ("Stream", &["a", "many"], without("OK", "", &["a"]), 0),
        ("Open", &["a", "abort"], without("Aborted", "stopped", &["a"]), 10),
        // The server ends while its client may still send.
        ("Open", &["a", "end"], without("OK", "", &["a"]), 0),
    ];
    for (count, (method, messages, expected, status)) in (1..).zip(table) {
        assert_eq!(told(&gate, method, messages), expected, "{method} {messages:?}");
        let row = newest(&gate.sidecar, count);
        let shown = columns(&row, &["protocol", "status", "grpc_status", "reason", "attempts"]);
        assert_eq!(shown, json!(["HTTP/2", 200, status, null, 1]), "{method} {messages:?}");
    }
    assert_eq!(metric(&gate.sidecar, "postern_upstream_connections_open"), 1);
    gate.sidecar.has_decided(8).unwrap();
}

#[test]
fn grpc_passes_in_tls_and_without() {
    let plain = GrpcServer::start(None).unwrap();
    let gate = gate(&plain, |_| {});
    let file = |name: &str| gate.folder.file(name);
    let secured = GrpcServer::start(Some((&file("server.pem"), &file("server.key")))).unwrap();
    let other = gate
        .start_beside(|document| {
            document["version"] = json!("1.3");
            document["policy"]["listeners"] = json!([{ "name": "out", "address": "127.0.0.1:0", "protocol": "HTTP" }]);
            document["policy"]["routes"][0]["listener"] = json!("out");
            document["policy"]["routes"][0]["hostnames"] = json!([]);
            let rule = &mut document["policy"]["routes"][0]["rules"][0];
            rule["allow"] = json!([{ "anyone": {} }]);
            let tls = json!({ "serverName": "localhost", "trust": ["ours"] });
            rule["backends"] = json!([{ "address": secured.address(), "protocol": "HTTP2", "tls": tls }]);
        })
        .unwrap();
    let told = call(other.sidecar.listener("out").unwrap(), Path::new(""), "Stream", &["a", "b"]).unwrap();
    assert_eq!((&told["code"], &told["received"]), (&json!("OK"), &json!(["a", "b"])));
}

/// What the gate refuses, or waits for in vain, is told as gRPC tells it, whatever the client still sends.
#[test]
fn what_the_gate_refuses_is_told_as_grpc_tells_it() {
    let server = GrpcServer::start(None).unwrap();
    let reports = |document: &mut Value| {
        document["policy"]["routes"][0]["rules"][0]["allow"] = json!([{ "identity": "demo/reports" }]);
    };
    let nowhere = |document: &mut Value| {
        document["policy"]["routes"][0]["rules"][0]["backends"][0]["address"] = json!("127.0.0.1:1");
    };
    let no_route = |document: &mut Value| {
        document["policy"]["routes"][0]["rules"][0]["matches"] = json!([{ "path": { "type": "Exact", "value": "/" } }]);
    };
    let slow = |field: &'static str| {
        move |document: &mut Value| {
            document["policy"]["routes"][0]["rules"][0]["timeouts"] = json!({ field: "300ms" });
        }
    };
    let (request, backend) = (slow("request"), slow("backendRequest"));
    type Change<'a> = &'a dyn Fn(&mut Value);
    let table: [(Change<'_>, &[&str], &str, &str, u64); 5] = [
        (&reports, &["a"], "PermissionDenied", "policy_not_allowed", 7),
        (&nowhere, &["a"], "Unavailable", "upstream_connect", 14),
        (&no_route, &["a"], "Unimplemented", "route_no_path", 12),
        // Before the response's head, and after it.
        (&backend, &["wait"], "DeadlineExceeded", "upstream_timeout", 4),
        (&request, &["a", "wait"], "DeadlineExceeded", "upstream_timeout", 4),
    ];
    for (change, messages, code, reason, status) in table {
        let gate = gate(&server, change);
        for (count, method) in (1..).zip(["Stream", "Open"]) {
            let told = told(&gate, method, messages);
            assert_eq!((&told["code"], &told["message"]), (&json!(code), &json!(reason)), "{method} {messages:?}");
            let row = newest(&gate.sidecar, count);
            let shown = columns(&row, &["reason", "status", "grpc_status"]);
            assert_eq!(shown, json!([reason, 200, status]), "{method} {messages:?}");
        }
        gate.sidecar.has_decided(2).unwrap();
    }
}

/// Only requests of gRPC are answered so.
#[test]
fn others_are_refused_as_before() {
    let server = GrpcServer::start(None).unwrap();
    let gate = gate(&server, |document| {
        document["policy"]["routes"][0]["rules"][0]["allow"] = json!([{ "identity": "demo/reports" }]);
    });
    let table = [
        ("application/grpc", "--http2", "POST", 200),
        // No calls: those are POST, on HTTP/2.
        ("application/grpc", "--http2", "GET", 403),
        ("application/grpc", "--http1.1", "POST", 403),
        ("application/grpc-web", "--http2", "POST", 403),
        ("application/json", "--http2", "POST", 403),
    ];
    for (content, version, method, status) in table {
        let curl = gate.curl(Some("billing"), "/x").unwrap().arg("-H").arg(format!("Content-Type: {content}"));
        let curl = curl.arg(version).arg("-X").arg(method);
        // Without a body: curl takes the reset of one that nobody wants for the answer, which clients of gRPC do not.
        let answer = curl.call().unwrap();
        assert_eq!((answer.status, answer.header("postern-reason")), (Some(status), Some("policy_not_allowed")));
    }
    gate.sidecar.has_decided(5).unwrap();
    let statuses: Vec<_> = rows(&gate.sidecar, 5).iter().map(|row| row["grpc_status"].clone()).collect();
    assert_eq!(statuses, [json!(7), Value::Null, Value::Null, Value::Null, Value::Null]);
}
