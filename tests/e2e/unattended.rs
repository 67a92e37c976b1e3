//! Gates that nobody looks after: what they have they live on.

use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use postern_tests::clients::Curl;
use postern_tests::wait::eventually;
use serde_json::{Value, json};

use crate::away::Away;
use crate::cluster::{OWN, PATIENCE};
use crate::load::{Load, say};
use crate::node::{Node, kill, processes};
use crate::scene::{IMAGE, PORT, Scene, Served, restricted, rootless};

/// What the operator writes, which nobody else may.
const POLICY: &str = "postern-policy-orders.deployment";
const OPERATOR: &str = "--as=system:serviceaccount:postern-system:postern-operator";
/// The application's container sees the gate's process, and is of the same user, so that it can end it; and when the
/// kubelet has taken the policy away from the pod.
fn seeing(served: &mut Served) {
    let spec = &mut served.application["spec"]["template"]["spec"];
    spec["shareProcessNamespace"] = json!(true);
    spec["volumes"] = json!([{"name": "seen", "configMap": {"name": POLICY, "optional": true}}]);
    spec["containers"][0]["volumeMounts"] = json!([{"name": "seen", "mountPath": "/seen"}]);
}

/// No operator; then a document that no sidecar reads; then none at all.
#[test]
fn without_an_operator_gates_live_on_what_they_have() {
    let scene = Scene::alone_with("operator", seeing);
    eventually("the good policy", PATIENCE, || {
        Ok(scene.kubectl(&["get", "configmap", &format!("{POLICY}-good"), "-o", "name"]).ok())
    })
    .unwrap();
    let served = policy(&scene, "deployment/orders")["loaded"].clone();
    let away = Away::begin(&scene, "postern-operator");

    scene.kubectl(&["delete", "pod", "-l", "app=orders", "--grace-period=1"]).unwrap();
    let [old] = <[String; 1]>::try_from(scene.settled(1)).unwrap();
    assert_eq!(answer(&scene, &old), "200");

    let patch = json!({"data": {"policy.json": json!({"version": "1.999", "policy": {}}).to_string()}}).to_string();
    scene.kubectl(&["patch", "configmap", POLICY, "--type=merge", "-p", &patch, OPERATOR]).unwrap();
    scene.kubectl(&["scale", "deployment/orders", "--replicas=2"]).unwrap();
    let new = scene.settled(2).into_iter().find(|pod| *pod != old).unwrap();
    let told = policy(&scene, &format!("pod/{new}"));
    assert_eq!((&told["loaded"], told["why"].as_str().is_some()), (&served, true), "{told}");
    assert_eq!(answer(&scene, &new), "200");

    without_any_document(&scene, &new);
    // What could not be read is not there any more: nothing is.
    let told = policy(&scene, &format!("pod/{new}"));
    assert_eq!((&told["loaded"], &told["refused"]), (&served, &Value::Null), "{told}");
    assert_eq!(answer(&scene, &new), "200");

    drop(away);
    scene.cluster.rolled_out(OWN, "deployment/postern-operator").unwrap();
    eventually("the policy to be written again", PATIENCE, || {
        let told = policy(&scene, &format!("pod/{new}"));
        Ok((told["loaded"] == served && told["refused"].is_null()).then_some(()))
    })
    .unwrap();
    assert_eq!(answer(&scene, &new), "200");
}

/// Everything that was written is deleted, is gone from the pod, and then the gate is killed.
fn without_any_document(scene: &Scene, pod: &str) {
    let ours =
        scene.kubectl(&["get", "configmaps,secrets", "-l", "app.kubernetes.io/managed-by=postern", "-o", "name"]);
    let ours = ours.unwrap();
    let ours: Vec<_> = ours.lines().filter(|name| name.contains("/postern-")).collect();
    assert_eq!(ours.len(), 6, "{ours:?}");
    scene.kubectl(&[&["delete", OPERATOR], &ours[..]].concat()).unwrap();
    // The kubelet looks again when something of the pod has changed.
    scene.kubectl(&["annotate", "pod", pod, "tests/touch=now"]).unwrap();
    let script = |script: &str| {
        let words = ["-n", &scene.namespace, "exec", pod, "-c", "app", "--", "sh", "-c", script];
        scene.cluster.kubectl(&words, "").unwrap()
    };
    eventually("the files to be gone from the pod", PATIENCE, || {
        Ok((script("ls /seen").text().is_empty()).then_some(()))
    })
    .unwrap();
    let killed = script("kill -KILL $(pidof postern-sidecar)");
    assert_eq!(killed.code, Some(0), "{}", killed.stderr);
    eventually("another gate", PATIENCE, || {
        let pod: Value = serde_json::from_str(&scene.kubectl(&["get", "pod", pod, "-o", "json"])?)?;
        let gate = &pod["status"]["initContainerStatuses"][0];
        Ok((gate["restartCount"] == 1 && gate["ready"] == true).then_some(()))
    })
    .unwrap();
}

/// What a gate says of its policy.
fn policy(scene: &Scene, whose: &str) -> Value {
    let words = ["exec", whose, "-c", "postern-sidecar", "--", "postern-sidecar", "status", "-o", "json"];
    let status: Value = serde_json::from_str(&scene.kubectl(&words).unwrap()).unwrap();
    status["parts"]["policy"].clone()
}

/// What this very pod answers.
fn answer(scene: &Scene, pod: &str) -> String {
    let address = scene.kubectl(&["get", "pod", pod, "-o", "jsonpath={.status.podIP}"]).unwrap();
    let mut calling = scene.once("billing", "/orders/7", "%{http_code}");
    calling.extend(["--connect-to".to_owned(), format!("::{address}:{PORT}")]);
    let words: Vec<_> = calling.iter().map(String::as_str).collect();
    scene.kubectl(&[&["exec", "client", "--"], &words[..]].concat()).unwrap()
}

/// How long the API server is away where others wait for the end of it: longer than the operator goes on without a Lease,
/// so that it ends and is started again in vain. `make e2e-figures` takes two minutes.
const FEW_SECONDS: u64 = 25;

/// Nor an API server. Calls go on, each is a row, and the kubelet starts what ends.
#[test]
fn without_an_api_server_traffic_rows_and_restarts_go_on() {
    let Some(node) = Node::ours() else {
        say("skipped: the API server is taken away where it is a process of this machine, by `scripts/cluster up`");
        return;
    };
    let scene = Scene::alone_with("api", |_| {});
    let idle = beside(&scene);
    let before = rows(&scene);
    let load = Load::start(&scene);
    let lasts = std::env::var("POSTERN_AWAY_SECONDS").ok().and_then(|text| text.parse().ok()).unwrap_or(FEW_SECONDS);
    node.kill("kube-apiserver").unwrap();
    let end = Instant::now() + Duration::from_secs(lasts);
    let told = killed_and_back(&scene, &idle);
    // It is what it is about: that much time passes.
    thread::sleep(end.saturating_duration_since(Instant::now()));
    node.up().unwrap();
    told.unwrap();
    for deployment in ["deployment/postern-operator", "deployment/postern-injector"] {
        scene.cluster.rolled_out(OWN, deployment).unwrap();
    }
    load.wait_for_more();
    let calls = load.none_failed();
    let rows = rows(&scene) - before;
    // The one that `Load` makes to see that the Service is reached has a row, too.
    assert_eq!(rows, calls + 1, "each call is a row");
    say(&format!("{lasts} s without API server and operator: {calls} calls, none failed, each is a row"));
    // Whoever comes back does what there is to do.
    scene
        .kubectl(&["patch", "clientidentity/billing", "--type=merge", "-p", r#"{"spec": {"state": "Suspended"}}"#])
        .unwrap();
    eventually("a refusal", PATIENCE, || {
        Ok(scene.call(Some("billing"), "/orders/7").text().ends_with("\n403").then_some(()))
    })
    .unwrap();
}

/// Rows of requests of the application's gate.
fn rows(scene: &Scene) -> usize {
    let count = "select count(*) as n from requests where kind = 'request'";
    let words = ["exec", "deployment/orders", "-c", "postern-sidecar", "--", "postern-sidecar", "log", "-o", "json"];
    // What was answered a moment ago is written within the next.
    let mut last = None;
    eventually("the last row", PATIENCE, || {
        let told: Value = serde_json::from_str(&scene.kubectl(&[&words[..], &["--sql", count]].concat())?)?;
        let now = told["n"].as_u64().or_else(|| told[0]["n"].as_u64()).and_then(|count| usize::try_from(count).ok());
        let is_same = now.is_some() && now == last;
        last = now;
        if !is_same {
            thread::sleep(Duration::from_millis(500));
        }
        Ok(now.filter(|_| is_same))
    })
    .unwrap()
}

/// Another pod with a gate, which nobody calls. Its name and address.
fn beside(scene: &Scene) -> [String; 2] {
    let mut route: Value =
        serde_json::from_str(&scene.kubectl(&["get", "proxyroute/orders", "-o", "json"]).unwrap()).unwrap();
    let mut spec = route["spec"].take();
    spec["podSelector"] = json!({"matchLabels": {"app": "idle"}});
    scene.apply(&json!({
        "apiVersion": "postern.dev/v1alpha1", "kind": "ProxyRoute", "metadata": {"name": "idle"}, "spec": spec,
    }));
    let container = json!({
        "name": "app", "image": IMAGE, "command": ["tail", "-f", "/dev/null"], "securityContext": restricted(),
    });
    scene.apply(&json!({
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": "idle", "labels": {"app": "idle"}},
        "spec": {"containers": [container], "securityContext": rootless(), "terminationGracePeriodSeconds": 0},
    }));
    scene.wait("pod/idle", "Ready").unwrap();
    let address = scene.kubectl(&["get", "pod/idle", "-o", "jsonpath={.status.podIP}"]).unwrap();
    ["idle".to_owned(), address]
}

/// The operators end, and so does a gate, which is ready again a moment later.
fn killed_and_back(scene: &Scene, [pod, address]: &[String; 2]) -> Result<()> {
    for operator in processes("postern-operator", &["KUBERNETES_SERVICE_PORT_HTTPS=443"]) {
        kill(&operator)?;
    }
    let own = format!("POSTERN__POD__NAMESPACE={}", scene.namespace);
    let name = format!("POSTERN__POD__NAME={pod}");
    let gate = || processes("postern-sidecar", &[&own, &name]).pop();
    let old = gate().context("a gate")?;
    kill(&old)?;
    eventually("another gate", PATIENCE, || Ok(gate().filter(|new| *new != old)))?;
    eventually("the gate to be ready", PATIENCE, || {
        let told = Curl::new(format!("http://{address}:6190/readyz")).call();
        Ok(told.is_ok_and(|told| told.status == Some(200)).then_some(()))
    })
}
