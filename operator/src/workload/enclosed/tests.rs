//! Tables: Services, pods and what sidecars see, and whether the gate can be gone around.

use std::collections::BTreeMap;
use std::sync::Arc;

use k8s_openapi::api::core::v1::{Pod as PodObject, Service as ServiceObject};
use postern_crds::{ConditionStatus, ProxyRoute, Reason};
use serde_json::{Value, json};

use super::super::ask::Answer;
use super::super::board::{Heard, Report};
use super::super::plan::Verdict;
use super::{Ways, bypassing, verdict};
use crate::index::cluster::{Object, Source};
use crate::index::{Cluster, ObjectName, Pod, Service};

fn route(backends: &Value) -> ProxyRoute {
    let rule = json!({"name": "all", "allow": [{"anyone": {}}], "backendRefs": backends});
    let spec = json!({"podSelector": {"matchLabels": {"app": "orders"}}, "listener": {"port": 8443}, "rules": [rule]});
    let metadata = json!({"name": "orders", "namespace": "shop"});
    let object =
        json!({"apiVersion": "postern.dev/v1alpha1", "kind": "ProxyRoute", "metadata": metadata, "spec": spec});
    serde_json::from_value(object).expect("a route")
}

fn local() -> Value {
    json!([{"localPort": 8080}])
}

fn pod(name: &str, app: &str, ports: &Value) -> Arc<Pod> {
    let labels = json!({"postern.dev/workload": "orders", "app": app});
    let containers = json!([{"name": "app", "ports": ports}]);
    let object =
        json!({"metadata": {"name": name, "namespace": "shop", "labels": labels}, "spec": {"containers": containers}});
    let object: PodObject = serde_json::from_value(object).expect("a pod");
    Arc::new(Pod::of(object).expect("it has a workload"))
}

fn service(namespace: &str, app: &str, port: &Value) -> Object {
    let metadata = json!({"name": "direct", "namespace": namespace});
    let spec = json!({"selector": {"app": app}, "ports": [{"port": 443, "targetPort": 8443, "name": "gate"}, port]});
    let object = serde_json::from_value::<ServiceObject>(json!({"metadata": metadata, "spec": spec}));
    Object::Service(Arc::new(Service::of(object.expect("a Service"))))
}

#[test]
fn services_that_send_past_the_gate_are_found() {
    let named =
        json!([{"name": "web", "containerPort": 8080}, {"name": "dns", "containerPort": 8080, "protocol": "UDP"}]);
    let past = |port: u16| vec![format!("shop/direct from its port {port} to 8080")];
    let rows = [
        ("none", None, local(), vec![]),
        ("to the gate", Some(service("shop", "orders", &json!({"port": 80, "targetPort": 8443}))), local(), vec![]),
        ("by number", Some(service("shop", "orders", &json!({"port": 80, "targetPort": 8080}))), local(), past(80)),
        ("by name", Some(service("shop", "orders", &json!({"port": 80, "targetPort": "web"}))), local(), past(80)),
        ("the same", Some(service("shop", "orders", &json!({"port": 8080}))), local(), past(8080)),
        (
            "by another name",
            Some(service("shop", "orders", &json!({"port": 80, "targetPort": "dns"}))),
            local(),
            vec![],
        ),
        ("not TCP", Some(service("shop", "orders", &json!({"port": 8080, "protocol": "UDP"}))), local(), vec![]),
        ("to other pods", Some(service("shop", "stock", &json!({"port": 8080}))), local(), vec![]),
        ("of others", Some(service("web", "orders", &json!({"port": 8080}))), local(), vec![]),
        (
            "elsewhere",
            Some(service("shop", "orders", &json!({"port": 8080}))),
            json!([{"name": "a", "port": 8080}]),
            vec![],
        ),
    ];
    for (case, service, backends, expected) in rows {
        let mut cluster = Cluster::default();
        cluster.set(Object::Pod(pod("orders-1", "orders", &named)), Source::List);
        cluster.set(Object::Pod(pod("stock-1", "stock", &json!([{"containerPort": 8080}]))), Source::List);
        service.into_iter().for_each(|service| drop(cluster.set(service, Source::List)));
        assert_eq!(bypassing(&cluster, &route(&backends)), expected, "{case}");
    }
}

/// What a sidecar says: whether it has the route, and which ports it finds exposed.
fn answered(has_route: bool, exposed: &Value) -> Heard {
    let routes = if has_route { json!({"shop/orders": "aaaaaaaaaaaa"}) } else { json!({}) };
    let mut answer = json!({"contract": {"min": "1.0", "max": "1.5"}, "podUid": "", "parts": {}, "routes": routes});
    if !exposed.is_null() {
        answer["exposedPorts"] = exposed.clone();
    }
    Heard::Answered(Arc::new(serde_json::from_value::<Answer>(answer).expect("an answer")))
}

#[test]
fn it_is_enclosed_when_every_started_pod_says_so() {
    use ConditionStatus::{False, True, Unknown};
    let (closed, open) = (|| answered(true, &json!([])), || answered(true, &json!([8080])));
    let silent = || Heard::Silent("no answer".to_owned());
    let rows = [
        ("no pods", vec![], local(), Unknown, Reason::NotChecked),
        ("none has started", vec![Heard::NotStarted], local(), Unknown, Reason::NotChecked),
        ("closed", vec![closed()], local(), True, Reason::Enclosed),
        ("closed, and one that has not started", vec![closed(), Heard::NotStarted], local(), True, Reason::Enclosed),
        ("open", vec![closed(), open()], local(), False, Reason::AppListensOnAllAddresses),
        ("open, and one that is silent", vec![silent(), open()], local(), False, Reason::AppListensOnAllAddresses),
        ("another port", vec![answered(true, &json!([9090]))], local(), True, Reason::Enclosed),
        ("silent", vec![closed(), silent()], local(), Unknown, Reason::NotChecked),
        ("without the route yet", vec![answered(false, &json!([]))], local(), Unknown, Reason::NotChecked),
        ("cannot tell", vec![answered(true, &Value::Null)], local(), Unknown, Reason::NotChecked),
        ("nothing of its own", vec![silent()], json!([{"host": "a.example", "port": 80}]), True, Reason::Enclosed),
    ];
    for (case, heard, backends, status, reason) in rows {
        let route = route(&backends);
        let pods = heard.into_iter().enumerate();
        let pods = pods.map(|(number, heard)| (pod(&format!("orders-{number}"), "orders", &json!([])), heard));
        let accepted = Verdict { accepted: Ok("aaaaaaaaaaaa".to_owned()), missing: Vec::new(), kept: None };
        let report = Report {
            generations: BTreeMap::new(),
            pods: pods.collect(),
            routes: [(ObjectName::of(&route), accepted)].into(),
            policy_revision: String::new(),
            problems: Vec::new(),
        };
        let reports = BTreeMap::from([(ObjectName::new("shop", "orders"), Arc::new(report))]);
        let found = verdict(&Ways::of(&route, Vec::new(), &reports));
        assert_eq!((found.status, found.reason), (status, reason), "{case}: {}", found.message);
        let bypassed = verdict(&Ways::of(&route, vec!["shop/direct from its port 80 to 8080".to_owned()], &reports));
        assert_eq!((bypassed.status, bypassed.reason), (False, Reason::ServiceBypasses), "{case}");
    }
}
