//! What messages are about, through the real gate with curl: in rows, chosen by `log`, and counted.

use postern_tests::gate::Gate;
use postern_tests::grpc::{GrpcServer, call};
use serde_json::{Value, json};

use crate::observed::{columns, newest, rows};

const XML: &str = "application/sep+xml";

/// What a request says and is answered; `None` is no body.
struct Exchange {
    sent: Option<(&'static str, &'static str)>,
    answered: (&'static str, &'static str),
    message_type: Option<&'static str>,
}

const EXCHANGES: [Exchange; 11] = [
    Exchange { sent: None, answered: (XML, "<DeviceCapability/>"), message_type: Some("DeviceCapability") },
    Exchange { sent: None, answered: ("text/plain", "<DeviceCapability/>"), message_type: None },
    Exchange { sent: None, answered: ("application/json", "{}"), message_type: Some("json") },
    Exchange { sent: None, answered: ("application/sep-exi", "x"), message_type: Some("exi") },
    Exchange { sent: None, answered: (XML, ""), message_type: None },
    Exchange {
        sent: Some((
            XML,
            "<?xml version='1.0'?><!-- <Time/> --><a:DERControlResponse xmlns:a='urn:ieee:std:2030.5:ns'/>",
        )),
        answered: ("application/json", "{}"),
        message_type: Some("DERControlResponse"),
    },
    Exchange { sent: Some((XML, "<html/>")), answered: (XML, "<Time/>"), message_type: Some("other") },
    Exchange { sent: Some((XML, "<EndDevice")), answered: (XML, "<Time/>"), message_type: Some("other") },
    Exchange { sent: Some(("application/json", "{}")), answered: (XML, "<Time/>"), message_type: Some("json") },
    Exchange { sent: Some(("text/plain", "x")), answered: (XML, "<Time/>"), message_type: Some("Time") },
    Exchange { sent: Some(("text/plain", "x")), answered: ("text/html", "x"), message_type: None },
];

#[test]
fn what_a_body_says_is_in_the_row() {
    let gate = Gate::start().unwrap();
    let mut count = 0;
    for version in ["--http1.1", "--http2"] {
        for Exchange { sent, answered: (media, answer), message_type } in EXCHANGES {
            let curl = gate.curl(Some("billing"), "/answer").unwrap().arg(version);
            // Without a value curl would send none of an empty one.
            let answer_field = if answer.is_empty() { "answer;".to_owned() } else { format!("answer: {answer}") };
            let curl = curl.arg("-H").arg(answer_field).arg("-H").arg(format!("answer-type: {media}"));
            let curl = match sent {
                Some((media, body)) => {
                    curl.arg("-H").arg(format!("content-type: {media}")).arg("--data-binary").arg(body)
                }
                None => curl,
            };
            let called = curl.call().unwrap();
            assert_eq!((called.status, called.text().as_str()), (Some(200), answer), "{called:?}");
            count += 1;
            let row = newest(&gate.sidecar, count);
            assert_eq!(columns(&row, &["message_type"]), json!([message_type]), "{version} {sent:?} {answer}");
        }
    }
    chosen(&gate);
    gate.sidecar.has_decided(count as u64).unwrap();
}

/// `log` chooses by them.
fn chosen(gate: &Gate) {
    let log = |message_type: &str| {
        let arguments = ["--message-type", message_type, "--output", "json"];
        gate.sidecar.launch().subcommand("log", &arguments).unwrap()
    };
    for (message_type, expected) in [("DERControlResponse", 2), ("Time", 2), ("json", 4), ("other", 4), ("a.B/C", 0)] {
        let rows: Vec<Value> = log(message_type).text().lines().map(|row| serde_json::from_str(row).unwrap()).collect();
        assert_eq!(rows.len(), expected, "{message_type}");
        assert!(rows.iter().all(|row| row["message_type"] == message_type), "{rows:?}");
    }
    let unknown = log("EndDevices");
    assert_eq!(unknown.code, Some(2), "{unknown:?}");
    assert!(unknown.stderr.contains("write a root element of IEEE 2030.5"), "{}", unknown.stderr);
}

#[test]
fn what_is_refused_before_its_body_came_says_nothing() {
    let gate = Gate::start().unwrap();
    let curl = gate.curl(Some("reports"), "/answer").unwrap();
    let curl = curl.arg("-H").arg(format!("content-type: {XML}")).arg("--data-binary").arg("<EndDevice/>");
    assert_eq!(curl.call().unwrap().status, Some(403));
    assert_eq!(columns(&newest(&gate.sidecar, 1), &["reason", "message_type"]), json!(["policy_not_allowed", null]));
}

#[test]
fn methods_of_grpc_are_those_that_paths_name() {
    let server = GrpcServer::start(None).unwrap();
    let gate = Gate::start_with(|document| {
        document["version"] = json!("1.3");
        let backends = json!([{ "address": server.address(), "protocol": "HTTP2" }]);
        let rule = |name: &str, kind: &str, path: &str, who: &str| {
            let matches = json!([{ "path": { "type": kind, "value": path } }]);
            json!({ "name": name, "matches": matches, "allow": [{ "identity": who }], "backends": backends })
        };
        document["policy"]["routes"][0]["rules"] = json!([
            rule("one", "Exact", "/postern.test.Echo/Unary", "demo/billing"),
            rule("service", "PathPrefix", "/postern.test.Echo", "demo/reports"),
        ]);
    })
    .unwrap();
    let address = gate.sidecar.listener("gate").unwrap();
    for method in ["Unary", "Stream"] {
        call(address, gate.folder.path(), method, &["hello"]).unwrap();
    }
    let shown: Vec<_> =
        rows(&gate.sidecar, 2).iter().map(|row| columns(row, &["rule", "verdict", "message_type"])).collect();
    let expected =
        [json!(["one", "allowed", "postern.test.Echo/Unary"]), json!(["service", "refused", "postern.test.Echo/*"])];
    assert_eq!(shown, expected);
}
