//! Workloads whose pods are gone.

use serde_json::{Value, json};

use super::scene::Scene;

const POLICY: &str = "configmap/postern-policy-orders";

/// Since when the workload has had no pod, as it is written down.
fn since(scene: &Scene) -> Option<String> {
    let object = scene.namespace.object(POLICY).unwrap()?;
    object["metadata"]["annotations"]["postern.dev/unused-since"].as_str().map(str::to_owned)
}

/// Names of all that was written for the workload.
fn objects(scene: &Scene) -> Vec<String> {
    let arguments = ["get", "configmaps,secrets", "-l", "postern.dev/workload=orders", "-o", "name"];
    scene.namespace.run(&arguments).unwrap().lines().map(str::to_owned).collect()
}

fn delete_pod(scene: &Scene) {
    scene.namespace.run(&["delete", "pod/orders-1", "--grace-period=0", "--force"]).unwrap();
}

fn wait_marked(scene: &Scene, is_marked: bool) {
    let is_so = || Ok((since(scene).is_some() == is_marked).then_some(()));
    scene.operator.wait_for(&format!("marked {is_marked}"), is_so).unwrap();
}

#[test]
fn what_was_written_waits_for_pods_and_goes_when_none_has_come_for_long() {
    let mut scene = Scene::start();
    scene.apply(&scene.route(&["billing"]));
    scene.pods(&["orders-1"]);
    scene.wait_programmed(1);
    scene.wait_promoted();
    let all = objects(&scene);
    assert_eq!(all.len(), 5, "{all:?}");
    delete_pod(&scene);
    wait_marked(&scene, true);
    assert_eq!(objects(&scene), all, "who comes again starts with it");
    let (marked, before) = (since(&scene), scene.settled_writes());
    scene.restart_operator();
    scene.client("late");
    scene.wait_condition("clientidentity/late", "Ready", "True", "Ready");
    let written = scene.writes().split_off(before.len());
    let touched: Vec<_> = written.iter().filter(|write| write.contains("orders")).collect();
    assert_eq!((since(&scene), touched), (marked, Vec::<&String>::new()), "a restart is no reason to begin anew");

    scene.pods(&["orders-1"]);
    scene.wait_programmed(1);
    wait_marked(&scene, false);

    delete_pod(&scene);
    wait_marked(&scene, true);
    let patch: Value = json!({"metadata": {"annotations": {"postern.dev/unused-since": "1000000000"}}});
    scene.namespace.run(&["patch", POLICY, "--type=merge", "--patch", &patch.to_string()]).unwrap();
    let are_gone = || Ok(objects(&scene).is_empty().then_some(()));
    scene.operator.wait_for("all of it to be gone", are_gone).unwrap();
    scene.pods(&["orders-1"]);
    scene.wait_programmed(1);
}
