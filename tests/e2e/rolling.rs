//! Pods that are replaced while they are called.

use std::thread;

use postern_tests::wait::eventually;
use serde_json::json;

use crate::cluster::PATIENCE;
use crate::scene::{Scene, as_words};

/// Calls again and again until a file is there, one line each: the status, or what curl says.
const LOOP: &str = r#"until [ -e /tmp/stop ]; do curl "$@" -o /dev/null 2>&1; echo; : >/tmp/begun; done"#;

/// The application stays for a moment when its pod ends, as everything behind a Service has to; the gate ends after it.
#[test]
fn a_rolling_restart_fails_no_request() {
    let scene = Scene::serving("rolling");
    let patch = json!([
        {"op": "add", "path": "/spec/replicas", "value": 2},
        {"op": "add", "path": "/spec/template/spec/containers/0/lifecycle", "value": {"preStop": {"sleep": {"seconds": 5}}}},
    ]);
    scene.kubectl(&["patch", "deployment/orders", "--type=json", "-p", &patch.to_string()]).unwrap();
    scene.cluster.rolled_out(&scene.namespace, "deployment/orders").unwrap();
    // Those of before, which had no time to go, are not what this is about.
    eventually("the pods of before to be gone", PATIENCE, || {
        let pods = scene.kubectl(&["get", "pods", "-l", "app=orders", "-o", "name"])?;
        Ok((pods.lines().count() == 2).then_some(()))
    })
    .unwrap();
    let calling = scene.calling(Some("billing"), "/orders/7");
    // A refused connection is a failure here.
    let once: Vec<_> =
        calling[1..].iter().filter(|word| !word.starts_with("--retry") && *word != "10").cloned().collect();
    let words = [["exec", "client", "--", "sh", "-c", LOOP, "sh"].as_slice(), &as_words(&once)].concat();
    let told = thread::scope(|scope| {
        let load = scope.spawn(|| scene.kubectl(&words));
        let begun = ["exec", "client", "--", "ls", "/tmp/begun"];
        eventually("the first call", PATIENCE, || Ok(scene.kubectl(&begun).ok())).unwrap();
        let restarted = scene.kubectl(&["rollout", "restart", "deployment/orders"]).and_then(|_| {
            scene.cluster.rolled_out(&scene.namespace, "deployment/orders")?;
            scene.kubectl(&["exec", "client", "--", "sh", "-c", ": >/tmp/stop"])
        });
        restarted.unwrap();
        load.join().unwrap().unwrap()
    });
    let lines: Vec<_> = told.lines().filter(|line| !line.is_empty()).collect();
    let failed: Vec<_> = lines.iter().filter(|line| **line != "200").collect();
    assert!(failed.is_empty() && lines.len() > 20, "{} calls: {failed:?}", lines.len());
}
