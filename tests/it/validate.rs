//! `validate`: everything that is wrong with a configuration, each error with its file, its place and its remedy.

mod changes;

use std::path::Path;

use postern_tests::ca::{Authority, LeafOptions};
use postern_tests::clients::Finished;
use postern_tests::config::{ConfigFolder, document};
use postern_tests::process::Launch;
use serde_json::{Value, json};

use self::changes::CHANGES;

/// The harness's document with its certificates; the document itself is not written yet.
struct Case {
    folder: ConfigFolder,
    document: Value,
}

impl Case {
    fn new() -> Self {
        let folder = ConfigFolder::new().unwrap();
        let authority = Authority::new("Postern test authority").unwrap();
        folder.write("ca.pem", authority.root_pem()).unwrap();
        authority.issue(&LeafOptions::server("gate")).unwrap().write(folder.path(), "server").unwrap();
        Self { folder, document: document("127.0.0.1:8080".parse().unwrap()) }
    }

    /// Exit code, lines on stdout and on stderr, with the folder's path as `DIR`.
    fn validate(&self, path: &Path) -> (Option<i32>, Vec<String>, Vec<String>) {
        let Finished { code, stdout, stderr } = Launch::new(path).unwrap().subcommand("validate", &[]).unwrap();
        let folder = self.folder.path().to_string_lossy().into_owned();
        let lines = |text: &str| text.replace(&folder, "DIR").lines().map(str::to_owned).collect();
        (code, lines(&String::from_utf8_lossy(&stdout)), lines(&stderr))
    }
}

fn expected(errors: &[String], path: &str) -> (Option<i32>, Vec<String>, Vec<String>) {
    let count = if errors.len() == 1 { "1 error".to_owned() } else { format!("{} errors", errors.len()) };
    (Some(1), errors.to_vec(), vec![format!("postern-sidecar: {path}: {count}")])
}

#[test]
fn a_good_configuration_is_valid_in_every_notation() {
    const TOML: &str = r#"version = "1.0"
        [trust.bundles.ours]
        roots = ["ca.pem"]
        [identity]
        chain = "server.pem"
        key = "server.key"
        [[policy.listeners]]
        name = "gate"
        address = "127.0.0.1:8443"
        protocol = "HTTPS"
        tls = { trust = ["ours"] }
    "#;
    const YAML: &str = "version: '1.0'\npolicy:\n  listeners: []\n";
    let case = Case::new();
    let json = case.document.to_string();
    let table = [
        ("good.json", json.as_str(), "(1 listeners, 1 routes)"),
        ("good.toml", TOML, "(1 listeners, 0 routes)"),
        ("good.yaml", YAML, "(0 listeners, 0 routes)"),
        ("good.yml", YAML, "(0 listeners, 0 routes)"),
    ];
    for (name, text, counts) in table {
        case.folder.write(name, text).unwrap();
        let valid = (Some(0), vec![format!("DIR/{name}: valid {counts}")], vec![]);
        assert_eq!(case.validate(&case.folder.file(name)), valid, "{name}");
    }
}

#[test]
fn a_file_that_is_no_document() {
    let case = Case::new();
    let table = [
        ("empty.toml", " \n", "the file is empty, which is never a change; write the document, or an empty part"),
        ("list.json", "[]", "the top level is not a table of parts; start with `version = \"1.8\"`"),
        ("unversioned.toml", "policy = {}", "`version` is missing; write `version = \"1.8\"` at the top"),
        ("number.yaml", "version: 1.0", "`version`: 1.0 is not text; write it in quotes, `\"1.8\"`"),
        ("word.json", "{\"version\": \"new\"}", "`version`: `new` is not a contract version; write it as `1.8`"),
        (
            "newer.toml",
            "version = \"2.0\"",
            "`version`: 2.0 is not supported; this sidecar reads 1.0 to 1.8: use one of those, or a sidecar that reads 2.0",
        ),
        (
            "part.toml",
            "version = \"1.0\"\nroutes = []",
            "`routes` is not a part; the parts are settings, trust, identity, identities, policy and endpoints",
        ),
    ];
    for (name, text, error) in table.into_iter().chain(SYNTAX) {
        case.folder.write(name, text).unwrap();
        let found = case.validate(&case.folder.file(name));
        assert_eq!(found, expected(&[format!("DIR/{name}: {error}")], &format!("DIR/{name}")), "{name}");
    }
}

/// Errors of the notations; one line each, with line and column.
const SYNTAX: [(&str, &str, &str); 5] = [
    ("comma.json", "{\"version\": \"1.0\",}", "not valid JSON: line 1, column 19: trailing comma"),
    ("torn.json", "{\"version\": \"1.0\"", "not valid JSON: line 1, column 17: EOF while parsing an object"),
    ("syntax.toml", "version = \"1.0\n", "not valid TOML: line 1, column 15: invalid basic string, expected `\"`"),
    (
        "syntax.yaml",
        "version: \"1.0\n",
        "not valid YAML: line 2, column 1: invalid indentation in multiline quoted scalar",
    ),
    ("twice.toml", "version = \"1.0\"\nversion = \"1.0\"\n", "not valid TOML: line 2, column 1: duplicate key"),
];

#[test]
fn a_path_without_a_configuration() {
    let case = Case::new();
    let table = [
        (
            "absent.toml",
            "DIR/absent.toml: No such file or directory (os error 2); give the path of a configuration file or folder",
        ),
        ("", "DIR/: no .toml, .yaml, .yml or .json file in this folder"),
    ];
    for (name, error) in table {
        let found = case.validate(&case.folder.file(name));
        assert_eq!(found, (Some(1), vec![], vec![format!("postern-sidecar: {error}")]), "{name:?}");
    }
}

#[test]
fn a_bad_value_is_one_error_with_its_place_and_remedy() {
    let case = Case::new();
    let other = Authority::new("Another authority").unwrap().issue(&LeafOptions::server("other")).unwrap();
    other.write(case.folder.path(), "other").unwrap();
    case.folder.write("empty.pem", "").unwrap();
    let torn = "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n";
    case.folder.write("broken.pem", torn).unwrap();
    let path = case.folder.file("postern.json");
    for (place, value, error) in CHANGES {
        let mut document = case.document.clone();
        document["version"] = json!("1.3");
        set(&mut document, place, serde_json::from_str(value).unwrap());
        case.folder.write_document(&document).unwrap();
        // Settings are told before the parts, without a file where the merged value is out of its range.
        let ranges = ["workers", "flushEvery", "stateDir", "admin", "dns", "maxSize", "flushRows"];
        let file = if ranges.iter().any(|name| place.ends_with(name)) { "" } else { "DIR/postern.json: " };
        let found = case.validate(&path);
        assert_eq!(found, expected(&[format!("{file}{error}")], "DIR/postern.json"), "{place} {value}");
    }
}

/// Sets the value at a JSON pointer, whose last name may be new.
fn set(document: &mut Value, pointer: &str, value: Value) {
    let (parent, name) = pointer.rsplit_once('/').unwrap();
    match document.pointer_mut(parent).unwrap() {
        Value::Array(list) => match list.get_mut(name.parse::<usize>().unwrap()) {
            Some(entry) => *entry = value,
            None => list.push(value),
        },
        table => table[name] = value,
    }
}

#[test]
fn all_errors_are_told_at_once() {
    let mut case = Case::new();
    let table = [
        ("/settings/workers", json!(0)),
        ("/trust/bundles/ours/roots", json!([])),
        ("/identity/key", json!("absent.key")),
        ("/policy/limits", json!({ "maxConnections": 0 })),
        ("/policy/routes/0/rules/0/allow", json!([])),
        ("/policy/routes/0/rules/0/backends", json!([])),
        ("/endpoints", json!([{ "name": "" }])),
        // Else every recogniser and listener that names the bundle would be told of too.
        ("/identities", json!([])),
        ("/policy/listeners/0/tls/trust", json!([])),
    ];
    for (place, value) in table {
        set(&mut case.document, place, value);
    }
    case.folder.write_document(&case.document).unwrap();
    let errors = [
        "`settings.workers`: write a number from 1 to 64",
        "DIR/postern.json: `trust.bundles.ours.roots`: is empty; name at least one PEM file with a root certificate",
        "DIR/postern.json: `identity.key`: `absent.key`: cannot be read: No such file or directory (os error 2)",
        "DIR/postern.json: `policy.routes[0].rules[0].allow`: is empty; name who may call, or write `[{ anyone = {} }]`: \
         absence never means anyone",
        "DIR/postern.json: `policy.routes[0].rules[0].backends`: is empty; name at least one address or set of endpoints",
        "DIR/postern.json: `policy.limits.maxConnections`: is 0; write a number from 1 to 1000000",
        "DIR/postern.json: `endpoints[0].name`: is empty; give it a name",
    ];
    let found = case.validate(&case.folder.file("postern.json"));
    assert_eq!(found, expected(&errors.map(str::to_owned), "DIR/postern.json"));
}

#[test]
fn a_folder_is_one_configuration_of_several_files() {
    let case = Case::new();
    let part = |name: &str| json!({ "version": "1.0", name: case.document[name] }).to_string();
    for name in ["trust", "identity", "identities", "policy"] {
        case.folder.write(&format!("{name}.json"), &part(name)).unwrap();
    }
    let valid = (Some(0), vec!["DIR: valid (1 listeners, 1 routes)".to_owned()], vec![]);
    assert_eq!(case.validate(case.folder.path()), valid);
    case.folder.write("zz.yaml", "version: '1.0'\npolicy: {}\n").unwrap();
    let twice = ["DIR/zz.yaml: `policy` is already in DIR/policy.json; keep it in one file".to_owned()];
    assert_eq!(case.validate(case.folder.path()), expected(&twice, "DIR"));
}

#[test]
fn what_is_valid_and_strange_is_a_warning() {
    let mut case = Case::new();
    set(&mut case.document, "/trust/revocations/identities/0/name", json!("demo/malory"));
    set(&mut case.document, "/identities/0/labels", json!({ "tier": "gold" }));
    set(&mut case.document, "/settings/stateDir", json!("state"));
    case.folder.write_document(&case.document).unwrap();
    let version = |place: &str, since: &str| {
        format!(
            "warning: DIR/postern.json: `{place}`: is since {since}, and the document says 1.0: older sidecars may refuse it; \
             write `version = \"{since}\"`"
        )
    };
    let valid = "DIR/postern.json: valid (1 listeners, 1 routes)";
    let unknown = "warning: DIR/postern.json: `trust.revocations.identities`: there is no identity `demo/malory`, so this \
                   refuses nobody; name one of identities";
    let told = [
        version("settings.stateDir", "1.2"),
        version("identities[0].labels", "1.1"),
        unknown.to_owned(),
        valid.to_owned(),
    ];
    let path = case.folder.file("postern.json");
    assert_eq!(case.validate(&path), (Some(0), told.to_vec(), vec![]));
    case.document["version"] = json!("1.2");
    case.folder.write_document(&case.document).unwrap();
    assert_eq!(case.validate(&path), (Some(0), vec![unknown.to_owned(), valid.to_owned()], vec![]));
    // In a folder a revocation may concern another workload's clients.
    let valid = vec!["DIR: valid (1 listeners, 1 routes)".to_owned()];
    assert_eq!(case.validate(case.folder.path()), (Some(0), valid, vec![]));
}
