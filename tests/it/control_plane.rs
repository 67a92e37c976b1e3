//! The real API server that tests of the operator share.

use postern_tests::apiserver::{ApiServer, Namespace};
use postern_tests::minikubelet::{MiniKubelet, pod};
use serde_json::{Value, json};

use crate::observed::{status, wait_until};

/// What the harness of pods rests on: a pod's address may be one of loopback.
#[test]
fn a_pod_has_the_address_that_its_status_says() {
    let namespace = ApiServer::shared().unwrap().namespace("addresses").unwrap();
    let container = json!({"name": "app", "image": "none"});
    let pod =
        json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "a"}, "spec": {"containers": [container]}});
    namespace.apply(&pod).unwrap();
    let status = json!({"status": {"podIP": "127.3.2.1", "phase": "Running"}}).to_string();
    namespace.run(&["patch", "pod/a", "--subresource=status", "--patch", &status]).unwrap();
    let pod = namespace.object("pod/a").unwrap().unwrap();
    assert_eq!(pod["status"]["podIP"], "127.3.2.1");
    assert_eq!(namespace.object("pod/b").unwrap(), None);
}

#[test]
fn a_namespace_is_one_tests_alone() {
    let server = ApiServer::shared().unwrap();
    let [one, other] = [server.namespace("shared").unwrap(), server.namespace("shared").unwrap()];
    let object = json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "a"}});
    one.apply(&object).unwrap();
    assert_eq!(one.object("configmap/a").unwrap().map(|object| object["kind"].clone()), Some(json!("ConfigMap")));
    assert_eq!(other.object("configmap/a").unwrap(), None);
    assert_eq!(server.writes("admin", &other.name).unwrap(), [""; 0]);
    one.run(&["delete", "configmap/a"]).unwrap();
    assert_eq!(server.writes("admin", &one.name).unwrap(), ["patch configmaps/a", "delete configmaps/a"]);
}

fn policy(limit: u32) -> Value {
    let document = json!({"version": "1.0", "policy": {"limits": {"maxConnections": limit}}});
    json!({
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": {"name": "postern-policy-orders"},
        "data": {"policy.json": document.to_string()},
    })
}

fn touch(namespace: &Namespace<'_>, pod: &str, value: &str) {
    let patch = json!({"metadata": {"annotations": {"postern.dev/touch": value}}}).to_string();
    namespace
        .run(&["patch", &format!("pod/{pod}"), "--subresource=status", "--type=merge", "--patch", &patch])
        .unwrap();
}

/// As with a real kubelet, which looks at most once a minute by itself.
#[test]
fn a_pod_sees_a_change_when_it_is_touched() {
    let namespace = ApiServer::shared().unwrap().namespace("touch").unwrap();
    namespace.apply(&policy(1)).unwrap();
    let kubelet = MiniKubelet::start(&namespace).unwrap();
    let names = ["orders-1", "orders-2"];
    names.iter().for_each(|name| namespace.apply(&pod(name, "orders", "orders", &[])).unwrap());
    names.iter().for_each(|name| kubelet.wait_started(name).unwrap());
    let loaded = |name: &str| kubelet.with(name, |pod| Ok(status(pod.sidecar()?).parts.policy.loaded)).unwrap();
    let [first, other] = names.map(loaded);
    assert_eq!(first, other);
    namespace.apply(&policy(2)).unwrap();
    touch(&namespace, "orders-2", "1");
    wait_until("the touched pod to have the change", || loaded("orders-2") != first);
    assert_eq!(loaded("orders-1"), first, "nobody touched it");
    touch(&namespace, "orders-1", "1");
    wait_until("the other pod to have the change", || loaded("orders-1") == loaded("orders-2"));
    let told = || namespace.object("pod/orders-1").unwrap().unwrap()["status"].clone();
    wait_until("the pod's status", || told()["initContainerStatuses"][0]["started"] == true);
    let (address, uid) = kubelet.with("orders-1", |pod| Ok((pod.address(), pod.uid().to_owned()))).unwrap();
    assert_eq!(told()["podIP"], address.to_string());
    assert_eq!(kubelet.with("orders-1", |pod| Ok(status(pod.sidecar()?).pod_uid)).unwrap(), uid);
}
