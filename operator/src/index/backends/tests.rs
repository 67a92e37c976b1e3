//! Tables: a Service and its slices, and the addresses that come of them.

use std::sync::Arc;

use k8s_openapi::api::core::v1::Service as ServiceObject;
use k8s_openapi::api::discovery::v1::EndpointSlice;
use serde_json::{Value, json};

use super::super::cluster::{Object, ObjectKind, Source};
use super::{ServicePort, Unresolved};
use crate::index::{Cluster, ObjectName, Pod, Service, Slice};
use crate::queue::{Key, Pace};

fn service(spec: &Value) -> Object {
    let object = json!({"metadata": {"name": "stock", "namespace": "shop"}, "spec": spec});
    let object: ServiceObject = serde_json::from_value(object).expect("a Service");
    Object::Service(Arc::new(Service::of(object)))
}

/// A slice with these ports and endpoints, in the API's words.
fn slice(name: &str, kind: &str, ports: &Value, endpoints: &Value) -> Object {
    let metadata = json!({"name": name, "namespace": "shop", "labels": {"kubernetes.io/service-name": "stock"}});
    let object = json!({"metadata": metadata, "addressType": kind, "ports": ports, "endpoints": endpoints});
    let object: EndpointSlice = serde_json::from_value(object).expect("a slice");
    Object::Slice(Arc::new(Slice::of(object).expect("it is a Service's")))
}

fn stock(port: u16) -> ServicePort {
    ServicePort { service: ObjectName::new("shop", "stock"), port }
}

/// The addresses, each with the letters of what is so: ready, serving, terminating.
fn found(cluster: &Cluster, port: u16) -> Vec<String> {
    let endpoints = cluster.endpoints(&stock(port)).expect("addresses");
    let told = endpoints.iter().map(|one| {
        let letters = [(one.ready, 'r'), (one.serving, 's'), (one.terminating, 't')];
        let letters: String = letters.iter().filter(|(is_so, _)| *is_so).map(|(_, letter)| letter).collect();
        format!("{} {letters}", one.address)
    });
    told.collect()
}

fn cluster(objects: Vec<Object>) -> Cluster {
    let mut cluster = Cluster::default();
    objects.into_iter().for_each(|object| drop(cluster.set(object, Source::List)));
    cluster
}

#[test]
fn slices_of_a_service_come_to_one_list() {
    let two_ports = json!({"ports": [{"name": "web", "port": 80}, {"name": "admin", "port": 81, "protocol": "TCP"}]});
    let web = json!([{"name": "web", "port": 8080}, {"name": "admin", "port": 9090}]);
    let other_web = json!([{"name": "web", "port": 8081}]);
    let leaving = json!({"ready": false, "serving": true, "terminating": true});
    let all = cluster(vec![
        service(&two_ports),
        slice(
            "b",
            "IPv4",
            &web,
            &json!([
                {"addresses": ["10.0.0.2"], "conditions": {"ready": true}},
                {"addresses": ["10.0.0.1"], "conditions": {}},
                {"addresses": ["10.0.0.3"], "conditions": {"ready": false}},
                {"addresses": ["10.0.0.4"], "conditions": leaving},
            ]),
        ),
        // A rollout that changes the port has both, each in slices of its own.
        slice("a", "IPv4", &other_web, &json!([{"addresses": ["10.0.0.5"]}])),
        // One that moves from a slice to another is in both for a moment.
        slice(
            "c",
            "IPv4",
            &web,
            &json!([{"addresses": ["10.0.0.3"]}, {"addresses": ["10.0.0.4"], "conditions": {"ready": false}}]),
        ),
        slice("d", "IPv6", &web, &json!([{"addresses": ["fd00::1"]}])),
        slice("e", "FQDN", &web, &json!([{"addresses": ["a.example"]}])),
    ]);
    let expected = [
        "10.0.0.1:8080 rs",
        "10.0.0.2:8080 rs",
        "10.0.0.3:8080 rs",
        "10.0.0.4:8080 st",
        "10.0.0.5:8081 rs",
        "[fd00::1]:8080 rs",
    ];
    assert_eq!(found(&all, 80), expected);
    assert_eq!(found(&all, 81).len(), 5, "one slice has no such port");
}

#[test]
fn what_cannot_have_addresses_says_so() {
    let stock_name = || ObjectName::new("shop", "stock");
    let ports = json!({"ports": [{"port": 80}, {"port": 53, "protocol": "UDP"}, {"port": 443}]});
    let external = json!({"type": "ExternalName", "externalName": "stock.example.com", "ports": [{"port": 80}]});
    let rows = [
        ("nothing", vec![], 80, Err(Unresolved::NoService(stock_name()))),
        ("no endpoints", vec![service(&ports)], 80, Ok(vec![])),
        ("headless", vec![service(&json!({"clusterIP": "None", "ports": [{"port": 80}]}))], 80, Ok(vec![])),
        ("another port", vec![service(&ports)], 81, Err(Unresolved::NoPort(stock_name(), 81, "80, 443".to_owned()))),
        ("not TCP", vec![service(&ports)], 53, Err(Unresolved::NoPort(stock_name(), 53, "80, 443".to_owned()))),
        ("no ports", vec![service(&json!({}))], 80, Err(Unresolved::NoPort(stock_name(), 80, "none".to_owned()))),
        ("another name", vec![service(&external)], 80, Err(Unresolved::External(stock_name()))),
    ];
    for (case, objects, port, expected) in rows {
        assert_eq!(cluster(objects).endpoints(&stock(port)), expected, "{case}");
    }
}

#[test]
fn a_change_of_addresses_concerns_who_asks_for_them() {
    let route = |name: &str, app: &str, backend: &Value| {
        let rule = json!({"name": "all", "allow": [{"anyone": {}}], "backendRefs": [backend]});
        let spec = json!({"podSelector": {"matchLabels": {"app": app}}, "listener": {"port": 8443}, "rules": [rule]});
        let metadata = json!({"name": name, "namespace": "shop", "generation": 1});
        let object =
            json!({"apiVersion": "postern.dev/v1alpha1", "kind": "ProxyRoute", "metadata": metadata, "spec": spec});
        Object::Route(Arc::new(serde_json::from_value(object).expect("a route")))
    };
    let pod = |workload: &str| {
        let labels = json!({"postern.dev/workload": workload, "app": workload});
        let metadata = json!({"name": format!("{workload}-1"), "namespace": "shop", "labels": labels});
        let pod = serde_json::from_value(json!({"metadata": metadata})).expect("a pod");
        Object::Pod(Arc::new(Pod::of(pod).expect("it has a workload")))
    };
    let asks = json!({"name": "stock", "port": 80});
    let ports = json!([{"port": 8080}]);
    let some = slice("a", "IPv4", &ports, &json!([{"addresses": ["10.0.0.1"]}]));
    let mut cluster = cluster(vec![
        route("orders", "orders", &asks),
        route("web", "web", &json!({"localPort": 80})),
        pod("orders"),
        pod("web"),
    ]);
    let orders = vec![(Key::Workload(ObjectName::new("shop", "orders")), Pace::Gathered)];
    assert_eq!(cluster.set(service(&json!({"ports": [{"port": 80}]})), Source::Change), orders);
    assert_eq!(cluster.set(some.clone(), Source::Change), orders);
    assert_eq!(cluster.set(some.clone(), Source::Change), [], "nothing has changed");
    cluster.set(route("orders", "orders", &json!({"localPort": 80})), Source::List);
    let name = ObjectName::new("shop", "a");
    assert_eq!(cluster.remove(ObjectKind::Slice, &name), [], "nobody asks for it any more");
}

#[test]
fn a_set_has_the_name_of_its_service_and_port() {
    assert_eq!(stock(80).to_string(), "shop/stock:80");
    for (name, expected) in [
        ("shop/stock:80", Some(stock(80))),
        ("stock:80", None),
        ("shop/stock", None),
        ("shop/stock:http", None),
        ("shop/stock:65536", None),
    ] {
        assert_eq!(ServicePort::of(name), expected, "{name}");
    }
}
