//! `kubectl postern`, by the real kubectl, which finds it in its path.

use std::env::{join_paths, split_paths, var_os};
use std::os::unix::fs::symlink;
use std::process::Command;

use postern_tests::apiserver::Namespace;
use postern_tests::clients::{Finished, run};
use postern_tests::process::built;
use postern_tests::wait::PATIENCE;
use serde_json::{Value, json};

use super::scene::Scene;

/// Runs `kubectl postern` in a namespace.
pub(crate) fn postern(namespace: &Namespace<'_>, arguments: &[&str]) -> Finished {
    let folder = tempfile::tempdir().unwrap();
    symlink(built("postern-operator").unwrap(), folder.path().join("kubectl-postern")).unwrap();
    let path = var_os("PATH").unwrap();
    let path = join_paths(std::iter::once(folder.path().to_owned()).chain(split_paths(&path))).unwrap();
    let mut command = Command::new(namespace.server.kubectl_program());
    command.env("PATH", path).env("KUBECONFIG", namespace.kubeconfig()).env("HOME", folder.path());
    run(command.arg("postern").args(arguments), b"", PATIENCE).unwrap()
}

/// The columns of a table, without what pads them.
fn rows(text: &str) -> Vec<Vec<&str>> {
    text.lines().map(|line| line.split("  ").map(str::trim).filter(|cell| !cell.is_empty()).collect()).collect()
}

#[test]
fn what_is_wrong_is_told_first_and_by_the_exit_code() {
    let scene = Scene::start();
    let namespace = scene.namespace.name.clone();
    let status = || postern(&scene.namespace, &["status", "--namespace", &namespace]);
    let empty = status();
    assert_eq!(empty.text(), format!("no ProxyRoutes and no ClientIdentities in namespace {namespace}\n"));
    assert_eq!(empty.code, Some(0));
    let mut route = scene.route(&["billing"]);
    route["spec"]["allowBypass"] = json!(true);
    scene.apply(&route);
    scene.client("billing");
    scene.wait_condition("clientidentity/billing", "Ready", "True", "Ready");
    let message = scene.wait_condition("proxyroute/orders", "Ready", "False", "NoPods");
    let found = status();
    assert_eq!(found.code, Some(1), "{}", found.stderr);
    let told = found.text();
    let told = rows(&told);
    assert_eq!(told[0], ["OBJECT", "READY", "REASON", "MESSAGE"]);
    assert_eq!(told[1], ["route/orders", "NO", "NoPods", "0/0 pods have it", message.as_str()]);
    assert_eq!(told[2][..3], ["identity/billing", "yes", "Ready"]);
    scene.pods(&["orders-1"]);
    scene.wait_condition("proxyroute/orders", "Ready", "True", "Ready");
    let well = status();
    assert_eq!((well.code, rows(&well.text()).len()), (Some(0), 3), "{}", well.text());
    let all = postern(&scene.namespace, &["status", "--all-namespaces"]);
    assert!(all.text().contains(&format!("{namespace}  ")), "{}", all.text());
}

#[test]
fn a_namespace_is_enabled_and_disabled() {
    let scene = Scene::start();
    let (served, own) = (&scene.namespace, &scene.own);
    let arguments = ["enable", &served.name, "--operator-namespace", &own.name];
    // What the operator of this test has is what this would make.
    let dry = postern(served, &[&arguments[..], &["--dry-run", "--inject"]].concat());
    assert_eq!(dry.code, Some(0), "{}", dry.stderr);
    let made = served.kubectl(&["create", "--dry-run=client", "-o", "json", "-f", "-"], &dry.text()).unwrap().text();
    let made: Vec<Value> = serde_json::Deserializer::from_str(&made).into_iter().map(Result::unwrap).collect();
    let known = served.object("rolebinding/postern-operator-namespace").unwrap().unwrap();
    assert_eq!([&made[0]["roleRef"], &made[0]["subjects"]], [&known["roleRef"], &known["subjects"]]);
    let labels = json!({"postern.dev/inject": "enabled", "postern.dev/operator": own.name});
    assert_eq!(made[1]["metadata"]["labels"], labels);
    let label = || served.object(&format!("namespace/{}", served.name)).unwrap().unwrap()["metadata"]["labels"].clone();
    assert_eq!(label()["postern.dev/inject"], Value::Null, "nothing was changed");
    let another = own.server.namespace("web").unwrap();
    let arguments = ["enable", &another.name, "--inject", "--operator-namespace", &own.name];
    let enabled = postern(&another, &arguments);
    assert_eq!(enabled.code, Some(0), "{}", enabled.stderr);
    let binding = another.object("rolebinding/postern-operator-namespace").unwrap().unwrap();
    assert_eq!(binding["subjects"], known["subjects"]);
    let labels =
        || another.object(&format!("namespace/{}", another.name)).unwrap().unwrap()["metadata"]["labels"].clone();
    let plain = json!({"kubernetes.io/metadata.name": another.name});
    let with = |more: Value| {
        let mut labels = plain.clone();
        labels.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        labels
    };
    let both = with(json!({"postern.dev/inject": "enabled", "postern.dev/operator": own.name}));
    assert_eq!(labels(), both);
    let again = postern(&another, &["enable", &another.name, "--operator-namespace", &own.name]);
    assert_eq!((again.code, labels()), (Some(0), both), "what was asked for before stays");
    assert_eq!(postern(&another, &["disable", &another.name]).code, Some(0));
    assert!(another.object("rolebinding/postern-operator-namespace").unwrap().is_none());
    assert_eq!(labels(), plain);
    let wrong = postern(&another, &["enable", "not-there"]);
    assert_eq!((wrong.code, wrong.stderr.lines().next()), (Some(2), Some("error: namespace not-there does not exist")));
}

/// What the gate says is what is explained; after the change that is named, the gate says otherwise.
#[test]
fn why_says_what_the_gate_does_and_what_would_turn_it() {
    let scene = Scene::serving();
    let namespace = &scene.namespace;
    let why = |client: &str| {
        let from = ["why", "--namespace", &namespace.name, "--from", client, "--to", "orders", "GET /"];
        let told = postern(namespace, &from);
        (told.code, told.text())
    };
    let (code, text) = why("billing");
    assert_eq!(
        (code, text.lines().next()),
        (Some(0), Some(&*format!("allowed by rule all of {}/orders", namespace.name)))
    );
    let refused = scene.call("orders-1", Some("reports"));
    let reason = refused.header("postern-reason").unwrap();
    let add = r#"{"identity":{"name":"reports"}}"#;
    let expected = format!(
        "refused ({reason}) by rule all of {0}/orders\n  rule all: matches, refused ({reason})\nIt would be allowed by this change, the smallest:\n  ProxyRoute {0}/orders: add {add} to spec.rules[0].allow\n",
        namespace.name
    );
    assert_eq!(why("reports"), (Some(1), expected));
    let patch = format!(r#"[{{"op":"add","path":"/spec/rules/0/allow/-","value":{add}}}]"#);
    namespace.run(&["patch", "proxyroute/orders", "--type=json", "--patch", &patch]).unwrap();
    assert_eq!(why("reports").0, Some(0), "the objects are changed");
    scene.wait_answer("orders-1", "reports", (Some(200), None));
}

/// Behind a rule that lets in, and before any rule is asked.
#[test]
fn why_says_who_is_not_answered_and_whose_certificate_is_revoked() {
    let scene = Scene::serving();
    let namespace = &scene.namespace;
    let why = || {
        let told = postern(namespace, &["why", "--namespace", &namespace.name, "--from=billing", "--to=orders"]);
        (told.code, told.text().lines().take(2).map(str::to_owned).collect::<Vec<_>>())
    };
    let allowed = format!("allowed by rule all of {}/orders", namespace.name);
    let asks = r#"[{"op":"replace","path":"/spec/rules/0/backendRefs","value":[{"name":"stock","port":80}]}]"#;
    namespace.run(&["patch", "proxyroute/orders", "--type=json", "--patch", asks]).unwrap();
    scene.wait_answer("orders-1", "billing", (Some(500), Some("route_invalid")));
    let gone = format!("  but answered route_invalid by the gate: there is no Service {}/stock", namespace.name);
    assert_eq!(why(), (Some(1), vec![allowed.clone(), gone]));
    let service = json!({
        "apiVersion": "v1", "kind": "Service", "metadata": {"name": "stock"},
        "spec": {"selector": {"app": "nobody"}, "ports": [{"port": 80}]},
    });
    namespace.apply(&service).unwrap();
    scene.wait_answer("orders-1", "billing", (Some(503), Some("upstream_no_endpoint")));
    let empty = format!(
        "  but answered upstream_no_endpoint by the gate: no pod of Service {}/stock:80 is ready",
        namespace.name
    );
    assert_eq!(why(), (Some(1), vec![allowed, empty]));
    let serial =
        namespace.object("clientidentity/billing").unwrap().unwrap()["status"]["certificate"]["serial"].clone();
    scene.patch_identity("billing", &json!({"state": "Revoked"}));
    scene.wait_condition("clientidentity/billing", "Enforced", "True", "Enforced");
    assert_eq!(scene.call("orders-1", Some("billing")).status, None, "the handshake is refused");
    let revoked = format!("  certificate {}, which it has now, is revoked", serial.as_str().unwrap());
    assert_eq!(why(), (Some(1), vec!["refused: tls_revoked".to_owned(), revoked]));
}

/// The examples of deploy/examples, without a cluster.
#[test]
fn why_needs_no_cluster() {
    let namespace = postern_tests::apiserver::ApiServer::shared().unwrap().namespace("shop").unwrap();
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/../deploy/examples");
    let arguments = ["--kubeconfig=/dev/null", "--namespace=shop", "-f", folder, "--from=nobody", "--to=orders"];
    let told = postern(&namespace, &[&["why"], &arguments[..]].concat());
    assert_eq!(
        (told.code, told.text().lines().next()),
        (Some(1), Some("refused: tls_no_certificate")),
        "{}",
        told.stderr
    );
}

#[test]
fn versions_are_told() {
    let scene = postern_tests::apiserver::ApiServer::shared().unwrap().namespace("shop").unwrap();
    let told = postern(&scene, &["version"]);
    let text = told.text();
    let words: Vec<_> = text.lines().map(|line| line.split_whitespace().next().unwrap()).collect();
    assert_eq!((told.code, words), (Some(0), vec!["postern", "contract", "kubernetes"]), "{}", told.stderr);
}
