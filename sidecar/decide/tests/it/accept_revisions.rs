//! Revisions of parts and hashes of routes: what changes them, and what does not.

use serde_json::{Value, json};
use sidecar_decide::{Files, accept};

use crate::fixture::{files, listener, read, root, rule, trust_document};

/// Revisions of documents that are given as JSON text, so that the order of their fields can differ.
fn revision(part: &str, text: &str, files: &Files) -> String {
    let value: Value = serde_json::from_str(text).expect("JSON");
    let revision = match part {
        "trust" => accept::trust(&read(value), files).expect("a good document").revision,
        "identity" => accept::identity(&read(value), files).expect("a good document").revision,
        "identities" => accept::identities(&read::<Vec<_>>(value)).expect("a good document").revision,
        "policy" => accept::policy(&read(value)).expect("a good document").revision,
        "endpoints" => accept::endpoints(&read::<Vec<_>>(value)).expect("a good document").revision,
        other => unreachable!("`{other}` is no part"),
    };
    revision.to_string()
}

const LISTENER: &str = r#"{"name": "a", "address": "127.0.0.1:1", "protocol": "HTTPS", "tls": {}}"#;

#[test]
fn a_revision_is_of_what_is_said_and_not_of_how() {
    let policy = |text: &str| text.replace("LISTENER", LISTENER);
    let rows = [
        ("trust", r"{}".to_owned(), r#"{"revocations": {"identities": []}, "bundles": {}}"#.to_owned()),
        (
            "trust",
            r#"{"bundles": {"a": {"roots": ["ours.pem"]}, "b": {"roots": ["partner.pem"]}}}"#.to_owned(),
            r#"{"bundles": {"b": {"vouchesFor": {}, "roots": ["partner.pem"]}, "a": {"roots": ["ours.pem"]}}}"#
                .to_owned(),
        ),
        (
            "identity",
            r#"{"chain": "server.pem", "key": "server.key"}"#.to_owned(),
            r#"{"key": "server.key", "chain": "server.pem"}"#.to_owned(),
        ),
        (
            "identities",
            r#"[{"name": "a", "recognise": [{"bundle": "b", "uri": "c"}]}]"#.to_owned(),
            r#"[{"recognise": [{"uri": "c", "bundle": "b", "lfdi": null}], "name": "a"}]"#.to_owned(),
        ),
        (
            "policy",
            policy(r#"{"listeners": [LISTENER]}"#),
            r#"{"routes": [], "listeners": [{"tls": {"trust": [], "clientAuth": "Required"}, "protocol": "HTTPS",
                "address": "127.0.0.1:1", "name": "a"}], "limits": {"maxRequestBodySize": "1024Mi"}}"#
                .to_owned(),
        ),
        (
            "endpoints",
            r#"[{"name": "a", "addresses": [{"address": "[::1]:80"}]}, {"name": "b"}]"#.to_owned(),
            r#"[{"addresses": [{"address": "[0:0::1]:80"}], "name": "a"}, {"addresses": [], "name": "b"}]"#.to_owned(),
        ),
    ];
    for (part, one, other) in rows {
        assert_eq!(revision(part, &one, &files()), revision(part, &other, &files()), "{one}");
    }
}

#[test]
fn a_revision_changes_with_the_content() {
    let rows: &[(&str, &[&str])] = &[
        (
            "trust",
            &[
                r"{}",
                r#"{"bundles": {"a": {"roots": ["ours.pem"]}}}"#,
                r#"{"bundles": {"b": {"roots": ["ours.pem"]}}}"#,
                r#"{"bundles": {"a": {"roots": ["partner.pem"]}}}"#,
                r#"{"bundles": {"a": {"roots": ["ours.pem", "ours.pem"]}}}"#,
                r#"{"bundles": {"a": {"roots": ["ours.pem"], "vouchesFor": {"commonName": true}}}}"#,
                r#"{"bundles": {"a": {"roots": ["ours.pem"], "vouchesFor": {"spiffe": ["d"]}}}}"#,
                r#"{"revocations": {"identities": [{"name": "a", "state": "Revoked"}]}}"#,
                r#"{"revocations": {"identities": [{"name": "a", "state": "Suspended"}]}}"#,
                r#"{"revocations": {"identities": [{"name": "b", "state": "Suspended"}]}}"#,
            ],
        ),
        (
            "identities",
            &[
                r"[]",
                r#"[{"name": "a", "recognise": [{"bundle": "b", "uri": "c"}]}]"#,
                r#"[{"name": "x", "recognise": [{"bundle": "b", "uri": "c"}]}]"#,
                r#"[{"name": "a", "recognise": [{"bundle": "x", "uri": "c"}]}]"#,
                r#"[{"name": "a", "recognise": [{"bundle": "b", "uri": "x"}]}]"#,
                r#"[{"name": "a", "recognise": [{"bundle": "b", "dnsName": "c"}]}]"#,
                r#"[{"name": "a", "recognise": [{"bundle": "b", "commonName": "c"}]}]"#,
            ],
        ),
        (
            "policy",
            &[
                r"{}",
                r#"{"limits": {"maxConnections": 1}}"#,
                r#"{"limits": {"maxRequestBodySize": "1Ki"}}"#,
                r#"{"listeners": [LISTENER]}"#,
                r#"{"listeners": [{"name": "a", "address": "127.0.0.1:2", "protocol": "HTTPS", "tls": {}}]}"#,
                r#"{"listeners": [{"name": "a", "address": "127.0.0.1:1", "protocol": "HTTPS", "tls": {"trust": ["x"]}}]}"#,
                r#"{"listeners": [LISTENER], "routes": [{"name": "r", "listener": "a", "rules": []}]}"#,
            ],
        ),
        (
            "endpoints",
            &[
                r"[]",
                r#"[{"name": "a"}]"#,
                r#"[{"name": "b"}]"#,
                r#"[{"name": "a", "addresses": [{"address": "10.0.0.1:80"}]}]"#,
                r#"[{"name": "a", "addresses": [{"address": "10.0.0.1:81"}]}]"#,
                r#"[{"name": "a", "addresses": [{"address": "10.0.0.1:80"}, {"address": "10.0.0.1:80"}]}]"#,
            ],
        ),
    ];
    for (part, texts) in rows {
        let of = |text: &&str| revision(part, &text.replace("LISTENER", LISTENER), &files());
        let mut revisions: Vec<_> = texts.iter().map(of).collect();
        let is_hex = |text: &String| text.len() == 12 && text.bytes().all(|b| b"0123456789abcdef".contains(&b));
        assert_eq!(revisions.iter().find(|text| !is_hex(text)), None, "{part}");
        revisions.sort_unstable();
        revisions.dedup();
        assert_eq!(revisions.len(), texts.len(), "{part}");
    }
}

/// The revision is in rows and statuses: the same document has the same one in every build.
#[test]
fn revisions_are_frozen() {
    let bundles = trust_document(&json!([])).to_string();
    let rows = [
        ("trust", "{}", "cd79270a2226"),
        ("trust", bundles.as_str(), "1d434938f692"),
        ("identity", r#"{"chain": "server.pem", "key": "server.key"}"#, "3fb3132dac10"),
        ("identities", r#"[{"name": "a", "recognise": [{"bundle": "b", "uri": "c"}]}]"#, "3fea350be1a1"),
        ("policy", "{}", "8fc83de72068"),
        ("endpoints", r#"[{"name": "a", "addresses": [{"address": "10.0.0.1:80"}]}]"#, "3c8230b70841"),
    ];
    let found: Vec<_> = rows.iter().map(|(part, text, _)| revision(part, text, &files())).collect();
    assert_eq!(found, rows.map(|row| row.2));
}

#[test]
fn a_revision_covers_the_certificates_and_never_the_key() {
    let with = |name: &str, certificates: Vec<sidecar_decide::Certificate>| {
        let mut files = files();
        files.certificates.insert(name.to_owned(), Ok(certificates));
        files
    };
    let trust = trust_document(&json!([])).to_string();
    let before = revision("trust", &trust, &files());
    let changed = [
        with("ours.pem", vec![root("ours", 0xa1)]),
        with("ours.pem", vec![root("ours", 0xa0), root("ours", 0xa1)]),
        with("ours.pem", vec![root("ours", 0xa1), root("ours", 0xa0)]),
        with("partner.pem", vec![root("partner", 0xb1)]),
    ];
    for files in &changed {
        assert_ne!(revision("trust", &trust, files), before);
    }
    assert_eq!(revision("trust", &trust, &with("server.pem", vec![root("x", 1)])), before, "not its file");

    let identity = r#"{"chain": "server.pem", "key": "server.key"}"#;
    let before = revision("identity", identity, &files());
    let mut another_key = files();
    let mut another_leaf = crate::fixture::leaf("server", 0xc0);
    another_leaf.facts.spki = vec![0xc7];
    another_key.public_keys.insert("server.key".to_owned(), Ok(vec![0xc7]));
    let chain = vec![another_leaf, root("intermediate", 0xc1)];
    another_key.certificates.insert("server.pem".to_owned(), Ok(chain));
    // The certificate's digest is the same in this fixture: only the key differs.
    assert_eq!(revision("identity", identity, &another_key), before);
    let mut renewed = files();
    renewed.certificates.insert("server.pem".to_owned(), Ok(vec![crate::fixture::leaf("server", 0xc2)]));
    renewed.public_keys.insert("server.key".to_owned(), Ok(vec![0xc2]));
    assert_ne!(revision("identity", identity, &renewed), before);
}

/// A root that moves from one bundle to another changes who is trusted for what, though the same files hold the same
/// certificates in the same order.
#[test]
fn a_root_that_changes_its_bundle_changes_the_revision() {
    let files = |ours: &[u8], partner: &[u8]| {
        let roots = |digests: &[u8]| Ok(digests.iter().map(|digest| root("x", *digest)).collect());
        let mut files = Files::default();
        files.certificates.insert("ours.pem".to_owned(), roots(ours));
        files.certificates.insert("partner.pem".to_owned(), roots(partner));
        files
    };
    let trust = trust_document(&json!([])).to_string();
    let one = revision("trust", &trust, &files(&[1], &[2, 3]));
    let other = revision("trust", &trust, &files(&[1, 2], &[3]));
    assert_ne!(one, other);
}

fn two_routes() -> Value {
    let route = |name: &str, listener: &str| {
        let rules = [rule("r", &json!([]), &json!([{"anyone": {}}]))];
        json!({"name": name, "listener": listener, "rules": rules})
    };
    json!({"listeners": [listener("one", 1), listener("two", 2)], "routes": [route("a", "one"), route("b", "two")]})
}

/// Which of the hashes of the routes `a` and `b` differ from those of [`two_routes`].
fn changed_hashes(change: impl FnOnce(&mut Value)) -> (bool, bool) {
    let hashes = |document: Value| {
        let accepted = accept::policy(&read(document)).expect("a good document");
        let of = |name: &str| accepted.routes.iter().find(|(route, _)| route.name == name).expect("a route").1.clone();
        (of("a"), of("b"))
    };
    let mut document = two_routes();
    change(&mut document);
    let (before, after) = (hashes(two_routes()), hashes(document));
    (before.0 != after.0, before.1 != after.1)
}

#[test]
fn a_routes_hash_covers_the_route_and_its_listener() {
    let set = |pointer: &'static str, value: Value| {
        changed_hashes(move |document| *document.pointer_mut(pointer).expect("a place") = value)
    };
    assert_eq!(changed_hashes(|_| ()), (false, false));
    assert_eq!(set("/routes/0/rules/0/name", json!("x")), (true, false));
    assert_eq!(set("/routes/0/rules/0/allow", json!([{"identity": "x"}])), (true, false));
    assert_eq!(set("/routes/0/rules/0/backends/0/address", json!("10.0.0.1:1")), (true, false));
    assert_eq!(set("/routes/0/rules/0/matches", json!([{"method": "GET"}])), (true, false));
    assert_eq!(set("/routes/1/rules", json!([])), (false, true));
    assert_eq!(set("/routes/1/listener", json!("one")), (false, true));
    assert_eq!(set("/listeners/0/tls/trust", json!([])), (true, false));
    assert_eq!(set("/listeners/0/address", json!("127.0.0.1:3")), (true, false));
    assert_eq!(set("/listeners/1/tls", json!({"clientAuth": "Optional"})), (false, true));
    let add = |document: &mut Value, list: &str, value: Value| {
        document[list].as_array_mut().expect("a list").insert(0, value);
    };
    assert_eq!(changed_hashes(|document| add(document, "listeners", listener("three", 3))), (false, false));
    let other = json!({"name": "c", "listener": "one", "rules": []});
    assert_eq!(changed_hashes(|document| add(document, "routes", other)), (false, false));
    assert_eq!(changed_hashes(|document| document["limits"] = json!({"maxConnections": 1})), (false, false));
    let default = |document: &mut Value| document["routes"][0]["hostnames"] = json!([]);
    assert_eq!(changed_hashes(default), (false, false), "a default that is written out");
}
