//! What the picture of the cluster holds of an object, in bytes: bounds that whoever keeps more meets here first. There
//! are thousands of each.

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;

use postern_operator::index::cluster::Source;
use postern_operator::index::{Cluster, Object, kinds};
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

/// The system's allocator, which counts what the thread holds.
struct Counting;

#[global_allocator]
static ALLOCATOR: Counting = Counting;

thread_local! {
    static HELD: Cell<isize> = const { Cell::new(0) };
}

fn count(bytes: isize) {
    // A thread on its way out counts for nobody.
    let _gone = HELD.try_with(|held| held.set(held.get() + bytes));
}

/// What glibc takes for an allocation: eight bytes of its own, rounded up to 16, and 32 at least.
fn taken(layout: Layout) -> isize {
    isize::try_from((layout.size() + 8).next_multiple_of(16).max(32)).unwrap()
}

// SAFETY: the system's allocator does all of it.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        count(taken(layout));
        // SAFETY: as it was asked.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        count(-taken(layout));
        // SAFETY: as it was asked.
        unsafe { System.dealloc(pointer, layout) }
    }
}

/// Metadata as the API server has it, with what `kubectl apply` and managers of fields leave there.
fn metadata(name: &str, labels: &Value) -> Value {
    let managed = |manager: &str| {
        let fields = json!({"f:spec": {"f:issue": {"f:secretName": {}}}, "f:status": {"f:conditions": {"k:{\"type\":\"Ready\"}": {}}}});
        json!({"manager": manager, "operation": "Apply", "apiVersion": "v1", "time": "2026-11-21T10:00:00Z", "fieldsType": "FieldsV1", "fieldsV1": fields})
    };
    json!({
        "name": name, "namespace": "shop", "uid": "7ad9d5a8-2f5c-4a3d-9d64-6a7c2f1b9e55", "resourceVersion": "123456",
        "generation": 1, "creationTimestamp": "2026-11-21T10:00:00Z", "labels": labels,
        "annotations": {"kubectl.kubernetes.io/last-applied-configuration": "x".repeat(4000)},
        "managedFields": [managed("kubectl"), managed("postern-operator"), managed("kubelet")],
    })
}

fn identity(number: usize) -> Value {
    let condition = |kind: &str| json!({"type": kind, "status": "True", "reason": kind, "message": "1000 of 1000 sidecars know it", "observedGeneration": 1, "lastTransitionTime": "2026-11-21T10:00:00Z"});
    let conditions = ["Accepted", "Issued", "Enforced", "Ready"].map(condition);
    let name = format!("client-{number}");
    let spiffe = format!("spiffe://cluster.local/ns/shop/client/{name}");
    let mut metadata = metadata(&name, &json!({"tier": "t1"}));
    metadata["finalizers"] = json!(["postern.dev/revoke"]);
    json!({
        "apiVersion": "postern.dev/v1alpha1", "kind": "ClientIdentity", "metadata": metadata,
        "spec": {"issue": {"secretName": format!("{name}-tls")}},
        "status": {
            "conditions": conditions,
            "kind": "Issue", "subject": spiffe, "enforced": {"started": 1000, "enforced": 1000},
            "certificate": {
                "serial": "00".repeat(16), "notBefore": "2026-11-21T10:00:00Z", "notAfter": "2027-02-19T10:00:00Z",
                "renewalTime": "2027-01-20T10:00:00Z", "sha256": "00".repeat(32), "spiffeId": spiffe,
                "lfdi": "00".repeat(20), "sfdi": "123456789012",
            },
        },
    })
}

/// A client's, with 6 KB of key, chain and authorities.
fn secret(number: usize) -> Value {
    let name = format!("client-{number}");
    let labels =
        json!({"app.kubernetes.io/managed-by": "postern", "postern.dev/client-identity": name, "team": "blue"});
    let entry = "QUFB".repeat(700);
    json!({
        "apiVersion": "v1", "kind": "Secret", "metadata": metadata(&format!("{name}-tls"), &labels),
        "type": "kubernetes.io/tls", "data": {"ca.crt": entry, "tls.crt": entry, "tls.key": entry},
    })
}

/// A workload's, with as much of a policy as 200 routes are.
fn config_map(number: usize) -> Value {
    let labels = json!({"app.kubernetes.io/managed-by": "postern", "postern.dev/part": "policy", "postern.dev/workload": format!("app-{number}")});
    json!({
        "apiVersion": "v1", "kind": "ConfigMap", "metadata": metadata(&format!("postern-policy-app-{number}"), &labels),
        "data": {"policy.json": "x".repeat(100_000)},
    })
}

fn pod(number: usize) -> Value {
    let labels = json!({"app": "orders", "postern.dev/workload": "orders", "pod-template-hash": "6d4b75cb6d"});
    let container = |name: &str| {
        let variables: Vec<_> =
            (0..20).map(|at| json!({"name": format!("VARIABLE_{at}"), "value": "x".repeat(100)})).collect();
        json!({"name": name, "image": "registry.example.com/orders:1.0", "env": variables, "ports": [{"name": "http", "containerPort": 8080}]})
    };
    let status = json!({"name": "postern-sidecar", "image": "i", "imageID": "i", "ready": true, "started": true, "restartCount": 0});
    json!({
        "apiVersion": "v1", "kind": "Pod", "metadata": metadata(&format!("orders-6d4b75cb6d-{number}"), &labels),
        "spec": {"serviceAccountName": "orders", "containers": [container("orders")], "initContainers": [container("postern-sidecar")]},
        "status": {"phase": "Running", "podIP": "10.0.0.1", "initContainerStatuses": [status]},
    })
}

/// Bytes of the picture for each of some objects.
fn bytes_each<K: DeserializeOwned>(object: fn(usize) -> Value, keep: fn(K) -> Option<Object>) -> isize {
    const OBJECTS: usize = 500;
    let mut cluster = Cluster::default();
    let before = HELD.with(Cell::get);
    for number in 0..OBJECTS {
        let kept = keep(serde_json::from_value(object(number)).unwrap()).unwrap();
        drop(cluster.set(kept, Source::List));
    }
    let after = HELD.with(Cell::get);
    drop(cluster);
    (after - before) / isize::try_from(OBJECTS).unwrap()
}

#[test]
fn little_is_kept_of_each_object() {
    for (kind, bytes, bound) in [
        ("ClientIdentity", bytes_each(identity, kinds::identity), 4200),
        ("Secret of a client", bytes_each(secret, kinds::secret), 1200),
        ("ConfigMap", bytes_each(config_map, kinds::config_map), 1200),
        ("Pod", bytes_each(pod, kinds::pod), 2200),
    ] {
        assert!(bytes <= bound, "{bytes} bytes are kept of each {kind}, and {bound} were enough");
        assert!(bytes > 100, "{bytes} bytes of each {kind} are none: nothing was counted");
    }
}
