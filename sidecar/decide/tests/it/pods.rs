//! Which routes a pod serves, by its labels.

use std::collections::BTreeMap;

use serde_json::{Value, json};
use sidecar_decide::{accept, link};

use crate::fixture::{Documents, expected, listener, read, rule, told};

fn route(name: &str, selector: Option<Value>) -> Value {
    let rules = [rule("all", &json!([]), &json!([{"anyone": {}}]))];
    let mut route = json!({"name": name, "listener": "main", "rules": rules});
    if let Some(labels) = selector {
        route["podSelector"] = json!({"matchLabels": labels});
    }
    route
}

/// The names of the routes that a pod serves, those of its rules, and what it was told.
fn served(labels: Option<&[(&str, &str)]>, routes: &Value) -> (Vec<String>, Vec<String>, Vec<(String, String)>) {
    let policy = json!({"listeners": [listener("main", 8443)], "routes": routes});
    let mut parts = Documents { policy, ..Documents::default() }.accept();
    let owned = |labels: &[(&str, &str)]| -> BTreeMap<_, _> {
        labels.iter().map(|(label, value)| ((*label).to_owned(), (*value).to_owned())).collect()
    };
    parts.pod_labels = labels.map(owned);
    let (snapshot, problems) = link(&parts);
    let rules = snapshot.rules.iter().map(|rule| rule.route.to_string()).collect();
    (snapshot.routes.into_keys().collect(), rules, told(&problems))
}

#[test]
fn a_route_is_served_by_pods_that_have_all_its_labels() {
    let routes = json!([
        route("any", None),
        route("orders", Some(json!({"app": "orders"}))),
        route("orders-a", Some(json!({"app": "orders", "zone": "a"}))),
        route("stock", Some(json!({"app": "stock"}))),
    ]);
    let table = [
        (vec![], vec!["any"]),
        (vec![("app", "orders")], vec!["any", "orders"]),
        (vec![("app", "orders"), ("zone", "a"), ("more", "")], vec!["any", "orders", "orders-a"]),
        (vec![("app", "Orders"), ("zone", "a")], vec!["any"]),
        (vec![("orders", "app")], vec!["any"]),
    ];
    for (labels, expected) in table {
        let (names, rules, told) = served(Some(&labels), &routes);
        assert_eq!((names, told), (expected.iter().map(ToString::to_string).collect(), vec![]), "{labels:?}");
        assert_eq!(rules, expected, "{labels:?}");
    }
}

#[test]
fn without_labels_nothing_is_served_that_chooses_by_them() {
    let routes = json!([route("any", None), route("orders", Some(json!({"app": "orders"})))]);
    let (names, rules, problems) = served(None, &routes);
    assert_eq!((names, rules), (vec!["any".to_owned()], vec!["any".to_owned()]));
    let advice = "the labels of this pod are not known, so the route is not served; have them in the file `labels`";
    assert_eq!(problems, expected(&[("policy.routes[1].podSelector", advice)]));
}

#[test]
fn a_selector_names_a_label() {
    let policy = json!({"listeners": [listener("main", 8443)], "routes": [route("orders", Some(json!({})))]});
    let problems = accept::policy(&read(policy)).unwrap_err().problems;
    let advice = "is empty; write a label, or leave podSelector out";
    assert_eq!(told(&problems), expected(&[("policy.routes[0].podSelector.matchLabels", advice)]));
}
