//! Traces of requests, told to a collector that decodes them with OpenTelemetry's own code.

use std::fs;
use std::time::{SystemTime, UNIX_EPOCH};

use postern_tests::clients::Answer;
use postern_tests::collector::Collector;
use postern_tests::gate::Gate;
use serde_json::{Value, json};

use crate::observed::{metric, newest, page, wait_metric, wait_until};

const TRACE: &str = "0af7651916cd43dd8448eb211c80319c";
const PARENT: &str = "b7ad6b7169203331";
const EXPORTED: &str = "postern_trace_spans_exported_total";

fn gate(endpoint: &str, ratio: f64) -> Gate {
    gate_with(endpoint, ratio, |_| {})
}

fn gate_with(endpoint: &str, ratio: f64, change: impl FnOnce(&mut Value)) -> Gate {
    Gate::start_with(|document| {
        document["version"] = json!("1.3");
        document["settings"]["tracing"] = json!({ "endpoint": endpoint, "samplingRatio": ratio });
        document["settings"]["pod"] =
            json!({ "name": "orders-1", "uid": "uid-1", "namespace": "demo", "workload": "orders" });
        let orders = json!([{ "path": { "type": "PathPrefix", "value": "/orders" } }]);
        document["policy"]["routes"][0]["rules"][0]["matches"] = orders;
        change(document);
    })
    .unwrap()
}

fn at(collector: &Collector) -> String {
    format!("http://{}", collector.address())
}

fn call(gate: &Gate, who: &str, protocol: &str, flags: Option<&str>) -> Answer {
    let curl = gate.curl(Some(who), "/orders/7?secret=1").unwrap().arg(protocol);
    let curl = match flags {
        Some(flags) => curl.arg("-H").arg(format!("traceparent: 00-{TRACE}-{PARENT}-{flags}")),
        None => curl,
    };
    curl.arg("-H").arg("tracestate: vendor=kept").call().unwrap()
}

/// The one value of a field that the application saw, if it saw one.
fn seen(answer: &Answer, name: &str) -> Option<String> {
    let echo = answer.json().unwrap();
    let field = echo["headers"].as_array().unwrap().iter().find(|pair| pair[0] == name)?;
    field[1].as_str().map(str::to_owned)
}

fn nanoseconds() -> u64 {
    u64::try_from(SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_nanos()).unwrap()
}

fn text<'a>(span: &'a Value, field: &str) -> &'a str {
    span[field].as_str().unwrap()
}

/// Some fields of a span.
fn fields(span: &Value, names: &[&str]) -> Value {
    json!(names.iter().map(|name| span[*name].clone()).collect::<Vec<_>>())
}

/// A span's attributes without those that are another in each run, which only have to be there.
fn attributes(span: &Value, others: &[&str]) -> Value {
    let mut attributes = span["attributes"].as_object().unwrap().clone();
    for name in others {
        assert!(attributes.remove(*name).is_some(), "no {name} in {span}");
    }
    Value::Object(attributes)
}

#[test]
fn a_request_is_two_spans_below_whoever_asked() {
    let collector = Collector::start(&[]).unwrap();
    let gate = gate(&at(&collector), 0.0);
    let port = gate.sidecar.listener("gate").unwrap().port();
    for (index, (protocol, version)) in [("--http1.1", "1.1"), ("--http2", "2")].into_iter().enumerate() {
        let before = nanoseconds();
        let answer = call(&gate, "billing", protocol, Some("01"));
        let spans = collector.spans(2 * index + 2).unwrap().split_off(2 * index);
        let after = nanoseconds();
        let (server, client) = (&spans[0], &spans[1]);
        assert_eq!(
            fields(server, &["trace", "parent", "name", "kind", "status", "flags", "scope"]),
            json!([TRACE, PARENT, "GET /orders/*", "SPAN_KIND_SERVER", "STATUS_CODE_UNSET", 0x301, "postern-sidecar"])
        );
        assert_eq!(
            fields(client, &["trace", "parent", "name", "kind", "status", "flags"]),
            json!([TRACE, text(server, "span"), "GET", "SPAN_KIND_CLIENT", "STATUS_CODE_UNSET", 0x101])
        );
        // Below the span that the application's own will be below.
        let traceparent = format!("00-{TRACE}-{}-01", text(client, "span"));
        assert_eq!(seen(&answer, "traceparent"), Some(traceparent), "{protocol}");
        assert_eq!(seen(&answer, "tracestate").as_deref(), Some("vendor=kept"));
        let time = |span: &Value, field: &str| span[field].as_u64().unwrap();
        let times = [time(server, "start"), time(client, "start"), time(client, "end"), time(server, "end")];
        assert!(
            before / 1000 * 1000 <= times[0] && times.is_sorted() && times[3] <= after,
            "{before} {times:?} {after}"
        );
        let own = ["client.port", "network.peer.port", "postern.request_id"];
        assert_eq!(
            attributes(server, &own),
            json!({
                "http.request.method": "GET", "url.path": "/orders/7", "url.scheme": "https", "server.address": "localhost",
                "server.port": port, "http.route": "/orders/*", "http.response.status_code": 200,
                "network.protocol.version": version, "client.address": "127.0.0.1", "network.peer.address": "127.0.0.1",
                "postern.route": "demo/orders", "postern.rule": "all", "postern.verdict": "allowed",
                "postern.identity": "demo/billing",
            })
        );
        let upstream = gate.upstream.address();
        assert_eq!(
            attributes(client, &[]),
            json!({
                "http.request.method": "GET", "url.full": format!("http://{upstream}/orders/7"),
                "server.address": "127.0.0.1", "server.port": upstream.port(), "network.peer.address": "127.0.0.1",
                "network.peer.port": upstream.port(), "http.response.status_code": 200,
            })
        );
        let row = newest(&gate.sidecar, index + 1);
        assert_eq!(
            (row["trace_id"].as_str(), &row["request_id"]),
            (Some(TRACE), &server["attributes"]["postern.request_id"])
        );
        assert_eq!(time(server, "end") - time(server, "start"), row["duration_us"].as_u64().unwrap() * 1000);
        assert_eq!(
            server["resource"],
            json!({
                "service.name": "orders", "service.version": env!("CARGO_PKG_VERSION"), "k8s.pod.name": "orders-1",
                "k8s.pod.uid": "uid-1", "k8s.namespace.name": "demo", "service.instance.id": "uid-1",
            })
        );
    }
    let requests = collector.requests();
    assert!(requests.iter().all(|request| request["path"] == "/v1/traces" && request["error"] == ""), "{requests:?}");
    assert_eq!(requests[0]["contentType"], "application/x-protobuf");
}

#[test]
fn what_goes_wrong_is_told_on_the_side_that_is_wrong() {
    let collector = Collector::start(&[]).unwrap();
    let gate = gate_with(&at(&collector), 1.0, |document| {
        let rules = &mut document["policy"]["routes"][0]["rules"];
        let mut away = rules[0].clone();
        away["name"] = json!("away");
        away["matches"] = json!([{ "path": { "type": "Exact", "value": "/away" } }]);
        // Port 9 of a loopback address that nobody listens on.
        away["backends"] = json!([{ "address": "127.9.9.9:9" }]);
        let mut status = rules[0].clone();
        status["name"] = json!("status");
        status["matches"] = json!([{ "path": { "type": "PathPrefix", "value": "/status" } }, { "path": { "type": "PathPrefix", "value": "/close" } }]);
        let rules = rules.as_array_mut().unwrap();
        rules.extend([away, status]);
    });
    type Side = (&'static str, Option<u16>, Option<&'static str>);
    let (fine, error) = ("STATUS_CODE_UNSET", "STATUS_CODE_ERROR");
    let table: [(&str, &str, &str, Side, Option<Side>); 7] = [
        ("reports", "/orders/7", "GET /orders/*", (fine, Some(403), None), None),
        ("billing", "/nowhere", "GET", (fine, Some(404), None), None),
        ("billing", "/status?code=404", "GET", (fine, Some(404), None), Some((error, Some(404), Some("404")))),
        ("billing", "/status?code=503", "GET", (error, Some(503), Some("503")), Some((error, Some(503), Some("503")))),
        (
            "billing",
            "/close",
            "GET",
            (error, Some(502), Some("upstream_reset")),
            Some((error, None, Some("upstream_reset"))),
        ),
        (
            "billing",
            "/away",
            "GET /away",
            (error, Some(502), Some("upstream_connect")),
            Some((error, None, Some("upstream_connect"))),
        ),
        ("billing", "/orders/8", "INVENTED", (fine, Some(200), None), Some((fine, Some(200), None))),
    ];
    let mut count = 0;
    for (who, path, name, server, client) in table {
        let curl = gate.curl(Some(who), path).unwrap();
        let curl = if name == "INVENTED" { curl.arg("-X").arg(name) } else { curl };
        let _answer = curl.call().unwrap();
        let sides: Vec<_> = [Some(server), client].into_iter().flatten().collect();
        let spans = collector.spans(count + sides.len()).unwrap().split_off(count);
        count += sides.len();
        assert_eq!(spans.len(), sides.len(), "{path}: {spans:?}");
        for (span, (status, code, error)) in spans.iter().zip(sides) {
            let all = &span["attributes"];
            assert_eq!(
                (&span["status"], &all["http.response.status_code"], &all["error.type"]),
                (&json!(status), &json!(code), &json!(error)),
                "{path}: {span}"
            );
        }
        if name == "INVENTED" {
            let method =
                ["http.request.method", "http.request.method_original"].map(|key| &spans[0]["attributes"][key]);
            assert_eq!((text(&spans[0], "name"), method), ("HTTP /orders/*", [&json!("_OTHER"), &json!("INVENTED")]));
        } else {
            assert_eq!(text(&spans[0], "name"), name, "{path}");
        }
        let reason = newest(&gate.sidecar, 1)["reason"].clone();
        assert_eq!(spans[0]["attributes"]["postern.reason"], reason, "{path}");
    }
}

#[test]
fn whoever_asks_decides_what_is_traced_and_else_the_ratio() {
    for ratio in [0.0, 1.0] {
        let collector = Collector::start(&[]).unwrap();
        let mut gate = gate(&at(&collector), ratio);
        let unsampled = call(&gate, "billing", "--http2", Some("00"));
        let as_it_came = format!("00-{TRACE}-{PARENT}-00");
        assert_eq!(seen(&unsampled, "traceparent"), Some(as_it_came), "what is not traced passes");
        assert_eq!(newest(&gate.sidecar, 1)["trace_id"], TRACE);
        let root = call(&gate, "billing", "--http2", None);
        let row = newest(&gate.sidecar, 2);
        let sampled = call(&gate, "billing", "--http2", Some("01"));
        assert!(seen(&sampled, "traceparent").is_some_and(|place| !place.contains(PARENT)), "what is traced does not");
        // A stop sends what is there, so that nothing can come later.
        gate.sidecar.terminate().unwrap();
        assert!(gate.sidecar.wait_exit().unwrap().success());
        let spans = collector.spans(if ratio > 0.0 { 4 } else { 2 }).unwrap();
        let traces: Vec<_> = spans.iter().map(|span| text(span, "trace")).collect();
        if ratio > 0.0 {
            let trace = row["trace_id"].as_str().unwrap();
            assert_eq!(traces, [trace, trace, TRACE, TRACE]);
            let traceparent = format!("00-{trace}-{}-03", text(&spans[1], "span"));
            assert_eq!((seen(&root, "traceparent"), text(&spans[0], "parent")), (Some(traceparent), ""));
        } else {
            assert_eq!((traces, seen(&root, "traceparent")), (vec![TRACE, TRACE], None));
            assert!(row["trace_id"].is_null(), "{row}");
        }
    }
}

#[test]
fn a_batch_goes_again_when_the_collector_asks_for_it() {
    let collector = Collector::start(&["-statuses", "503,429", "-retry-after", "2"]).unwrap();
    let gate = gate(&at(&collector), 1.0);
    call(&gate, "billing", "--http2", None);
    wait_metric(&gate.sidecar, EXPORTED, 2);
    // What it has answered it tells a moment later.
    collector.spans(2).unwrap();
    let requests = collector.requests();
    let statuses: Vec<_> = requests.iter().map(|request| request["status"].as_u64().unwrap()).collect();
    assert_eq!(statuses, [503, 429, 200]);
    let spans: Vec<_> = requests.iter().map(|request| &request["spans"]).collect();
    assert!(spans.iter().all(|same| *same == spans[0]), "the same each time");
    let times: Vec<_> = requests.iter().map(|request| request["at"].as_u64().unwrap()).collect();
    // What it asked for, and not the gate's own second.
    assert!(times.is_sorted_by(|before, after| after - before >= 2_000_000_000), "{times:?}");
    assert_eq!(dropped(&gate), [0; 4]);
}

#[test]
fn what_a_collector_will_not_have_is_counted_and_not_sent_again() {
    let collector = Collector::start(&["-statuses", "400"]).unwrap();
    let gate = gate(&at(&collector), 1.0);
    call(&gate, "reports", "--http2", None);
    wait_until("the refusal", || dropped(&gate) == [0, 1, 0, 0]);
    call(&gate, "billing", "--http2", None);
    wait_metric(&gate.sidecar, EXPORTED, 2);
    assert_eq!(collector.requests().len(), 2);
}

fn dropped(gate: &Gate) -> [u64; 4] {
    let reasons = ["queue_full", "rejected", "unavailable", "stopped"];
    reasons.map(|reason| metric(&gate.sidecar, &format!("postern_trace_spans_dropped_total{{reason=\"{reason}\"}}")))
}

#[test]
fn a_collector_that_is_away_or_slow_costs_nothing_but_spans() {
    // Port 9 of a loopback address that nobody listens on.
    let away = gate("http://127.9.9.9:9", 1.0);
    let collector = Collector::start(&["-delay", "3s"]).unwrap();
    let slow = gate(&at(&collector), 1.0);
    for gate in [&away, &slow] {
        for _ in 0..20 {
            assert_eq!(call(gate, "billing", "--http2", None).status, Some(200));
        }
        newest(&gate.sidecar, 20);
        assert_eq!(metric(&gate.sidecar, EXPORTED), 0, "all were answered before");
    }
    wait_metric(&slow.sidecar, EXPORTED, 40);
    wait_until("the last try", || dropped(&away)[2] > 0);
    let told = away.sidecar.lines();
    let told = told.iter().filter(|line| line.message() == "traces cannot be sent; all else goes on").count();
    assert_eq!((told, dropped(&slow)), (1, [0; 4]));
}

#[test]
fn a_stop_waits_for_a_collector_no_longer_than_it_may() {
    let collector = Collector::start(&["-delay", "60s"]).unwrap();
    let mut gate = gate(&at(&collector), 1.0);
    assert_eq!(call(&gate, "billing", "--http2", None).status, Some(200));
    gate.sidecar.terminate().unwrap();
    assert!(gate.sidecar.wait_exit().unwrap().success());
    assert!(collector.requests().is_empty(), "it ended before it was answered");
}

#[test]
fn without_the_setting_there_is_nothing_of_it() {
    let threads = |gate: &Gate| {
        let tasks = fs::read_dir(format!("/proc/{}/task", gate.sidecar.id())).unwrap();
        let names = tasks.map(|task| fs::read_to_string(task.unwrap().path().join("comm")).unwrap_or_default());
        names.filter(|name| name.trim() == "traces").count()
    };
    let traced = gate("http://127.9.9.9:9", 0.0);
    let plain = Gate::start().unwrap();
    assert_eq!([threads(&traced), threads(&plain)], [1, 0]);
    let pages = [&traced, &plain].map(|gate| page(&gate.sidecar, "/metrics").text().contains("postern_trace"));
    assert_eq!(pages, [true, false]);
    let as_it_came = call(&plain, "billing", "--http2", Some("01"));
    assert_eq!(seen(&as_it_came, "traceparent"), Some(format!("00-{TRACE}-{PARENT}-01")));
}
