//! What schemars makes of the types, brought into the form that Kubernetes wants.

use schemars::Schema;
use serde_json::{Value, json};

/// Brings an enum of documented words into the form of an enum: Kubernetes knows no alternatives of constants. What each
/// word means goes into the description.
pub fn words(schema: &mut Schema) {
    let Some(alternatives) = schema.remove("oneOf") else { return };
    let alternatives = alternatives.as_array().cloned().unwrap_or_default();
    let words: Vec<Value> = alternatives.iter().filter_map(|one| one.get("const").cloned()).collect();
    let meanings = alternatives.iter().filter_map(|one| {
        let (word, meaning) = (one.get("const")?.as_str()?, one.get("description")?.as_str()?);
        Some(json!([word, meaning]))
    });
    schema.insert("x-words".to_owned(), meanings.collect());
    schema.insert("type".to_owned(), "string".into());
    schema.insert("enum".to_owned(), words.into());
}
