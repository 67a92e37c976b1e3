//! What is wrong with a match: templates, regular expressions, headers, queries.

use serde_json::{Value, json};
use sidecar_decide::accept;

use crate::fixture::{expected, listener, read, route, told};

fn policy(matches: &Value) -> Value {
    json!({"listeners": [listener("main", 8443)], "routes": [route("a/r", &json!([]), matches)]})
}

/// The problems of a list of matches, by their place below `matches`.
fn check(matches: &Value, rows: &[(&str, &str)]) {
    let places: Vec<_> = rows.iter().map(|(place, _)| format!("policy.routes[0].rules[0].matches{place}")).collect();
    let rows: Vec<_> = places.iter().zip(rows).map(|(place, (_, detail))| (place.as_str(), *detail)).collect();
    let problems = match accept::policy(&read(policy(matches))) {
        Ok(_) => Vec::new(),
        Err(refusal) => refusal.problems,
    };
    assert_eq!(told(&problems), expected(&rows), "{matches}");
}

fn path(kind: &str, value: &str) -> Value {
    json!([{"path": {"type": kind, "value": value}}])
}

#[test]
fn templates() {
    for value in ["/", "/a", "/a/", "/{id}", "/{id}/", "/a/{id_1}/b/{rest...}", "/{all...}", "/%7Bid%7D", "/a:b@c/{x}"]
    {
        check(&path("Template", value), &[]);
    }
    let absolute = "write an absolute path";
    let whole = "a parameter is a whole segment; write `%7B` and `%7D` for braces of the path";
    let names = "name each parameter once, in letters, digits and `_`: `{id}`, or `{rest...}` at the end";
    let last = "`{name...}` takes all that is left: put it last";
    let normal =
        |segment: &str| format!("no request has a segment `{segment}` there; write it as requests are normalised");
    let rows = [
        ("", absolute.to_owned()),
        ("{id}", absolute.to_owned()),
        ("/a{id}", whole.to_owned()),
        ("/{id}.json", whole.to_owned()),
        ("/{", whole.to_owned()),
        ("/a}/b", whole.to_owned()),
        ("/{}", names.to_owned()),
        ("/{...}", names.to_owned()),
        ("/{a-b}", names.to_owned()),
        ("/{a}{b}", names.to_owned()),
        ("/{a..}", names.to_owned()),
        ("/{$}", names.to_owned()),
        ("/{a}/{a}", names.to_owned()),
        ("/{a}/{a...}", names.to_owned()),
        ("/{rest...}/a", last.to_owned()),
        ("/{rest...}/", last.to_owned()),
        ("//{id}", normal("")),
        ("/a/./{id}", normal(".")),
        ("/../{id}", normal("..")),
        ("/%61/{id}", normal("%61")),
        ("/a b/{id}", normal("a b")),
        ("/{id}?q", whole.to_owned()),
        ("/caf\u{e9}/{id}", normal("caf\u{e9}")),
    ];
    for (value, advice) in rows {
        let detail = format!("`{value}` is not a template; {advice}");
        check(&path("Template", value), &[("[0].path.value", &detail)]);
    }
    let deep = "/a".repeat(65);
    check(&path("Template", &deep), &[("[0].path.value", "has 65 segments; at most 64 are allowed")]);
    let deepest = "/a".repeat(64) + "/{rest...}";
    check(&path("Template", &deepest), &[]);
}

#[test]
fn expressions() {
    for value in ["/a", "/orders/[0-9]+", r"(?i)/\w+", "/a|/b", ""] {
        check(&path("RegularExpression", value), &[]);
    }
    let rows = [
        ("/a(", "`/a(` is not a regular expression: unclosed group"),
        ("/a)(", "`/a)(` is not a regular expression: unopened group"),
        ("/[", "`/[` is not a regular expression: unclosed character class"),
        ("*", "`*` is not a regular expression: repetition operator missing expression"),
        (r"(/a)\1", r"`(/a)\1` is not a regular expression: backreferences are not supported"),
        (
            "(?=/a)",
            "`(?=/a)` is not a regular expression: look-around, including look-ahead and look-behind, is not supported",
        ),
        ("(a{99}){99}", "`(a{99}){99}` takes more than 65536 bytes compiled; repeat less, or split it"),
    ];
    for (value, detail) in rows {
        check(&path("RegularExpression", value), &[("[0].path.value", detail)]);
    }
    let long = "a".repeat(1025);
    let detail = "is 1025 bytes long; a regular expression has at most 1024";
    check(&path("RegularExpression", &long), &[("[0].path.value", detail)]);
    let values = json!([{"headers": [{"name": "a", "value": "[", "type": "RegularExpression"}],
        "queryParams": [{"name": "a", "value": "[", "type": "RegularExpression"}]}]);
    let detail = "`[` is not a regular expression: unclosed character class";
    check(&values, &[("[0].headers[0].value", detail), ("[0].queryParams[0].value", detail)]);
}

#[test]
fn a_path_with_parameters_needs_its_rule_to_have_the_path_without() {
    let kinds = |list: &[(&str, &str)]| {
        json!(list.iter().map(|(kind, value)| json!({"path": {"type": kind, "value": value}})).collect::<Vec<_>>())
    };
    let alone = [
        ("Exact", "/x;y", "/x"),
        ("Exact", "/x;", "/x"),
        ("Exact", "/x%3By", "/x"),
        ("Exact", "/a/x;y=1;z/b", "/a/x/b"),
        ("Exact", "/;x", "/"),
        ("PathPrefix", "/x;y", "/x"),
        ("PathPrefix", "/x;y/", "/x/"),
        ("Template", "/x;y/{id}", "/x/x"),
        ("Template", "/x;y/{rest...}", "/x/"),
    ];
    for (kind, value, bare) in alone {
        let detail = format!(
            "`{value}` would never match: a path with parameters behind `;` must fall under the same rule without them; \
             add a match that has `{bare}`, too, or leave this one out"
        );
        check(&path(kind, value), &[("[0].path.value", &detail)]);
        check(&kinds(&[("Exact", "/other"), (kind, value)]), &[("[1].path.value", &detail)]);
        check(&kinds(&[(kind, value), ("Exact", bare)]), &[]);
        check(&kinds(&[("PathPrefix", "/"), (kind, value)]), &[]);
    }
    // Whether an expression asks for parameters cannot be told.
    check(&path("RegularExpression", "/x;y"), &[]);
    check(&path("Exact", "/x,y=1"), &[]);
    let mut by_method = kinds(&[("Exact", "/x"), ("Exact", "/x;y")]);
    by_method[0]["method"] = json!("PUT");
    check(&by_method, &[]);
}

#[test]
fn expressions_are_counted_together() {
    let three = json!({
        "path": {"type": "RegularExpression", "value": "/a"},
        "headers": [{"name": "a", "value": "b", "type": "RegularExpression"}, {"name": "c", "value": "d"}],
        "queryParams": [{"name": "a", "value": "b", "type": "RegularExpression"}, {"name": "c", "value": "d"}],
    });
    let mut matches = vec![three; 21];
    matches.push(json!({"path": {"type": "RegularExpression", "value": "/b"}}));
    accept::policy(&read(policy(&json!(matches)))).expect("as many as are allowed");
    matches.push(json!({"path": {"type": "RegularExpression", "value": "/c"}}));
    let refusal = accept::policy(&read(policy(&json!(matches)))).expect_err("too many expressions");
    let detail =
        "have 65 conditions of type RegularExpression; at most 64 are allowed: use Template, PathPrefix or Exact";
    assert_eq!(told(&refusal.problems), expected(&[("policy.routes", detail)]));
}

#[test]
fn headers() {
    let one = |name: &str, value: &str| json!([{"headers": [{"name": name, "value": value}]}]);
    for (name, value) in [("X-Tenant", "a"), ("x", ""), ("accept", "a b, c"), ("x", "caf\u{e9}")] {
        check(&one(name, value), &[]);
    }
    for name in ["", "a b", "a:", "caf\u{e9}", ":path"] {
        let detail = format!("`{name}` is not the name of a header field; write it as in `X-Tenant`");
        check(&one(name, "a"), &[("[0].headers[0].name", &detail)]);
    }
    for name in ["connection", "Expect", "keep-alive", "Proxy-Connection", "TE", "Transfer-Encoding", "Upgrade"] {
        let lower = name.to_ascii_lowercase();
        let detail =
            format!("`{lower}` is between the client and the gate, and the application never sees it; leave it out");
        check(&one(name, "a"), &[("[0].headers[0].name", &detail)]);
    }
    check(&one("Host", "a"), &[("[0].headers[0].name", "`host` is no condition; use the route's hostnames")]);
    for value in [" a", "a ", "\ta", "a\nb", "a\0"] {
        let detail = format!(
            "{value:?} would never match; write a value without control characters and without spaces around it"
        );
        check(&one("a", value), &[("[0].headers[0].value", &detail)]);
    }
    let twice = json!([{"headers": [{"name": "A", "value": "1"}, {"name": "a", "value": "2"}]}]);
    let detail = "`a` is named before in this match; write one condition for each name";
    check(&twice, &[("[0].headers[1].name", detail)]);
}

#[test]
fn parameters() {
    let named = |names: [&str; 2]| json!([{"queryParams": names.map(|name| json!({"name": name, "value": ""}))}]);
    for names in [["a", "A"], ["a b", "a+b"], ["caf\u{e9}", "%"]] {
        check(&named(names), &[]);
    }
    check(&named(["a", ""]), &[("[0].queryParams[1].name", "is empty; give the name of a parameter, decoded")]);
    let detail = "`a` is named before in this match; write one condition for each name";
    check(&named(["a", "a"]), &[("[0].queryParams[1].name", detail)]);
}

#[test]
fn types_of_messages_are_known_ones() {
    let typed = |name: &str| json!([{"messageType": name}]);
    for name in ["DERControlResponse", "EndDeviceList", "exi", "json"] {
        check(&typed(name), &[]);
    }
    let advice = "write a root element of IEEE 2030.5 such as `DERControlResponse`, or `exi` or `json`";
    for name in ["", "endDeviceList", "EndDeviceLists", "shop.v1.Stock/Count"] {
        let detail = format!("`{name}` is no known type of message; {advice}; a method of gRPC is a path");
        check(&typed(name), &[("[0].messageType", &detail)]);
    }
    let detail = format!("`other` is no type to ask for: what has none may be anything; {advice}");
    check(&typed("other"), &[("[0].messageType", &detail)]);
}

/// What the number of routes does not bound: overlapping templates, and what is asked for on one path.
#[test]
fn what_one_request_may_cost_is_bounded() {
    // Every combination of text and parameter: each place leads to two.
    let overlapping = |depth: u32| {
        let segment = |number: u32, at: u32| if number >> at & 1 == 1 { "a".to_owned() } else { format!("{{p{at}}}") };
        let value = |number| (0..depth).map(|at| format!("/{}", segment(number, at))).collect::<String>();
        json!((0..1 << depth).map(|number| path("Template", &value(number))[0].clone()).collect::<Vec<_>>())
    };
    let refused = |matches: &Value, detail: &str| {
        let document = json!({"listeners": [listener("main", 8443)], "routes": [route("one", &json!([]), matches)]});
        let problems = accept::policy(&read(document)).err().map(|refusal| refusal.problems).unwrap_or_default();
        assert_eq!(told(&problems), expected(&[("policy.routes", detail)]));
    };
    check(&overlapping(7), &[]);
    refused(
        &overlapping(8),
        "on listener `main`, those of any host have templates that overlap: one request may have to look at 511 places of \
         them, and at most 256 are allowed; write fewer that have a parameter where others have text",
    );
    let named = |count: usize| {
        let header = |name: usize| json!([{"name": format!("x-{name}"), "value": "1"}]);
        json!((0..count).map(|name| json!({"headers": header(name)})).collect::<Vec<_>>())
    };
    check(&named(64), &[]);
    refused(
        &named(65),
        "on listener `main`, those of any host ask on one path for 65 combinations of names of headers and parameters; at \
         most 64 are allowed: ask for the same names, or on different paths",
    );
    // Many templates that do not overlap, and many values of one name, are as cheap as few.
    check(
        &json!((0..1000).map(|number| path("Template", &format!("/{{a}}/x{number}"))[0].clone()).collect::<Vec<_>>()),
        &[],
    );
    let values = (0..1000).map(|value| json!({"headers": [{"name": "x-tenant", "value": value.to_string()}]}));
    check(&json!(values.collect::<Vec<_>>()), &[]);
}
