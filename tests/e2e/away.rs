//! Parts of Postern that are not there for a while, or not any more: nothing that passes the gates depends on them.

use postern_tests::wait::eventually;
use serde_json::{Value, json};

use crate::cluster::{OWN, PATIENCE, in_checkout, path};
use crate::scene::{IMAGE, Scene, restricted, rootless};

/// Ends all pods of a Deployment of ours.
fn take_away(scene: &Scene, name: &str) {
    scene.cluster.run(&["-n", OWN, "scale", "--replicas=0", &format!("deployment/{name}")]).unwrap();
    let label = format!("app.kubernetes.io/name={name}");
    eventually(&format!("pods of {name} to be gone"), PATIENCE, || {
        Ok(scene.cluster.run(&["-n", OWN, "get", "pods", "-l", &label, "-o", "name"])?.is_empty().then_some(()))
    })
    .unwrap();
}

fn bring_back(scene: &Scene, name: &str) {
    let deployment = format!("deployment/{name}");
    scene.cluster.run(&["-n", OWN, "scale", "--replicas=2", &deployment]).unwrap();
    scene.cluster.rolled_out(OWN, &deployment).unwrap();
}

fn pod(name: &str) -> Value {
    let container =
        json!({"name": "app", "image": IMAGE, "command": ["tail", "-f", "/dev/null"], "securityContext": restricted()});
    json!({
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": name},
        "spec": {"containers": [container], "securityContext": rootless(), "terminationGracePeriodSeconds": 0},
    })
}

#[test]
fn while_the_webhook_is_away_only_pods_that_ask_wait() {
    let scene = Scene::alone("webhook");
    take_away(&scene, "postern-injector");
    let mut asking = pod("asking");
    asking["metadata"]["namespace"] = json!(scene.namespace);
    let refused = scene.cluster.kubectl(&["create", "-f", "-"], &asking.to_string()).unwrap();
    let exempt = {
        let mut pod = pod("exempt");
        pod["metadata"]["labels"] = json!({"postern.dev/inject": "disabled"});
        scene.apply(&pod);
        scene.wait("pod/exempt", "Ready")
    };
    let called = scene.call(Some("billing"), "/orders/7");
    bring_back(&scene, "postern-injector");
    assert!(refused.code == Some(1) && refused.stderr.contains("failed calling webhook"), "{}", refused.stderr);
    exempt.unwrap();
    assert!(called.text().ends_with("\n200"), "{called:?}");
    scene.apply(&pod("asking"));
}

#[test]
fn while_the_operator_is_away_pods_come_and_are_called() {
    let scene = Scene::alone("operator");
    take_away(&scene, "postern-operator");
    scene.kubectl(&["delete", "pod", "-l", "app=orders", "--grace-period=1"]).unwrap();
    let started = scene.cluster.rolled_out(&scene.namespace, "deployment/orders");
    let called = scene.call(Some("billing"), "/orders/7");
    bring_back(&scene, "postern-operator");
    started.unwrap();
    assert!(called.text().ends_with("\n200"), "{called:?}");
}

/// A release with other values, taken back, and gone: what is served stays, and so does what users own.
#[test]
fn a_release_is_upgraded_rolled_back_and_removed() {
    let scene = Scene::alone("release");
    let cluster = scene.cluster;
    let chart = in_checkout("charts/postern");
    let level = |expected: &str| {
        let deployment = ["-n", OWN, "get", "deployment/postern-operator", "-o", "jsonpath={..args}"];
        let arguments = cluster.run(&deployment).unwrap();
        assert!(arguments.contains(&format!("--log-level={expected}")), "{arguments}");
        cluster.rolled_out(OWN, "deployment/postern-operator").unwrap();
    };
    cluster
        .helm(&["-n", OWN, "upgrade", "postern", path(&chart).unwrap(), "--set", "operator.logLevel=Debug"])
        .unwrap();
    level("Debug");
    cluster.helm(&["-n", OWN, "rollback", "postern"]).unwrap();
    level("Info");
    let manifest = cluster.helm(&["-n", OWN, "get", "manifest", "postern"]).unwrap();
    cluster.helm(&["-n", OWN, "uninstall", "postern", "--wait"]).unwrap();
    let left = cluster.kubectl(&["get", "--ignore-not-found", "-o", "name", "-f", "-"], &manifest).unwrap();
    let called = scene.call(Some("billing"), "/orders/7");
    let owned = scene.kubectl(&["get", "clientidentities", "-o", "name"]);
    cluster.install().unwrap();
    assert_eq!((left.code, left.text().as_str()), (Some(0), ""), "{}", left.stderr);
    assert!(called.text().ends_with("\n200"), "{called:?}");
    assert_eq!(owned.unwrap(), "clientidentity.postern.dev/billing\nclientidentity.postern.dev/reports\n");
    // Authorities are data: whoever comes back signs with the same.
    scene.wait("clientidentity/billing", "Ready").unwrap();
    assert!(scene.call(Some("billing"), "/orders/7").text().ends_with("\n200"));
}
