//! Pods that cannot be touched: what waits for nothing but the turn before goes on.

use postern_tests::apiserver::{ApiServer, Namespace};
use postern_tests::minikubelet::pod;
use postern_tests::operator::Operator;
use postern_tests::wait::{PATIENCE, eventually};
use serde_json::{Value, json};

use super::monitor::series;
use super::scene::Scene;

/// Has the API server refuse something in a namespace, for as long as the binding is there, whose name it returns.
fn forbid(namespace: &Namespace<'_>, what: &str, (operation, resource): (&str, &str), unless: &str) -> String {
    let (group, name) = ("admissionregistration.k8s.io/v1", format!("{what}-{}", namespace.name));
    let rule = json!({"apiGroups": [""], "apiVersions": ["v1"], "operations": [operation], "resources": [resource]});
    let policy = json!({
        "apiVersion": group, "kind": "ValidatingAdmissionPolicy", "metadata": {"name": name},
        "spec": {
            "failurePolicy": "Fail",
            "matchConstraints": {"resourceRules": [rule]},
            "validations": [{"expression": unless}],
        },
    });
    let here = json!({"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": namespace.name}}});
    let binding = json!({
        "apiVersion": group, "kind": "ValidatingAdmissionPolicyBinding", "metadata": {"name": name},
        "spec": {"policyName": name, "validationActions": ["Deny"], "matchResources": here},
    });
    [policy, binding].iter().for_each(|object| namespace.apply(object).unwrap());
    format!("validatingadmissionpolicybinding/{name}")
}

/// A namespace's turn comes first and touches all of its pods. Its workloads are written whatever becomes of that: they
/// have had their turns, and are woken by nothing else.
#[test]
fn a_pod_that_cannot_be_touched_keeps_no_workload_waiting() {
    let mut touching = String::new();
    let scene = Scene::start_with(ApiServer::shared().unwrap(), |own, namespace| {
        // A pod that waits for nothing but what is in its volume, and of which nothing more will be heard.
        namespace.apply(&pod("orders-1", "orders", "orders", &[("app", "orders")])).unwrap();
        let patch = |patch: &Value, dry: &'static str| {
            let patch = patch.to_string();
            let of_pod = ["patch", "pod/orders-1", "--subresource=status", "--type=merge", dry, "--patch", &patch];
            namespace.run(&of_pod)
        };
        let address = json!({"status": {"podIP": "127.0.0.1", "podIPs": [{"ip": "127.0.0.1"}]}});
        patch(&address, "--dry-run=none").unwrap();
        let touch = |object: &str| format!("{object}.metadata.?annotations[?'postern.dev/touch'].orValue('')");
        let is_same = format!("{} == {}", touch("object"), touch("oldObject"));
        touching = forbid(namespace, "untouched", ("UPDATE", "pods/status"), &is_same);
        let writing =
            forbid(namespace, "unwritten", ("CREATE", "configmaps"), "object.metadata.name != 'postern-trust'");
        let touched = json!({"metadata": {"annotations": {"postern.dev/touch": "x"}}});
        let create = ["create", "configmap", "postern-trust", "--dry-run=server"];
        let in_force = || {
            let refused = [patch(&touched, "--dry-run=server").is_err(), namespace.run(&create).is_err()];
            Ok((refused == [true, true]).then_some(()))
        };
        eventually("the policies to be in force", PATIENCE, in_force).unwrap();
        let mut operator = Operator::start(own, namespace).unwrap();
        operator.may_be_refused();
        let turn = |kind: &str, outcome: &str| {
            let name = format!("postern_operator_turns_total{{kind=\"{kind}\",outcome=\"{outcome}\"}}");
            operator.wait_for(&name, || Ok((series(&operator.page("/metrics")?.text(), &name) > 0.0).then_some(())))
        };
        turn("trust", "failed").unwrap();
        turn("workload", "done").unwrap();
        namespace.run(&["delete", &writing]).unwrap();
        for name in ["configmap/postern-trust", "configmap/postern-policy-orders"] {
            operator.wait_for(name, || namespace.object(name)).unwrap();
        }
        operator
    });
    // Others share the API server.
    scene.namespace.run(&["delete", &touching]).unwrap();
}
