//! Identities as users write them.

use postern_crds::ClientIdentity;
use serde_json::{Value, json};

/// An identity of namespace `shop` with this spec, created at this second of a day, as the API server would hand it out.
pub(crate) fn identity(name: &str, second: u32, spec: &Value) -> ClientIdentity {
    in_namespace("shop", name, second, spec)
}

pub(crate) fn in_namespace(namespace: &str, name: &str, second: u32, spec: &Value) -> ClientIdentity {
    let object = json!({
        "apiVersion": "postern.dev/v1alpha1",
        "kind": "ClientIdentity",
        "metadata": {
            "name": name, "namespace": namespace, "uid": format!("uid-{namespace}-{name}"), "generation": 1,
            "resourceVersion": "1", "creationTimestamp": format!("2026-09-21T00:00:{second:02}Z"),
            "labels": {"tier": name},
        },
        "spec": spec,
    });
    serde_json::from_value(object).expect("an identity")
}

/// One with a Secret.
pub(crate) fn issue() -> Value {
    json!({"issue": {"secretName": "billing-client"}})
}

/// One of a partner, recognised by these claims.
pub(crate) fn external(claims: &Value) -> Value {
    let mut external = json!({"trust": {"caCertificateRefs": [{"kind": "ConfigMap", "name": "partner-ca"}]}});
    let fields = external.as_object_mut().expect("an object");
    fields.extend(claims.as_object().expect("an object").clone());
    json!({"external": external})
}
