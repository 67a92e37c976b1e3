//! Pods that come and go while they are called: no request fails.

use postern_tests::wait::eventually;
use serde_json::{Value, json};

use crate::cluster::PATIENCE;
use crate::load::{Load, say};
use crate::scene::{Scene, Served};

/// Two replicas. The application stays for a moment when its pod ends, as everything behind a Service has to; the gate ends
/// after it.
fn in_two(served: &mut Served) {
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

/// As `kubectl drain` empties a node, but for the node itself: on one alone, nothing could come back before it has gone.
#[test]
fn pods_that_are_evicted_one_after_the_other_fail_no_request() {
    let scene = Scene::serving_with("evicted", in_two);
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
    let load = Load::start(&scene);
    let [first, second] = <[String; 2]>::try_from(scene.pods()).unwrap();
    evict(&scene, &first).unwrap();
    // Not both: the gate's readiness counts for the budget as the application's does.
    let refused = evict(&scene, &second).unwrap_err();
    assert!(refused.contains("Cannot evict pod as it would violate the pod's disruption budget"), "{refused}");
    eventually("the second one's turn", PATIENCE, || Ok(evict(&scene, &second).ok())).unwrap();
    scene.settled(2);
    assert!(scene.pods().iter().all(|pod| *pod != first && *pod != second));
    load.wait_for_more();
    say(&format!("two evictions: {} calls, none failed", load.none_failed()));
}

fn evict(scene: &Scene, pod: &str) -> Result<(), String> {
    let eviction =
        json!({"apiVersion": "policy/v1", "kind": "Eviction", "metadata": {"name": pod, "namespace": scene.namespace}});
    let place = format!("/api/v1/namespaces/{}/pods/{pod}/eviction", scene.namespace);
    let said = scene.cluster.kubectl(&["create", "--raw", &place, "-f", "-"], &eviction.to_string()).unwrap();
    if said.code == Some(0) { Ok(()) } else { Err(said.stderr) }
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
