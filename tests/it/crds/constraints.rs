//! What the definitions demand, found by walking their schemas.

use postern_crds::schema::definitions;
use serde_json::Value;

/// What a schema demands of one place.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Constraint {
    /// The place, `spec.rules[].name`: `[]` is any item, `{}` any key.
    pub(super) place: String,
    /// The demand.
    pub(super) demand: Demand,
}

/// A demand.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Demand {
    /// It is of this type.
    Type(String),
    /// It is there.
    Required,
    /// It is one of these.
    Enum(Vec<String>),
    /// It looks like this.
    Pattern(String),
    /// It is a point in time, or another thing that the API server can tell.
    Format(String),
    /// A bound by its keyword.
    Bound(&'static str, u64),
    /// No two items have the same keys.
    Unique(Vec<String>),
    /// What CEL says, by its message.
    Rule(String),
}

/// Keywords of bounds.
const BOUNDS: [&str; 8] =
    ["minLength", "maxLength", "minimum", "maximum", "minItems", "maxItems", "minProperties", "maxProperties"];

/// The schema of a kind.
pub(super) struct Kind {
    /// The kind.
    pub(super) kind: String,
    /// Its schema.
    pub(super) root: Value,
}

/// The schemas of all definitions.
pub(super) fn schemas() -> Vec<Kind> {
    let of = |definition: &Value| Kind {
        kind: definition.pointer("/spec/names/kind").unwrap().as_str().unwrap().to_owned(),
        root: definition.pointer("/spec/versions/0/schema/openAPIV3Schema").unwrap().clone(),
    };
    definitions().iter().map(|definition| of(&serde_json::to_value(definition).unwrap())).collect()
}

/// Everything that a kind's schema demands.
pub(super) fn constraints(kind: &Kind) -> Vec<Constraint> {
    let mut found = Vec::new();
    walk(&kind.root, "", &mut |place, schema| demands(place, schema, &mut found));
    found
}

fn demands(place: &str, schema: &Value, found: &mut Vec<Constraint>) {
    let mut add = |place: &str, demand| found.push(Constraint { place: place.to_owned(), demand });
    for name in strings(&schema["required"]) {
        add(&below(place, &name), Demand::Required);
    }
    let format = schema["format"].as_str().filter(|format| !format.starts_with("int"));
    // The API server itself reads what is around spec and status.
    if !place.is_empty() {
        // It names the format where there is one.
        let kind = format.or(schema["type"].as_str()).unwrap();
        add(place, Demand::Type(kind.to_owned()));
    }
    if schema["enum"].is_array() {
        add(place, Demand::Enum(schema["enum"].as_array().unwrap().iter().map(Value::to_string).collect()));
    }
    if let Some(pattern) = schema["pattern"].as_str() {
        add(place, Demand::Pattern(pattern.to_owned()));
    }
    if let Some(format) = format {
        add(place, Demand::Format(format.to_owned()));
    }
    for keyword in BOUNDS {
        if let Some(bound) = schema[keyword].as_f64() {
            #[expect(
                clippy::cast_possible_truncation,
                clippy::cast_sign_loss,
                reason = "bounds are whole and positive"
            )]
            add(place, Demand::Bound(keyword, bound as u64));
        }
    }
    let keys = strings(&schema["x-kubernetes-list-map-keys"]);
    if !keys.is_empty() {
        add(place, Demand::Unique(keys));
    }
    for message in super::messages(schema) {
        add(place, Demand::Rule(message.to_owned()));
    }
}

/// Visits a schema and all below it.
pub(super) fn walk(schema: &Value, place: &str, visit: &mut impl FnMut(&str, &Value)) {
    visit(place, schema);
    for (name, inner) in schema["properties"].as_object().into_iter().flatten() {
        walk(inner, &below(place, name), visit);
    }
    for (key, step) in [("items", "[]"), ("additionalProperties", "{}")] {
        if let Some(inner) = schema.get(key) {
            walk(inner, &format!("{place}{step}"), visit);
        }
    }
}

fn below(place: &str, name: &str) -> String {
    if place.is_empty() { name.to_owned() } else { format!("{place}.{name}") }
}

fn strings(list: &Value) -> Vec<String> {
    list.as_array().into_iter().flatten().filter_map(Value::as_str).map(str::to_owned).collect()
}

/// Places that have no bound where there must be one, no description, or a rule without a message.
pub(super) fn unbounded(root: &Value, kind: &str, found: &mut Vec<String>) {
    walk(root, "", &mut |place, schema| {
        let has = |keyword: &str| schema.get(keyword).is_some();
        let missing: &[&str] = match schema["type"].as_str().unwrap_or_default() {
            "string" if !has("enum") => &["maxLength"],
            "array" => &["maxItems"],
            "object" if has("additionalProperties") => &["maxProperties"],
            "integer" if !has("enum") && !has("format") => &["minimum", "maximum"],
            _ => &[],
        };
        found
            .extend(missing.iter().filter(|keyword| !has(keyword)).map(|keyword| format!("{kind} {place}: {keyword}")));
        // Of a list of words the list itself tells what they are.
        if !has("description") && !place.ends_with("[]") && !place.ends_with("{}") {
            found.push(format!("{kind} {place}: description"));
        }
        let rules = schema["x-kubernetes-validations"].as_array().map_or(0, Vec::len);
        if super::messages(schema).len() != rules {
            found.push(format!("{kind} {place}: a rule without a message"));
        }
        if has("x-kubernetes-preserve-unknown-fields") || has("nullable") {
            found.push(format!("{kind} {place}: takes what it does not know"));
        }
    });
}
