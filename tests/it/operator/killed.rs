//! An operator that is killed between any two of its writes: each life makes one and dies at the next, and in the end
//! everything is as it would have been.

use std::collections::BTreeSet;
use std::time::Duration;

use postern_tests::rationed::Rationed;
use serde_json::{Value, json};

use super::leading::Process;
use super::scene::Scene;

/// Far more than it takes: a life that undoes what another has done would never end.
const LIVES_MAX: usize = 80;
/// How long an operator lives that has nothing to write any more: asking sidecars takes part of it.
const STILL: Duration = Duration::from_secs(15);

/// What was written, as far as it does not hold chance: keys, certificates, times.
fn picture(scene: &Scene) -> Value {
    let namespace = &scene.namespace.name;
    let text = scene.namespace.run(&["get", "configmaps,secrets", "-o", "json"]).unwrap();
    let all: Value = serde_json::from_str(&text).unwrap();
    let mut objects: Vec<_> = all["items"].as_array().unwrap().iter().map(without_chance).collect();
    objects.sort_by_key(|object| object["name"].to_string());
    let conditions = ["proxyroute/orders", "clientidentity/billing"].map(|name| {
        let object = scene.namespace.object(name).unwrap().unwrap();
        let conditions = object["status"]["conditions"].as_array().cloned().unwrap_or_default();
        let told = conditions.iter().map(|one| json!([one["type"], one["status"], one["reason"]]));
        json!([told.collect::<Vec<_>>(), object["metadata"]["finalizers"]])
    });
    let picture = json!({"objects": objects, "conditions": conditions});
    serde_json::from_str(&picture.to_string().replace(namespace.as_str(), "NAMESPACE")).unwrap()
}

fn without_chance(object: &Value) -> Value {
    let names = |field: &str| -> BTreeSet<String> {
        object[field].as_object().into_iter().flat_map(|entries| entries.keys().cloned()).collect()
    };
    let name = object["metadata"]["name"].as_str().unwrap();
    let is_the_same = name.contains("policy") || name.contains("endpoints");
    json!({
        "name": name,
        "type": object["type"],
        "labels": object["metadata"]["labels"],
        "entries": [names("data"), names("binaryData")],
        "content": if is_the_same { object["data"].clone() } else { Value::Null },
    })
}

fn fill(scene: &Scene) {
    scene.apply(&scene.service());
    let mut route = scene.route(&["billing"]);
    // Both of these scenes have upstreams of their own, and one address to compare.
    route["spec"]["rules"][0]["backendRefs"] = json!([{"localPort": 8080}]);
    route["spec"]["allowBypass"] = json!(true);
    scene.apply(&route);
    scene.client("billing");
    scene.pods(&["orders-1"]);
}

fn is_ready(scene: &Scene) -> bool {
    ["proxyroute/orders", "clientidentity/billing"].iter().all(|object| {
        let told = scene.condition(object, "Ready");
        told.is_some_and(|(status, _, _)| status == "True")
    }) && {
        let (candidate, good) = scene.policies();
        !good.is_empty() && candidate == good
    }
}

/// The numbers that the ledger has for the client.
fn remembered(scene: &Scene) -> Vec<String> {
    let name = format!("configmap/{}", postern_operator::identity::objects::ledger_name(&scene.namespace.name));
    let ledger = scene.own.object(&name).unwrap().unwrap();
    let document: Value = serde_json::from_str(ledger["data"]["ledger.json"].as_str().unwrap()).unwrap();
    document["certificates"].as_object().unwrap().keys().cloned().collect()
}

/// The number of the client's certificate.
fn serial(scene: &Scene) -> String {
    let client = scene.namespace.object("clientidentity/billing").unwrap().unwrap();
    client["status"]["certificate"]["serial"].as_str().unwrap().to_owned()
}

#[test]
fn an_operator_that_dies_after_each_write_comes_to_the_same_end() {
    let undisturbed = Scene::start();
    fill(&undisturbed);
    undisturbed.operator.wait_for("everything to be ready", || Ok(is_ready(&undisturbed).then_some(()))).unwrap();
    undisturbed.settled_writes();
    let mut scene = Scene::start();
    // Its rights are wanted, and not itself.
    scene.operator.end();
    fill(&scene);
    let folder = tempfile::tempdir().unwrap();
    let rationed = Rationed::open(scene.own.server, scene.operator.kubeconfig(), folder.path()).unwrap();
    let arguments = [
        format!("--operator-namespace={}", scene.own.name),
        format!("--namespaces={}", scene.namespace.name),
        "--leader-election=Off".to_owned(),
    ];
    let mut lives = 0;
    loop {
        rationed.allow(1);
        let life = Process::start(rationed.kubeconfig(), &arguments);
        lives += 1;
        let is_over = rationed.wait_held_back(STILL);
        let log = life.log();
        // As a node that fails would: nothing is told to it.
        drop(life);
        if !is_over && is_ready(&scene) {
            break;
        }
        assert!(lives < LIVES_MAX, "{lives} lives, and no end: {:#?}\n{log}", scene.writes());
    }
    assert_eq!(picture(&scene), picture(&undisturbed));
    // A certificate is in the ledger first. Whoever died there has used no number up.
    assert_eq!(remembered(&scene), [serial(&scene)]);
    let written = scene.writes().len();
    assert!(lives > 10, "{lives} lives, {written} writes: it was not killed often enough to show anything");
}
