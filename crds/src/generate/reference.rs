//! The reference of the API as a page: every object with its fields, bounds and rules, from the definitions alone.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::iter;

use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::{
    CustomResourceDefinition, JSONSchemaProps, JSONSchemaPropsOrArray, JSONSchemaPropsOrBool,
};

use crate::condition::{ConditionType, Reason};
use crate::words;

/// What stands above the objects.
const INTRODUCTION: &str = "\
# API reference

Group `postern.dev`, version `v1alpha1`. `kubectl explain` says the same, such as `kubectl explain proxyroute.spec.rules`.

A field is optional where it is not said to be required. `[]` is each item of a list, `{}` each value of a map. Lengths of
text are in bytes. A length of time is written as in Gateway API (GEP-2257): `10s`, `100ms`, `1h30m`. What a schema or one
of the rules below refuses never gets into the cluster; what only the operator can judge is told by the condition `Accepted`
or `ResolvedRefs`. [deploy/examples](../deploy/examples) has objects to begin with.
";

/// What stands above the conditions.
const CONDITIONS: &str = "
## Conditions

All conditions of an object are about the same moment and generation. `kubectl wait --for=condition=Ready` waits for the one
that sums the others up.

";

/// The page.
pub(super) fn reference(definitions: &[CustomResourceDefinition]) -> String {
    let mut page = format!("<!-- {} -->\n{INTRODUCTION}", super::HEAD);
    for definition in definitions {
        let names = &definition.spec.names;
        let Some(version) = definition.spec.versions.first() else { continue };
        let Some(root) = version.schema.as_ref().and_then(|schema| schema.open_api_v3_schema.as_ref()) else {
            continue;
        };
        // Writing to a String never fails.
        let _ = writeln!(page, "\n## {}\n\n{}", names.kind, root.description.as_deref().unwrap_or_default());
        let short = names.short_names.iter().flatten().map(|name| format!("`{name}`")).collect::<Vec<_>>().join(", ");
        let columns = version.additional_printer_columns.iter().flatten();
        let columns = columns.map(|column| column.name.to_uppercase()).collect::<Vec<_>>().join(", ");
        let selectable = version.selectable_fields.iter().flatten();
        let selectable = selectable
            .map(|field| format!("`{}`", field.json_path.trim_start_matches('.')))
            .collect::<Vec<_>>()
            .join(", ");
        let _ = writeln!(
            page,
            "\nShort name {short}; `kubectl get` shows {columns}; `--field-selector` knows {selectable} besides name and \
             namespace."
        );
        for part in ["spec", "status"] {
            if let Some(schema) = root.properties.as_ref().and_then(|properties| properties.get(part)) {
                objects(&mut page, &names.kind, part, schema);
            }
        }
    }
    conditions(&mut page);
    page
}

/// The closed set of types and reasons.
fn conditions(page: &mut String) {
    page.push_str(CONDITIONS);
    let _ = writeln!(page, "| type | it is true when |\n|---|---|");
    for kind in ConditionType::ALL {
        let _ = writeln!(page, "| `{kind}` | {} |", kind.meaning().trim());
    }
    let _ = writeln!(page, "\n| reason | what it says |\n|---|---|");
    for reason in Reason::ALL {
        let _ = writeln!(page, "| `{reason}` | {} |", reason.meaning().trim());
    }
}

/// An object with its fields, then those within it.
fn objects(page: &mut String, kind: &str, place: &str, schema: &JSONSchemaProps) {
    if let Some(properties) = schema.properties.as_ref().filter(|properties| !properties.is_empty()) {
        let _ = writeln!(page, "\n### {kind} {place}\n\n{}\n", schema.description.as_deref().unwrap_or_default());
        let _ = writeln!(page, "| field | type | what it is |\n|---|---|---|");
        for (name, field) in properties {
            let is_required = schema.required.iter().flatten().any(|required| required == name);
            let required = if is_required { ", required" } else { "" };
            let description = field.description.as_deref().unwrap_or_default();
            let _ = writeln!(page, "| `{name}` | {}{required} | {} |", kind_of(field), cell(description));
        }
        let refusals = refusals(schema, properties);
        if !refusals.is_empty() {
            let _ = writeln!(page, "\nRefused with:\n");
        }
        for refusal in refusals {
            let _ = writeln!(page, "- {refusal}");
        }
        properties.iter().for_each(|(name, field)| objects(page, kind, &format!("{place}.{name}"), field));
    } else if let Some(JSONSchemaPropsOrArray::Schema(item)) = &schema.items {
        objects(page, kind, &format!("{place}[]"), item);
    }
}

/// What is refused of an object, or of its fields that have no table of their own, beyond types and bounds.
fn refusals<'a>(schema: &'a JSONSchemaProps, properties: &'a BTreeMap<String, JSONSchemaProps>) -> Vec<&'a str> {
    let is_plain = |field: &&JSONSchemaProps| field.properties.as_ref().is_none_or(BTreeMap::is_empty);
    let schemas = iter::once(schema).chain(properties.values().filter(is_plain));
    let rules = schemas.flat_map(|schema| schema.x_kubernetes_validations.iter().flatten());
    rules.filter_map(|rule| rule.message.as_deref()).collect()
}

/// A field's type, bounds and default, in words.
fn kind_of(schema: &JSONSchemaProps) -> String {
    let mut said = vec![match (schema.type_.as_deref(), &schema.items, &schema.additional_properties) {
        (_, Some(JSONSchemaPropsOrArray::Schema(item)), _) => format!("list of {}", kind_of(item)),
        (_, _, Some(JSONSchemaPropsOrBool::Schema(value))) => format!("map to {}", kind_of(value)),
        (Some(kind), ..) => kind.to_owned(),
        (None, ..) => "anything".to_owned(),
    }];
    if let Some(words) = &schema.enum_ {
        let words: Vec<String> = words.iter().map(|word| format!("`{}`", plain(&word.0))).collect();
        said[0] = words.join(" or ");
    }
    let bounds = [
        range(schema.min_length.map(|least| least as f64), schema.max_length.map(|most| most as f64), " bytes"),
        range(schema.min_items.map(|least| least as f64), schema.max_items.map(|most| most as f64), " items"),
        range(
            schema.min_properties.map(|least| least as f64),
            schema.max_properties.map(|most| most as f64),
            " entries",
        ),
        range(schema.minimum, schema.maximum, ""),
    ];
    said.extend(bounds.into_iter().flatten());
    let word = schema.pattern.as_deref().and_then(|pattern| {
        let known =
            [(words::DURATION_PATTERN, "length of time"), (words::SIZE_PATTERN, "number of bytes, such as `256Mi`")];
        known.into_iter().find(|(known, _)| *known == pattern)
    });
    if let Some((_, word)) = word {
        // What its pattern and length say, in short.
        said = vec![word.to_owned()];
    } else if let Some(pattern) = &schema.pattern {
        said.push(format!("`{}`", pattern.replace('|', "\\|")));
    }
    if let Some(default) = &schema.default {
        said.push(format!("default `{}`", plain(&default.0)));
    }
    said.join(", ")
}

fn range(least: Option<f64>, most: Option<f64>, unit: &str) -> Option<String> {
    match (least, most) {
        (Some(least), Some(most)) if least == most => Some(format!("{least}{unit}")),
        (Some(least), Some(most)) => Some(format!("{least} to {most}{unit}")),
        (Some(least), None) => Some(format!("from {least}{unit}")),
        (None, Some(most)) => Some(format!("up to {most}{unit}")),
        (None, None) => None,
    }
}

/// A value as people write it.
fn plain(value: &serde_json::Value) -> String {
    value
        .as_str()
        .map_or_else(|| value.to_string(), |text| if text.is_empty() { "\"\"".to_owned() } else { text.to_owned() })
}

fn cell(text: &str) -> String {
    text.replace('|', "\\|")
}
