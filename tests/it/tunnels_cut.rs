//! How a tunnel ends that nobody ends by himself: by policy, by certificates, by limits, by a stop.

use std::io::{BufRead, BufReader};
use std::process::{Child, Stdio};

use postern_tests::ca::LeafOptions;
use postern_tests::config::client_uri;
use postern_tests::gate::Gate;
use postern_tests::nginx::Nginx;
use postern_tests::websocket::{client, talk};
use serde_json::{Value, json};
use time::{Duration, OffsetDateTime};

use crate::listeners::script;
use crate::observed::{columns, metric, newest, rows, status, wait_metric, wait_readiness, wait_until};
use crate::tunnels::{ASK, agrees, change, gate, kinds_and_reasons, websockets};

/// A client of WebSockets that waits for the end.
struct Idle(Child, BufReader<std::process::ChildStdout>);

impl Idle {
    fn open(gate: &Gate, certificate: &str) -> Self {
        let address = gate.sidecar.listener("gate").unwrap();
        let mut command = client(gate.folder.path(), "idle", address, certificate).unwrap();
        let mut process = command.stdin(Stdio::null()).stdout(Stdio::piped()).spawn().unwrap();
        let output = BufReader::new(process.stdout.take().unwrap());
        let mut idle = Self(process, output);
        assert_eq!(idle.line(), "open\n");
        idle
    }

    fn line(&mut self) -> String {
        let mut line = String::new();
        self.1.read_line(&mut line).unwrap();
        line
    }
}

impl Drop for Idle {
    fn drop(&mut self) {
        // It may have ended already, which is no error here.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[test]
fn a_tunnel_is_cut_when_its_client_would_not_be_let_in_any_more() {
    let (_server, mut gate) = websockets(|_| {});
    let mut doomed = Idle::open(&gate, "billing");
    let mut other = Idle::open(&gate, "reports");
    gate.document["trust"]["revocations"]["identities"] = json!([{ "name": "demo/billing", "state": "Revoked" }]);
    gate.folder.write_document(&gate.document).unwrap();
    assert_eq!(doomed.line(), "broken\n");
    let reason = "policy_identity_revoked";
    let tunnel = json!(["tunnel", "allowed", reason, "demo/billing"]);
    assert_eq!(kinds_and_reasons(&gate, 2), [tunnel, json!(["cut", "refused", reason, "demo/billing"])]);
    gate.sidecar.has_decided(2).unwrap();
    gate.sidecar.kill().unwrap();
    assert_eq!(other.line(), "broken\n", "until then it went on");
}

#[test]
fn a_tunnel_obeys_the_policy_of_today() {
    let (_server, mut gate) = websockets(|document| document["version"] = json!("1.2"));
    let mut doomed = Idle::open(&gate, "billing");
    let mut other = Idle::open(&gate, "reports");
    assert_eq!(metric(&gate.sidecar, "postern_tunnels_open"), 2);
    // The rule has another name, and there is one more, which is none of theirs.
    change(&mut gate, |document| {
        let rules = &mut document["policy"]["routes"][0]["rules"];
        rules[0]["name"] = json!("renamed");
        let mut more = rules[0].clone();
        (more["name"], more["allow"]) = (json!("more"), json!([{ "identity": "demo/mallory" }]));
        more["matches"] = json!([{ "headers": [{ "name": "x-not", "value": "theirs" }] }]);
        *rules = json!([rules[0], more]);
    });
    assert_eq!(metric(&gate.sidecar, "postern_tunnels_open"), 2);
    change(&mut gate, |document| {
        document["policy"]["routes"][0]["rules"][0]["allow"] = json!([{ "identity": "demo/reports" }]);
    });
    assert_eq!(doomed.line(), "broken\n");
    let reason = "policy_not_allowed";
    let tunnel = json!(["tunnel", "allowed", reason, "demo/billing"]);
    assert_eq!(kinds_and_reasons(&gate, 2), [tunnel, json!(["cut", "refused", reason, "demo/billing"])]);
    wait_metric(&gate.sidecar, "postern_tunnels_open", 1);
    // What matched is asked for anew with all that the client sent.
    change(&mut gate, |document| {
        let rules = &mut document["policy"]["routes"][0]["rules"];
        rules[1]["matches"] = json!([{ "headers": [{ "name": "Sec-WebSocket-Protocol", "value": "chat" }] }]);
    });
    assert_eq!(other.line(), "broken\n");
    assert_eq!(kinds_and_reasons(&gate, 4)[1], json!(["tunnel", "allowed", reason, "demo/reports"]));
    gate.sidecar.has_decided(4).unwrap();
}

#[test]
fn a_tunnel_ends_with_the_certificates_it_rests_on() {
    let server = |seconds| LeafOptions {
        not_after: OffsetDateTime::now_utc() + Duration::seconds(seconds),
        ..LeafOptions::server("gate")
    };
    let (_server, gate) = websockets(|_| {});
    let serial = || status(&gate.sidecar).leaf_serial;
    let replace = |seconds| {
        let before = serial();
        gate.authority.issue(&server(seconds)).unwrap().write(gate.folder.path(), "server").unwrap();
        wait_until("the new certificate", || serial() != before);
    };
    replace(8);
    let mut of_the_gate = Idle::open(&gate, "billing");
    replace(3600);
    let expires = OffsetDateTime::now_utc() + Duration::seconds(3);
    let brief = LeafOptions { not_after: expires, ..LeafOptions::client("reports", &client_uri("reports")) };
    gate.keep("brief", &gate.authority.issue(&brief).unwrap()).unwrap();
    let mut of_the_client = Idle::open(&gate, "brief");
    assert_eq!([of_the_gate.line(), of_the_client.line()], ["broken\n", "broken\n"]);
    let mut shown: Vec<_> = kinds_and_reasons(&gate, 4).iter().map(Value::to_string).collect();
    shown.sort_unstable();
    let mut expected = Vec::new();
    for (reason, identity) in [("gate_certificate_expired", "demo/billing"), ("tls_expired", "demo/reports")] {
        expected.push(json!(["cut", "refused", reason, identity]).to_string());
        expected.push(json!(["tunnel", "allowed", reason, identity]).to_string());
    }
    expected.sort_unstable();
    assert_eq!(shown, expected);
    gate.sidecar.has_decided(4).unwrap();
}

#[test]
fn tunnels_are_drained_for_their_time_and_then_cut() {
    let (_server, mut gate) = websockets(|document| document["settings"]["drainTimeout"] = json!("50ms"));
    let mut idle = Idle::open(&gate, "billing");
    gate.sidecar.terminate().unwrap();
    assert_eq!(idle.line(), "broken\n");
    assert_eq!(gate.sidecar.wait_exit().unwrap().code(), Some(0));
    gate.sidecar = gate.sidecar.launch().start_ready().unwrap();
    let reason = "gate_drain_timeout";
    let tunnel = json!(["tunnel", "allowed", reason, "demo/billing"]);
    assert_eq!(kinds_and_reasons(&gate, 2), [tunnel, json!(["cut", "refused", reason, "demo/billing"])]);
}

#[test]
fn tunnels_have_a_limit_of_their_own() {
    let (_server, mut gate) = websockets(|document| {
        document["version"] = json!("1.3");
        document["policy"]["limits"] = json!({ "maxTunnels": 1, "maxStreams": 1 });
    });
    let mut first = Idle::open(&gate, "billing");
    let address = gate.sidecar.listener("gate").unwrap();
    let refused = talk(gate.folder.path(), "idle", address, "reports").unwrap();
    assert_eq!((refused.code, refused.stderr.as_str()), (Some(1), "status 503 limit_tunnels\n"));
    let shown = columns(&newest(&gate.sidecar, 1), &["kind", "verdict", "reason", "status", "attempts"]);
    assert_eq!(shown, json!(["request", "refused", "limit_tunnels", 503, 0]));
    let counted = ["postern_tunnels_open", "postern_tunnels_limit", "postern_streams_open"];
    assert_eq!(counted.map(|name| metric(&gate.sidecar, name)), [1, 1, 0]);
    // The server refuses what is no WebSocket; a request that asks for none finds its place.
    assert_eq!(gate.curl(Some("billing"), "/chat").unwrap().call().unwrap().status, Some(426));
    change(&mut gate, |document| document["policy"]["limits"]["maxTunnels"] = json!(2));
    let _second = Idle::open(&gate, "reports");
    gate.sidecar.has_decided(2).unwrap();
    gate.sidecar.kill().unwrap();
    assert_eq!(first.line(), "broken\n", "until then it was open");
}

/// nginx ends the TLS and speaks HTTP/1.1 to the application behind.
#[test]
fn a_tunnel_over_tls_obeys_what_it_rests_on() {
    let (server, mut gate) = websockets(|document| document["version"] = json!("1.3"));
    let names = vec!["chat.test".to_owned()];
    let leaf = LeafOptions { dns_names: names, serial: Some(vec![0x5a, 0x02]), ..LeafOptions::server("chat") };
    gate.keep("chat", &gate.authority.issue(&leaf).unwrap()).unwrap();
    let folder = gate.folder.path().display();
    let nginx = Nginx::listening(
        "ssl",
        &format!(
            "ssl_certificate {folder}/chat.pem; ssl_certificate_key {folder}/chat.key;
            location /chat {{ proxy_pass http://{}; proxy_http_version 1.1; proxy_read_timeout 1h;
                proxy_set_header Upgrade $http_upgrade; proxy_set_header Connection $http_connection; }}",
            server.address()
        ),
    )
    .unwrap();
    change(&mut gate, |document| {
        let tls = json!({ "serverName": "chat.test", "trust": ["ours"] });
        document["policy"]["routes"][0]["rules"][0]["backends"] = json!([{ "address": nginx.address(), "tls": tls }]);
    });
    let talked = talk(gate.folder.path(), "talk", gate.sidecar.listener("gate").unwrap(), "billing").unwrap();
    assert_eq!((talked.code, talked.text().as_str()), (Some(0), "4001 chat\n4001 chat\n"), "{}", talked.stderr);
    let mut idle = Idle::open(&gate, "billing");
    gate.document["trust"]["revocations"]["serials"] = json!([{ "bundle": "ours", "serial": "5a:02" }]);
    gate.folder.write_document(&gate.document).unwrap();
    assert_eq!(idle.line(), "broken\n");
    // When both ends close at once, nginx resets what it has not read, and that is told.
    let found = rows(&gate.sidecar, 3);
    let shown: Vec<_> = found.iter().map(|row| columns(row, &["kind", "verdict"])).collect();
    assert_eq!(shown, vec![json!(["tunnel", "allowed"]); 3]);
    assert_eq!(found[2]["reason"], json!("upstream_tls_revoked"));
    gate.sidecar.has_decided(3).unwrap();
}

#[test]
fn a_stop_waits_for_tunnels_and_no_longer() {
    let (mut server, mut gate) = websockets(|document| document["settings"]["drainTimeout"] = json!("10m"));
    let mut idle = Idle::open(&gate, "billing");
    gate.sidecar.terminate().unwrap();
    wait_readiness(&gate.sidecar, 503, "not ready: draining\n");
    assert_eq!(metric(&gate.sidecar, "postern_tunnels_open"), 1);
    server.kill().unwrap();
    assert_eq!(idle.line(), "broken\n");
    assert_eq!(gate.sidecar.wait_exit().unwrap().code(), Some(0));
    gate.sidecar = gate.sidecar.launch().start_ready().unwrap();
    // It ended by itself; whether its client said so in TLS before it left is the client's business.
    let found = rows(&gate.sidecar, 1);
    assert_eq!(
        found.iter().map(|row| columns(row, &["kind", "verdict"])).collect::<Vec<_>>(),
        [json!(["tunnel", "allowed"])]
    );
    assert_ne!(found[0]["reason"], json!("gate_drain_timeout"));
}

#[test]
fn the_time_for_a_request_is_not_its_tunnels() {
    let gate = gate(agrees, |document| {
        document["version"] = json!("1.2");
        document["policy"]["routes"][0]["rules"][0]["timeouts"] =
            json!({ "request": "300ms", "backendRequest": "300ms" });
    });
    // That a time has passed without effect can be seen only afterwards: here the script has to wait.
    let text = r#"
client = Tunnel()
client.until(b"\r\n\r\n")
time.sleep(1)
client.send(b"late")
print(client.until(b"late"))
client.end()
print(client.read_all())
"#;
    assert_eq!(script(&gate, &format!("{ASK}{text}")), "late\nb'total 4'\n");
    let row = newest(&gate.sidecar, 1);
    assert_eq!(columns(&row, &["kind", "reason"]), json!(["tunnel", null]));
    assert!(row["duration_us"].as_u64().unwrap() > 1_000_000, "{row}");
    gate.sidecar.has_decided(1).unwrap();
}
