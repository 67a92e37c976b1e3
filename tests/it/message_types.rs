//! What messages are about, through the real gate with curl: in rows, chosen by `log`, and counted.

use postern_tests::gate::Gate;
use postern_tests::grpc::{GrpcServer, call};
use postern_tests::python::python;
use serde_json::{Value, json};

use crate::observed::{columns, metric, newest, rows};

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
    let labels = r#"listener="gate",route="demo/orders",rule="all",message_type"#;
    for (message_type, expected) in [("DERControlResponse", 2), ("DeviceCapability", 2), ("json", 4), ("other", 4)] {
        let series = format!("postern_messages_total{{{labels}=\"{message_type}\"}}");
        assert_eq!(metric(&gate.sidecar, &series), expected, "{message_type}");
    }
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

/// A gate at which `billing` may send one type of message in XML, and JSON, and `reports` anything else.
fn typed() -> Gate {
    Gate::start_with(|document| {
        document["version"] = json!("1.6");
        let rule = document["policy"]["routes"][0]["rules"][0].clone();
        let rule = |name: &str, matches: Value, who: &str| {
            let mut rule = rule.clone();
            (rule["name"], rule["matches"]) = (json!(name), matches);
            rule["allow"] = json!([{ "identity": who }]);
            rule
        };
        document["policy"]["routes"][0]["rules"] = json!([
            rule(
                "responses",
                json!([{ "messageType": "DERControlResponse" }, { "messageType": "json" }]),
                "demo/billing"
            ),
            rule("rest", json!([]), "demo/reports"),
        ]);
    })
    .unwrap()
}

#[test]
fn a_rule_asks_what_the_message_is() {
    let gate = typed();
    // The root's name is in the second of several pieces, and far more follows it.
    let comment = format!("<!--{}-->", "-x".repeat(1000));
    let large = format!("{comment}<DERControlResponse>{}</DERControlResponse>", "<a/>".repeat(100_000));
    let far = format!("{comment}{comment}{comment}<DERControlResponse/>");
    let rows = [
        ("billing", XML, "<a:DERControlResponse/>", 200, "responses", Some("DERControlResponse")),
        ("billing", XML, &large, 200, "responses", Some("DERControlResponse")),
        ("billing", XML, "<Time/>", 403, "rest", Some("Time")),
        ("billing", XML, &far, 403, "rest", Some("other")),
        ("billing", XML, "<DERControlResponse", 403, "rest", Some("other")),
        ("billing", "application/json", "{}", 200, "responses", Some("json")),
        ("billing", "text/plain", "<DERControlResponse/>", 403, "rest", None),
        ("reports", XML, "<DERControlResponse/>", 403, "responses", Some("DERControlResponse")),
        ("reports", XML, "<Time/>", 200, "rest", Some("Time")),
    ];
    let mut count = 0;
    for version in ["--http1.1", "--http2"] {
        for (who, media, body, status, rule, message_type) in rows {
            gate.folder.write("body", body).unwrap();
            let curl = gate.curl(Some(who), "/echo").unwrap().arg(version).arg("-H").arg("expect: 100-continue");
            let curl = curl.arg("-H").arg(format!("content-type: {media}")).arg("--data-binary").arg("@body");
            let answer = curl.call().unwrap();
            assert_eq!(answer.status, Some(status), "{version} {who} {answer:?}");
            if status == 200 {
                assert_eq!(answer.json().unwrap()["bodyBytes"], body.len(), "all of it has come");
            }
            count += 1;
            let row = newest(&gate.sidecar, count);
            assert_eq!(columns(&row, &["rule", "message_type"]), json!([rule, message_type]), "{version} {who}");
        }
    }
    // Without a body there is nothing to wait for.
    assert_eq!(gate.curl(Some("reports"), "/").unwrap().call().unwrap().status, Some(200));
    gate.sidecar.has_decided(count as u64 + 1).unwrap();
}

/// What it waits for comes in pieces, breaks off, or does not come: nothing of it reaches the application before it is
/// decided, and it is not waited for without end.
#[test]
fn a_message_that_comes_slowly_is_waited_for_within_bounds() {
    let gate = typed();
    let script = r#"
def ask(*pieces):
    tls = Tls(ADDRESS)
    tls.send(b"POST / HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\nContent-Type: application/xml\r\nTransfer-Encoding: chunked\r\n\r\n")
    for piece in pieces:
        tls.send(b"%x\r\n%s\r\n" % (len(piece), piece))
        time.sleep(0.01)
    return tls

def status(tls):
    return int(tls.read_all().split()[1])

root = b"<DERControlResponse/>"
whole = ask(*[root[at:at + 1] for at in range(len(root))])
whole.send(b"0\r\n\r\n")
print(status(whole))
bad = ask(b"<DERControl")
bad.send(b"no chunk\r\n")
print(status(bad))
gone = ask(b"<DERControl")
gone.raw.close()
print(status(ask(b"<DERControl")))
"#;
    let finished = python(gate.folder.path(), gate.sidecar.listener("gate").unwrap(), script).unwrap();
    assert_eq!(finished.text(), "200\n400\n408\n", "{finished:?}");
    let shown = |row: &Value| columns(row, &["reason", "status", "message_type"]).to_string();
    let mut shown: Vec<_> = rows(&gate.sidecar, 4).iter().map(shown).collect();
    shown.sort();
    let expected = [
        json!(["client_closed", 499, null]),
        json!(["client_malformed", 400, null]),
        json!(["client_timeout", 408, null]),
        json!([null, 200, "DERControlResponse"]),
    ];
    assert_eq!(shown, expected.map(|row| row.to_string()));
    assert_eq!(gate.upstream.requests(), 1);
}

/// So that a tunnel is under the same rule when it is judged again: whoever asks for one with a body gets no tunnel.
#[test]
fn what_asks_for_a_tunnel_has_no_message() {
    let gate = typed();
    let ask = |body: &[&str]| {
        let curl = gate.curl(Some("billing"), "/switch").unwrap().arg("--http1.1");
        let fields = ["connection: upgrade", "upgrade: test", "content-type: application/json"];
        let curl = fields.iter().fold(curl, |curl, field| curl.arg("-H").arg(*field));
        let curl = body.iter().fold(curl, |curl, word| curl.arg(*word));
        curl.call().unwrap().status
    };
    assert_eq!(ask(&[]), Some(403));
    assert_eq!(columns(&newest(&gate.sidecar, 1), &["rule", "reason"]), json!(["rest", "policy_not_allowed"]));
    // With a body it is an ordinary request, which asks for no protocol.
    assert_eq!(ask(&["--data-binary", "{}"]), Some(502));
    let shown = columns(&newest(&gate.sidecar, 2), &["kind", "rule", "message_type"]);
    assert_eq!(shown, json!(["request", "responses", "json"]));
}
