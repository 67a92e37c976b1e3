//! The objects of the scene: namespaces with workloads, their pods, Services and routes, and clients.

use anyhow::Result;
use futures_util::{StreamExt, TryStreamExt, stream};
use k8s_openapi::api::core::v1::Namespace;
use kube::api::{ApiResource, DynamicObject, GroupVersionKind, PostParams};
use kube::{Api, Client};
use serde_json::{Value, json};

use super::Sizes;
use crate::minikubelet::pod;

/// Objects made at once.
const AT_ONCE: usize = 16;
/// Clients that a route lets in by name.
const NAMED: usize = 5;
/// Port of every gate.
const PORT: u16 = 8443;

/// How the API server calls a kind.
pub(super) fn resource(group: &str, version: &str, kind: &str) -> ApiResource {
    ApiResource::from_gvk(&GroupVersionKind::gvk(group, version, kind))
}

pub(super) fn routes() -> ApiResource {
    resource("postern.dev", "v1alpha1", "ProxyRoute")
}

pub(super) fn identities() -> ApiResource {
    let mut resource = resource("postern.dev", "v1alpha1", "ClientIdentity");
    "clientidentities".clone_into(&mut resource.plural);
    resource
}

/// Makes all of them.
pub(super) async fn make(client: &Client, sizes: &Sizes, namespaces: &[String]) -> Result<()> {
    for name in namespaces {
        let object = serde_json::from_value(json!({"metadata": {"name": name}}))?;
        Api::<Namespace>::all(client.clone()).create(&PostParams::default(), &object).await?;
    }
    let of = |number: usize| namespaces[number % namespaces.len()].as_str();
    let mut all = Vec::new();
    for workload in 0..sizes.workloads {
        let (namespace, name) = (of(workload), format!("app-{workload}"));
        all.push((namespace, resource("", "v1", "Service"), service(&name)));
        all.push((namespace, routes(), route(&name, workload, sizes, namespaces.len())));
    }
    for number in 0..sizes.pods {
        let workload = number % sizes.workloads;
        let name = format!("app-{workload}");
        let object = pod(&format!("{name}-{number}"), &name, "default", &[("app", &name)]);
        all.push((of(workload), resource("", "v1", "Pod"), object));
    }
    for number in 0..sizes.identities {
        all.push((of(number), identities(), identity(number)));
    }
    let made = stream::iter(all).map(|(namespace, resource, object)| async move {
        let object: DynamicObject = serde_json::from_value(object)?;
        let api = Api::<DynamicObject>::namespaced_with(client.clone(), namespace, &resource);
        api.create(&PostParams::default(), &object).await.map(drop).map_err(anyhow::Error::from)
    });
    made.buffer_unordered(AT_ONCE).try_collect().await
}

fn service(name: &str) -> Value {
    json!({
        "apiVersion": "v1", "kind": "Service", "metadata": {"name": name},
        "spec": {"selector": {"app": name}, "ports": [{"port": PORT}]},
    })
}

fn route(name: &str, workload: usize, sizes: &Sizes, namespaces: usize) -> Value {
    let own = (0..sizes.identities).filter(|number| number % namespaces == workload % namespaces);
    let named = own.skip(workload / namespaces).take(NAMED);
    let allow: Vec<_> = named.map(|number| json!({"identity": {"name": format!("client-{number}")}})).collect();
    let tier = format!("t{}", workload % 10);
    let selected = json!([{"identitySelector": {"matchLabels": {"tier": tier}}}]);
    let rule = |name: &str, path: &str, allow: Value| {
        json!({
            "name": name, "matches": [{"path": {"type": "PathPrefix", "value": path}}], "allow": allow,
            "backendRefs": [{"localPort": 8080}],
        })
    };
    json!({
        "apiVersion": "postern.dev/v1alpha1", "kind": "ProxyRoute", "metadata": {"name": name},
        "spec": {
            "podSelector": {"matchLabels": {"app": name}},
            "listener": {"port": PORT},
            "hostnames": [format!("{name}.example.com")],
            "rules": [rule("named", "/named", json!(allow)), rule("selected", "/", selected)],
        },
    })
}

fn identity(number: usize) -> Value {
    json!({
        "apiVersion": "postern.dev/v1alpha1", "kind": "ClientIdentity",
        "metadata": {"name": format!("client-{number}"), "labels": {"tier": format!("t{}", number % 100)}},
        "spec": {"issue": {"secretName": format!("client-{number}-tls")}},
    })
}
