//! What is wrong with a document: every problem with its exact place and words, and all of them at once.

use std::fmt::Debug;

use serde_json::{Value, json};
use sidecar_config::Part;
use sidecar_decide::{Refusal, accept};

use crate::fixture::{expected, files, listener, read, told};

pub(crate) fn check<T: Debug>(accepted: Result<T, Refusal>, part: Part, rows: &[(&str, &str)]) {
    let problems = accepted.expect_err("a document with problems").problems;
    assert_eq!(told(&problems), expected(rows));
    for problem in &problems {
        assert_eq!(problem.part, part);
        assert_eq!(problem.to_string(), format!("`{}`: {}", problem.path, problem.detail));
    }
}

pub(crate) fn trust(document: Value, rows: &[(&str, &str)]) {
    check(accept::trust(&read(document), &files()), Part::Trust, rows);
}

pub(crate) fn policy(document: Value, rows: &[(&str, &str)]) {
    check(accept::policy(&read(document)), Part::Policy, rows);
}

#[test]
fn endpoints() {
    let set = |name: &str, addresses: &[&str]| {
        let addresses: Vec<_> = addresses.iter().map(|address| json!({"address": address})).collect();
        json!({"name": name, "addresses": addresses})
    };
    let document: Vec<_> =
        read(json!([set("a", &["10.0.0.1:80", "10.0.0.2:0", "[::1]:0"]), set("", &[]), set("b", &[]), set("a", &[]),]));
    check(
        accept::endpoints(&document),
        Part::Endpoints,
        &[
            ("endpoints[0].addresses[1].address", "10.0.0.2:0 has no port; write `address:port`"),
            ("endpoints[0].addresses[2].address", "[::1]:0 has no port; write `address:port`"),
            ("endpoints[1].name", "is empty; give it a name"),
            ("endpoints[3].name", "`a` is taken by an earlier set; names are unique"),
        ],
    );
}

/// One look at the answer is enough to repair the whole document.
#[test]
fn all_problems_are_told_at_once() {
    let document = json!({
        "listeners": [listener("main", 8443), listener("main", 8443)],
        "routes": [
            {"name": "a/r", "listener": "absent", "hostnames": ["*", "b:1"], "rules": [
                {"name": "", "matches": [{"path": {"type": "Exact", "value": "a"}, "method": "get"}],
                 "allow": [], "backends": [{}]},
            ]},
            {"name": "a/r", "listener": "main", "rules": []},
        ],
        "limits": {"maxConnections": 0},
    });
    policy(
        document,
        &[
            ("policy.listeners[1].name", "`main` is taken by an earlier listener; names are unique"),
            ("policy.listeners[1].address", "127.0.0.1:8443 is taken by an earlier listener; choose another port"),
            ("policy.routes[0].listener", "there is no listener `absent`; name one of policy.listeners"),
            (
                "policy.routes[0].hostnames[0]",
                "`*` has a wildcard that is not its whole first label; write `*.example.com` for all names below one, or leave hostnames empty for any host",
            ),
            ("policy.routes[0].hostnames[1]", "`b:1` is not a host name; write it without scheme, port and path"),
            ("policy.routes[0].rules[0].name", "is empty; give it a name"),
            (
                "policy.routes[0].rules[0].matches[0].path.value",
                "`a` would never match; write an absolute path without query, encoded separators or dot segments above the root",
            ),
            (
                "policy.routes[0].rules[0].matches[0].method",
                "`get` is not a method; write it in upper case, such as `GET`",
            ),
            (
                "policy.routes[0].rules[0].allow",
                "is empty; name who may call, or write `[{ anyone = {} }]`: absence never means anyone",
            ),
            ("policy.routes[0].rules[0].backends[0]", "has neither address nor endpoints nor host; write exactly one"),
            ("policy.routes[1].name", "`a/r` is taken by an earlier route; names are unique"),
            ("policy.limits.maxConnections", "is 0; write a number from 1 to 1000000"),
        ],
    );
    trust(
        json!({
            "bundles": {"x": {"roots": [], "vouchesFor": {"spiffe": [""]}}, "y": {"roots": ["absent.pem", "not-ca.pem"]}},
            "revocations": {"identities": [{"name": "a", "state": "Revoked"}, {"name": "a", "state": "Revoked"}]},
        }),
        &[
            ("trust.bundles.x.roots", "is empty; name at least one PEM file with a root certificate"),
            (
                "trust.bundles.x.vouchesFor.spiffe[0]",
                "`` is not a trust domain; write its name alone and in lower case, such as `demo.local`",
            ),
            ("trust.bundles.y.roots[0]", "`absent.pem` was not read"),
            (
                "trust.bundles.y.roots",
                "`CN=device` is not a CA (basicConstraints CA:TRUE is missing); only CA certificates can be roots",
            ),
            ("trust.revocations.identities[1].name", "`a` is listed twice; keep one entry"),
        ],
    );
}

/// `allow` has exactly one key each, and nothing beside it: two would be read as either.
#[test]
fn an_allow_entry_is_one_word() {
    let good = ["{\"anyone\": {}}", "{\"identity\": \"a\"}", "{\"verified\": \"a\"}"];
    let bad = [
        "{}",
        "\"anyone\"",
        "{\"anyone\": null}",
        "{\"anyone\": true}",
        "{\"anyone\": {\"x\": 1}}",
        "{\"Anyone\": {}}",
        "{\"identity\": \"a\", \"anyone\": {}}",
        "{\"identity\": \"a\", \"x\": 1}",
        "{\"identity\": [\"a\"]}",
        "{\"identity\": null}",
    ];
    let rows = good.iter().map(|text| (text, true)).chain(bad.iter().map(|text| (text, false)));
    for (text, accepted) in rows {
        let value: Value = serde_json::from_str(text).expect("JSON");
        let read = serde_json::from_value::<sidecar_config::policy::Allow>(value);
        assert_eq!(read.is_ok(), accepted, "{text}");
    }
}
