//! A field nobody knows is refused wherever it stands: ignored, it would be a promise that is not kept.

use std::path::Path;

use serde_json::Value;

use crate::documents::{read_file, read_value};

/// Objects whose keys are the writer's own names.
const MAPS: [&str; 4] = [
    "/trust/bundles",
    "/identities/0/labels",
    "/policy/routes/0/podSelector/matchLabels",
    "/policy/routes/0/rules/0/allow/0/identitySelector/matchLabels",
];

/// Pointers to all objects in a value.
fn objects(path: &str, value: &Value, found: &mut Vec<String>) {
    match value {
        Value::Object(fields) => {
            found.push(path.to_owned());
            fields.iter().for_each(|(name, inner)| objects(&format!("{path}/{name}"), inner, found));
        }
        Value::Array(items) => {
            (0..).zip(items).for_each(|(index, inner): (usize, _)| objects(&format!("{path}/{index}"), inner, found));
        }
        _ => {}
    }
}

#[test]
fn an_unknown_field_is_refused_in_every_object() {
    let folder = Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/it/examples/good"));
    for (name, least) in [
        ("full.json", 20),
        ("routes.json", 15),
        ("identity-1.1.json", 20),
        ("backends.json", 15),
        ("filters.json", 20),
        ("rewrites-1.3.json", 18),
        ("tracing-1.3.json", 2),
        ("pod-1.3.json", 7),
        ("endpoints-1.4.json", 6),
        ("tls-1.5.json", 5),
        ("messages-1.6.json", 6),
        ("log-1.7.json", 2),
        ("capture-1.8.json", 12),
    ] {
        let full = serde_json::to_value(read_file(&folder.join(name)).unwrap()).unwrap();
        let mut places = Vec::new();
        objects("", &full, &mut places);
        places.retain(|place| !MAPS.contains(&place.as_str()));
        for place in &places {
            let mut changed = full.clone();
            changed.pointer_mut(place).unwrap()["surprise"] = Value::Bool(true);
            assert!(read_value(changed).is_err(), "an unknown field is let through in {place:?} of {name}");
        }
        assert!(places.len() > least, "{name} no longer has an object of every kind: {places:?}");
    }
}
