//! Which filters a rule may have: every problem with its place and words.

use serde_json::{Value, json};
use sidecar_decide::accept;

use crate::fixture::{expected, listener, read, rule, told};

/// A policy whose one rule has these filters and matches, behind that many trusted proxies.
fn policy(filters: &Value, matches: &Value, trusted_hops: u8) -> Value {
    let mut rule = rule("r", matches, &json!([{"anyone": {}}]));
    rule["filters"] = filters.clone();
    let route = json!({"name": "a/b", "listener": "main", "rules": [rule]});
    json!({"listeners": [listener("main", 8443)], "routes": [route], "forwarding": {"trustedHops": trusted_hops}})
}

/// Places are below the rule's `filters`.
fn check(filters: &Value, rows: &[(&str, &str)]) {
    let found = accept::policy(&read(policy(filters, &json!([]), 0)));
    let problems = found.map_or_else(|refusal| refusal.problems, |_| Vec::new());
    let rows: Vec<_> =
        rows.iter().map(|(place, detail)| (format!("policy.routes[0].rules[0].filters{place}"), *detail)).collect();
    let rows: Vec<_> = rows.iter().map(|(place, detail)| (place.as_str(), *detail)).collect();
    assert_eq!(told(&problems), expected(&rows), "{filters}");
}

#[test]
fn identities() {
    let one = |name: &str| json!([{"forwardIdentity": {"headers": [{"name": name, "value": "Lfdi"}]}}]);
    for name in ["X-Forwarded-Client-Cert", "client-cert", "ssl-client-cert", "x-client-name", "Postern-Lfdi", "X_Name"]
    {
        check(&one(name), &[]);
    }
    for name in ["", "a b", "a:"] {
        let detail = format!("`{name}` is not the name of a header field; write it as in `X-Tenant`");
        check(&one(name), &[("[0].forwardIdentity.headers[0].name", &detail)]);
    }
    for name in ["host", "content-length", "connection", "x-forwarded-for", "forwarded", "authorization", "cookie"] {
        let detail = format!("`{name}` has another use; choose a name of your own, such as `x-client-name`");
        check(&one(name), &[("[0].forwardIdentity.headers[0].name", &detail)]);
    }
    check(
        &json!([{"forwardIdentity": {}}, {"forwardIdentity": {"xForwardedClientCert": ["URI", "Hash", "URI"]}}]),
        &[
            ("[0].forwardIdentity", "tells nothing; write xForwardedClientCert or headers"),
            ("[1]", "is the second of its kind in this rule; write one that says both"),
            ("[1].forwardIdentity.xForwardedClientCert[2]", "is named before; name each once"),
        ],
    );
    check(
        &json!([{"forwardIdentity": {"xForwardedClientCert": ["Hash"], "headers": [
            {"name": "X-Forwarded-Client-Cert", "value": "EscapedPem"},
            {"name": "x-a", "value": "Rfc9440Chain"},
            {"name": "X-A", "value": "Lfdi"},
        ]}}]),
        &[
            ("[0].forwardIdentity.headers[0].name", "`X-Forwarded-Client-Cert` is written before; choose another name"),
            ("[0].forwardIdentity.headers[2].name", "`X-A` is written before; choose another name"),
            ("[0].forwardIdentity.headers", "have Rfc9440Chain without Rfc9440; add a header with Rfc9440"),
        ],
    );
}

#[test]
fn modifiers() {
    let request = |changes: Value| json!([{"requestHeaderModifier": changes}]);
    check(
        &json!([
            {"requestHeaderModifier": {"set": [{"name": "X-A", "value": "a b"}], "add": [{"name": "x-a", "value": ""}]}},
            {"responseHeaderModifier": {"remove": ["Server", "X-Forwarded-For"]}},
        ]),
        &[],
    );
    check(&request(json!({})), &[("[0].requestHeaderModifier", "changes nothing; write set, add or remove")]);
    let fixed = |name: &str| format!("`{name}` belongs to the connection or the message; leave it out");
    let owned = |name: &str| format!("`{name}` is the gate's to write; leave it out");
    for name in ["host", "content-length", "transfer-encoding", "connection", "te", "upgrade", "trailer"] {
        check(&request(json!({"remove": [name]})), &[("[0].requestHeaderModifier.remove[0]", &fixed(name))]);
    }
    for name in ["x-forwarded-client-cert", "x_forwarded_for", "x-request-id", "postern-a", "client-cert"] {
        let set = json!({"set": [{"name": name, "value": "a"}]});
        check(&request(set), &[("[0].requestHeaderModifier.set[0].name", &owned(name))]);
    }
    check(
        &json!([
            {"forwardIdentity": {"headers": [{"name": "X-Name", "value": "Identity"}]}},
            {"requestHeaderModifier": {"add": [{"name": "x_name", "value": "a"}]}},
            {"responseHeaderModifier": {"set": [{"name": "Postern-Reason", "value": "a"}]}},
        ]),
        &[
            ("[1].requestHeaderModifier.add[0].name", &owned("x_name")),
            ("[2].responseHeaderModifier.set[0].name", &owned("postern-reason")),
        ],
    );
    let value = |value: &str| {
        let advice = "cannot be a header's value; write ASCII without control characters or spaces around it";
        format!("{value:?} {advice}")
    };
    check(
        &request(
            json!({"set": [{"name": "a", "value": "x\r\ny"}, {"name": "A", "value": " x"}], "remove": ["b", "B"]}),
        ),
        &[
            ("[0].requestHeaderModifier.remove[1]", "`B` is named before; name each once"),
            ("[0].requestHeaderModifier.set[0].value", &value("x\r\ny")),
            ("[0].requestHeaderModifier.set[1].name", "`A` is named before; name each once"),
            ("[0].requestHeaderModifier.set[1].value", &value(" x")),
        ],
    );
}

/// What is dropped before rules are asked could never be matched.
#[test]
fn nothing_is_matched_that_is_dropped() {
    let filters = json!([{"forwardIdentity": {"headers": [{"name": "X-Name", "value": "Identity"}]}}]);
    let table = [
        ("x-forwarded-client-cert", 0, false),
        ("Client_Cert", 16, false),
        ("x_name", 0, false),
        ("x-forwarded-proto", 0, false),
        ("x-forwarded-proto", 1, true),
        ("x_forwarded_proto", 1, false),
        ("x-names", 0, true),
    ];
    for (name, trusted_hops, good) in table {
        let matches = json!([{"headers": [{"name": name, "value": "a"}]}]);
        let found = accept::policy(&read(policy(&filters, &matches, trusted_hops)));
        let problems = found.map_or_else(|refusal| refusal.problems, |_| Vec::new());
        let lower = name.to_ascii_lowercase();
        let detail =
            format!("`{lower}` is the gate's to write, and a client's is dropped before rules are asked; leave it out");
        let place = "policy.routes[0].rules[0].matches[0].headers[0].name";
        let rows = if good { vec![] } else { vec![(place, detail.as_str())] };
        assert_eq!(told(&problems), expected(&rows), "{name} {trusted_hops}");
    }
}

#[test]
fn trusted_proxies_are_counted() {
    assert!(accept::policy(&read(policy(&json!([]), &json!([]), 16))).is_ok());
    let problems = accept::policy(&read(policy(&json!([]), &json!([]), 17))).expect_err("too many").problems;
    let rows = [("policy.forwarding.trustedHops", "is 17; write a number from 0 to 16")];
    assert_eq!(told(&problems), expected(&rows));
}

#[test]
fn nothing_is_written_into_bytes_that_are_passed_on() {
    let mut document = policy(&json!([{"forwardIdentity": {"xForwardedClientCert": ["Hash"]}}]), &json!([]), 0);
    document["listeners"][0]["protocol"] = json!("TLS");
    let problems = accept::policy(&read(document)).expect_err("filters on a TLS listener").problems;
    let detail = "nothing can be written on listener `main`, which is `TLS`; leave them out, or serve the route on an `HTTPS` listener";
    assert_eq!(told(&problems), expected(&[("policy.routes[0].rules[0].filters", detail)]));
}

/// A rule with these matches, filters and backends; places are below the rule.
fn check_rule(matches: &Value, filters: &Value, backends: &Value, rows: &[(&str, &str)]) {
    let mut document = policy(filters, matches, 0);
    document["routes"][0]["rules"][0]["backends"] = backends.clone();
    let found = accept::policy(&read(document));
    let problems = found.map_or_else(|refusal| refusal.problems, |_| Vec::new());
    let rows: Vec<_> =
        rows.iter().map(|(place, detail)| (format!("policy.routes[0].rules[0].{place}"), *detail)).collect();
    let rows: Vec<_> = rows.iter().map(|(place, detail)| (place.as_str(), *detail)).collect();
    assert_eq!(told(&problems), expected(&rows), "{matches} {filters}");
}

#[test]
fn redirects() {
    let redirect = |to: Value| json!([{ "requestRedirect": to }]);
    let check = |to: Value, rows: &[(&str, &str)]| check_rule(&json!([]), &redirect(to), &json!([]), rows);
    for status in [301, 302, 303, 307, 308] {
        check(json!({"scheme": "https", "statusCode": status}), &[]);
    }
    check(json!({"hostname": "new.example", "port": 8443, "path": {"type": "ReplaceFullPath", "value": "/"}}), &[]);
    let nowhere = "leads to where the request came to; write scheme, hostname, port or path";
    check(json!({}), &[("filters[0].requestRedirect", nowhere)]);
    check(json!({"statusCode": 308}), &[("filters[0].requestRedirect", nowhere)]);
    check(
        json!({"port": 0, "statusCode": 200}),
        &[
            ("filters[0].requestRedirect.port", "is 0; write a port from 1 to 65535"),
            ("filters[0].requestRedirect.statusCode", "is 200; write 301, 302, 303, 307 or 308"),
        ],
    );
    check(
        json!({"hostname": "*.example.com"}),
        &[("filters[0].requestRedirect.hostname", "`*.example.com` is many hosts; write one")],
    );
    for hostname in ["", "a b", "a\r\nb", "a:80", "a/b", "https://a", "a@b", "a?b", "é"] {
        let detail = format!("`{hostname}` is not a host name; write it without scheme, port and path");
        check(json!({ "hostname": hostname }), &[("filters[0].requestRedirect.hostname", &detail)]);
    }
    let backends = json!([{"address": "127.0.0.1:80"}]);
    let filters = json!([
        {"forwardIdentity": {"xForwardedClientCert": ["Hash"]}},
        {"requestRedirect": {"scheme": "https"}},
        {"urlRewrite": {"hostname": "a"}},
        {"requestHeaderModifier": {"remove": ["a"]}},
        {"responseHeaderModifier": {"remove": ["a"]}},
    ]);
    let lost = "has no effect beside requestRedirect, which asks no application; leave it out";
    check_rule(
        &json!([]),
        &filters,
        &backends,
        &[
            ("filters[0].forwardIdentity", lost),
            ("filters[2].urlRewrite", lost),
            ("filters[3].requestHeaderModifier", lost),
            ("backends", "are never asked beside requestRedirect; leave them out"),
        ],
    );
    check_rule(
        &json!([]),
        &json!([]),
        &json!([]),
        &[("backends", "is empty; name at least one address or set of endpoints")],
    );
}

#[test]
fn rewrites() {
    let backends = json!([{"address": "127.0.0.1:80"}]);
    let rewrite = |to: Value| json!([{ "urlRewrite": to }]);
    let check = |matches: &Value, to: Value, rows: &[(&str, &str)]| check_rule(matches, &rewrite(to), &backends, rows);
    let whole = |value: &str| json!({"path": {"type": "ReplaceFullPath", "value": value}});
    let prefix = |value: &str| json!({"path": {"type": "ReplacePrefixMatch", "value": value}});
    let on = |kind: &str, value: &str| json!({"path": {"type": kind, "value": value}});
    check(&json!([]), json!({}), &[("filters[0].urlRewrite", "changes nothing; write hostname or path")]);
    check(&json!([]), json!({"hostname": "orders.internal"}), &[]);
    check(
        &json!([]),
        json!({"hostname": "*.a"}),
        &[("filters[0].urlRewrite.hostname", "`*.a` is many hosts; write one")],
    );
    for value in ["/", "/a", "/a/", "/a/%C3%A9", "/a;b=c"] {
        check(&json!([]), whole(value), &[]);
    }
    for (value, normal) in [("/a//b", "/a/b"), ("/a/../b", "/b"), ("/%61", "/a"), ("/é", "/%C3%A9"), ("//", "/")] {
        let detail = format!("`{value}` is not spelled as paths are once they are normal; write `{normal}`");
        check(&json!([]), whole(value), &[("filters[0].urlRewrite.path.value", &detail)]);
    }
    let advice = "write an absolute path without query, encoded separators or dot segments above the root";
    for value in
        ["", "a", "/a?b", "/a#b", "/a b", "/a\r\nb", "/..", "/%2e", "/a%2fb", "/a\\b", "/%00", "/%", "https://a/"]
    {
        let detail = format!("`{value}` is not spelled as paths are once they are normal; {advice}");
        check(&json!([]), whole(value), &[("filters[0].urlRewrite.path.value", &detail)]);
        if !value.is_empty() {
            let matches = json!([on("PathPrefix", "/a")]);
            check(&matches, prefix(value), &[("filters[0].urlRewrite.path.value", &detail)]);
        }
    }
    let with_method = |mut condition: Value| {
        condition["method"] = json!("GET");
        condition
    };
    let one = on("PathPrefix", "/a");
    for matches in [json!([one]), json!([one, with_method(on("PathPrefix", "/a/"))]), json!([on("PathPrefix", "/")])] {
        check(&matches, prefix(""), &[]);
    }
    let without = "replaces a prefix that the rule does not have; write matches that all have one and the same path of type PathPrefix, or use ReplaceFullPath";
    for matches in [
        json!([]),
        json!([{"method": "GET"}]),
        json!([on("Exact", "/a")]),
        json!([on("Template", "/a")]),
        json!([on("RegularExpression", "/a")]),
        json!([one, on("PathPrefix", "/b")]),
        json!([one, {"method": "GET"}]),
    ] {
        check(&matches, prefix("/x"), &[("filters[0].urlRewrite.path.type", without)]);
    }
}
