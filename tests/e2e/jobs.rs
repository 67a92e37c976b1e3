//! Pods that end by themselves, with a gate in front.

use serde_json::{Value, json};

use crate::scene::{IMAGE, Scene, restricted, rootless};

/// Work that finds out by itself that the gate is there first.
fn work() -> Value {
    let work = "wget -q -O - http://127.0.0.1:6190/livez && echo done";
    let container =
        json!({"name": "work", "image": IMAGE, "command": ["sh", "-c", work], "securityContext": restricted()});
    let pod = json!({"restartPolicy": "Never", "containers": [container], "securityContext": rootless()});
    json!({"backoffLimit": 0, "template": {"metadata": {"labels": {"app": "report"}}, "spec": pod}})
}

/// What selects it is what has it configured: without a route the gate is never ready, and nothing begins behind it.
fn route() -> Value {
    json!({
        "apiVersion": "postern.dev/v1alpha1",
        "kind": "ProxyRoute",
        "metadata": {"name": "report"},
        "spec": {
            "podSelector": {"matchLabels": {"app": "report"}},
            "listener": {"port": 8443},
            "rules": [{"name": "all", "allow": [{"verified": {}}], "backendRefs": [{"localPort": 8080}]}],
        },
    })
}

/// The gate has ended well, and everything was written for the workload that is made of who controls it.
fn ended_well(scene: &Scene, workload: &str) {
    let pods: Value =
        serde_json::from_str(&scene.kubectl(&["get", "pods", "-l", "app=report", "-o", "json"]).unwrap()).unwrap();
    let gate = &pods["items"][0]["status"]["initContainerStatuses"][0];
    assert_eq!(
        (&gate["name"], &gate["state"]["terminated"]["exitCode"]),
        (&json!("postern-sidecar"), &json!(0)),
        "{gate}"
    );
    assert_eq!(pods["items"][0]["metadata"]["labels"]["postern.dev/workload"], workload);
}

/// The gate is an init container that goes on: it ends when the work is done, and the Job is complete.
#[test]
fn a_job_with_a_gate_completes() {
    let scene = Scene::new("jobs");
    scene.apply(&route());
    scene.apply(&json!({"apiVersion": "batch/v1", "kind": "Job", "metadata": {"name": "report"}, "spec": work()}));
    scene.wait("job/report", "Complete").unwrap();
    ended_well(&scene, "report.job");
}

/// Each of its Jobs has another name, and the gates of all are one workload.
#[test]
fn a_job_that_comes_every_minute_completes_with_its_gate() {
    let scene = Scene::new("cron");
    scene.apply(&route());
    scene.apply(&json!({
        "apiVersion": "batch/v1",
        "kind": "CronJob",
        "metadata": {"name": "nightly"},
        "spec": {"schedule": "* * * * *", "concurrencyPolicy": "Forbid", "jobTemplate": {"spec": work()}},
    }));
    let first = scene.appears("jobs");
    scene.wait(&first, "Complete").unwrap();
    ended_well(&scene, "nightly.cronjob");
}
