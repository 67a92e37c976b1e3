//! What is wrong with a document: every problem with its exact place and words, and all of them at once.

use std::fmt::Debug;

use serde_json::{Value, json};
use sidecar_config::Part;
use sidecar_config::identities::KnownIdentity;
use sidecar_decide::{Refusal, accept};

use crate::fixture::{expected, files, listener, read, root, rule, told, trust_document};

fn check<T: Debug>(accepted: Result<T, Refusal>, part: Part, rows: &[(&str, &str)]) {
    let problems = accepted.expect_err("a document with problems").problems;
    assert_eq!(told(&problems), expected(rows));
    for problem in &problems {
        assert_eq!(problem.part, part);
        assert_eq!(problem.to_string(), format!("`{}`: {}", problem.path, problem.detail));
    }
}

fn trust(document: Value, rows: &[(&str, &str)]) {
    check(accept::trust(&read(document), &files()), Part::Trust, rows);
}

/// A trust part of one bundle `b`.
fn bundle(bundle: &Value, rows: &[(&str, &str)]) {
    trust(json!({"bundles": {"b": bundle}}), rows);
}

#[test]
fn trust_bundles() {
    bundle(
        &json!({"roots": []}),
        &[("trust.bundles.b.roots", "is empty; name at least one PEM file with a root certificate")],
    );
    bundle(&json!({"roots": ["ours.pem", "absent.pem"]}), &[("trust.bundles.b.roots[1]", "`absent.pem` was not read")]);
    bundle(
        &json!({"roots": ["empty.pem"]}),
        &[("trust.bundles.b.roots[0]", "`empty.pem` holds no certificate; put PEM blocks `BEGIN CERTIFICATE` into it")],
    );
    bundle(
        &json!({"roots": ["torn.pem"]}),
        &[("trust.bundles.b.roots[0]", "`torn.pem` ends in the middle of a block")],
    );
    bundle(
        &json!({"roots": ["ours.pem", "not-ca.pem"]}),
        &[(
            "trust.bundles.b.roots",
            "`CN=device` is not a CA (basicConstraints CA:TRUE is missing); only CA certificates can be roots",
        )],
    );
    trust(
        json!({"bundles": {"": {"roots": ["ours.pem"]}, "a b": {"roots": ["ours.pem"]}}}),
        &[
            ("trust.bundles.", "the name is empty; give it a name"),
            ("trust.bundles.a b", "the name has ' ' in it; leave out white space and control characters"),
        ],
    );
}

#[test]
fn trust_domains() {
    for (domain, good) in [
        ("demo.local", true),
        ("d", true),
        ("", false),
        ("Demo.local", false),
        ("spiffe://demo.local", false),
        ("demo.local/ns", false),
        ("demo.local:443", false),
    ] {
        let document = json!({"roots": ["ours.pem"], "vouchesFor": {"spiffe": ["first.local", domain]}});
        if good {
            let accepted = accept::trust(&read(json!({"bundles": {"b": document}})), &files());
            assert_eq!(accepted.expect("a good document").bundles[0].vouches_for.spiffe, ["first.local", domain]);
        } else {
            let detail = format!(
                "`{domain}` is not a trust domain; write its name alone and in lower case, such as `demo.local`"
            );
            bundle(&document, &[("trust.bundles.b.vouchesFor.spiffe[1]", &detail)]);
        }
    }
}

#[test]
fn trust_revocations() {
    let states = json!([
        {"name": "a/b", "state": "Suspended"}, {"name": "a/c", "state": "Revoked"}, {"name": "a/b", "state": "Revoked"},
    ]);
    trust(
        trust_document(&states),
        &[("trust.revocations.identities[2].name", "`a/b` is listed twice; keep one entry")],
    );
}

#[test]
fn trust_revocations_since_1_1() {
    let mut document = trust_document(&json!([{"name": "a/b"}, {"name": "a/c", "state": "Revoked"}]));
    document["revocations"]["serials"] = json!([
        {"bundle": "ours", "serial": "5a01"},
        {"bundle": "ours", "serial": "5A:01"},
        {"bundle": "absent", "serial": "5a:01"},
        {"bundle": "ours", "serial": "5a:1"},
        {"bundle": "Ours", "serial": ""},
    ]);
    let serial = "is not a serial number; write pairs of hex digits, such as `5a:01` or `5A01`";
    trust(
        document,
        &[
            (
                "trust.revocations.identities[0]",
                "has neither state nor acceptIssuedAfter, so nothing is revoked; write at least one",
            ),
            ("trust.revocations.serials[2].bundle", "there is no bundle `absent`; name one of trust.bundles"),
            ("trust.revocations.serials[3].serial", &format!("`5a:1` {serial}")),
            ("trust.revocations.serials[4].bundle", "there is no bundle `Ours`; name one of trust.bundles"),
            ("trust.revocations.serials[4].serial", &format!("`` {serial}")),
        ],
    );
}

#[test]
fn trust_with_intermediates() {
    let with = |intermediates: Value| json!({"roots": ["ours.pem"], "intermediates": intermediates});
    let place = "trust.bundles.b.intermediates";
    bundle(
        &with(json!(["not-ca.pem", "absent.pem"])),
        &[
            ("trust.bundles.b.intermediates[1]", "`absent.pem` was not read"),
            (
                place,
                "`CN=device` is not a CA (basicConstraints CA:TRUE is missing); only CA certificates can be intermediates",
            ),
        ],
    );
    bundle(&with(json!(vec!["partner.pem"; 65])), &[(place, "are 65; at most 64 are allowed")]);
}

#[test]
fn trust_with_revocation_lists() {
    let with = |lists: Value| json!({"roots": ["ours.pem"], "crls": lists});
    let place = |index: usize| format!("trust.bundles.b.crls[{index}]");
    let advice =
        "is signed by no root or intermediate of this bundle; add the certificate of its issuer to `intermediates`";
    bundle(
        &with(json!(["ours.crl", "partner.crl", "stray.crl", "empty.crl", "torn.crl", "absent.crl"])),
        &[
            (&place(1), &format!("the list of `CN=partner` in `partner.crl` {advice}")),
            (&place(2), &format!("the list of `CN=ours` in `stray.crl` {advice}")),
            (
                &place(3),
                "`empty.crl` holds no revocation list; put PEM blocks `BEGIN X509 CRL` or one DER list into it",
            ),
            (&place(4), "`torn.crl`: not a list"),
            (&place(5), "`absent.crl` was not read"),
        ],
    );
    let mut files = files();
    let mut root = root("ours", 0xa0);
    root.facts.signs_crls = false;
    files.certificates.insert("ours.pem".to_owned(), Ok(vec![root]));
    check(
        accept::trust(&read(json!({"bundles": {"b": with(json!(["ours.crl"]))}})), &files),
        Part::Trust,
        &[(
            &place(0),
            "the list in `ours.crl` is signed by `CN=ours`, whose key usage does not include cRLSign; have its certificate \
             issued with it",
        )],
    );
}

#[test]
fn identity() {
    let key = "is not the key of `CN=server` in `server.pem`; \
               write the chain with its leaf first, and the key that leaf was issued for";
    let no_certificate = "`empty.pem` holds no certificate; put PEM blocks `BEGIN CERTIFICATE` into it";
    type Row<'a> = (&'a str, &'a str, &'a [(&'a str, &'a str)]);
    let rows: &[Row<'_>] = &[
        ("server.pem", "other.key", &[("identity.key", key)]),
        ("server.pem", "torn.key", &[("identity.key", "`torn.key` holds no private key")]),
        ("server.pem", "absent.key", &[("identity.key", "`absent.key` was not read")]),
        ("absent.pem", "server.key", &[("identity.chain", "`absent.pem` was not read")]),
        ("torn.pem", "server.key", &[("identity.chain", "`torn.pem` ends in the middle of a block")]),
        ("empty.pem", "server.key", &[("identity.chain", no_certificate)]),
        (
            "empty.pem",
            "torn.key",
            &[("identity.chain", no_certificate), ("identity.key", "`torn.key` holds no private key")],
        ),
    ];
    for (chain, key, problems) in rows {
        let document = read(json!({"chain": chain, "key": key}));
        check(accept::identity(&document, &files()), Part::Identity, problems);
    }
}

/// One pair that is wrong refuses the part: what is in use stays in use together.
#[test]
fn identity_with_more_certificates() {
    let pair = |chain: &str, key: &str| json!({"chain": chain, "key": key});
    let with =
        |certificates: Value| read(json!({"chain": "server.pem", "key": "server.key", "certificates": certificates}));
    let advice = "write the chain with its leaf first, and the key that leaf was issued for";
    let refused = |certificates: Value, problems: &[(&str, &str)]| {
        check(accept::identity(&with(certificates), &files()), Part::Identity, problems);
    };
    refused(
        json!([pair("shop.pem", "shop.key"), pair("shop.pem", "server.key"), pair("absent.pem", "torn.key")]),
        &[
            ("identity.certificates[1].key", &format!("is not the key of `CN=shop` in `shop.pem`; {advice}")),
            ("identity.certificates[2].chain", "`absent.pem` was not read"),
            ("identity.certificates[2].key", "`torn.key` holds no private key"),
        ],
    );
    refused(
        json!([pair("server.pem", "server.key")]),
        &[(
            "identity.certificates[0].chain",
            "has neither DNS nor IP subject alternative names, so no client could ask for it; issue it with the names \
             it is for",
        )],
    );
    let named = |name: &str| {
        let mut pair = pair("server.pem", "server.key");
        pair["name"] = json!(name);
        pair
    };
    assert!(
        accept::identity(&with(json!([named("a/web")])), &files()).is_ok(),
        "a listener shows it, whatever it says"
    );
    refused(
        json!([named("a/web"), named("a web"), named("a/web")]),
        &[
            ("identity.certificates[1].name", "has ' ' in it; leave out white space and control characters"),
            ("identity.certificates[2].name", "`a/web` is taken by an earlier certificate; names are unique"),
        ],
    );
    let many = |count| Value::from(vec![pair("shop.pem", "shop.key"); count]);
    assert!(accept::identity(&with(many(64)), &files()).is_ok());
    refused(
        many(65),
        &[("identity.certificates", "are 65; at most 64 are allowed: put several names into one certificate")],
    );
}

fn identities(document: Value, rows: &[(&str, &str)]) {
    let document: Vec<KnownIdentity> = read(document);
    check(accept::identities(&document), Part::Identities, rows);
}

#[test]
fn identities_and_their_names() {
    let known = |name: &str| json!({"name": name, "recognise": [{"bundle": "ours", "dnsName": "a"}]});
    identities(
        json!([known("a/b"), known("a/c"), known("a/b")]),
        &[("identities[2].name", "`a/b` is taken by an earlier identity; names are unique")],
    );
    identities(json!([known("")]), &[("identities[0].name", "is empty; give it a name")]);
    identities(
        json!([known("a\tb")]),
        &[("identities[0].name", "has '\\t' in it; leave out white space and control characters")],
    );
    identities(
        json!([known(&"x".repeat(317)), known(&"x".repeat(318))]),
        &[("identities[1].name", "is 318 bytes long; at most 317 are allowed")],
    );
    identities(
        json!([{"name": "a/b", "recognise": []}]),
        &[("identities[0].recognise", "is empty, so nobody would ever be this identity; add a recogniser")],
    );
}

#[test]
fn identities_and_their_recognisers() {
    let fields = "uri, dnsName, commonName, fingerprint, lfdi, sfdi, serial, spki";
    let count = |count: usize| format!("has {count} claims; write exactly one of {fields}");
    let fingerprint = |text: &str| format!("`{text}` is not a fingerprint; write `sha256:` and 64 hex digits");
    let lfdi = |text: &str| format!("`{text}` is not an LFDI; write 40 hex digits");
    let long = |text: &str, times: usize| text.repeat(times);
    let fingerprints = [
        String::new(),
        "sha256:".to_owned(),
        long("ab", 32),
        format!("sha256:{}", long("ab", 31)),
        format!("sha256:{}", long("ab", 33)),
        format!("sha256:{}a", long("ab", 31)),
        format!("sha256:{}g0", long("ab", 31)),
        format!("sha256:{}+1", long("ab", 31)),
        format!("SHA256:{}", long("ab", 32)),
        format!("sha1:{}", long("ab", 32)),
        format!("sha256:{}", long("ab:", 31) + "ab"),
    ];
    let mut rows: Vec<(Value, &str, String)> = vec![
        (json!({}), "", count(0)),
        (json!({"uri": "a", "dnsName": "b"}), "", count(2)),
        (json!({"uri": "a", "dnsName": "b", "commonName": "c", "lfdi": long("ab", 20)}), "", count(4)),
    ];
    rows.extend(fingerprints.iter().map(|text| (json!({"fingerprint": text}), ".fingerprint", fingerprint(text))));
    for text in [String::new(), long("ab", 19), long("ab", 21), long("g0", 20), long("\u{e9}", 20)] {
        rows.push((json!({"lfdi": text}), ".lfdi", lfdi(&text)));
    }
    rows.extend(bad_short_forms_and_serials());
    let spki = |text: &str| format!("`{text}` is not the digest of a public key; write `sha256:` and 64 hex digits");
    for text in [long("ab", 32), format!("sha256:{}", long("ab", 31)), format!("sha256:{}", long("g0", 32))] {
        rows.push((json!({"spki": text}), ".spki", spki(&text)));
    }
    for (mut recogniser, field, detail) in rows {
        recogniser["bundle"] = json!("ours");
        let good = json!({"bundle": "ours", "dnsName": "a"});
        let document = json!([{"name": "a/b", "recognise": [good, recogniser]}]);
        identities(document, &[(&format!("identities[0].recognise[1]{field}"), &detail)]);
    }
}

fn bad_short_forms_and_serials() -> Vec<(Value, &'static str, String)> {
    let form = "is not an SFDI; write 12 digits, zeros in front included";
    let sum = "is not an SFDI: its last digit does not make the sum of its digits a multiple of ten; compare them";
    let bits = "is not an SFDI: its first eleven digits are more than 36 bits hold; compare them";
    let short = [
        ("", form),
        ("16726121139", form),
        ("1672612113910", form),
        ("+16726121139", form),
        ("16726121139a", form),
        ("167261211390", sum),
        ("000000000001", sum),
        // 2^36 - 1 is the last, 2^36 is one too many.
        ("687194767366", bits),
        ("999999999991", bits),
    ];
    let short = short.map(|(text, why)| (json!({"sfdi": text}), ".sfdi", format!("`{text}` {why}")));
    let serials = ["", ":", "5", "5a0", "5a:1", "5a01:02", "5a:01:", ":5a", "0x5a", "5g", "5a 01", "-5a", "\u{e9}"];
    let remedy = "is not a serial number; write pairs of hex digits, such as `5a:01` or `5A01`";
    let serials = serials.map(|text| (json!({"serial": text}), ".serial", format!("`{text}` {remedy}")));
    short.into_iter().chain(serials).collect()
}

#[test]
fn labels() {
    let known =
        json!([{"name": "a", "labels": {"": "x", "a b": "x", "tier": ""}, "recognise": [{"bundle": "b", "uri": "c"}]}]);
    identities(
        known,
        &[
            ("identities[0].labels.", "the label is empty; give it a name"),
            ("identities[0].labels.a b", "the label has ' ' in it; leave out white space and control characters"),
        ],
    );
}

#[test]
fn policy_allow() {
    let account = |namespace: &str, name: &str| json!({"namespace": namespace, "name": name});
    let allow = json!([
        {"identitySelector": {"matchLabels": {}}},
        {"serviceAccount": account("", "a/b")},
        {"serviceAccount": account("..", "*")},
        {"serviceAccount": {"namespace": "a", "name": "b", "trustDomain": "Demo.local"}},
        {"spiffe": "demo.local/ns/*"},
        {"spiffe": "spiffe://demo.local/ns/*/sa/front"},
        {"spiffe": "spiffe://demo.local/ns*"},
        {"spiffe": "spiffe://demo.local/ns/"},
        {"spiffe": "spiffe://*"},
        {"spiffe": "spiffe://demo.local/ns/../*"},
        {"spiffe": ""},
        {"serviceAccount": account("a", "b")},
        {"spiffe": "spiffe://demo.local/*"},
    ]);
    let part = |text: &str| format!("`{text}` cannot be in a SPIFFE ID; write letters, digits, `-`, `_` and `.`");
    let domain = "is not a trust domain; write its name alone and in lower case, such as `demo.local`";
    let id = "is not a SPIFFE ID; write one such as `spiffe://demo.local/ns/shop/sa/front`, \
              or end it in `/*` for all below it";
    let mut rows = vec![
        (0, "identitySelector.matchLabels", "is empty, which would choose every identity; write a label".to_owned()),
        (1, "serviceAccount.namespace", part("")),
        (1, "serviceAccount.name", part("a/b")),
        (2, "serviceAccount.namespace", part("..")),
        (2, "serviceAccount.name", part("*")),
        (3, "serviceAccount.trustDomain", format!("`Demo.local` {domain}")),
    ];
    for index in 4..=10 {
        let text = allow[index]["spiffe"].as_str().expect("a text");
        rows.push((index, "spiffe", format!("`{text}` {id}")));
    }
    let place = |index: usize, field: &str| format!("policy.routes[0].rules[0].allow[{index}].{field}");
    let rows: Vec<_> = rows.into_iter().map(|(index, field, detail)| (place(index, field), detail)).collect();
    let rows: Vec<_> = rows.iter().map(|(place, detail)| (place.as_str(), detail.as_str())).collect();
    let routes = json!([{"name": "r", "listener": "main", "rules": [rule("a", &json!([]), &allow)]}]);
    policy(json!({"listeners": [listener("main", 8443)], "routes": routes}), &rows);
}

fn policy(document: Value, rows: &[(&str, &str)]) {
    check(accept::policy(&read(document)), Part::Policy, rows);
}

#[test]
fn policy_listeners() {
    let mut any = listener("c", 0);
    any["address"] = json!("[::]:8443");
    policy(
        json!({"listeners": [listener("a", 8443), listener("a", 9443), listener("b", 8443), any]}),
        &[
            ("policy.listeners[1].name", "`a` is taken by an earlier listener; names are unique"),
            ("policy.listeners[2].address", "127.0.0.1:8443 is taken by an earlier listener; choose another port"),
        ],
    );
    // Port 0 asks for any free port, so two of those are two listeners.
    let free = json!({"listeners": [listener("a", 0), listener("b", 0)]});
    assert_eq!(accept::policy(&read(free)).expect("a good document").listeners.len(), 2);
    policy(
        json!({"listeners": [listener("", 1), listener("a b", 2)]}),
        &[
            ("policy.listeners[0].name", "is empty; give it a name"),
            ("policy.listeners[1].name", "has ' ' in it; leave out white space and control characters"),
        ],
    );
}

#[test]
fn policy_limits() {
    for (limit, good) in [(0, false), (1, true), (1_000_000, true), (1_000_001, false), (u32::MAX, false)] {
        let document = json!({"limits": {"maxConnections": limit}});
        if good {
            let accepted = accept::policy(&read(document)).expect("a good document");
            assert_eq!(accepted.limits.max_connections, Some(limit));
        } else {
            let detail = format!("is {limit}; write a number from 1 to 1000000");
            policy(document, &[("policy.limits.maxConnections", &detail)]);
        }
    }
}

/// A policy of one route with these hostnames and rules.
fn one_route(hostnames: &Value, rules: &Value) -> Value {
    let routes = [json!({"name": "a/r", "listener": "main", "hostnames": hostnames, "rules": rules})];
    json!({"listeners": [listener("main", 8443)], "routes": routes})
}

#[test]
fn policy_routes() {
    let route = |name: &str, listener: &str| json!({"name": name, "listener": listener, "rules": []});
    let routes = [route("a/r", "main"), route("a/r", "main"), route("", "main"), route("a/s", "absent")];
    policy(
        json!({"listeners": [listener("main", 8443)], "routes": routes}),
        &[
            ("policy.routes[1].name", "`a/r` is taken by an earlier route; names are unique"),
            ("policy.routes[2].name", "is empty; give it a name"),
            ("policy.routes[3].listener", "there is no listener `absent`; name one of policy.listeners"),
        ],
    );
}

#[test]
fn policy_hostnames() {
    let good = json!([
        "orders.shop",
        "ORDERS",
        "a_b-c.1",
        "10.0.0.1",
        "dotted.",
        "[::1]",
        "[2001:db8::1]",
        "*.shop",
        "*.A-1.shop."
    ]);
    accept::policy(&read(one_route(&good, &json!([])))).expect("good host names");
    for hostname in ["*", "*shop", "a*.shop", "a.*.shop", "*.*.shop", "*.*"] {
        let detail = format!(
            "`{hostname}` has a wildcard that is not its whole first label; write `*.example.com` for all names below one, or leave hostnames empty for any host"
        );
        policy(one_route(&json!(["a", hostname]), &json!([])), &[("policy.routes[0].hostnames[1]", &detail)]);
    }
    for hostname in ["*.0.0.1", "*.1", "*.0.0.1."] {
        let detail = format!("`{hostname}` has a wildcard in an address; list each address");
        policy(one_route(&json!(["a", hostname]), &json!([])), &[("policy.routes[0].hostnames[1]", &detail)]);
    }
    let bad = [
        "",
        ".",
        "orders:8443",
        "[::1]:8443",
        "::1",
        "https://orders",
        "orders/x",
        "a b",
        "*.",
        "*..",
        "*..shop",
        "*.a..shop",
        "*.shop:443",
        "*.[::1]",
        "user@orders",
        "a,b",
        "a\0",
        "caf\u{e9}",
    ];
    for hostname in bad {
        let detail = format!("`{hostname}` is not a host name; write it without scheme, port and path");
        policy(one_route(&json!(["a", hostname]), &json!([])), &[("policy.routes[0].hostnames[1]", &detail)]);
    }
}

#[test]
fn policy_rules() {
    let anyone = json!([{"anyone": {}}]);
    let good = rule("r", &json!([]), &anyone);
    let rules = [
        good.clone(),
        good,
        rule("", &json!([]), &anyone),
        rule("s", &json!([]), &json!([])),
        json!({"name": "t", "allow": anyone, "backends": []}),
        json!({"name": "u", "allow": anyone, "backends": [
            {"address": "127.0.0.1:80"},
            {"endpoints": "e"},
            {},
            {"address": "127.0.0.1:80", "endpoints": "e"},
            {"address": "127.0.0.1:0"},
        ]}),
    ];
    policy(
        one_route(&json!([]), &json!(rules)),
        &[
            ("policy.routes[0].rules[1].name", "`r` is taken by an earlier rule; names are unique"),
            ("policy.routes[0].rules[2].name", "is empty; give it a name"),
            (
                "policy.routes[0].rules[3].allow",
                "is empty; name who may call, or write `[{ anyone = {} }]`: absence never means anyone",
            ),
            ("policy.routes[0].rules[4].backends", "is empty; name at least one address or set of endpoints"),
            ("policy.routes[0].rules[5].backends[2]", "has neither address nor endpoints nor host; write exactly one"),
            ("policy.routes[0].rules[5].backends[3]", "has several of address, endpoints and host; write exactly one"),
            ("policy.routes[0].rules[5].backends[4]", "127.0.0.1:0 has no port; write `address:port`"),
        ],
    );
}

#[test]
fn policy_paths() {
    let matching = |condition: &Value| {
        one_route(&json!([]), &json!([rule("r", &json!([{}, condition]), &json!([{"anyone": {}}]))]))
    };
    let kinds = ["Exact", "PathPrefix"];
    for path in ["/", "/a", "/a/", "/a%20b", "/caf%C3%A9", "/a:b@c;d", "/.well-known"] {
        for kind in kinds {
            let document = matching(&json!({"path": {"type": kind, "value": path}}));
            accept::policy(&read(document)).expect("a good path");
        }
    }
    let plain = "write an absolute path without query, encoded separators or dot segments above the root";
    let normal = |path: &str| format!("write it as requests are normalised, `{path}`");
    let rows = [
        ("", plain.to_owned()),
        ("orders", plain.to_owned()),
        ("*", plain.to_owned()),
        ("/a?b", plain.to_owned()),
        ("/a#b", plain.to_owned()),
        ("/a b", plain.to_owned()),
        ("/..", plain.to_owned()),
        ("/a%2Fb", plain.to_owned()),
        ("/%2e%2e", plain.to_owned()),
        ("/a%", plain.to_owned()),
        ("/a//b", normal("/a/b")),
        ("/a/.", normal("/a/")),
        ("/a/../b", normal("/b")),
        ("/%61", normal("/a")),
        ("/caf\u{e9}", normal("/caf%C3%A9")),
        ("/caf%c3%a9", normal("/caf%C3%A9")),
        ("/{id}", normal("/%7Bid%7D")),
    ];
    for (path, advice) in rows {
        for kind in kinds {
            let detail = format!("`{path}` would never match; {advice}");
            let document = matching(&json!({"path": {"type": kind, "value": path}}));
            policy(document, &[("policy.routes[0].rules[0].matches[1].path.value", &detail)]);
        }
    }
}

#[test]
fn policy_methods() {
    let matching = |method: &str| {
        one_route(&json!([]), &json!([rule("r", &json!([{"method": method}]), &json!([{"anyone": {}}]))]))
    };
    for method in ["GET", "POST", "PURGE", "M-SEARCH", "X1"] {
        accept::policy(&read(matching(method))).expect("a good method");
    }
    for method in ["", "get", "Get", "GET POST", "GET,POST", "*\n", "GE\u{e9}"] {
        let detail = format!("`{method}` is not a method; write it in upper case, such as `GET`");
        policy(matching(method), &[("policy.routes[0].rules[0].matches[0].method", &detail)]);
    }
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
