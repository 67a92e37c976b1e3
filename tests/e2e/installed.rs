//! What is shipped, as a real API server takes it, and as it runs when it was installed in another way.

use serde_json::{Value, json};

use crate::cluster::{Cluster, OWN, in_checkout, path};
use crate::scene::Scene;

/// Each field is known, each value allowed, by the schemas and admission of this very server.
const STRICT: [&str; 6] =
    ["apply", "--server-side", "--force-conflicts", "--dry-run=server", "--validate=strict", "-f"];

/// What chart `postern` renders with these values, without the pod of `helm test`: one that runs right now cannot be changed.
fn rendered(cluster: &Cluster, values: &Value) -> String {
    let chart = in_checkout("charts/postern");
    let places = values.as_object().unwrap();
    let set: Vec<_> =
        places.iter().flat_map(|(place, value)| ["--set-json".to_owned(), format!("{place}={value}")]).collect();
    let words = ["template", "postern", path(&chart).unwrap(), "--namespace", OWN, "--skip-tests"];
    cluster.helm(&[&words[..], &set.iter().map(String::as_str).collect::<Vec<_>>()].concat()).unwrap()
}

/// All that a value adds is in one of these; objects of the Prometheus Operator alone are not, whose definitions are not
/// here: `tests/charts/render` looks at them.
#[test]
fn the_chart_and_the_files_are_what_the_api_server_takes() {
    let cluster = Cluster::shared();
    let digest = format!("sha256:{}", "a".repeat(64));
    let placed = json!({
        "replicas": 3, "logLevel": "Debug", "spread": "DoNotSchedule", "priorityClassName": "system-cluster-critical",
        "nodeSelector": {"disk": "fast"}, "tolerations": [{"key": "only", "operator": "Exists"}],
        "affinity": {"nodeAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": {"nodeSelectorTerms":
            [{"matchExpressions": [{"key": "disk", "operator": "Exists"}]}]}}},
        "podAnnotations": {"a": "b"}, "podLabels": {"c": "d"},
    });
    let everything = json!({
        "image": {"registry": "registry.example", "pullPolicy": "Always", "pullSecrets": [{"name": "pull"}]},
        "operator": placed, "injector": placed,
        "sidecar.image.digest": digest, "operator.image.digest": digest,
        "operator.settings": {"authority-algorithm": "Ed25519"},
        "injector.autoscaling.enabled": true, "networkPolicy.enabled": true,
        "logKeep": {"enabled": true, "days": 90},
        "networkPolicy.webhookFrom": [{"ipBlock": {"cidr": "10.0.0.1/32"}}],
        "networkPolicy.metricsFrom": [{"namespaceSelector": {"matchLabels": {"monitoring": "yes"}}}],
        "extraObjects": [{"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "extra", "namespace": OWN}}],
    });
    for values in [
        json!({}),
        everything,
        json!({"namespaces": ["default", "kube-public"]}),
        json!({"onlyEnabled": true, "injector.enabled": false, "podDisruptionBudget.enabled": false}),
    ] {
        let rendered = rendered(cluster, &values);
        let taken = cluster.kubectl(&[&STRICT[..], &["-"]].concat(), &rendered).unwrap();
        assert_eq!(taken.code, Some(0), "{values}: {}", taken.stderr);
        assert_eq!(rendered.matches("\nkind: ").count(), taken.text().lines().count(), "{values}: {}", taken.text());
    }
    for folder in ["deploy/operator", "deploy/crds"] {
        cluster.run(&[&STRICT[..], &[path(&in_checkout(folder)).unwrap()]].concat()).unwrap();
    }
}

#[test]
fn a_release_passes_its_test() {
    let scene = Scene::new("check");
    let tested = scene.cluster.helm(&["-n", OWN, "test", "postern", "--logs"]);
    let told = tested.unwrap_or_else(|error| {
        let said = scene.cluster.run(&["-n", OWN, "logs", "postern-check"]).unwrap_or_default();
        panic!("{error:#}: {said}")
    });
    for line in [
        "api: proxyroutes and clientidentities are served",
        "webhook: namespace.inject.postern.dev puts a gate into a pod",
        "webhook: pod.inject.postern.dev puts a gate into a pod",
    ] {
        assert!(told.lines().any(|one| one == line), "{told}");
    }
    let left = scene.cluster.run(&["-n", OWN, "get", "pod", "postern-check", "--ignore-not-found", "-o", "name"]);
    assert_eq!(left.unwrap(), "", "the pod that asked goes");
}

/// kubectl alone installs what the chart renders; Helm takes it over later, and nothing is made anew. The definitions stay when
/// their chart goes, with every object, and are its own again when it comes back.
#[test]
fn what_helm_renders_is_applied_without_it() {
    let scene = Scene::alone("rendered");
    let cluster = scene.cluster;
    cluster.helm(&["-n", OWN, "uninstall", "postern", "--wait"]).unwrap();
    cluster.helm(&["uninstall", "postern-crds"]).unwrap();
    let kept = scene.kubectl(&["get", "proxyroutes,clientidentities", "-o", "name"]);
    let definitions = in_checkout("charts/postern-crds");
    cluster.helm(&["upgrade", "--install", "postern-crds", path(&definitions).unwrap()]).unwrap();
    let chart = in_checkout("charts/postern");
    let chart = path(&chart).unwrap();
    let rendered = cluster.helm(&["template", "postern", chart, "--namespace", OWN, "--skip-tests"]).unwrap();
    let applied = cluster.kubectl(&["apply", "--server-side", "-f", "-"], &rendered).unwrap();
    let deployments = ["deployment/postern-operator", "deployment/postern-injector"];
    let ready: Result<Vec<_>, _> = deployments.iter().map(|name| cluster.rolled_out(OWN, name)).collect();
    // A pod that is made now has a gate, and is served.
    scene.kubectl(&["delete", "pod", "-l", "app=orders", "--grace-period=1"]).unwrap();
    let started = cluster.rolled_out(&scene.namespace, "deployment/orders");
    let called = scene.call(Some("billing"), "/orders/7");
    let uids = || cluster.run(&["-n", OWN, "get", deployments[0], deployments[1], "-o", "jsonpath={..metadata.uid}"]);
    let before = uids();
    let over = ["upgrade", "--install", "postern", chart, "-n", OWN, "--take-ownership", "--force-conflicts"];
    let taken = cluster.helm(&over);
    if taken.is_err() {
        // The cases that follow want a release.
        cluster.kubectl(&["delete", "-f", "-"], &rendered).unwrap();
        cluster.install().unwrap();
    }
    assert_eq!(kept.unwrap().lines().count(), 3, "a route and two clients");
    assert_eq!(applied.code, Some(0), "{}", applied.stderr);
    ready.unwrap();
    started.unwrap();
    assert!(called.text().ends_with("\n200"), "{called:?}");
    taken.unwrap();
    assert_eq!(before.unwrap(), uids().unwrap());
}
