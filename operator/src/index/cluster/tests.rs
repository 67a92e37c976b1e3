//! Tables: a change of the cluster, and whose turn it is then.

use std::collections::BTreeSet;
use std::sync::Arc;

use postern_crds::{ClientIdentity, ProxyRoute};
use serde_json::{Value, json};

use super::{Cluster, Object, ObjectKind, Source};
use crate::index::{Held, HeldKind, ObjectName, Pod};
use crate::queue::Key;

fn route(namespace: &str, name: &str, spec: &Value, version: u64) -> Object {
    let mut all = json!({
        "podSelector": {"matchLabels": {"app": "orders"}},
        "listener": {"port": 8443},
        "rules": [{"name": "all", "allow": [{"identity": {"name": "billing"}}], "backendRefs": [{"localPort": 8080}]}],
    });
    for (field, value) in spec.as_object().expect("an object") {
        all[field] = value.clone();
    }
    let metadata = json!({"name": name, "namespace": namespace, "resourceVersion": version.to_string()});
    let object = json!({"apiVersion": "postern.dev/v1alpha1", "kind": "ProxyRoute", "metadata": metadata, "spec": all});
    Object::Route(Arc::new(serde_json::from_value::<ProxyRoute>(object).expect("a route")))
}

fn identity(name: &str, spec: &Value, version: u64) -> Object {
    let metadata = json!({"name": name, "namespace": "shop", "resourceVersion": version.to_string()});
    let kind = "ClientIdentity";
    let object = json!({"apiVersion": "postern.dev/v1alpha1", "kind": kind, "metadata": metadata, "spec": spec});
    Object::Identity(Arc::new(serde_json::from_value::<ClientIdentity>(object).expect("a client")))
}

fn pod(namespace: &str, name: &str, workload: &str, app: &str) -> Pod {
    Pod {
        name: ObjectName::new(namespace, name),
        uid: format!("uid-of-{name}"),
        workload: workload.to_owned(),
        service_account: "default".to_owned(),
        labels: [("app".to_owned(), app.to_owned())].into(),
        ports: [].into(),
        address: None,
        is_started: false,
        is_ending: false,
        touched: None,
        gate: crate::inject::gate::Gate::There,
    }
}

fn held(name: &str, labels: &[(&str, &str)], version: u64, text: &str) -> Object {
    let labels: serde_json::Map<_, _> = [("app.kubernetes.io/managed-by", "postern")]
        .iter()
        .chain(labels)
        .map(|(label, value)| ((*label).to_owned(), json!(value)))
        .collect();
    let metadata = json!({"name": name, "namespace": "shop", "uid": "u", "resourceVersion": version.to_string(), "labels": labels});
    let object = serde_json::from_value(json!({"metadata": metadata, "data": {"a": text}})).expect("a ConfigMap");
    Object::Held(Arc::new(Held::of_config_map(object).expect("ours")))
}

/// A picture with two workloads that the route selects, one that it does not, and one elsewhere.
fn cluster() -> Cluster {
    let mut cluster = Cluster::default();
    for (namespace, name, workload, app) in [
        ("shop", "orders-1", "orders", "orders"),
        ("shop", "orders-2", "orders", "orders"),
        ("shop", "canary-1", "canary", "orders"),
        ("shop", "stock-1", "stock", "stock"),
        ("web", "front-1", "front", "front"),
    ] {
        cluster.set(Object::Pod(Arc::new(pod(namespace, name, workload, app))), Source::List);
    }
    cluster.set(route("shop", "orders", &json!({}), 1), Source::List);
    cluster
}

fn of(turns: Vec<(Key, crate::queue::Pace)>) -> BTreeSet<String> {
    turns.into_iter().map(|(key, _)| key.to_string()).collect()
}

fn keys<const COUNT: usize>(keys: [&str; COUNT]) -> BTreeSet<String> {
    keys.map(str::to_owned).into()
}

#[test]
fn a_route_concerns_the_workloads_it_selects() {
    let mut cluster = cluster();
    let changed = route("shop", "orders", &json!({"hostnames": ["a.example"]}), 2);
    let expected = keys(["workload shop/orders", "workload shop/canary", "route shop/orders", "trust shop"]);
    assert_eq!(of(cluster.set(changed.clone(), Source::Change)), expected);
    assert_eq!(of(cluster.set(changed, Source::Change)), keys([]), "its status is nobody's concern");
    let gone = cluster.remove(ObjectKind::Route, &ObjectName::new("shop", "orders"));
    assert_eq!(of(gone), keys(["workload shop/orders", "workload shop/canary", "trust shop"]));
}

#[test]
fn a_pod_concerns_its_workload_and_those_who_select_it() {
    let mut cluster = cluster();
    let started = Pod { is_started: true, ..pod("shop", "orders-1", "orders", "orders") };
    let turns = cluster.set(Object::Pod(Arc::new(started.clone())), Source::Change);
    assert_eq!(of(turns), keys(["workload shop/orders", "route shop/orders"]));
    let touched = Pod { touched: Some("x".to_owned()), ..started.clone() };
    assert_eq!(of(cluster.set(Object::Pod(Arc::new(touched)), Source::Change)), keys([]), "that was us");
    let moved = Pod { workload: "other".to_owned(), ..started };
    let turns = cluster.set(Object::Pod(Arc::new(moved)), Source::Change);
    assert_eq!(of(turns), keys(["workload shop/orders", "workload shop/other", "route shop/orders"]));
    assert_eq!(cluster.pods_of(&ObjectName::new("shop", "orders")).count(), 1);
    let new = cluster.set(Object::Pod(Arc::new(pod("shop", "stock-2", "stock", "stock"))), Source::Change);
    assert_eq!(of(new), keys(["workload shop/stock", "trust shop"]));
    let gone = cluster.remove(ObjectKind::Pod, &ObjectName::new("shop", "canary-1"));
    assert_eq!(of(gone), keys(["workload shop/canary", "route shop/orders"]));
}

#[test]
fn a_client_concerns_its_namespace_and_everybody_once_it_is_restricted() {
    let mut cluster = cluster();
    let issue = json!({"issue": {"secretName": "billing"}});
    let shop = [
        "identity shop/billing",
        "trust shop",
        "trust web",
        "workload shop/orders",
        "workload shop/canary",
        "workload shop/stock",
    ];
    assert_eq!(of(cluster.set(identity("billing", &issue, 1), Source::Change)), keys(shop));
    assert_eq!(of(cluster.set(identity("billing", &issue, 2), Source::Change)), keys(["identity shop/billing"]));
    assert_eq!(of(cluster.set(identity("billing", &issue, 2), Source::Change)), keys([]), "known already");
    let suspended = json!({"issue": {"secretName": "billing"}, "state": "Suspended"});
    let mut everybody = keys(shop);
    everybody.insert("workload web/front".to_owned());
    assert_eq!(of(cluster.set(identity("billing", &suspended, 3), Source::Change)), everybody);
    let allow = json!([{"name": "all", "allow": [{"identity": {"name": "x", "namespace": "shop"}}], "backendRefs": [{"localPort": 1}]}]);
    let elsewhere = json!({"podSelector": {"matchLabels": {"app": "front"}}, "rules": allow});
    cluster.set(route("web", "front", &elsewhere, 1), Source::Change);
    let other = of(cluster.set(identity("other", &issue, 4), Source::Change));
    assert!(other.contains("workload web/front"), "a route there names clients of this namespace: {other:?}");
}

#[test]
fn an_object_of_ours_concerns_whoever_writes_it_when_it_is_not_as_it_was() {
    let mut cluster = cluster();
    let workload = [("postern.dev/workload", "orders")];
    assert_eq!(of(cluster.set(held("p", &workload, 5, "a"), Source::Change)), keys(["workload shop/orders"]));
    assert_eq!(of(cluster.set(held("p", &workload, 6, "a"), Source::Change)), keys([]), "the same");
    assert_eq!(of(cluster.set(held("p", &workload, 7, "b"), Source::Change)), keys(["workload shop/orders"]));
    assert_eq!(of(cluster.set(held("postern-trust", &[], 8, "a"), Source::Change)), keys(["trust shop"]));
    let ledger = held("ledger", &[("postern.dev/part", "ledger")], 9, "a");
    assert_eq!(of(cluster.set(ledger, Source::Change)), keys(["trust shop", "trust web"]));
}

#[test]
fn what_is_older_than_what_is_known_is_not_believed() {
    let mut cluster = cluster();
    let workload = [("postern.dev/workload", "orders")];
    let name = ObjectName::new("shop", "p");
    let kind = ObjectKind::Held(HeldKind::ConfigMap);
    let version = |cluster: &Cluster| cluster.held(HeldKind::ConfigMap, &name).map(|held| held.version);
    cluster.set(held("p", &workload, 7, "b"), Source::Change);
    cluster.set(held("p", &workload, 6, "a"), Source::Change);
    assert_eq!(version(&cluster), Some(7), "a watch that is behind an answer");
    cluster.remove_at(kind, &name, 8);
    cluster.set(held("p", &workload, 7, "b"), Source::Change);
    assert_eq!(version(&cluster), None, "an answer that is behind a watch");
    cluster.set(held("p", &workload, 9, "b"), Source::Change);
    assert_eq!(version(&cluster), Some(9));
    cluster.set(held("p", &workload, 3, "b"), Source::List);
    assert_eq!(version(&cluster), Some(3), "a list is the truth: a cluster that was restored counts anew");
    cluster.set(route("shop", "orders", &json!({"hostnames": ["a.example"]}), 5), Source::Change);
    cluster.set(route("shop", "orders", &json!({}), 4), Source::Change);
    let route = cluster.route(&ObjectName::new("shop", "orders")).expect("it is there");
    assert_eq!(route.spec.hostnames, ["a.example"]);
}

/// A ledger of these certificates: serial number, and whether it is revoked.
/// An own status overtakes what somebody else has changed before it, and brings it.
#[test]
fn what_others_change_before_an_own_write_is_not_missed() {
    let mut cluster = cluster();
    cluster.set(route("shop", "orders", &json!({}), 5), Source::Change);
    assert_eq!(of(cluster.set_written(route("shop", "orders", &json!({}), 6))), keys([]), "what was written");
    let changed = json!({"allowBypass": true});
    let turns = of(cluster.set_written(route("shop", "orders", &changed, 8)));
    assert!(turns.contains("workload shop/orders"), "{turns:?}");
    assert_eq!(of(cluster.set(route("shop", "orders", &changed, 7), Source::Change)), keys([]), "told too late");

    let (active, suspended) = (json!({}), json!({"state": "Suspended"}));
    cluster.set(identity("billing", &active, 5), Source::Change);
    assert_eq!(of(cluster.set_written(identity("billing", &active, 6))), keys([]), "what was written");
    let turns = of(cluster.set_written(identity("billing", &suspended, 8)));
    assert!(turns.contains("identity shop/billing") && turns.contains("trust shop"), "{turns:?}");
    assert_eq!(of(cluster.set(identity("billing", &suspended, 7), Source::Change)), keys([]), "told too late");
}

fn ledger(version: u64, certificates: &[(&str, bool)]) -> Object {
    let entry = |(serial, revoked): &(&str, bool)| {
        let entry = json!({
            "identity": "a", "uid": "u", "notAfter": "2026-11-20T00:00:00Z", "revoked": revoked,
        });
        ((*serial).to_owned(), entry)
    };
    let certificates: serde_json::Map<_, _> = certificates.iter().map(entry).collect();
    let document = json!({"version": 1, "certificates": certificates}).to_string();
    let object = json!({
        "metadata": {
            "name": "postern-ledger-shop", "namespace": "postern", "resourceVersion": version.to_string(),
            "labels": {"app.kubernetes.io/managed-by": "postern", "postern.dev/part": "ledger"},
        },
        "data": {"ledger.json": document},
    });
    let object = serde_json::from_value(object).expect("a ConfigMap");
    Object::Held(Arc::new(Held::of_config_map(object).expect("ours")))
}

#[test]
fn what_is_issued_wakes_nobody_and_what_is_revoked_everybody() {
    let mut cluster = Cluster::default();
    drop(cluster.set(route("shop", "orders", &json!({}), 1), Source::List));
    let all = keys(["trust shop"]);
    for (version, certificates, expected) in [
        (1, &[("01", false)] as &[_], &all),
        (2, &[("01", false), ("02", false)], &keys([])),
        (3, &[("01", false), ("02", true)], &all),
        (4, &[("01", false), ("02", true), ("03", false)], &keys([])),
        (5, &[("01", false), ("03", false)], &all),
    ] {
        assert_eq!(of(cluster.set(ledger(version, certificates), Source::Change)), *expected, "{certificates:?}");
    }
}
