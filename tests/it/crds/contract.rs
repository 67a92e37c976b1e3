//! Every field of the sidecars' contract comes from a field of the API, or stands here with why it does not, and the
//! other way round.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;

use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use sidecar_config::{backend, capture, filters, health, policy, trust, upstream};

use super::constraints::{schemas, walk};
use super::root;

/// Where a field of the contract comes from.
#[derive(Clone, Copy, Debug)]
enum Origin {
    /// This field, and those below it the fields of the same names below that.
    Same(&'static str),
    /// This field, or what it refers to.
    From(&'static str),
    /// The operator makes it, with what is below it.
    Made(&'static str),
    /// It has no origin yet, nor what is below it.
    Absent(&'static str),
}

use Origin::{Absent, From, Made, Same};

/// The longest entry that a field begins with says where it comes from. Fields of parts that only hold others have none.
const ORIGINS: &[(&str, Origin)] = &[
    ("/version", Made("the smallest that can say what the document says")),
    (
        "/settings",
        Absent("read once at a start, and so said by whoever starts the sidecar: its annotations come with injection"),
    ),
    ("/trust/bundles/*/roots", From("ProxyRoute spec.listener.tls.trust[].caCertificateRefs")),
    ("/trust/bundles/*/vouchesFor", Same("ProxyRoute spec.listener.tls.trust[].vouchesFor")),
    (
        "/trust/bundles/*/intermediates",
        Absent("clients send theirs; whoever does not has to wait for the list of their authorities"),
    ),
    (
        "/trust/bundles/*/crls",
        Absent("a list that nobody fetches is soon too old and refuses all its clients: comes with fetching them"),
    ),
    ("/trust/revocations/identities/[]/name", From("ClientIdentity metadata.name")),
    ("/trust/revocations/identities/[]/state", From("ClientIdentity spec.state")),
    ("/trust/revocations/identities/[]/acceptIssuedAfter", From("ClientIdentity spec.acceptIssuedAfter")),
    ("/trust/revocations/serials", Made("what the ledger knows of certificates whose identity is revoked or gone")),
    ("/identity/chain", Made("the operator issues it to the workload")),
    ("/identity/key", Made("the operator issues it to the workload")),
    ("/identity/certificates/[]/name", From("ProxyRoute spec.listener.tls.certificateRefs[].name")),
    ("/identity/certificates/[]", Made("what the Secret holds that a listener names")),
    ("/identities/[]/name", From("ClientIdentity metadata.name")),
    ("/identities/[]/labels", From("ClientIdentity metadata.labels")),
    ("/identities/[]/recognise/[]/bundle", From("ClientIdentity spec.external.trust.caCertificateRefs")),
    ("/identities/[]/recognise/[]/uri", From("ClientIdentity spec.external.uris")),
    ("/identities/[]/recognise/[]/dnsName", From("ClientIdentity spec.external.dnsNames")),
    ("/identities/[]/recognise/[]/commonName", From("ClientIdentity spec.external.commonNames")),
    ("/identities/[]/recognise/[]/fingerprint", From("ClientIdentity spec.external.fingerprints")),
    ("/identities/[]/recognise/[]/lfdi", From("ClientIdentity spec.external.lfdi")),
    ("/identities/[]/recognise/[]/sfdi", From("ClientIdentity spec.external.sfdi")),
    ("/identities/[]/recognise/[]/serial", From("ClientIdentity spec.external.serials")),
    ("/identities/[]/recognise/[]/spki", From("ClientIdentity spec.external.spki")),
    ("/endpoints/[]/name", From("ProxyRoute spec.rules[].backendRefs[].name")),
    ("/endpoints/[]/addresses", Made("what the EndpointSlices of the Service say")),
    ("/policy/forwarding", Same("ProxyRoute spec.forwarding")),
    ("/policy/limits", Same("ProxyRoute spec.limits")),
    ("/policy/listeners/[]/name", From("ProxyRoute spec.listener.port")),
    ("/policy/listeners/[]/address", From("ProxyRoute spec.listener.address")),
    ("/policy/listeners/[]/protocol", From("ProxyRoute spec.listener.protocol")),
    ("/policy/listeners/[]/tls", Same("ProxyRoute spec.listener.tls")),
    ("/policy/listeners/[]/tls/trust", From("ProxyRoute spec.listener.tls.trust[].name")),
    ("/policy/listeners/[]/tls/certificates", From("ProxyRoute spec.listener.tls.certificateRefs[].name")),
    ("/policy/routes/[]/name", From("ProxyRoute metadata.name")),
    ("/policy/routes/[]/listener", From("ProxyRoute spec.listener.port")),
    ("/policy/routes/[]/podSelector", Same("ProxyRoute spec.podSelector")),
    ("/policy/routes/[]/hostnames", Same("ProxyRoute spec.hostnames")),
    ("/policy/routes/[]/backendPolicy", Same("ProxyRoute spec.backendPolicy")),
    ("/policy/routes/[]/capture", Same("ProxyRoute spec.capture")),
    ("/policy/routes/[]/rules/[]", Same("ProxyRoute spec.rules[]")),
    ("/policy/routes/[]/rules/[]/allow/[]/identity", From("ProxyRoute spec.rules[].allow[].identity.name")),
    ("/policy/routes/[]/rules/[]/allow/[]/verified", From("ProxyRoute spec.rules[].allow[].verified.trust")),
    ("/policy/routes/[]/rules/[]/backends", From("ProxyRoute spec.rules[].backendRefs")),
    ("/policy/routes/[]/rules/[]/backends/[]", Same("ProxyRoute spec.rules[].backendRefs[]")),
    ("/policy/routes/[]/rules/[]/backends/[]/address", From("ProxyRoute spec.rules[].backendRefs[].localPort")),
    ("/policy/routes/[]/rules/[]/backends/[]/endpoints", From("ProxyRoute spec.rules[].backendRefs[].name")),
    (
        "/policy/routes/[]/rules/[]/backends/[]/tls/trust",
        From("ProxyRoute spec.rules[].backendRefs[].tls.caCertificateRefs"),
    ),
    (
        "/policy/routes/[]/rules/[]/filters/[]/requestRedirect/path/value",
        From("ProxyRoute spec.rules[].filters[].requestRedirect.path.replaceFullPath"),
    ),
    (
        "/policy/routes/[]/rules/[]/filters/[]/urlRewrite/path/value",
        From("ProxyRoute spec.rules[].filters[].urlRewrite.path.replacePrefixMatch"),
    ),
];

/// Fields of the API that no field of the contract is made of by its name, and what they are for.
const OTHERWISE: &[(&str, &str)] = &[
    ("ProxyRoute spec.allowBypass", "the operator's: whether the condition Enclosed counts"),
    ("ProxyRoute spec.listener.tls.trust[].caCertificateRefs[]", "which object the certificates are read from"),
    ("ProxyRoute spec.rules[].backendRefs[].tls.caCertificateRefs[]", "which object the certificates are read from"),
    ("ProxyRoute spec.listener.tls.certificateRefs[]", "which Secret the certificate is read from"),
    ("ProxyRoute spec.rules[].backendRefs[].namespace", "which Service it is"),
    ("ProxyRoute spec.rules[].allow[].identity.namespace", "which identity it is"),
    ("ProxyRoute spec.rules[].filters[].requestRedirect.path.replacePrefixMatch", "the value, with the other type"),
    ("ProxyRoute spec.rules[].filters[].urlRewrite.path.replaceFullPath", "the value, with the other type"),
    ("ClientIdentity spec.issue", "what is issued; its SPIFFE ID is what it is recognised by"),
    ("ClientIdentity spec.csr", "what is issued; its SPIFFE ID is what it is recognised by"),
    ("ClientIdentity spec.certificate", "what is issued"),
    ("ClientIdentity spec.serviceAccount", "its SPIFFE ID is what it is recognised by"),
    ("ClientIdentity spec.external.trust.caCertificateRefs[]", "which object the certificates are read from"),
    ("ClientIdentity spec.external.trust.vouchesFor", "what the bundle of the identity vouches for"),
];

/// The schema of the contract's documents.
fn contract() -> Value {
    let text = fs::read_to_string(root().join("docs/schema/document.schema.json")).unwrap();
    serde_json::from_str(&text).unwrap()
}

/// Fields of the contract with their schemas, by their paths. What only holds others is left out.
fn fields_of_contract(contract: &Value) -> BTreeMap<String, Value> {
    let mut found = BTreeMap::new();
    descend(contract, contract, "", &mut found);
    found
}

fn descend(contract: &Value, schema: &Value, path: &str, found: &mut BTreeMap<String, Value>) {
    if let Some(reference) = schema["$ref"].as_str() {
        let inner = contract.pointer(reference.trim_start_matches('#')).unwrap();
        return descend(contract, inner, path, found);
    }
    let before = found.len();
    for combined in ["anyOf", "oneOf"] {
        let alternatives = schema[combined].as_array().into_iter().flatten();
        for inner in alternatives.filter(|inner| inner["const"].is_null() && inner["type"] != "null") {
            descend(contract, inner, path, found);
        }
    }
    for (name, inner) in schema["properties"].as_object().into_iter().flatten() {
        descend(contract, inner, &format!("{path}/{name}"), found);
    }
    for (key, step) in [("items", "[]"), ("additionalProperties", "*")] {
        let inner = &schema[key];
        if inner["type"] == "object" || inner["$ref"].is_string() {
            descend(contract, inner, &format!("{path}/{step}"), found);
        }
    }
    if found.len() == before {
        found.insert(path.to_owned(), schema.clone());
    }
}

/// Fields of the API's specs, by kind and place.
fn fields_of_api() -> BTreeMap<String, Value> {
    let mut found = BTreeMap::new();
    for kind in schemas() {
        walk(&kind.root, "", &mut |place, schema| {
            found.insert(format!("{} {place}", kind.kind), schema.clone());
        });
    }
    found
}

/// The entry that says where a field comes from, with what of the field's path is below it.
fn origin(path: &str) -> Option<(&'static str, Origin, String)> {
    let fits = |(prefix, _): &&(&str, Origin)| {
        path.strip_prefix(*prefix).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
    };
    let (prefix, origin) = ORIGINS.iter().filter(fits).max_by_key(|(prefix, _)| prefix.len())?;
    let rest = path[prefix.len()..].replace("/[]", "[]").replace('/', ".");
    Some((prefix, *origin, rest))
}

/// The field of the API that a field of the contract comes from.
fn source(path: &str) -> Option<String> {
    match origin(path)? {
        (_, Same(place), rest) => Some(format!("{place}{rest}")),
        (_, From(place), _) => Some(place.to_owned()),
        (_, Made(_) | Absent(_), _) => None,
    }
}

#[test]
fn every_field_of_the_contract_has_its_origin() {
    let (contract, api) = (fields_of_contract(&contract()), fields_of_api());
    let mut wrong = Vec::new();
    for path in contract.keys() {
        match origin(path) {
            None => wrong.push(format!("{path}: nothing says where it comes from")),
            Some((prefix, From(_), rest)) if !rest.is_empty() => {
                wrong.push(format!("{path}: is below {prefix}, which is one field"));
            }
            Some((_, Made(why) | Absent(why), _)) if why.is_empty() => wrong.push(format!("{path}: without a reason")),
            Some(_) => {}
        }
        let source = source(path).filter(|place| !place.contains(" metadata."));
        wrong.extend(
            source.filter(|place| !api.contains_key(place)).map(|place| format!("{path}: there is no {place}")),
        );
    }
    let used: BTreeSet<_> = contract.keys().filter_map(|path| Some(origin(path)?.0)).collect();
    let holds_used = |prefix: &str| used.iter().any(|used| used.starts_with(&format!("{prefix}/")));
    let idle = ORIGINS.iter().map(|(prefix, _)| *prefix).filter(|prefix| !used.contains(prefix) && !holds_used(prefix));
    wrong.extend(idle.map(|prefix| format!("{prefix}: the contract has no such field")));
    assert!(wrong.is_empty(), "{wrong:#?}");
}

#[test]
fn every_field_of_the_api_is_for_something() {
    let (contract, api) = (fields_of_contract(&contract()), fields_of_api());
    let sources: BTreeSet<_> = contract.keys().filter_map(|path| source(path)).collect();
    let is_otherwise = |place: &str| {
        OTHERWISE.iter().any(|(prefix, _)| {
            place.strip_prefix(prefix).is_some_and(|rest| rest.is_empty() || rest.starts_with(['.', '[']))
        })
    };
    let holds_others = |schema: &Value| schema["properties"].is_object() || schema["items"]["properties"].is_object();
    let idle: Vec<_> = api
        .iter()
        .filter(|(place, schema)| place.contains(" spec.") && !holds_others(schema))
        // Of words and maps the list or map itself is the field.
        .filter(|(place, _)| !place.ends_with("[]") && !place.ends_with("{}"))
        .filter(|(place, _)| {
            !sources.contains(*place) && !sources.contains(&format!("{place}[]")) && !is_otherwise(place)
        })
        .map(|(place, _)| place)
        .collect();
    assert!(idle.is_empty(), "nothing of the contract comes from these: {idle:#?}");
    let stray: Vec<_> = OTHERWISE.iter().filter(|(place, _)| !api.contains_key(*place)).collect();
    assert!(stray.is_empty(), "the API has no such fields: {stray:#?}");
}

/// What an enum of the contract's schema, or of a definition, allows.
fn words(schema: &Value) -> BTreeSet<String> {
    let alternatives = schema["oneOf"].as_array().into_iter().flatten().map(|one| &one["const"]);
    let words = schema["enum"].as_array().into_iter().flatten();
    alternatives.chain(words).filter_map(Value::as_str).map(str::to_owned).collect()
}

#[test]
fn words_are_those_of_the_contract() {
    let (contract, api) = (fields_of_contract(&contract()), fields_of_api());
    for (path, schema) in &contract {
        let (Some((_, Same(_), _)), Some(place)) = (origin(path), source(path)) else { continue };
        assert_eq!(words(&api[&place]), words(schema), "{place} and {path}");
    }
}

/// An object of the API, the least that it says, and whether what it says by default is what the contract understands
/// where nothing is said.
type SameDefaults = (&'static str, Value, fn(&Value, &Value) -> bool);

fn same<T: DeserializeOwned + PartialEq>(said: &Value, unsaid: &Value) -> bool {
    let read = |value: &Value| serde_json::from_value::<T>(value.clone()).unwrap();
    read(said) == read(unsaid)
}

fn defaults() -> Vec<SameDefaults> {
    let address = json!("127.0.0.1:80");
    vec![
        ("spec.limits", json!({}), same::<policy::Limits>),
        ("spec.listener.tls", json!({"trust": []}), same::<policy::ListenerTls>),
        ("spec.backendPolicy.pool", json!({}), same::<backend::PoolPolicy>),
        ("spec.backendPolicy.loadBalancer", json!({}), same::<backend::LoadBalancer>),
        ("spec.backendPolicy.outlierDetection", json!({}), same::<health::OutlierDetection>),
        ("spec.backendPolicy.healthCheck", json!({"tcp": {}}), same::<health::HealthCheck>),
        ("spec.backendPolicy.healthCheck.http", json!({"path": "/"}), same::<health::HttpCheck>),
        ("spec.backendPolicy.healthCheck.grpc", json!({}), same::<health::GrpcCheck>),
        ("spec.capture.headers[]", json!({"name": "a"}), same::<capture::Captured>),
        ("spec.capture.query[]", json!({"name": "a"}), same::<capture::Captured>),
        ("spec.capture.cookies[]", json!({"name": "a"}), same::<capture::Captured>),
        ("spec.capture.bodies", json!({}), same::<capture::CapturedBodies>),
        ("spec.rules[]", json!({"name": "a", "allow": [{"anyone": {}}]}), same::<policy::Rule>),
        ("spec.rules[].matches[].headers[]", json!({"name": "a", "value": "b"}), same::<policy::ValueMatch>),
        ("spec.rules[].matches[].queryParams[]", json!({"name": "a", "value": "b"}), same::<policy::ValueMatch>),
        ("spec.rules[].backendRefs[]", json!({"address": address}), same::<policy::Backend>),
        ("spec.rules[].backendRefs[].tls", json!({"trust": []}), same::<upstream::BackendTls>),
        ("spec.rules[].filters[].requestRedirect", json!({"port": 81}), same::<filters::RequestRedirect>),
        ("spec.listener.tls.trust[].vouchesFor", json!({}), same::<trust::VouchesFor>),
    ]
}

/// A route that says nothing behaves as a document that says nothing.
#[test]
fn defaults_are_those_of_the_contract() {
    let api = fields_of_api();
    let mut compared = BTreeSet::new();
    for (place, unsaid, is_same) in defaults() {
        let mut said = unsaid.clone();
        for (name, field) in api[&format!("ProxyRoute {place}")]["properties"].as_object().unwrap() {
            if let Some(default) = field.get("default") {
                said[name] = default.clone();
                compared.insert(format!("ProxyRoute {place}.{name}"));
            }
        }
        assert_ne!(said, unsaid, "{place} has no defaults");
        assert!(is_same(&said, &unsaid), "{place}: {said}");
    }
    // What the contract does not know has no default there.
    let is_ours = |place: &str| place.ends_with("Refs[].kind") || place == "ProxyRoute spec.allowBypass";
    let open: Vec<_> = api
        .iter()
        .filter(|(place, field)| place.starts_with("ProxyRoute spec") && field.get("default").is_some())
        .filter(|(place, _)| !compared.contains(*place) && !is_ours(place))
        .map(|(place, _)| place)
        .collect();
    assert!(open.is_empty(), "compare these too: {open:#?}");
}
