//! What the operator says of itself: lines of its log.

use std::collections::BTreeMap;
use std::fmt;

use postern_tests::gate::Gate;
use serde::de::{Error, MapAccess, Visitor};
use serde::{Deserialize, Deserializer};
use serde_json::Value;

use super::leading::Process;
use super::monitor::nobody;
use super::scene::Scene;

/// An object of JSON, each of whose names is there once.
struct Once(BTreeMap<String, Value>);

impl<'de> Deserialize<'de> for Once {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Members;
        impl<'de> Visitor<'de> for Members {
            type Value = Once;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut members: A) -> Result<Once, A::Error> {
                let mut found = BTreeMap::new();
                while let Some((name, value)) = members.next_entry::<String, Value>()? {
                    if found.insert(name.clone(), value).is_some() {
                        return Err(A::Error::custom(format!("{name} is there twice")));
                    }
                }
                Ok(Once(found))
            }
        }
        deserializer.deserialize_map(Members)
    }
}

/// The lines of a log, all of which are such objects, as are the spans in them.
fn lines(log: &str) -> Vec<BTreeMap<String, Value>> {
    #[derive(Deserialize)]
    struct Line {
        #[serde(default)]
        spans: Vec<Once>,
    }
    let read = |line: &str| {
        let spans = serde_json::from_str::<Line>(line).map(|line| line.spans.len());
        let line = spans.and_then(|_| serde_json::from_str::<Once>(line));
        line.unwrap_or_else(|error| panic!("{error} in a line of {log}")).0
    };
    log.lines().map(read).collect()
}

#[test]
fn a_line_of_the_log_has_the_words_of_the_sidecars() {
    let (_folder, kubeconfig) = nobody();
    let operator = Process::start(&kubeconfig, &["--namespaces=shop".to_owned()]);
    operator.told("answering probes", "address");
    let lines = lines(&operator.log());
    let own = lines.iter().find(|line| line["message"] == "answering probes").unwrap();
    let gate = Gate::start().unwrap();
    let theirs = gate.sidecar.lines().into_iter().find(|line| line.message() == "status server listening").unwrap();
    // With preserved order these would be the order of the formatter, which is not promised.
    let mut names: Vec<_> = theirs.fields.keys().cloned().collect();
    names.sort_unstable();
    assert_eq!(own.keys().cloned().collect::<Vec<_>>(), names);
    assert_eq!(own["level"], theirs.fields["level"]);
    let shape = |time: &Value| time.as_str().unwrap().replace(|letter: char| letter.is_ascii_digit(), "0");
    assert_eq!(shape(&own["timestamp"]), shape(&theirs.fields["timestamp"]));
    let people = Process::start(&kubeconfig, &["--namespaces=shop".to_owned(), "--log-format=Text".to_owned()]);
    people.wait_log("answering probes address=");
    assert!(people.log().lines().all(|line| serde_json::from_str::<Value>(line).is_err()), "{}", people.log());
}

#[test]
fn a_line_says_of_which_turn_it_is() {
    let scene = Scene::serving();
    let lines = lines(&scene.operator.output());
    let issuing = lines.iter().find(|line| line["message"] == "issuing a certificate").unwrap();
    let spans = issuing["spans"].as_array().unwrap();
    let turn = ["name", "namespace", "object"].map(|field| spans[0][field].as_str().unwrap_or_default());
    assert_eq!(turn, ["workload", &scene.namespace.name, "orders"], "{issuing:?}");
    assert_eq!(issuing.get("span"), None, "it is the last of them");
    assert!(issuing["secret"].is_string(), "{issuing:?}");
}
