//! What is wrong with a policy: every problem with its exact place and words.

use serde_json::{Value, json};
use sidecar_decide::accept;

use crate::accept_problems::policy;
use crate::fixture::{listener, read, rule};

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
