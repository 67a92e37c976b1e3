//! Traces of turns, told to a collector that decodes them with OpenTelemetry's own code.

use postern_tests::apiserver::ApiServer;
use postern_tests::clients::Answer;
use postern_tests::collector::Collector;
use postern_tests::rights::Account;
use serde_json::{Value, json};

use super::leading::Process;
use super::monitor::{nobody, series};
use super::scene::Scene;

fn flag(collector: &str) -> String {
    format!("--tracing-endpoint=http://{collector}")
}

/// A scene whose operator traces all its turns.
fn traced(collector: &str) -> Scene {
    let mut scene = Scene::start();
    scene.restart_operator_with(&[&flag(collector)]);
    scene.apply(&scene.service());
    scene.apply(&scene.route(&["billing"]));
    scene.client("billing");
    scene.pods(&["orders-1"]);
    scene
}

fn text<'a>(span: &'a Value, field: &str) -> &'a str {
    span[field].as_str().unwrap()
}

/// Names of the steps of a turn, in the order in which they began.
fn steps<'a>(spans: &'a [Value], turn: &Value) -> Vec<&'a str> {
    let mut steps: Vec<_> = spans.iter().filter(|span| span["parent"] == turn["span"]).collect();
    assert!(steps.iter().all(|step| step["trace"] == turn["trace"]), "{steps:?}");
    steps.sort_by_key(|step| step["start"].as_u64());
    steps.into_iter().map(|step| text(step, "name")).collect()
}

#[test]
fn a_turn_is_a_span_and_its_steps_are_below_it() {
    let collector = Collector::start(&[]).unwrap();
    let scene = traced(&collector.address().to_string());
    scene.wait_programmed(1);
    let namespace = &scene.namespace.name;
    let is_turn = |span: &Value, kind: &str| {
        let about = ["postern.kind", "postern.namespace", "postern.name"].map(|key| span["attributes"][key].clone());
        about == [json!(kind), json!(namespace), json!("orders")]
    };
    // The one that first had something to write, touch and ask, and one of the route's that has told of it.
    let wanted =
        [("workload", vec!["observe", "validate", "plan", "apply", "touch", "ask"]), ("route", vec!["report"])];
    for (kind, expected) in wanted {
        let turn = scene.operator.wait_for("the turn's spans", || {
            let spans = collector.spans(0)?;
            let turns = spans.iter().filter(|span| is_turn(span, kind));
            Ok(turns.into_iter().find(|turn| steps(&spans, turn).starts_with(&expected)).cloned())
        });
        let turn = turn.unwrap();
        assert_eq!((text(&turn, "name"), text(&turn, "parent"), text(&turn, "scope")), (kind, "", "postern-operator"));
        assert_eq!((text(&turn, "kind"), text(&turn, "status")), ("SPAN_KIND_INTERNAL", "STATUS_CODE_UNSET"));
        let result = turn["attributes"]["postern.result"].as_str().unwrap();
        assert!(["done", "again"].contains(&result), "{turn}");
        let resource = &turn["resource"];
        assert_eq!(
            (&resource["service.name"], &resource["service.version"], &resource["k8s.namespace.name"]),
            (&json!("postern-operator"), &json!(env!("CARGO_PKG_VERSION")), &json!(scene.own.name))
        );
        assert!(resource["service.instance.id"].is_string(), "{resource}");
    }
    let requests = collector.requests();
    let path = |request: &Value| (request["path"].clone(), request["contentType"].clone(), request["error"].clone());
    let expected = (json!("/v1/traces"), json!("application/x-protobuf"), json!(""));
    assert!(requests.iter().all(|request| path(request) == expected), "{requests:?}");
    let page = scene.operator.page("/metrics").unwrap().text();
    assert!(series(&page, "postern_operator_trace_spans_exported_total") > 0.0, "{page}");
    assert_eq!(dropped(&page), [0.0; 4], "{page}");
}

fn dropped(page: &str) -> [f64; 4] {
    let reasons = ["queue_full", "rejected", "unavailable", "stopped"];
    reasons.map(|reason| series(page, &format!("postern_operator_trace_spans_dropped_total{{reason=\"{reason}\"}}")))
}

#[test]
fn a_collector_that_is_away_costs_nothing_but_spans() {
    // Port 9 of a loopback address that nobody listens on.
    let scene = traced("127.9.9.9:9");
    scene.wait_programmed(1);
    let lost = || {
        let page = scene.operator.page("/metrics")?.text();
        Ok(Some(page).filter(|page| dropped(page)[2] > 0.0))
    };
    let page = scene.operator.wait_for("the last try", lost).unwrap();
    assert_eq!(series(&page, "postern_operator_trace_spans_exported_total"), 0.0);
    let told = scene.operator.log();
    let told = told.iter().filter(|line| line["message"] == "traces cannot be sent; all else goes on").count();
    assert_eq!(told, 1);
}

/// What a batch has gathered does not wait for its time, and nobody waits for a collector that does not answer.
#[test]
fn what_has_ended_is_sent_before_the_end() {
    let server = ApiServer::shared().unwrap();
    for (flags, is_told) in [(&[][..], true), (&["-delay", "60s"][..], false)] {
        let collector = Collector::start(flags).unwrap();
        let (served, own) = (server.namespace("shop").unwrap(), server.namespace("postern").unwrap());
        let account = Account::make(&own, &[&served]).unwrap();
        let arguments = [
            format!("--operator-namespace={}", own.name),
            format!("--namespaces={}", served.name),
            "--leader-election=Off".to_owned(),
            flag(&collector.address().to_string()),
        ];
        let mut operator = Process::start(&account.kubeconfig, &arguments);
        operator.told("taking turns", "trust_domain");
        operator.wait_turns();
        operator.signal("TERM");
        assert!(operator.wait_end().success(), "{}", operator.log());
        if is_told {
            let spans = collector.spans(1).unwrap();
            assert!(spans.iter().any(|span| span["name"] == "authority"), "{spans:?}");
        } else {
            assert_eq!(collector.requests().len(), 0, "it ended before it was answered");
        }
    }
}

#[test]
fn without_the_setting_there_is_nothing_of_it() {
    let (_folder, kubeconfig) = nobody();
    let shop = "--namespaces=shop".to_owned();
    let plain = Process::start(&kubeconfig, std::slice::from_ref(&shop));
    let traced = Process::start(&kubeconfig, &[shop, flag("127.9.9.9:9")]);
    let pages = [&plain, &traced].map(|operator| Answer::text(&operator.page("/metrics")).contains("_trace_spans_"));
    assert_eq!(pages, [false, true]);
    assert_eq!([plain.threads("traces"), traced.threads("traces")], [0, 1]);
}
