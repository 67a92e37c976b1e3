//! Templates, regular expressions, wildcard hosts, headers and queries, through the real binary over both protocols.

use postern_tests::gate::Gate;
use serde_json::json;

use crate::observed::{columns, newest};

/// A call: its path with query, curl's arguments, and the rule or the refusal it meets.
type Row<'a> = (&'a str, &'a [&'a str], Result<&'a str, (u16, &'a str)>);

const ROWS: [Row<'_>; 15] = [
    ("/orders/7", &[], Ok("one")),
    ("/orders/7/lines", &[], Err((404, "route_no_path"))),
    ("/orders/7", &["--request", "PUT"], Err((405, "route_no_method"))),
    ("/files/a/b/c", &[], Ok("files")),
    ("/v12/anything", &[], Ok("versions")),
    ("/v/anything", &[], Err((404, "route_no_path"))),
    ("/search?page=2", &[], Ok("page")),
    ("/search?q=a&%70age=%32&page=x", &[], Ok("page")),
    ("/search?page=x&page=2", &[], Err((404, "route_no_match"))),
    ("/search", &["-H", "X-Tenant: a"], Ok("tenant")),
    ("/search", &["-H", "x-tenant: a", "-H", "x-tenant: b"], Ok("tenants")),
    // The gate does not forward what `Connection` names.
    ("/search", &["-H", "X-Tenant: a", "-H", "Connection: x-tenant"], Err((404, "route_no_match"))),
    ("/search?page=2", &["-H", "X-Tenant: a"], Ok("tenant")),
    ("/orders/7", &["-H", "Host: a.b.demo.example"], Ok("wild")),
    ("/orders/7", &["-H", "Host: demo.example"], Err((404, "route_no_host"))),
];

#[test]
fn a_request_falls_under_the_rule_that_the_document_says() {
    let gate = Gate::start_with(|document| {
        document["version"] = json!("1.1");
        let route = document["policy"]["routes"][0].clone();
        let rule = |name: &str, condition: serde_json::Value| {
            let mut rule = route["rules"][0].clone();
            rule["name"] = json!(name);
            rule["matches"] = json!([condition]);
            rule
        };
        let tenant = |value: &str| json!([{ "name": "x-tenant", "value": value }]);
        let search = json!({ "type": "Exact", "value": "/search" });
        let digits = json!([{ "name": "page", "type": "RegularExpression", "value": "[0-9]+" }]);
        let rules = [
            rule("versions", json!({ "path": { "type": "RegularExpression", "value": "/v[0-9]+/.*" } })),
            rule("files", json!({ "path": { "type": "Template", "value": "/files/{rest...}" } })),
            rule("one", json!({ "path": { "type": "Template", "value": "/orders/{id}" }, "method": "GET" })),
            rule("page", json!({ "path": search, "queryParams": digits })),
            rule("tenant", json!({ "path": search, "headers": tenant("a") })),
            rule("tenants", json!({ "path": search, "headers": tenant("a,b") })),
        ];
        let mut wild = route.clone();
        wild["name"] = json!("demo/wild");
        wild["hostnames"] = json!(["*.demo.example"]);
        wild["rules"] = json!([rule("wild", json!({}))]);
        document["policy"]["routes"][0]["rules"] = json!(rules);
        document["policy"]["routes"].as_array_mut().unwrap().push(wild);
    })
    .unwrap();
    let mut count = 0;
    for flag in ["--http1.1", "--http2"] {
        for (path, arguments, expected) in ROWS {
            // HTTP/2 has no such field, and curl would not send it.
            if flag == "--http2" && arguments.contains(&"Connection: x-tenant") {
                continue;
            }
            let curl = gate.curl(Some("billing"), path).unwrap().arg(flag);
            let answer = arguments.iter().fold(curl, |curl, argument| curl.arg(*argument)).call().unwrap();
            count += 1;
            let case = format!("{path} {arguments:?} {flag}");
            let shown = columns(&newest(&gate.sidecar, count), &["verdict", "reason", "rule", "status"]);
            let (status, expected) = match expected {
                Ok(rule) => (200, json!(["allowed", null, rule, 200])),
                Err((status, reason)) => (status, json!(["refused", reason, null, status])),
            };
            assert_eq!((answer.status, shown), (Some(status), expected), "{case}");
        }
    }
}
