//! What is in deploy/ for kubectl, as a real API server takes it: each field known, each value allowed.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use postern_tests::apiserver::{ApiServer, Namespace};
use serde_json::Value;

use crate::operator::plugin::postern;

fn deploy(place: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../deploy").join(place)
}

/// What an API server would make of these objects, by `kind/name`.
fn taken(namespace: &Namespace<'_>, manifest: &str) -> BTreeMap<String, Value> {
    let strict = ["apply", "--server-side", "--force-conflicts", "--dry-run=server", "--validate=strict"];
    let applied = namespace.kubectl(&[&strict[..], &["-o", "json", "-f", "-"]].concat(), manifest).unwrap();
    assert_eq!(applied.code, Some(0), "{}", applied.stderr);
    let text = applied.text();
    let documents = serde_json::Deserializer::from_str(&text).into_iter::<Value>();
    let objects = documents.flat_map(|one| {
        let one = one.unwrap();
        one["items"].as_array().cloned().unwrap_or(vec![one])
    });
    let named = |object: &Value| format!("{}/{}", object["kind"], object["metadata"]["name"]).replace('"', "");
    objects.map(|object| (named(&object), object)).collect()
}

/// A Kustomization as the API server takes it, with another namespace for the one that is not there.
fn kustomized(folder: &str) -> BTreeMap<String, Value> {
    let server = ApiServer::shared().unwrap();
    let own = server.namespace("deployed").unwrap();
    let rendered = own.run(&["kustomize", deploy("kustomize").join(folder).to_str().unwrap()]).unwrap();
    // The Namespace itself is made of nothing that could be wrong, and kubectl wants it to be there for the others.
    taken(&own, &rendered.replace("postern-system", &own.name))
}

fn of_containers<'a>(objects: &'a BTreeMap<String, Value>, field: &str) -> Vec<&'a Value> {
    let deployments = ["Deployment/postern-injector", "Deployment/postern-operator"].map(|name| &objects[name]["spec"]);
    deployments.iter().map(|spec| &spec["template"]["spec"]["containers"][0][field]).collect()
}

fn has(list: &Value, word: &str) -> bool {
    list.as_array().unwrap().iter().any(|one| one == word)
}

#[test]
fn an_api_server_takes_what_kustomize_makes() {
    let base = kustomized("base");
    assert_eq!(base.len(), 22, "{:?}", base.keys());
    let [dev, production] = ["dev", "production"].map(kustomized);
    let added = |overlay: &BTreeMap<String, Value>| {
        let of = |one: &BTreeMap<String, Value>, other: &BTreeMap<String, Value>| {
            let only: Vec<_> =
                one.keys().filter(|key| !other.contains_key(*key) && !key.starts_with("Namespace/")).cloned().collect();
            only
        };
        (of(overlay, &base), of(&base, overlay))
    };
    let budgets = ["PodDisruptionBudget/postern-injector", "PodDisruptionBudget/postern-operator"].map(str::to_owned);
    let policies = ["NetworkPolicy/postern-injector", "NetworkPolicy/postern-operator"].map(str::to_owned);
    assert_eq!(added(&dev), (vec!["ClusterRoleBinding/postern-operator-namespace".to_owned()], budgets.to_vec()));
    assert_eq!(added(&production), (policies.to_vec(), vec![]));
    for (objects, namespaces, level, image) in [
        (&base, "enabled", "Info", ""),
        (&dev, "all", "Debug", ""),
        (&production, "enabled", "Info", "registry.example.com/postern/"),
    ] {
        let [injector, operator] = of_containers(objects, "args")[..] else { panic!("two containers") };
        assert!(has(operator, &format!("--namespaces={namespaces}")), "{operator}");
        assert!(has(operator, &format!("--log-level={level}")) && has(injector, &format!("--log-level={level}")));
        assert!(has(injector, &format!("--sidecar-image={image}postern-sidecar:0.1.0")), "{injector}");
        let expected = format!("{image}postern-operator:0.1.0");
        assert!(of_containers(objects, "image").into_iter().all(|image| *image == expected));
    }
}

/// Each by itself is right, all together too, and an API server takes them.
#[test]
fn the_examples_are_right() {
    let server = ApiServer::shared().unwrap();
    let namespace = server.namespace("examples").unwrap();
    let mut files: Vec<_> = fs::read_dir(deploy("examples")).unwrap().map(|entry| entry.unwrap().path()).collect();
    files.sort();
    assert!(files.len() >= 10, "{files:?}");
    for place in files.iter().chain([&deploy("examples")]) {
        let analyzed = postern(&namespace, &["analyze", "-n", "shop", "-f", place.to_str().unwrap()]);
        assert_eq!(analyzed.code, Some(0), "{}: {}{}", place.display(), analyzed.text(), analyzed.stderr);
    }
    let all: Vec<_> = files.iter().map(|file| fs::read_to_string(file).unwrap()).collect();
    let taken = taken(&namespace, &all.join("\n---\n"));
    let count = all.iter().flat_map(|text| text.lines()).filter(|line| line.starts_with("kind: ")).count();
    assert_eq!(taken.len(), count, "{:?}", taken.keys());
}
