//! The real webhook on a real API server, under the configuration that is shipped.

mod rotation;
mod scene;

use std::io::Write;
use std::net::TcpStream;
use std::process::Command;
use std::time::{SystemTime, UNIX_EPOCH};

use postern_operator::inject::{self, Common, Verdict};
use postern_tests::apiserver::Namespace;
use postern_tests::clients::{Curl, run};
use postern_tests::injector::Meddler;
use postern_tests::operator::Operator;
use postern_tests::wait::PATIENCE;
use serde_json::{Value, json};

use self::scene::{Webhook, app, gate, named, of_deployment};
use crate::monitoring::assert_documented;
use crate::operator::monitor::series;
use crate::operator::scene::Scene;

fn common() -> Common {
    let image = "registry.example/postern-sidecar:tests".to_owned();
    Common { image, image_pull_policy: None, status_port: 6190 }
}

#[test]
fn pods_that_ask_get_a_gate_and_others_do_not() {
    let webhook = Webhook::shared();
    let (asking, silent) = (webhook.namespace(Some("enabled")), webhook.namespace(None));
    let disabling = webhook.namespace(Some("disabled"));
    let rows = [
        (&asking, None, true),
        (&asking, Some("disabled"), false),
        (&silent, None, false),
        (&silent, Some("enabled"), true),
        (&disabling, None, false),
        (&disabling, Some("enabled"), true),
    ];
    for (index, (namespace, label, expected)) in rows.into_iter().enumerate() {
        let mut pod = named(app(), &format!("pod-{index}"));
        if let Some(label) = label {
            pod["metadata"]["labels"] = json!({"postern.dev/inject": label});
        }
        let created = webhook.create(namespace, &pod).unwrap();
        assert_eq!(gate(&created).is_some(), expected, "{label:?} in {}: {created}", namespace.name);
    }
    let mut on_the_node = named(app(), "on-the-node");
    on_the_node["spec"]["hostNetwork"] = json!(true);
    let finished = asking.kubectl(&["create", "-f", "-"], &on_the_node.to_string()).unwrap();
    let warning = "Warning: postern: the pod gets no sidecar: it uses the network of its node (hostNetwork)";
    assert!(finished.code == Some(0) && finished.stderr.starts_with(warning), "{}", finished.stderr);
}

#[test]
fn a_pod_of_a_deployment_is_its_workloads() {
    let webhook = Webhook::shared();
    let namespace = webhook.namespace(Some("enabled"));
    let pod = of_deployment("orders", "5d4");
    let created = webhook.create(&namespace, &pod).unwrap();
    assert_eq!(created["metadata"]["labels"]["postern.dev/workload"], "orders.deployment");
    assert_eq!(created["metadata"]["annotations"]["kubectl.kubernetes.io/default-container"], "app");
    let names: Vec<_> = created["spec"]["volumes"].as_array().unwrap().iter().map(|one| one["name"].clone()).collect();
    assert_eq!(names, ["postern-config", "postern-state", "postern-log"]);
    assert_eq!(gate(&created).unwrap()["image"], common().image);
}

/// The namespace takes nothing that is less than restricted, and bounds everything that is in it.
#[test]
fn a_gate_passes_pod_security_and_a_second_look_changes_nothing() {
    let webhook = Webhook::shared();
    let namespace = webhook.namespace(Some("enabled"));
    namespace.run(&["label", "namespace", &namespace.name, "pod-security.kubernetes.io/enforce=restricted"]).unwrap();
    let refused = webhook.create(&namespace, &named(app(), "plain")).unwrap_err().to_string();
    assert!(refused.contains("violates PodSecurity") && !refused.contains("postern-sidecar"), "{refused}");
    namespace
        .apply(&json!({
            "apiVersion": "v1", "kind": "LimitRange", "metadata": {"name": "bounds"},
            "spec": {"limits": [{"type": "Container", "default": {"cpu": "500m"}, "max": {"cpu": "1", "memory": "1Gi"}}]},
        }))
        .unwrap();
    let mut pod = named(app(), "restricted");
    pod["spec"]["containers"][0]["securityContext"] = json!({
        "runAsNonRoot": true, "allowPrivilegeEscalation": false, "capabilities": {"drop": ["ALL"]},
        "seccompProfile": {"type": "RuntimeDefault"},
    });
    let created = webhook.create(&namespace, &pod).unwrap();
    let bounds = json!({"cpu": "500m", "memory": "64Mi"});
    assert_eq!(gate(&created).unwrap()["resources"]["limits"], bounds, "what a LimitRange sets stays");
    let Verdict::Injected(again) = inject::pod(&created, true, &common()) else { panic!("no gate") };
    assert_eq!(inject::patch(&created, &again.object), [""; 0]);
}

#[test]
fn a_dry_run_shows_the_gate_and_makes_nothing() {
    let webhook = Webhook::shared();
    let namespace = webhook.namespace(Some("enabled"));
    let pod = named(app(), "dry");
    let shown = namespace.kubectl(&["create", "--dry-run=server", "-o", "json", "-f", "-"], &pod.to_string()).unwrap();
    let shown: Value = serde_json::from_str(&shown.text()).unwrap();
    assert!(gate(&shown).is_some(), "{shown}");
    assert_eq!(namespace.object("pod/dry").unwrap(), None);
}

/// The other webhook comes later, and puts its own container in front.
#[test]
fn the_gate_is_first_also_after_another_webhook() {
    let webhook = Webhook::shared();
    let namespace = webhook.namespace(Some("enabled"));
    let meddler = Meddler::start().unwrap();
    let configuration = meddler.configuration(&namespace).unwrap();
    namespace.apply(&configuration).unwrap();
    let names = |pod: &Value| -> Vec<Value> {
        let containers = pod["spec"]["initContainers"].as_array().cloned().unwrap_or_default();
        containers.into_iter().map(|mut one| one["name"].take()).collect()
    };
    // The API server learns of a configuration a moment after it was applied.
    let mut number = 0;
    let seen = webhook.wait_for("the other webhook", || {
        number += 1;
        let names = names(&webhook.create(&namespace, &named(app(), &format!("pod-{number}")))?);
        Ok(names.contains(&json!("meddler")).then_some(names))
    });
    let name = configuration["metadata"]["name"].as_str().unwrap();
    namespace.run(&["delete", "mutatingwebhookconfiguration", name]).unwrap();
    assert_eq!(seen, ["postern-sidecar", "meddler"]);
}

#[test]
fn what_an_annotation_says_wrongly_comes_to_whoever_applies_it() {
    let webhook = Webhook::shared();
    let namespace = webhook.namespace(Some("enabled"));
    let mut pod = named(app(), "wrong");
    pod["metadata"]["annotations"] =
        json!({"config.postern.dev/log-level": "Loud", "config.postern.dev/memory": "1Gi"});
    let finished = namespace.kubectl(&["create", "-f", "-"], &pod.to_string()).unwrap();
    let told = "admission webhook \"namespace.inject.postern.dev\" denied the request: \
        annotation config.postern.dev/memory is not known; there are ";
    assert!(finished.stderr.contains(told), "{}", finished.stderr);
    let told = "; annotation config.postern.dev/log-level: `Loud` is no level; write Error, Warn, Info or Debug";
    assert!(finished.code == Some(1) && finished.stderr.trim_end().ends_with(told), "{}", finished.stderr);
}

/// Nobody who has not asked for a gate waits for the webhook.
#[test]
fn while_the_webhook_is_away_only_pods_that_ask_are_not_made() {
    let webhook = Webhook::shared();
    let (asking, silent) = (webhook.namespace(Some("enabled")), webhook.namespace(None));
    let away = webhook.away(&[&asking, &silent]);
    let labelled = |value: &str| {
        let mut pod = app();
        pod["metadata"] = json!({"generateName": "pod-", "labels": {"postern.dev/inject": value}});
        pod
    };
    let mut plain = app();
    plain["metadata"] = json!({"generateName": "pod-"});
    let refused = webhook.wait_for("the API server to know of it", || Ok(webhook.create(&asking, &plain).err()));
    assert!(refused.to_string().contains("failed calling webhook"), "{refused}");
    assert!(webhook.create(&silent, &labelled("enabled")).is_err());
    assert!(webhook.create(&asking, &labelled("disabled")).is_ok());
    assert!(webhook.create(&silent, &plain).is_ok());
    asking.run(&["delete", "mutatingwebhookconfiguration", &away]).unwrap();
}

/// From a pod that knows of no gate to a call that passes its gate: the container that the webhook has put in is run as it
/// is written, with the volume that it names.
#[test]
fn from_injection_to_a_call() {
    let webhook = Webhook::shared();
    let scene = Scene::start();
    scene.namespace.run(&["label", "namespace", &scene.namespace.name, "postern.dev/inject=enabled"]).unwrap();
    scene.apply(&scene.service());
    scene.apply(&scene.route(&["billing"]));
    scene.client("billing");
    let mut pod = of_deployment("orders", "5d4");
    pod["metadata"]["labels"]["app"] = json!("orders");
    pod["metadata"]["annotations"] = json!({"config.postern.dev/probes": "forward"});
    let port = scene.upstream.address().port();
    pod["spec"]["containers"][0]["readinessProbe"] = json!({"httpGet": {"path": "/healthz", "port": port}});
    let created = webhook.create(&scene.namespace, &pod).unwrap();
    let name = created["metadata"]["name"].as_str().unwrap();
    scene.wait_condition("proxyroute/orders", "Programmed", "True", "Programmed");
    scene.wait_condition("clientidentity/billing", "Ready", "True", "Ready");
    scene.keep_certificate("billing");
    scene.wait_answer(name, "billing", (Some(200), None));
    assert_eq!(scene.call(name, None).status, None, "nobody gets in without a certificate");
    let probe = &created["spec"]["containers"][0]["readinessProbe"]["httpGet"];
    let address = scene.kubelet.with(name, |pod| Ok(pod.address())).unwrap();
    let url = format!("http://{address}:{}{}", probe["port"], probe["path"].as_str().unwrap());
    assert_eq!(Curl::new(url).within(PATIENCE).call().unwrap().status, Some(200), "as the kubelet asks");
    let status = scene.namespace.object("proxyroute/orders").unwrap().unwrap()["status"].take();
    assert_eq!(status["workloads"][0]["name"], "orders.deployment");
}

/// Pods that were made before their namespace asked for gates.
#[test]
fn what_is_reviewed_is_counted_and_measured() {
    let webhook = Webhook::shared();
    let namespace = webhook.namespace(Some("enabled"));
    let value = |name: &str| series(&webhook.metrics().unwrap(), name);
    let result = |result: &str| value(&format!("postern_injector_reviews_total{{result=\"{result}\"}}"));
    let results = || ["injected", "untouched", "refused"].map(result);
    let before = results();
    webhook.create(&namespace, &named(app(), "gated")).unwrap();
    let mut on_the_node = named(app(), "on-the-node");
    on_the_node["spec"]["hostNetwork"] = json!(true);
    webhook.create(&namespace, &on_the_node).unwrap();
    let mut wrong = named(app(), "wrong");
    wrong["metadata"]["annotations"] = json!({"config.postern.dev/log-level": "Loud"});
    webhook.create(&namespace, &wrong).unwrap_err();
    // Other tests have pods reviewed at the same time.
    let grown =
        |before: [f64; 3]| results().iter().zip(before).map(|(after, before)| after - before).collect::<Vec<_>>();
    assert!(grown(before).iter().all(|more| *more >= 1.0), "{before:?} {:?}", results());
    // Whoever speaks no TLS there.
    let failed = value("postern_injector_handshakes_failed_total");
    TcpStream::connect(("127.0.0.1", webhook.port())).unwrap().write_all(b"GET / HTTP/1.1\r\n\r\n").unwrap();
    webhook.wait_for("the handshake to be counted", || {
        Ok((value("postern_injector_handshakes_failed_total") > failed).then_some(()))
    });
    let page = webhook.metrics().unwrap();
    let checked = run(Command::new("promtool").args(["check", "metrics"]), page.as_bytes(), PATIENCE).unwrap();
    assert_eq!(format!("{}{}", checked.text(), checked.stderr), "", "{page}");
    assert_documented(&page);
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs_f64();
    let left = series(&page, "postern_injector_certificate_not_after_timestamp_seconds") - now;
    assert!((1.0..=400.0 * 86_400.0).contains(&left), "{left} of {page}");
    assert!(series(&page, "postern_injector_review_duration_seconds_count") >= 3.0, "{page}");
    assert!(series(&page, "process_resident_memory_bytes") > 0.0, "{page}");
    assert_eq!(series(&page, "postern_injector_reviews_total{result=\"unreadable\"}"), 0.0);
    assert!(page.contains("result=\"unreadable\"} 0"), "what has not happened yet is told, too: {page}");
}

#[test]
fn pods_without_a_gate_are_told_of() {
    let webhook = Webhook::shared();
    let (own, namespace) = (webhook.namespace(None), webhook.namespace(None));
    let mut forged = named(app(), "forged");
    let labels = json!({"postern.dev/sidecar": env!("CARGO_PKG_VERSION"), "postern.dev/workload": "forged.pod"});
    forged["metadata"]["labels"] = labels;
    let mut exempt = named(app(), "exempt");
    exempt["metadata"]["labels"] = json!({"postern.dev/inject": "disabled"});
    let mut on_the_node = named(app(), "on-the-node");
    on_the_node["spec"]["hostNetwork"] = json!(true);
    for pod in [named(app(), "plain"), forged, exempt, on_the_node] {
        webhook.create(&namespace, &pod).unwrap();
    }
    namespace.run(&["label", "namespace", &namespace.name, "postern.dev/inject=enabled"]).unwrap();
    for pod in ["gated", "old", "stray"] {
        webhook.create(&namespace, &named(app(), pod)).unwrap();
    }
    namespace.run(&["label", "--overwrite", "pod/old", "postern.dev/sidecar=0.0.1"]).unwrap();
    namespace.run(&["label", "pod/stray", "postern.dev/workload-"]).unwrap();
    let missing = "it should have a sidecar and has none; nothing guards it until it is made anew";
    let expected = [
        ("forged", missing),
        ("old", "its sidecar is of another version; make it anew to have this one"),
        ("plain", missing),
        (
            "stray",
            "its sidecar is of no workload, for want of label postern.dev/workload, and nothing is written for it; make it anew",
        ),
    ];
    let expected = expected.map(|(pod, message)| (format!("{}/{pod}", namespace.name), message.to_owned()));
    // Another one that leads says the same in its log; what is told to everybody is told once.
    let events = ["published", "known"].map(|outcome| {
        let operator = Operator::start(&own, &namespace).unwrap();
        let told = operator.wait_for("what the auditor tells", || {
            let text = |value: &Value| value.as_str().map(str::to_owned);
            let log = operator.log().into_iter();
            let told = log.filter_map(|line| Some((text(&line["pod"])?, text(&line["message"])?)));
            Ok(Some(told.collect::<Vec<_>>()).filter(|told| told.len() >= 4))
        });
        assert_eq!(told.unwrap(), expected);
        let count = format!("postern_operator_events_total{{outcome=\"{outcome}\"}}");
        let sent = || Ok((series(&operator.page("/metrics")?.text(), &count) == 4.0).then_some(()));
        operator.wait_for(outcome, sent).unwrap();
        let page = operator.page("/metrics").unwrap().text();
        for (reason, expected) in [("missing", 2.0), ("old", 1.0), ("stray", 1.0)] {
            let name = format!("postern_operator_pods_without_sidecar{{reason=\"{reason}\"}}");
            assert_eq!(series(&page, &name), expected, "{page}");
        }
        events(&namespace)
    });
    let told = [
        "forged Warning SidecarMissing",
        "old Normal SidecarOld",
        "plain Warning SidecarMissing",
        "stray Warning SidecarStray",
    ];
    assert_eq!(events, [told, told]);
    let shown = namespace.run(&["events", "--for", "pod/plain"]).unwrap();
    assert!(shown.contains("SidecarMissing") && shown.contains(missing), "{shown}");
}

/// Name, type and reason of the events that are told of pods.
fn events(namespace: &Namespace<'_>) -> Vec<String> {
    let list: Value = serde_json::from_str(&namespace.run(&["get", "events", "-o", "json"]).unwrap()).unwrap();
    let events = list["items"].as_array().cloned().unwrap_or_default();
    let ours = events.iter().filter(|event| event["reportingComponent"] == "postern-operator");
    let each = ours.map(|event| {
        let words = [&event["involvedObject"]["name"], &event["type"], &event["reason"]];
        words.map(|word| word.as_str().unwrap_or_default()).join(" ")
    });
    let mut each: Vec<_> = each.collect();
    each.sort_unstable();
    each
}

/// As the pod of `helm test` asks: the API, who leads, and the webhook under the authority that API servers trust.
#[test]
fn a_check_tells_what_works_and_what_does_not() {
    let webhook = Webhook::shared();
    let checked = webhook.check(None);
    let text = checked.text();
    let lines: Vec<_> = text.lines().collect();
    assert_eq!(lines.len(), 4, "{text}{}", checked.stderr);
    assert_eq!(lines[0], "api: proxyroutes and clientidentities are served");
    assert!(lines[1].starts_with("operator: ") && lines[1].ends_with(" leads"), "{text}");
    for (line, way) in lines[2..].iter().zip(["namespace", "pod"]) {
        assert_eq!(*line, format!("webhook: {way}.inject.postern.dev puts a gate into a pod"));
    }
    let elsewhere = webhook.check(Some("elsewhere"));
    assert_eq!(elsewhere.code, Some(1));
    assert!(elsewhere.stderr.starts_with("lease elsewhere/postern-operator: "), "{}", elsewhere.stderr);
}
