//! Violations that follow from the schema: a good object, in which one value is what the schema does not allow.

use serde_json::{Value, json};

use super::constraints::{Constraint, Demand};
use super::table::Row;

/// A row that violates a constraint, made of the first sample that has its place; none for what is said in CEL.
pub(super) fn violate(kind: &str, constraint: &Constraint, samples: &[Value]) -> Option<Row> {
    let Constraint { place, demand } = constraint;
    let (object, found) = samples.iter().find_map(|sample| Some((sample, find(sample, place)?)))?;
    let value = object.pointer(&found.pointer).unwrap_or(&Value::Null);
    let (bad, said) = bad_value(value, demand)?;
    let mut bad_object = object.clone();
    match bad {
        Some(bad) => *bad_object.pointer_mut(&found.pointer)? = bad,
        None => remove(&mut bad_object, &found.pointer),
    }
    Some(Row {
        kind: kind.to_owned(),
        violates: constraint.clone(),
        place: match demand {
            // The item that is there twice is told.
            Demand::Unique(_) => format!("{}[{}]", found.text, value.as_array().map_or(0, Vec::len)),
            _ => found.text,
        },
        said,
        before: None,
        object: bad_object,
    })
}

/// The first sample that has a place, with another value there, and the place as a pointer.
pub(super) fn with(samples: &[Value], place: &str, value: &Value) -> Option<(Value, String)> {
    let (sample, found) = samples.iter().find_map(|sample| Some((sample, find(sample, place)?)))?;
    let mut object = sample.clone();
    *object.pointer_mut(&found.pointer)? = value.clone();
    Some((object, found.pointer))
}

/// A value that violates a demand (none: the value goes), and what the API server says about it.
fn bad_value(value: &Value, demand: &Demand) -> Option<(Option<Value>, String)> {
    let (bad, said) = match demand {
        Demand::Rule(_) => return None,
        Demand::Required => return Some((None, "Required value".to_owned())),
        Demand::Type(kind) => {
            let bad = if value.is_string() { json!(7) } else { json!("seven") };
            (bad, format!("must be of type {kind}"))
        }
        Demand::Enum(words) => {
            let bad = if words.iter().all(|word| word.starts_with('"')) { json!("Nothing") } else { json!(1) };
            (bad, "supported values: ".to_owned())
        }
        Demand::Pattern(_) => {
            let mut text = value.as_str()?.to_owned();
            text.pop();
            // No pattern allows it, and the length stays.
            text.push('\u{1}');
            (json!(text), "should match '".to_owned())
        }
        Demand::Format(format) => (json!("2026-13-45T25:61:61Z"), format!("must be of type {format}")),
        Demand::Unique(_) => {
            let mut items = value.as_array()?.clone();
            items.push(items.first()?.clone());
            (items.into(), "Duplicate value: ".to_owned())
        }
        Demand::Bound(keyword, bound) => return beyond(value, keyword, *bound),
    };
    Some((Some(bad), said))
}

/// A value just beyond a bound.
fn beyond(value: &Value, keyword: &str, bound: u64) -> Option<(Option<Value>, String)> {
    let more = usize::try_from(bound).ok()? + 1;
    let fewer = usize::try_from(bound).ok()?.checked_sub(1);
    let (bad, said) = match keyword {
        "minLength" => (json!("a".repeat(fewer?)), format!("should be at least {bound} chars long")),
        "maxLength" => (json!("a".repeat(more)), format!("may not be more than {bound} bytes")),
        "minimum" => (json!(i64::try_from(bound).ok()? - 1), format!("greater than or equal to {bound}")),
        "maximum" => (json!(more), format!("less than or equal to {bound}")),
        "minItems" => (json!(value.as_array()?.get(..fewer?)?), format!("should have at least {bound} items")),
        "maxItems" => {
            (json!(vec![value.as_array()?.first()?.clone(); more]), format!("must have at most {bound} items"))
        }
        "minProperties" => (json!({}), format!("should have at least {bound} properties")),
        "maxProperties" => {
            let many = (0..more).map(|number| (format!("key-{number}"), json!("value")));
            (Value::Object(many.collect()), format!("must have at most {bound} items"))
        }
        _ => return None,
    };
    Some((Some(bad), said))
}

/// Where a place is in an object.
struct Found {
    /// For us.
    pointer: String,
    /// As the API server tells it.
    text: String,
}

/// Finds a place: the last step may be missing, if what it is in is there.
fn find(object: &Value, place: &str) -> Option<Found> {
    let steps = place.replace("[]", ".[]").replace("{}", ".{}");
    let steps: Vec<&str> = steps.split('.').filter(|step| !step.is_empty()).collect();
    descend(object, &steps, &Found { pointer: String::new(), text: String::new() })
}

fn descend(value: &Value, steps: &[&str], at: &Found) -> Option<Found> {
    let Some((step, rest)) = steps.split_first() else {
        return Some(Found { pointer: at.pointer.clone(), text: at.text.clone() });
    };
    let into = |key: &str, text: String, inner: &Value| {
        let pointer = format!("{}/{}", at.pointer, key.replace('~', "~0").replace('/', "~1"));
        descend(inner, rest, &Found { pointer, text: format!("{}{text}", at.text) })
    };
    let dot = if at.text.is_empty() { "" } else { "." };
    match *step {
        "[]" => value
            .as_array()?
            .iter()
            .enumerate()
            .find_map(|(index, inner)| into(&index.to_string(), format!("[{index}]"), inner)),
        "{}" => value.as_object()?.iter().find_map(|(key, inner)| into(key, format!("{dot}{key}"), inner)),
        name => into(name, format!("{dot}{name}"), value.get(name)?),
    }
}

fn remove(object: &mut Value, pointer: &str) {
    let Some((parent, key)) = pointer.rsplit_once('/') else { return };
    if let Some(Value::Object(fields)) = object.pointer_mut(parent) {
        fields.remove(key);
    }
}
