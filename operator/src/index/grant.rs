//! What is kept of a ReferenceGrant: which namespaces' routes may name which Services and Secrets of its own.

use std::collections::BTreeSet;

use kube::core::DynamicObject;
use serde_json::Value;

use super::ObjectName;

/// Kinds of objects that routes of other namespaces may be permitted to name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Granted {
    /// Services, as backends.
    Service,
    /// Secrets, as certificates of listeners.
    Secret,
}

impl Granted {
    fn of(kind: &str) -> Option<Self> {
        match kind {
            "Service" => Some(Self::Service),
            "Secret" => Some(Self::Secret),
            _ => None,
        }
    }
}

/// A grant, as far as it is about routes of ours.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Grant {
    /// Its name.
    pub name: ObjectName,
    /// Namespaces whose routes it is for.
    pub from: BTreeSet<String>,
    /// Kinds and names of the objects; no name stands for all of a kind.
    pub to: BTreeSet<(Granted, Option<String>)>,
}

impl Grant {
    /// What is kept of an object. What it grants to others is nothing here.
    #[must_use]
    pub fn of(object: &DynamicObject) -> Self {
        let text = |entry: &Value, field: &str| entry[field].as_str().map(str::to_owned);
        let group = |entry: &Value| text(entry, "group").unwrap_or_default();
        let spec = &object.data["spec"];
        let is_route = |from: &&Value| group(from) == "postern.dev" && from["kind"] == "ProxyRoute";
        let from = spec["from"].as_array().into_iter().flatten().filter(is_route);
        let to = spec["to"].as_array().into_iter().flatten().filter(|to| group(to).is_empty());
        Self {
            name: ObjectName::of(object),
            from: from.filter_map(|from| text(from, "namespace")).collect(),
            // An empty name is none.
            to: to
                .filter_map(|to| {
                    let kind = Granted::of(to["kind"].as_str()?)?;
                    Some((kind, text(to, "name").filter(|name| !name.is_empty())))
                })
                .collect(),
        }
    }

    /// Whether routes of a namespace may name an object of the grant's own.
    #[must_use]
    pub fn permits(&self, from: &str, kind: Granted, name: &str) -> bool {
        self.from.contains(from)
            && (self.to.contains(&(kind, None)) || self.to.contains(&(kind, Some(name.to_owned()))))
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::{Grant, Granted};

    #[test]
    fn a_grant_permits_what_it_says_and_nothing_else() {
        let route = |namespace: &str| json!({"group": "postern.dev", "kind": "ProxyRoute", "namespace": namespace});
        let http_route = json!({"group": "gateway.networking.k8s.io", "kind": "HTTPRoute", "namespace": "shop"});
        let all = json!({"group": "", "kind": "Service"});
        let stock = json!({"group": "", "kind": "Service", "name": "stock"});
        let secret = json!({"group": "", "kind": "Secret", "name": "stock"});
        let secrets = json!({"group": "", "kind": "Secret"});
        let rows: [(Value, Value, bool, bool); 10] = [
            (json!([route("shop")]), json!([all]), true, false),
            (json!([route("shop")]), json!([stock]), true, false),
            (json!([route("web"), route("shop")]), json!([secret, stock]), true, true),
            (json!([route("web")]), json!([stock]), false, false),
            (json!([http_route]), json!([stock, secret]), false, false),
            (json!([route("shop")]), json!([secret]), false, true),
            (json!([route("shop")]), json!([secrets]), false, true),
            (json!([route("shop")]), json!([{"group": "", "kind": "Service", "name": "other"}]), false, false),
            (json!([]), json!([]), false, false),
            (json!("all"), Value::Null, false, false),
        ];
        for (from, to, service, secret) in rows {
            let object = json!({
                "apiVersion": "gateway.networking.k8s.io/v1beta1", "kind": "ReferenceGrant",
                "metadata": {"name": "grant", "namespace": "stores"}, "spec": {"from": from, "to": to},
            });
            let grant = Grant::of(&serde_json::from_value(object.clone()).expect("an object"));
            assert_eq!(grant.permits("shop", Granted::Service, "stock"), service, "{object}");
            assert_eq!(grant.permits("shop", Granted::Secret, "stock"), secret, "{object}");
        }
    }
}
