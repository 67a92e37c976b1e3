//! How whoever is told of a failure finds its row: the ids of requests and traces, with real clients.

use postern_tests::clients::Curl;
use postern_tests::gate::Gate;
use serde_json::{Value, json};

use crate::observed::newest;

const TRACE: &str = "0af7651916cd43dd8448eb211c80319c";
const PROTOCOLS: [&str; 2] = ["--http1.1", "--http2"];

fn gate(trusted_hops: u8) -> Gate {
    Gate::start_with(|document| {
        document["version"] = json!("1.2");
        document["policy"]["forwarding"] = json!({ "trustedHops": trusted_hops });
    })
    .unwrap()
}

fn call(gate: &Gate, certificate: &str, protocol: &str, told: &str) -> Curl {
    let curl = gate.curl(Some(certificate), "/orders/1").unwrap().arg(protocol);
    let traceparent = format!("traceparent: 00-{TRACE}-b7ad6b7169203331-00");
    curl.arg("-H").arg(traceparent).arg("-H").arg(format!("X-Request-Id: {told}"))
}

/// The one value of a field that the application saw.
fn seen(echo: &Value, name: &str) -> String {
    let fields = echo["headers"].as_array().unwrap().iter().filter(|pair| pair[0] == name);
    let values: Vec<_> = fields.map(|pair| pair[1].as_str().unwrap()).collect();
    assert_eq!(values.len(), 1, "{name} in {echo}");
    values[0].to_owned()
}

/// What the `log` command finds for one condition.
fn found(gate: &Gate, arguments: &[&str]) -> Vec<Value> {
    let printed = gate.sidecar.launch().subcommand("log", &[arguments, &["-o", "json"]].concat()).unwrap();
    assert_eq!((printed.code, printed.stderr.as_str()), (Some(0), ""), "{arguments:?}");
    printed.text().lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

#[test]
fn a_request_is_found_by_its_ids() {
    const UUID: &str = "7d444840-9dc0-41d1-b245-5ffdce74fad2";
    for (trusted_hops, told) in [(0, UUID), (1, UUID), (1, "a:b/c")] {
        let gate = gate(trusted_hops);
        let mut count = 0;
        for protocol in PROTOCOLS {
            let case = format!("{trusted_hops} {told} {protocol}");
            let passed = call(&gate, "billing", protocol, told).call().unwrap();
            count += 1;
            let row = newest(&gate.sidecar, count);
            let id = seen(&passed.json().unwrap(), "x-request-id");
            assert_eq!((row["request_id"].as_str(), row["trace_id"].as_str()), (Some(&*id), Some(TRACE)), "{case}");
            assert_eq!(id == told, trusted_hops > 0, "{case}");
            assert_eq!(passed.header("x-request-id"), None, "{case}: the application's answer is its own");

            let refused = call(&gate, "reports", protocol, told).call().unwrap();
            assert_eq!(refused.header("postern-reason"), Some("policy_not_allowed"), "{case}");
            count += 1;
            let row = newest(&gate.sidecar, count);
            let answered = refused.header("x-request-id").unwrap();
            assert_eq!((row["request_id"].as_str(), row["trace_id"].as_str()), (Some(answered), Some(TRACE)), "{case}");
            if trusted_hops == 0 {
                // Like the row's own, it begins with the request's time.
                assert_eq!(answered[..18], row["id"].as_str().unwrap()[..18], "{case}");
                let rows = found(&gate, &["--request-id", answered]);
                assert_eq!(rows, [row], "{case}");
            }
        }
        assert_eq!(found(&gate, &["--trace-id", TRACE]).len(), count, "{trusted_hops} {told}");
        assert_eq!(
            found(&gate, &["--request-id", UUID]).len(),
            if told == UUID && trusted_hops > 0 { count } else { 0 }
        );
    }
}

#[test]
fn what_the_gate_cannot_forward_is_found_by_the_id_in_its_answer() {
    let gate = Gate::start_with(|document| {
        // Port 9 of a loopback address that nobody listens on.
        document["policy"]["routes"][0]["rules"][0]["backends"] = json!([{ "address": "127.9.9.9:9" }]);
    })
    .unwrap();
    let answer = gate.curl(Some("billing"), "/orders/1").unwrap().call().unwrap();
    assert_eq!((answer.status, answer.header("postern-reason")), (Some(502), Some("upstream_connect")));
    let row = newest(&gate.sidecar, 1);
    assert_eq!(row["request_id"].as_str(), answer.header("x-request-id"));
    assert!(row["request_id"].is_string() && row["trace_id"].is_null(), "{row}");
}
