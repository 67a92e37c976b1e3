//! Puts a sidecar into a pod, and says what has changed as a JSON patch (RFC 6902). What somebody else has added to the
//! sidecar's container stays, so that putting it in again changes nothing.

use k8s_openapi::api::core::v1::{Container, Volume};
use serde::Serialize;
use serde_json::{Map, Value, json};

use super::sidecar::{Sidecar, VARIABLE_PREFIX, VOLUMES};
use crate::index::pod::SIDECAR_CONTAINER;

/// What of a pod is ever changed.
const PLACES: [&str; 5] =
    ["/metadata/labels", "/metadata/annotations", "/spec/initContainers", "/spec/containers", "/spec/volumes"];

/// The patch that makes one object of another, which differs in what is changed of a pod.
#[must_use]
pub fn patch(before: &Value, after: &Value) -> Vec<Value> {
    let changed = PLACES.iter().filter(|place| before.pointer(place) != after.pointer(place));
    // "add" replaces what is there.
    changed.map(|place| json!({"op": "add", "path": place, "value": after.pointer(place)})).collect()
}

/// Sets labels or annotations.
pub fn set_words(pod: &mut Value, place: &str, words: &[(&str, &str)]) {
    let all = member(&mut pod["metadata"], place, || Value::Object(Map::new()));
    for (name, value) in words {
        all[*name] = (*value).into();
    }
}

/// Makes the sidecar the first of the init containers, so that nothing runs before its gate.
pub fn put_container(pod: &mut Value, sidecar: &Sidecar) {
    let containers = member(&mut pod["spec"], "initContainers", || json!([]));
    let Some(containers) = containers.as_array_mut() else { return };
    let earlier = containers.iter().find(|container| container["name"] == SIDECAR_CONTAINER).cloned();
    containers.retain(|container| container["name"] != SIDECAR_CONTAINER);
    containers.insert(0, container(&sidecar.container, earlier.as_ref()));
}

/// Puts the volumes behind all others, or where they were.
pub fn put_volumes(pod: &mut Value, volumes: &[Volume]) {
    let known = member(&mut pod["spec"], "volumes", || json!([]));
    let Some(known) = known.as_array_mut() else { return };
    for volume in volumes {
        let ours = value(volume);
        match known.iter_mut().find(|one| one["name"] == ours["name"]) {
            Some(place) => *place = ours,
            None => known.push(ours),
        }
    }
}

/// A member of an object that is there and not null.
fn member<'a>(object: &'a mut Value, name: &str, empty: fn() -> Value) -> &'a mut Value {
    if object[name].is_null() {
        object[name] = empty();
    }
    &mut object[name]
}

/// The container, with what others have given it: bounds that a LimitRange sets, a token of the service account,
/// variables.
fn container(ours: &Container, earlier: Option<&Value>) -> Value {
    let mut made = value(ours);
    let Some(earlier) = earlier else { return made };
    for bounds in ["requests", "limits"] {
        for (name, quantity) in earlier["resources"][bounds].as_object().into_iter().flatten() {
            if made["resources"][bounds][name].is_null() {
                made["resources"][bounds][name] = quantity.clone();
            }
        }
    }
    let theirs = |list: &str, is_ours: &dyn Fn(&str) -> bool| {
        let all = earlier[list].as_array().cloned().unwrap_or_default();
        let name = |one: &Value| one["name"].as_str().unwrap_or_default().to_owned();
        all.into_iter().filter(|one| !is_ours(&name(one))).collect::<Vec<_>>()
    };
    let mounts = theirs("volumeMounts", &|name| VOLUMES.contains(&name));
    let variables = theirs("env", &|name| name.starts_with(VARIABLE_PREFIX));
    for (list, theirs) in [("volumeMounts", mounts), ("env", variables)] {
        if let Some(all) = made[list].as_array_mut() {
            all.extend(theirs);
        }
    }
    if made["imagePullPolicy"].is_null() && made["image"] == earlier["image"] {
        // What Kubernetes has filled in.
        made["imagePullPolicy"] = earlier["imagePullPolicy"].clone();
    }
    without_nulls(made)
}

/// A value of a type that has nothing but texts, numbers, lists and maps with texts as keys.
fn value(typed: &impl Serialize) -> Value {
    serde_json::to_value(typed).unwrap_or_default()
}

fn without_nulls(mut object: Value) -> Value {
    if let Some(fields) = object.as_object_mut() {
        fields.retain(|_, value| !value.is_null());
    }
    object
}
