//! Pods that come and go while they are called: no request fails.

use std::thread;

use postern_tests::wait::eventually;
use serde_json::{Value, json};

use crate::cluster::PATIENCE;
use crate::load::{Load, say};
use crate::scene::{Scene, Served};

/// Two replicas. The application stays for a moment when its pod ends, as everything behind a Service has to; the gate ends
/// after it.
pub(crate) fn in_two(served: &mut Served) {
    let application = &mut served.application;
    application["spec"]["replicas"] = json!(2);
    application["spec"]["template"]["spec"]["containers"][0]["lifecycle"] =
        json!({"preStop": {"sleep": {"seconds": 5}}});
}

#[test]
fn a_rolling_restart_and_other_numbers_fail_no_request() {
    let scene = Scene::serving_with("rolling", in_two);
    let load = Load::start(&scene);
    scene.kubectl(&["rollout", "restart", "deployment/orders"]).unwrap();
    scene.settled(2);
    for replicas in [4, 1] {
        scene.kubectl(&["scale", "deployment/orders", &format!("--replicas={replicas}")]).unwrap();
        scene.settled(replicas);
        load.wait_for_more();
    }
    say(&format!("a rolling restart, to four, to one: {} calls, none failed", load.none_failed()));
}

/// Of its node the case's own pods alone are evicted. There may be no other node, so that it takes pods again as soon as the
/// first of them goes.
#[test]
fn a_node_that_is_drained_fails_no_request() {
    let scene = Scene::serving_with("drained", |served| {
        in_two(served);
        served.application["spec"]["template"]["metadata"]["labels"]["case"] = json!("drained");
    });
    scene.apply(&json!({
        "apiVersion": "policy/v1",
        "kind": "PodDisruptionBudget",
        "metadata": {"name": "orders"},
        "spec": {"minAvailable": 1, "selector": {"matchLabels": {"app": "orders"}}},
    }));
    eventually("the budget to be known", PATIENCE, || {
        let allowed = scene.kubectl(&["get", "pdb/orders", "-o", "jsonpath={.status.disruptionsAllowed}"])?;
        Ok((allowed == "1").then_some(()))
    })
    .unwrap();
    let before = scene.pods();
    let node = scene.kubectl(&["get", "pod", &before[0], "-o", "jsonpath={.spec.nodeName}"]).unwrap();
    let load = Load::start(&scene);
    let drained = thread::scope(|scope| {
        let drain = scope.spawn(|| {
            let words = "--pod-selector=case=drained --ignore-daemonsets --delete-emptydir-data --timeout=170s";
            let words: Vec<_> = ["drain", &node].into_iter().chain(words.split(' ')).collect();
            scene.cluster.kubectl(&words, "").unwrap()
        });
        let cordoned = Cordoned { scene: &scene, node: &node };
        let going = "jsonpath={.items[*].metadata.deletionTimestamp}";
        let first = eventually("a pod to go", PATIENCE, || {
            let going = scene.kubectl(&["get", "pods", "-l", "case=drained", "-o", going])?;
            Ok((!going.is_empty() || scene.pods() != before).then_some(()))
        });
        drop(cordoned);
        first.unwrap();
        drain.join().unwrap()
    });
    assert_eq!(drained.code, Some(0), "{drained:?}");
    let is_alone = drained.text().matches("evicted").count() < 2;
    // Not both at once: the gate's readiness counts for the budget as the application's does.
    assert!(is_alone || drained.stderr.contains("would violate the pod's disruption budget"), "{drained:?}");
    let after = scene.settled(2);
    assert!(!after.contains(&before[0]), "{before:?}, {after:?}");
    load.wait_for_more();
    say(&format!("a drained node: {} calls, none failed", load.none_failed()));
}

/// A node that takes no pods until this is dropped.
struct Cordoned<'a> {
    scene: &'a Scene,
    node: &'a str,
}

impl Drop for Cordoned<'_> {
    fn drop(&mut self) {
        let _ = self.scene.cluster.run(&["uncordon", self.node]);
    }
}

/// Old pods and new ones are of one workload, and each serves the route that selects its labels.
#[test]
fn a_rollout_that_changes_labels_fails_no_request() {
    let select = |release: &str| json!({"matchLabels": {"app": "orders", "release": release}});
    let mut other = Value::Null;
    let scene = Scene::serving_with("labels", |served| {
        in_two(served);
        served.application["spec"]["template"]["metadata"]["labels"]["release"] = json!("one");
        served.route["spec"]["podSelector"] = select("one");
        other = served.route.clone();
    });
    other["metadata"]["name"] = json!("orders-two");
    other["spec"]["podSelector"] = select("two");
    scene.apply(&other);
    let load = Load::start(&scene);
    let labels = json!({"spec": {"template": {"metadata": {"labels": {"release": "two"}}}}}).to_string();
    scene.kubectl(&["patch", "deployment/orders", "--type=merge", "-p", &labels]).unwrap();
    scene.settled(2);
    scene.wait("proxyroute/orders-two", "Ready").unwrap();
    load.wait_for_more();
    say(&format!("a rollout to other labels: {} calls, none failed", load.none_failed()));
}
