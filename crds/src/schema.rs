//! What schemars makes of the types, brought into the form that Kubernetes wants.

use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::CustomResourceExt;
use schemars::generate::SchemaSettings;
use schemars::{JsonSchema, Schema};
use serde_json::{Map, Value};

use crate::{ClientIdentity, ProxyRoute};

/// Where an enum's words and their meanings wait to be told in a description.
const WORDS: &str = "x-words";

/// Largest count that a status tells, and so that has no bound of its own.
const COUNT_MAX: u32 = i32::MAX.unsigned_abs();

/// The definitions of both kinds, as the API server is to have them.
#[must_use]
pub fn definitions() -> [CustomResourceDefinition; 2] {
    [definition::<ProxyRoute>(), definition::<ClientIdentity>()]
}

fn definition<T: CustomResourceExt + JsonSchema>() -> CustomResourceDefinition {
    let mut definition = T::crd();
    let generator = SchemaSettings::openapi3().with(|settings| settings.inline_subschemas = true).into_generator();
    let mut schema = generator.into_root_schema_for::<T>().to_value();
    bring_into_form(&mut schema);
    let version = definition.spec.versions.first_mut();
    if let Some(validation) = version.and_then(|version| version.schema.as_mut()) {
        // A schema that is none would be an empty one, which the test of the generated files shows.
        validation.open_api_v3_schema = serde_json::from_value(schema).ok();
    }
    definition
}

/// Brings an enum of documented words into the form of an enum: Kubernetes knows no alternatives of constants.
pub fn words(schema: &mut Schema) {
    let Some(Value::Array(alternatives)) = schema.remove("oneOf") else { return };
    let words: Vec<Value> = alternatives.iter().filter_map(|one| one.get("const").cloned()).collect();
    let meaning = |one: &Value| {
        let (word, meaning) = (one.get("const")?.as_str()?, one.get("description")?.as_str()?);
        Some(format!("`{word}`: {}", unwrapped(meaning)))
    };
    let meanings: Vec<String> = alternatives.iter().filter_map(meaning).collect();
    schema.insert(WORDS.to_owned(), meanings.join(" ").into());
    schema.insert("type".to_owned(), "string".into());
    schema.insert("enum".to_owned(), words.into());
}

/// Takes out what Kubernetes does not know: titles, formats of its own, and null, which the API server takes for absent
/// where a schema does not ask for it.
fn bring_into_form(schema: &mut Value) {
    match schema {
        Value::Object(fields) => {
            // Below these are names of fields, which may be called like anything.
            for map in ["properties", "patternProperties"] {
                if let Some(Value::Object(properties)) = fields.get_mut(map) {
                    properties.values_mut().for_each(bring_into_form);
                }
            }
            for inner in ["items", "additionalProperties"] {
                if let Some(schema) = fields.get_mut(inner) {
                    bring_into_form(schema);
                }
            }
            bring_object_into_form(fields);
        }
        Value::Array(items) => items.iter_mut().for_each(bring_into_form),
        _ => {}
    }
}

fn bring_object_into_form(fields: &mut Map<String, Value>) {
    for unknown in ["title", "$schema", "nullable"] {
        fields.remove(unknown);
    }
    if let Some(Value::Array(kinds)) = fields.get("type") {
        let kind = kinds.iter().find(|kind| *kind != "null").cloned();
        kind.map(|kind| fields.insert("type".to_owned(), kind));
    }
    if let Some(Value::Array(values)) = fields.get_mut("enum") {
        values.retain(|value| !value.is_null());
    }
    if fields.get("format").and_then(Value::as_str).is_some_and(|format| format.starts_with("uint")) {
        fields.remove("format");
        fields.entry("maximum").or_insert(COUNT_MAX.into());
    }
    // A list of what it may be says all about a number's bounds.
    if fields.contains_key("enum") {
        fields.remove("minimum");
        fields.remove("maximum");
    }
    if fields.get("default") == Some(&Value::Null) {
        fields.remove("default");
    }
    let words = fields.remove(WORDS);
    let description = fields.get("description").and_then(Value::as_str).map(unwrapped);
    let told: Vec<String> =
        description.into_iter().chain(words.as_ref().and_then(Value::as_str).map(str::to_owned)).collect();
    if !told.is_empty() {
        fields.insert("description".to_owned(), told.join(" ").into());
    }
}

/// A comment without the ends of its lines.
fn unwrapped(comment: &str) -> String {
    comment.split_whitespace().collect::<Vec<_>>().join(" ")
}
