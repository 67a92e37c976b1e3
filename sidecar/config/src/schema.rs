//! JSON Schemas of the contract, generated from the types.

use serde_json::Value;

use crate::Document;
use crate::status::Status;

/// Every schema with the name of the file it is published in.
#[must_use]
pub fn all() -> Vec<(&'static str, Value)> {
    vec![
        ("document.schema.json", schemars::schema_for!(Document).to_value()),
        ("status.schema.json", schemars::schema_for!(Status).to_value()),
    ]
}
