//! What is captured of a request's head, and what of a document's rules for that is accepted.

use std::cell::RefCell;

use http::{HeaderMap, HeaderName, HeaderValue};
use serde_json::{Value, json};
use sidecar_decide::accept;
use sidecar_decide::capture::{Capture, ROW_BYTES, SECRETS, Taken, VALUE_BYTES};

use crate::fixture::{expected, listener, read, route, told};

/// Names, and what is kept of their values.
type Listed = [(&'static str, &'static str)];

/// Names and values that a client sends.
type Fields = [(&'static str, &'static [u8])];

fn entries(list: &[(&str, &str)]) -> Value {
    list.iter().map(|(name, kept)| json!({"name": name, "as": kept})).collect()
}

fn headers(fields: &[(&str, &[u8])]) -> HeaderMap {
    let field = |(name, value): &(&str, &[u8])| {
        let name = HeaderName::from_bytes(name.as_bytes()).expect("a name");
        (name, HeaderValue::from_bytes(value).expect("a value"))
    };
    let mut headers = HeaderMap::new();
    for (name, value) in fields.iter().map(field) {
        headers.append(name, value);
    }
    headers
}

/// A hash that can be told: how long the value is.
fn length(value: &[u8]) -> Option<[u8; 16]> {
    Some([u8::try_from(value.len()).expect("a short value"); 16])
}

fn take(rules: Value, fields: &[(&str, &[u8])], query: Option<&str>) -> Taken {
    Capture::of(&read(rules)).take(&headers(fields), query, &length)
}

fn taken(json: &str) -> Taken {
    Taken { json: (!json.is_empty()).then(|| json.into()), ..Taken::default() }
}

#[test]
fn the_first_entry_that_has_a_name_says_what_is_kept() {
    let fields: &[(&str, &[u8])] =
        &[("x-tenant", b"a"), ("x-trace", b"b"), ("x-secret", b"c"), ("accept", b"d"), ("authorization", b"Bearer e")];
    let hash = "05".repeat(16);
    let table: &[(&Listed, &str)] = &[
        (&[], ""),
        (&[("x-none", "Keep")], ""),
        (&[("X-Tenant", "Keep")], r#"{"headers":{"x-tenant":"a"}}"#),
        (&[("x-ten", "Keep")], ""),
        (&[("x-t*", "Keep")], r#"{"headers":{"x-tenant":"a","x-trace":"b"}}"#),
        (&[("x-secret", "Drop"), ("x-*", "Keep")], r#"{"headers":{"x-tenant":"a","x-trace":"b"}}"#),
        (&[("x-secret", "Mask"), ("x-s*", "Drop")], r#"{"headers":{"x-secret":"***"}}"#),
        (&[("x-s*", "Drop"), ("x-secret", "Keep")], ""),
        (&[("a*", "Keep")], r#"{"headers":{"accept":"d","authorization":"***"}}"#),
        (&[("Authorization", "Keep")], r#"{"headers":{"authorization":"***"}}"#),
        (&[("AUTHORIZATION", "Drop"), ("a*", "Keep")], r#"{"headers":{"accept":"d"}}"#),
        (&[("authorization", "Sha256")], r#"{"headers":{"authorization":"sha256:HASH"}}"#),
    ];
    for (list, json) in table {
        let json = json.replace("HASH", &"08".repeat(16));
        assert_eq!(take(json!({"headers": entries(list)}), fields, None), taken(&json), "{list:?}");
    }
    let kept = json!({"headers": [{"name": "x-tenant"}], "query": entries(&[("a", "Sha256")])});
    let json = format!(r#"{{"headers":{{"x-tenant":"a"}},"query":{{"a":"sha256:{hash}"}}}}"#);
    assert_eq!(take(kept, fields, Some("a=b+c%20d")), taken(&json), "Keep unless it says otherwise");
}

#[test]
fn names_and_values_are_those_the_application_reads() {
    let all =
        || json!({"headers": entries(&[("x-*", "Keep")]), "query": entries(&[("secret", "Drop"), ("*", "Keep")])});
    let table: &[(&Fields, &str, &str)] = &[
        (&[("x-a", b"1"), ("x-a", b"2")], "", r#"{"headers":{"x-a":"1, 2"}}"#),
        (&[("x-a", b"\"\\\t\xff")], "", "{\"headers\":{\"x-a\":\"\\\"\\\\\\t\u{fffd}\"}}"),
        (&[], "a=1&b&=2&&a=3", r#"{"query":{"a":"1, 3","b":"","":"2"}}"#),
        (&[], "%73ecret=1&a%20b+c=%C3%A4%", r#"{"query":{"a b c":"ä%"}}"#),
        (&[], "a=%00%ff", "{\"query\":{\"a\":\"\u{fffd}\u{fffd}\"}}"),
        (&[], "Token=1&token=2", r#"{"query":{"Token":"***","token":"***"}}"#),
    ];
    for (fields, query, json) in table {
        assert_eq!(take(all(), fields, Some(query)), taken(json), "{fields:?} {query}");
    }
}

#[test]
fn cookies_are_taken_one_by_one() {
    let table: &[(&Listed, &[&[u8]], &str)] = &[
        (&[("theme", "Keep")], &[b"theme=dark; sid=1"], r#"{"cookies":{"theme":"dark"}}"#),
        (&[("theme", "Keep")], &[b"sid=1", b"theme=dark"], r#"{"cookies":{"theme":"dark"}}"#),
        (&[("*", "Keep")], &[b"theme=dark; sid=1;none; =x"], r#"{"cookies":{"theme":"dark","sid":"***"}}"#),
        (&[("sid*", "Keep")], &[b"sid=1; sidebar=2"], r#"{"cookies":{"sid":"***","sidebar":"2"}}"#),
        (&[("a", "Keep")], &[b"a=b=c; a=2"], r#"{"cookies":{"a":"b=c, 2"}}"#),
        (&[("A", "Keep")], &[b"a=1"], ""),
    ];
    // A hash is of the field as HTTP/1.1 has it (RFC 9113 §8.2.3).
    let hashed = RefCell::new(Vec::new());
    let hash = |value: &[u8]| {
        hashed.borrow_mut().extend_from_slice(value);
        length(value)
    };
    let rules = Capture::of(&read(json!({"headers": entries(&[("cookie", "Sha256")])})));
    let whole = format!(r#"{{"headers":{{"cookie":"sha256:{}"}}}}"#, "08".repeat(16));
    let fields = headers(&[("cookie", b"a=1"), ("cookie", b"b=2")]);
    assert_eq!((rules.take(&fields, None, &hash), &hashed.borrow()[..]), (taken(&whole), &b"a=1; b=2"[..]));
    for (list, lines, json) in table {
        let fields: Vec<_> = lines.iter().map(|line| ("cookie", *line)).collect();
        assert_eq!(take(json!({"cookies": entries(list)}), &fields, None), taken(json), "{list:?}");
    }
}

#[test]
fn no_secret_is_kept_as_it_is() {
    for name in SECRETS {
        let list = || entries(&[("*", "Keep")]);
        let rules = json!({"headers": list(), "query": list(), "cookies": list()});
        let cookie = format!("{name}=hunter2").into_bytes();
        let mut fields: Vec<(&str, &[u8])> = vec![("cookie", &cookie)];
        fields.extend((name != "cookie").then_some((name, &b"hunter2"[..])));
        let taken = take(rules, &fields, Some(&format!("{}=hunter2", name.to_ascii_uppercase())));
        let json = taken.json.unwrap();
        assert!(!json.contains("hunter2") && json.matches("***").count() >= 3, "{json}");
    }
}

#[test]
fn a_row_has_a_part_of_what_is_too_much() {
    let all = || json!({"query": entries(&[("*", "Keep")])});
    let long = "ä".repeat(VALUE_BYTES);
    let clipped = format!("{}…", "ä".repeat(VALUE_BYTES / 2));
    assert_eq!(take(all(), &[], Some(&format!("a={long}"))), taken(&format!(r#"{{"query":{{"a":"{clipped}"}}}}"#)));
    assert_eq!(take(all(), &[], Some(&format!("{long}=a"))), taken(&format!(r#"{{"query":{{"{clipped}":"a"}}}}"#)));
    let most = "b".repeat(VALUE_BYTES);
    for (value, shown) in [(most.clone(), most.clone()), (format!("{most}b"), format!("{most}…"))] {
        let json = format!(r#"{{"query":{{"a":"{shown}"}}}}"#);
        assert_eq!(take(all(), &[], Some(&format!("a={value}"))), taken(&json), "{} bytes", value.len());
    }
    // To the last byte of a row.
    let most = (1..=VALUE_BYTES).filter_map(|length| {
        let full: Vec<_> = (0..7).map(|number| format!("n{number}={}", "b".repeat(VALUE_BYTES))).collect();
        let query = format!("{}&last={}&more={}", full.join("&"), "b".repeat(length), "b".repeat(VALUE_BYTES));
        take(all(), &[], Some(&query)).json.map(|json| json.len())
    });
    assert_eq!(most.max(), Some(ROW_BYTES));
    let value = "\"".repeat(VALUE_BYTES);
    let many: Vec<_> = (0..20).map(|number| format!("n{number}={value}")).collect();
    let taken = take(all(), &[], Some(&format!("{}&last=1", many.join("&"))));
    let json = taken.json.unwrap();
    let object: Value = serde_json::from_str(&json).unwrap();
    assert!(json.len() <= ROW_BYTES, "{}", json.len());
    assert_eq!((taken.dropped, &object["truncated"], &object["query"]["last"]), (17, &json!(true), &json!("1")));
    for length in 1..=VALUE_BYTES {
        let many: Vec<_> = (0..256).map(|number| format!("n{number}={}", "b".repeat(length))).collect();
        let taken = take(all(), &[], Some(&many.join("&")));
        let kept = taken.json.as_ref().map_or(0, |json| json.matches(":\"b").count() as u64);
        assert!(taken.json.is_some_and(|json| json.len() <= ROW_BYTES), "{length}");
        assert_eq!(kept + taken.dropped, 256, "{length}");
    }
    let many: Vec<_> = (0..300).map(|number| format!("a={number}")).collect();
    let taken = take(json!({"query": entries(&[("b", "Keep")])}), &[], Some(&format!("{}&b=1", many.join("&"))));
    assert_eq!((taken.json.as_deref(), taken.dropped), (Some(r#"{"truncated":true}"#), 1), "not all are looked at");
}

#[test]
fn without_a_salt_nothing_is_hashed() {
    let rules = json!({"headers": entries(&[("x-user", "Sha256")])});
    let taken = Capture::of(&read(rules)).take(&headers(&[("x-user", b"alice")]), None, &|_| None);
    let json = Some(r#"{"headers":{"x-user":"***"}}"#.into());
    assert_eq!(taken, Taken { json, dropped: 0, unsalted: 1 });
}

/// The problems of what a route captures, by their place below `capture`.
fn check(capture: &Value, rows: &[(&str, &str)]) {
    let mut document = route("a/r", &json!([]), &json!([]));
    document["capture"] = capture.clone();
    let places: Vec<_> = rows.iter().map(|(place, _)| format!("policy.routes[0].capture{place}")).collect();
    let rows: Vec<_> = places.iter().zip(rows).map(|(place, (_, detail))| (place.as_str(), *detail)).collect();
    let problems = match accept::policy(&read(json!({"listeners": [listener("main", 8443)], "routes": [document]}))) {
        Ok(_) => Vec::new(),
        Err(refusal) => refusal.problems,
    };
    assert_eq!(told(&problems), expected(&rows), "{capture}");
}

#[test]
fn what_cannot_be_meant_is_refused() {
    let good = json!({
        "headers": entries(&[("x-a", "Keep"), ("authorization", "Sha256"), ("cookie", "Drop"), ("*", "Keep")]),
        "query": entries(&[("a", "Keep"), ("A", "Keep"), ("ä b", "Keep"), ("token", "Mask")]),
        "cookies": entries(&[("theme", "Keep")]),
        "bodies": {"request": true, "maxBytes": 65536},
    });
    check(&good, &[]);
    check(&json!({}), &[("", "takes nothing; write headers, query, cookies or bodies, or leave it out")]);
    let before = "is named before; the first entry that has a name counts";
    let secret = "is a secret, which is not kept as it is; write `as` `Mask`, `Sha256` or `Drop`";
    let star = "has a `*` before its end; write one at the end alone, for every name that begins so";
    let headers = [
        ("", "is empty; give a name, or `*` for all".to_owned()),
        ("a*b", format!("`a*b` {star}")),
        ("**", format!("`**` {star}")),
        ("a b", "`a b` is not the name of a header field; write it as in `X-Tenant`".to_owned()),
        ("Authorization", format!("`Authorization` {secret}")),
        ("cookie", format!("`cookie` {secret}, and cookies by their names in `cookies`")),
    ];
    for (name, detail) in headers {
        check(&json!({"headers": entries(&[(name, "Keep")])}), &[(".headers[0].name", &detail)]);
    }
    let twice = json!({"headers": entries(&[("x-a", "Keep"), ("X-A", "Drop")])});
    check(&twice, &[(".headers[1].name", &format!("`X-A` {before}"))]);
    for list in ["query", "cookies"] {
        let rules = json!({list: entries(&[("SessionId", "Keep"), ("a", "Keep"), ("a", "Keep")])});
        let places = [format!(".{list}[0].name"), format!(".{list}[2].name")];
        check(&rules, &[(&places[0], &format!("`SessionId` {secret}")), (&places[1], &format!("`a` {before}"))]);
    }
    let names: Vec<_> = (0..17).map(|number| format!("x-{number}")).collect();
    let many: Vec<_> = names.iter().map(|name| (name.as_str(), "Keep")).collect();
    check(&json!({"headers": entries(&many)}), &[(".headers", "has 17 entries; write at most 16")]);
    for bytes in [0, 65537] {
        let detail = format!("is {bytes}; write a number from 1 to 65536");
        check(&json!({"bodies": {"response": true, "maxBytes": bytes}}), &[(".bodies.maxBytes", &detail)]);
    }
    let none = "keeps none; write `request = true` or `response = true`";
    check(&json!({"bodies": {}}), &[(".bodies", none)]);
}
