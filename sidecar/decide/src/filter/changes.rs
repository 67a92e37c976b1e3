//! Header fields that a rule sets, adds and removes.

use http::header::{HeaderMap, HeaderName, HeaderValue};
use sidecar_config::filters::{self, HeaderModifier};

/// Changes to a head, compiled: what is removed, then set, then added.
#[derive(Clone, Debug, Default)]
pub struct HeaderChanges {
    remove: Vec<HeaderName>,
    set: Vec<(HeaderName, HeaderValue)>,
    add: Vec<(HeaderName, HeaderValue)>,
}

impl HeaderChanges {
    pub(crate) fn of(document: &HeaderModifier) -> Self {
        // Names and values are accepted before; what is none changes nothing.
        let name = |name: &String| HeaderName::from_bytes(name.as_bytes()).ok();
        let field =
            |field: &filters::HeaderValue| Some((name(&field.name)?, HeaderValue::from_str(&field.value).ok()?));
        Self {
            remove: document.remove.iter().filter_map(name).collect(),
            set: document.set.iter().filter_map(field).collect(),
            add: document.add.iter().filter_map(field).collect(),
        }
    }

    /// Changes a head.
    pub fn apply(&self, headers: &mut HeaderMap) {
        for name in &self.remove {
            headers.remove(name);
        }
        for (name, value) in &self.set {
            headers.insert(name, value.clone());
        }
        for (name, value) in &self.add {
            headers.append(name, value.clone());
        }
    }
}
