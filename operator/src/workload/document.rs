//! Documents of the contract as bytes: canonical, compact, and of the smallest version that can express them.

use serde::Serialize;
use serde_json::{Map, Value};
use sidecar_config::{CONTRACT_MIN, ContractVersion, Part, newer_places};

/// The smallest version that can express a part.
#[must_use]
pub fn smallest_version(part: Part, value: &Value) -> ContractVersion {
    let newest = newer_places(CONTRACT_MIN, part.name(), value).into_iter().map(|(_, since)| since).max();
    newest.unwrap_or(CONTRACT_MIN)
}

/// A document with one part. The same values are the same bytes.
#[must_use]
pub fn document(part: Part, value: &impl Serialize) -> String {
    // Contract types hold strings, numbers, lists and maps with string keys; serialising those cannot fail.
    let value = serde_json::to_value(value).unwrap_or_default();
    let version = smallest_version(part, &value);
    let mut document = Map::new();
    document.insert("version".to_owned(), Value::String(version.to_string()));
    document.insert(part.name().to_owned(), value);
    Value::Object(document).to_string()
}

#[cfg(test)]
mod tests {
    use serde_json::json;
    use sidecar_config::policy::Policy;
    use sidecar_config::{CONTRACT_MIN, Document, Part};

    use super::document;

    #[test]
    fn documents_are_of_the_smallest_version_and_can_be_read() {
        let text = document(Part::Policy, &Policy::default());
        let read = Document::from_value(serde_json::from_str(&text).expect("JSON")).expect("a document");
        assert_eq!(read.version, CONTRACT_MIN);
        let rule =
            json!({"name": "all", "allow": [{"spiffe": "spiffe://a/b"}], "backends": [{"address": "127.0.0.1:1"}]});
        let policy = json!({"routes": [{"name": "shop/orders", "listener": "main", "rules": [rule]}]});
        let policy: Policy = serde_json::from_value(policy).expect("a policy");
        assert!(document(Part::Policy, &policy).contains(r#""version":"1.1""#));
        assert_eq!(document(Part::Policy, &policy), document(Part::Policy, &policy.clone()));
    }
}
