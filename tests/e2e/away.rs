//! Parts of Postern that are not there for a while, or not any more: nothing that passes the gates depends on them.

use postern_tests::wait::eventually;
use serde_json::{Value, json};

use crate::cluster::{OWN, PATIENCE, in_checkout, path};
use crate::load::say;
use crate::scene::{IMAGE, Scene, restricted, rootless};

/// A Deployment of ours that has no pods until this is dropped, however its case ends: others follow.
pub(crate) struct Away<'a> {
    scene: &'a Scene,
    deployment: String,
}

impl<'a> Away<'a> {
    /// Waits until the last of its pods is gone.
    pub(crate) fn begin(scene: &'a Scene, name: &str) -> Self {
        let away = Self { scene, deployment: format!("deployment/{name}") };
        scene.cluster.run(&["-n", OWN, "scale", "--replicas=0", &away.deployment]).unwrap();
        let label = format!("app.kubernetes.io/name={name}");
        eventually(&format!("pods of {name} to be gone"), PATIENCE, || {
            Ok(scene.cluster.run(&["-n", OWN, "get", "pods", "-l", &label, "-o", "name"])?.is_empty().then_some(()))
        })
        .unwrap();
        away
    }
}

impl Drop for Away<'_> {
    fn drop(&mut self) {
        let cluster = self.scene.cluster;
        let scaled = cluster.run(&["-n", OWN, "scale", "--replicas=2", &self.deployment]);
        if let Err(error) = scaled.and_then(|_| cluster.rolled_out(OWN, &self.deployment)) {
            say(&format!("{} does not come back: {error:#}", self.deployment));
        }
    }
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
    let away = Away::begin(&scene, "postern-injector");
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
    drop(away);
    assert!(refused.code == Some(1) && refused.stderr.contains("failed calling webhook"), "{}", refused.stderr);
    exempt.unwrap();
    assert!(called.text().ends_with("\n200"), "{called:?}");
    scene.apply(&pod("asking"));
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
