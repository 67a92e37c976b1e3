//! What users see of the API on a real API server: examples, columns, and what they wrote with its defaults.

use std::fs;
use std::path::{Path, PathBuf};

use postern_crds::{ClientIdentity, ProxyRoute};
use postern_tests::apiserver::{ApiServer, Namespace};
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::Value;

use super::constraints::{Demand, constraints, schemas};
use super::{mechanical, root, samples};

fn namespace(prefix: &str) -> Namespace<'static> {
    ApiServer::shared().unwrap().namespace(prefix).unwrap()
}

/// Every object of ours in a document of Markdown or YAML.
fn examples_of(path: &Path, text: &str) -> Vec<String> {
    let documents: Vec<&str> = if path.extension().is_some_and(|extension| extension == "md") {
        text.split("```yaml\n").skip(1).filter_map(|rest| rest.split("\n```").next()).collect()
    } else {
        vec![text]
    };
    documents.into_iter().filter(|text| text.contains("apiVersion: postern.dev/")).map(str::to_owned).collect()
}

/// Every file below a folder whose name ends so.
pub(super) fn files_below(folder: &Path, extension: &str, found: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            files_below(&path, extension, found);
        } else if path.extension().is_some_and(|found| found == extension) {
            found.push(path);
        }
    }
}

/// Such as one about a format that it does not know, which it would then not check.
#[test]
fn the_definitions_are_taken_without_a_warning() {
    let folder = root().join("deploy/crds");
    let arguments = ["apply", "--server-side", "-f", folder.to_str().unwrap()];
    let finished = ApiServer::shared().unwrap().kubectl(&arguments, "").unwrap();
    assert_eq!((finished.code, &*finished.stderr), (Some(0), ""));
}

#[test]
fn every_example_is_taken() {
    let namespace = namespace("examples");
    let mut files = vec![root().join("README.md")];
    files_below(&root().join("docs"), "md", &mut files);
    files_below(&root().join("deploy"), "yaml", &mut files);
    let mut count = 0;
    for file in files {
        for example in examples_of(&file, &fs::read_to_string(&file).unwrap()) {
            // One that says where it belongs is taken in the namespace of this test.
            let here = example.replace(", namespace: shop}", "}").replace("\n  namespace: shop\n", "\n");
            let finished = namespace.kubectl(&["apply", "--dry-run=server", "-f", "-"], &here).unwrap();
            assert_eq!((finished.code, &*finished.stderr), (Some(0), ""), "{}: {example}", file.display());
            count += 1;
        }
    }
    assert!(count >= 3, "{count} examples");
}

/// Whoever may write objects must not be able to stop the operator from reading them.
#[test]
fn what_is_taken_can_be_read_and_nothing_of_it_is_lost() {
    let namespace = namespace("read");
    for sample in samples::all() {
        namespace.apply(&sample).unwrap();
        let name = sample["metadata"]["name"].as_str().unwrap();
        let kind = sample["kind"].as_str().unwrap();
        let stored = namespace.object(&format!("{}/{name}", kind.to_lowercase())).unwrap().unwrap();
        let read = read_as(kind, &stored);
        assert_eq!(read["spec"], stored["spec"], "{name}");
        // The status of a sample has every field, and is not stored by `apply`.
        assert_eq!(read_as(kind, &sample)["status"], sample["status"], "{name}");
    }
    namespace.run(&["delete", "proxyroutes,clientidentities", "--all", "--wait=false"]).unwrap();
}

/// A number that the schema takes and the type does not would stop the operator, too.
#[test]
fn every_number_that_is_taken_fits_its_type() {
    let mut count = 0;
    for schema in schemas() {
        let samples = samples::of(&schema.kind);
        for constraint in constraints(&schema) {
            let Demand::Bound("minimum" | "maximum", bound) = constraint.demand else { continue };
            let (object, pointer) = mechanical::with(&samples, &constraint.place, &Value::from(bound)).unwrap();
            let read = read_as(&schema.kind, &object);
            assert_eq!(read.pointer(&pointer), Some(&Value::from(bound)), "{constraint:?}");
            count += 1;
        }
    }
    assert!(count > 50, "{count} bounds");
}

/// An object as the operator would write it after reading it.
fn read_as(kind: &str, object: &Value) -> Value {
    if kind == "ProxyRoute" { through::<ProxyRoute>(object) } else { through::<ClientIdentity>(object) }
}

fn through<T: DeserializeOwned + Serialize>(object: &Value) -> Value {
    let read: T = serde_json::from_value(object.clone()).unwrap();
    serde_json::to_value(read).unwrap()
}

#[test]
fn lists_have_the_columns() {
    let namespace = namespace("columns");
    for name in ["everything", "issued"] {
        let sample = samples::named(name);
        namespace.apply(&sample).unwrap();
        let finished = namespace.kubectl(&["replace", "--subresource=status", "-f", "-"], &sample.to_string()).unwrap();
        assert_eq!((finished.code, &*finished.stderr), (Some(0), ""));
    }
    let columns = |arguments: &[&str]| {
        let text = namespace.run(arguments).unwrap();
        let rows = text.lines().map(|line| line.split_whitespace().map(str::to_owned).collect::<Vec<_>>());
        rows.collect::<Vec<_>>()
    };
    let routes = columns(&["get", "pxr", "--field-selector=spec.listener.port=8443,spec.listener.protocol=HTTPS"]);
    assert_eq!(routes[0], ["NAME", "PORT", "WORKLOADS", "PROGRAMMED", "ENCLOSED", "REASON", "AGE"]);
    assert_eq!(routes[1][..5], ["everything", "8443", "1", "True", "Unknown"]);
    assert_eq!(routes[1][5], "NotChecked");
    let identities = columns(&["get", "cid", "--field-selector=spec.state=Suspended,spec.issue.secretName=billing"]);
    assert_eq!(identities[0], ["NAME", "KIND", "SUBJECT", "EXPIRES", "READY", "AGE"]);
    let subject = "spiffe://cluster.local/ns/shop/client/billing";
    assert_eq!(identities[1][..5], ["issued", "Issue", subject, "2027-02-18T00:00:00Z", "False"]);
    let mut both = columns(&["get", "postern", "-o", "name"]).concat();
    both.sort();
    assert_eq!(both, ["clientidentity.postern.dev/issued", "proxyroute.postern.dev/everything"]);
    namespace.run(&["delete", "proxyroutes,clientidentities", "--all", "--wait=false"]).unwrap();
}
