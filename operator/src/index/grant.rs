//! What is kept of a ReferenceGrant: which namespaces' routes may send requests to which Services of its own.

use std::collections::BTreeSet;

use kube::core::DynamicObject;
use serde_json::Value;

use super::ObjectName;

/// A grant, as far as it is about routes of ours.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Grant {
    /// Its name.
    pub name: ObjectName,
    /// Namespaces whose routes it is for.
    pub from: BTreeSet<String>,
    /// Names of the Services; `None` stands for all.
    pub to: BTreeSet<Option<String>>,
}

impl Grant {
    /// What is kept of an object. What it grants to others is nothing here.
    #[must_use]
    pub fn of(object: &DynamicObject) -> Self {
        let text = |entry: &Value, field: &str| entry[field].as_str().map(str::to_owned);
        let is = |entry: &Value, group: &str, kind: &str| {
            entry["group"].as_str().unwrap_or_default() == group && entry["kind"].as_str() == Some(kind)
        };
        let spec = &object.data["spec"];
        let from = spec["from"].as_array().into_iter().flatten().filter(|from| is(from, "postern.dev", "ProxyRoute"));
        let to = spec["to"].as_array().into_iter().flatten().filter(|to| is(to, "", "Service"));
        Self {
            name: ObjectName::of(object),
            from: from.filter_map(|from| text(from, "namespace")).collect(),
            // An empty name is none.
            to: to.map(|to| text(to, "name").filter(|name| !name.is_empty())).collect(),
        }
    }

    /// Whether routes of a namespace may send requests to a Service of the grant's own.
    #[must_use]
    pub fn permits(&self, from: &str, service: &str) -> bool {
        self.from.contains(from) && (self.to.contains(&None) || self.to.contains(&Some(service.to_owned())))
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::Grant;

    #[test]
    fn a_grant_permits_what_it_says_and_nothing_else() {
        let route = |namespace: &str| json!({"group": "postern.dev", "kind": "ProxyRoute", "namespace": namespace});
        let http_route = json!({"group": "gateway.networking.k8s.io", "kind": "HTTPRoute", "namespace": "shop"});
        let all = json!({"group": "", "kind": "Service"});
        let stock = json!({"group": "", "kind": "Service", "name": "stock"});
        let secret = json!({"group": "", "kind": "Secret", "name": "stock"});
        let rows: [(Value, Value, bool); 9] = [
            (json!([route("shop")]), json!([all]), true),
            (json!([route("shop")]), json!([stock]), true),
            (json!([route("web"), route("shop")]), json!([secret, stock]), true),
            (json!([route("web")]), json!([stock]), false),
            (json!([http_route]), json!([stock]), false),
            (json!([route("shop")]), json!([secret]), false),
            (json!([route("shop")]), json!([{"group": "", "kind": "Service", "name": "other"}]), false),
            (json!([]), json!([]), false),
            (json!("all"), Value::Null, false),
        ];
        for (from, to, expected) in rows {
            let object = json!({
                "apiVersion": "gateway.networking.k8s.io/v1beta1", "kind": "ReferenceGrant",
                "metadata": {"name": "grant", "namespace": "stores"}, "spec": {"from": from, "to": to},
            });
            let grant = Grant::of(&serde_json::from_value(object.clone()).expect("an object"));
            assert_eq!(grant.permits("shop", "stock"), expected, "{object}");
        }
    }
}
