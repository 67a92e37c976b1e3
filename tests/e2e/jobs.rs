//! Pods that end by themselves, with a gate in front.

use serde_json::json;

use crate::scene::{IMAGE, Scene, restricted, rootless};

/// The gate is an init container that goes on: it ends when the work is done, and the Job is complete. It has to be there
/// first, which the work finds out by itself.
#[test]
fn a_job_with_a_gate_completes() {
    let scene = Scene::new("jobs");
    let work = "wget -q -O - http://127.0.0.1:6190/livez && echo done";
    let container =
        json!({"name": "work", "image": IMAGE, "command": ["sh", "-c", work], "securityContext": restricted()});
    let pod = json!({"restartPolicy": "Never", "containers": [container], "securityContext": rootless()});
    // What selects it is what has it configured: without a route the gate is never ready, and nothing begins behind it.
    scene.apply(&json!({
        "apiVersion": "postern.dev/v1alpha1",
        "kind": "ProxyRoute",
        "metadata": {"name": "report"},
        "spec": {
            "podSelector": {"matchLabels": {"app": "report"}},
            "listener": {"port": 8443},
            "rules": [{"name": "all", "allow": [{"verified": {}}], "backendRefs": [{"localPort": 8080}]}],
        },
    }));
    scene.apply(&json!({
        "apiVersion": "batch/v1",
        "kind": "Job",
        "metadata": {"name": "report"},
        "spec": {"backoffLimit": 0, "template": {"metadata": {"labels": {"app": "report"}}, "spec": pod}},
    }));
    scene.wait("job/report", "Complete").unwrap();
    let pods = scene.kubectl(&["get", "pods", "-l", "app=report", "-o", "json"]).unwrap();
    let pods: serde_json::Value = serde_json::from_str(&pods).unwrap();
    let gate = &pods["items"][0]["status"]["initContainerStatuses"][0];
    assert_eq!(
        (&gate["name"], &gate["state"]["terminated"]["exitCode"]),
        (&json!("postern-sidecar"), &json!(0)),
        "{gate}"
    );
    assert_eq!(pods["items"][0]["metadata"]["labels"]["postern.dev/workload"], "report.job");
}
