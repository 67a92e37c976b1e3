//! Violations of what is said in CEL, by hand.

use serde_json::{Value, json};

use super::constraints::{Constraint, Demand};
use super::samples::named;
use super::table::Row;

/// A sample with some values in other places; null takes one away.
fn with(sample: &str, changes: &[(&str, Value)]) -> Value {
    let mut object = named(sample);
    for (pointer, value) in changes {
        let (parent, key) = pointer.rsplit_once('/').unwrap();
        let parent = object.pointer_mut(parent).unwrap();
        match parent {
            Value::Object(fields) if value.is_null() => drop(fields.remove(key).unwrap()),
            Value::Object(fields) => drop(fields.insert(key.to_owned(), value.clone())),
            _ => *parent.get_mut(key.parse::<usize>().unwrap()).unwrap() = value.clone(),
        }
    }
    object
}

fn row(place: &str, message: &str, object: Value) -> Row {
    // The place of a schema is the one of an object without its indexes.
    let mut pattern = String::new();
    let mut is_index = false;
    for letter in place.chars() {
        is_index = letter == '[' || (is_index && letter != ']');
        if !is_index || letter == '[' {
            pattern.push(letter);
        }
    }
    Row {
        kind: object["kind"].as_str().unwrap().to_owned(),
        violates: Constraint { place: pattern, demand: Demand::Rule(message.to_owned()) },
        place: place.to_owned(),
        said: message.to_owned(),
        before: None,
        object,
    }
}

/// All of them.
pub(super) fn rows() -> Vec<Row> {
    [listeners(), captures(), rules(), filters(), backends(), times(), identities(), changes()].concat()
}

fn listeners() -> Vec<Row> {
    let tls = json!({"clientAuth": "None"});
    vec![
        row(
            "spec.listener",
            "spec.listener.tls has no meaning with protocol HTTP; leave it out, or write protocol HTTPS",
            with("plain", &[("/spec/listener/tls", tls)]),
        ),
        row(
            "spec",
            "spec.rules[].allow: nobody has a certificate on an HTTP listener; write `allow: [{anyone: {}}]` in every rule, or listener.protocol HTTPS",
            with("plain", &[("/spec/rules/0/allow", json!([{"anyone": {}}, {"identity": {"name": "billing"}}]))]),
        ),
        row(
            "spec",
            "spec.rules[]: on a TLS listener bytes are passed on as they are; leave out matches and filters, or write listener.protocol HTTPS",
            with("forwarded", &[("/spec/rules/0/matches", json!([{"method": "GET"}]))]),
        ),
        row(
            "spec",
            "spec.rules[]: on a TLS listener bytes are passed on as they are; leave out matches and filters, or write listener.protocol HTTPS",
            with("forwarded", &[("/spec/rules/0/filters", json!([{"urlRewrite": {"hostname": "other"}}]))]),
        ),
        row(
            "spec",
            "spec.rules: on a TLS listener the first rule gets everything; keep one rule, and tell routes apart by spec.hostnames",
            with(
                "forwarded",
                &[(
                    "/spec/rules",
                    json!([
                        {"name": "one", "allow": [{"anyone": {}}], "backendRefs": [{"localPort": 8080}]},
                        {"name": "two", "allow": [{"anyone": {}}], "backendRefs": [{"localPort": 8080}]},
                    ]),
                )],
            ),
        ),
        row(
            "spec",
            "spec.rules[].backendRefs[]: on a TLS listener bytes are passed on as they are; leave out tls and protocol, or write listener.protocol HTTPS",
            with("forwarded", &[("/spec/rules/0/backendRefs/0/protocol", json!("HTTP2"))]),
        ),
        row(
            "spec",
            "spec.rules[].backendRefs[].protocol: backendPolicy.healthCheck.grpc asks by HTTP/2; write `protocol: HTTP2`",
            with("asked-by-grpc", &[("/spec/rules/0/backendRefs/0/protocol", json!("HTTP"))]),
        ),
    ]
}

fn captures() -> Vec<Row> {
    let secret = "capture: a secret is not kept as it is; write `as: Mask`, `Sha256` or `Drop`, and cookies by their names in capture.cookies";
    let star = "capture: in a name `*` stands at its end alone, for every name that begins so";
    let capture = |place: &str, value: Value| with("everything", &[(&format!("/spec/capture{place}"), value)]);
    vec![
        row(
            "spec",
            "spec.capture: on a TLS listener bytes are passed on as they are; leave it out, or write listener.protocol HTTPS",
            with("forwarded", &[("/spec/capture", json!({"headers": [{"name": "x-tenant"}]}))]),
        ),
        row("spec.capture", "capture takes nothing; write headers, query, cookies or bodies", capture("", json!({}))),
        row("spec.capture.headers[0]", secret, capture("/headers/0", json!({"name": "Authorization"}))),
        row("spec.capture.query[0]", secret, capture("/query/0", json!({"name": "access_token", "as": "Keep"}))),
        row("spec.capture.cookies[0]", secret, capture("/cookies/0", json!({"name": "JSESSIONID"}))),
        row("spec.capture.headers[0]", star, capture("/headers/0", json!({"name": "x-*-id"}))),
        row("spec.capture.query[0]", star, capture("/query/0", json!({"name": "**"}))),
        row("spec.capture.cookies[0]", star, capture("/cookies/0", json!({"name": "*a"}))),
        row(
            "spec.capture.bodies",
            "capture.bodies keeps none; write `request: true` or `response: true`",
            capture("/bodies", json!({"maxBytes": 10})),
        ),
    ]
}

fn rules() -> Vec<Row> {
    let backends = "backendRefs is required, and left out only in a rule that has the filter requestRedirect";
    let allow = "allow[]: write exactly one of identity, identitySelector, serviceAccount, spiffe, verified and anyone";
    let path = "path.value: an absolute path begins with `/`; write it so, or type RegularExpression";
    let timeouts = "timeouts.backendRequest is longer than timeouts.request; write the same or a shorter time";
    vec![
        row("spec.rules[0]", backends, with("everything", &[("/spec/rules/0/backendRefs", Value::Null)])),
        row(
            "spec.rules[1]",
            backends,
            with("everything", &[("/spec/rules/1/backendRefs", json!([{"localPort": 8080}]))]),
        ),
        row("spec.rules[0].allow[0]", allow, with("everything", &[("/spec/rules/0/allow/0", json!({}))])),
        row("spec.rules[0].allow[0]", allow, with("everything", &[("/spec/rules/0/allow/0/anyone", json!({}))])),
        row(
            "spec.rules[0].matches[0].path",
            path,
            with("everything", &[("/spec/rules/0/matches/0/path/value", json!("orders"))]),
        ),
        row(
            "spec.rules[0].timeouts",
            timeouts,
            with("everything", &[("/spec/rules/0/timeouts/backendRequest", json!("11s"))]),
        ),
    ]
}

fn filters() -> Vec<Row> {
    [twice(), empty(), paths()].concat()
}

/// The first rule of the large sample with another filter at a place.
fn filter(index: usize, value: Value) -> Value {
    with("everything", &[(&format!("/spec/rules/0/filters/{index}"), value)])
}

/// Filters that are there twice.
fn twice() -> Vec<Row> {
    let modified = json!({"remove": ["x-old"]});
    let filters = [
        ("forwardIdentity", json!({"xForwardedClientCert": ["Hash"]}), "write one that says both"),
        ("requestHeaderModifier", modified.clone(), "write one that says both"),
        ("responseHeaderModifier", modified, "write one that says both"),
        ("requestRedirect", json!({"scheme": "https"}), "write one"),
        ("urlRewrite", json!({"hostname": "other"}), "write one that says both"),
    ];
    let of = |(name, value, remedy): (&str, Value, &str)| {
        let message = format!("filters: {name} is there twice; {remedy}");
        let filters = json!([{name: value}, {name: value}]);
        row("spec.rules[0].filters", &message, with("everything", &[("/spec/rules/0/filters", filters)]))
    };
    let mut rows: Vec<Row> = filters.into_iter().map(of).collect();
    rows.push(row(
        "spec.rules[0].filters[0].forwardIdentity.xForwardedClientCert",
        "xForwardedClientCert: a key is there twice; write each once",
        filter(0, json!({"forwardIdentity": {"xForwardedClientCert": ["Hash", "Hash"]}})),
    ));
    rows
}

/// Filters that say nothing, or several things.
fn empty() -> Vec<Row> {
    let one = "filters[]: write exactly one of forwardIdentity, requestHeaderModifier, responseHeaderModifier, requestRedirect and urlRewrite";
    let nothing = "a header modifier changes nothing; write set, add or remove";
    let modified = json!({"remove": ["x-old"]});
    let both = json!({"requestHeaderModifier": modified, "responseHeaderModifier": modified});
    let response = json!({"responseHeaderModifier": {}});
    let redirect = json!({"statusCode": 301});
    vec![
        row("spec.rules[0].filters[0]", one, filter(0, json!({}))),
        row("spec.rules[0].filters[0]", one, filter(0, both)),
        row(
            "spec.rules[0].filters[0].forwardIdentity",
            "forwardIdentity tells nothing; write xForwardedClientCert or headers",
            filter(0, json!({"forwardIdentity": {}})),
        ),
        row("spec.rules[0].filters[1].requestHeaderModifier", nothing, filter(1, json!({"requestHeaderModifier": {}}))),
        row("spec.rules[0].filters[2].responseHeaderModifier", nothing, filter(2, response)),
        row(
            "spec.rules[1].filters[0].requestRedirect",
            "requestRedirect leads to where the request came to; write scheme, hostname, port or path",
            with("everything", &[("/spec/rules/1/filters/0/requestRedirect", redirect)]),
        ),
        row(
            "spec.rules[0].filters[3].urlRewrite",
            "urlRewrite changes nothing; write hostname or path",
            filter(3, json!({"urlRewrite": {}})),
        ),
    ]
}

/// Paths that do not have what their type names, or something else besides.
fn paths() -> Vec<Row> {
    let full = "path.replaceFullPath is required with type ReplaceFullPath, and left out with any other";
    let prefix = "path.replacePrefixMatch is required with type ReplacePrefixMatch, and left out with any other";
    let rewrite = |value: Value| filter(3, json!({"urlRewrite": {"path": value}}));
    let redirect = |value: Value| with("everything", &[("/spec/rules/1/filters/0/requestRedirect/path", value)]);
    let both = json!({"type": "ReplaceFullPath", "replaceFullPath": "/a", "replacePrefixMatch": "/b"});
    vec![
        row("spec.rules[0].filters[3].urlRewrite.path", full, rewrite(json!({"type": "ReplaceFullPath"}))),
        row("spec.rules[0].filters[3].urlRewrite.path", prefix, rewrite(json!({"type": "ReplacePrefixMatch"}))),
        row("spec.rules[1].filters[0].requestRedirect.path", full, redirect(json!({"type": "ReplaceFullPath"}))),
        row("spec.rules[1].filters[0].requestRedirect.path", prefix, redirect(both)),
    ]
}

fn backends() -> Vec<Row> {
    let backend = |value: Value| with("everything", &[("/spec/rules/0/backendRefs/0", value)]);
    let one = "backendRefs[]: write exactly one of localPort, name with port, and host with port";
    let port = "backendRefs[].port is required with name and host, and left out with localPort";
    let namespace = "backendRefs[].namespace is a Service's; write it with name";
    let tls = "backendRefs[].tls: write serverName, peers or both: encryption to anybody protects nobody";
    let way = "backendPolicy.healthCheck: write exactly one of http, tcp and grpc";
    let outlier = "outlierDetection.maxEjectionTime is shorter than baseEjectionTime; write the same or a longer time";
    vec![
        row("spec.rules[0].backendRefs[0]", one, backend(json!({"weight": 1}))),
        row("spec.rules[0].backendRefs[0]", one, backend(json!({"localPort": 80, "host": "b", "port": 80}))),
        row("spec.rules[0].backendRefs[0]", one, backend(json!({"name": "a", "host": "b", "port": 80}))),
        row("spec.rules[0].backendRefs[0]", port, backend(json!({"host": "a"}))),
        row("spec.rules[0].backendRefs[0]", port, backend(json!({"name": "a"}))),
        row("spec.rules[0].backendRefs[0]", port, backend(json!({"localPort": 80, "port": 80}))),
        row("spec.rules[0].backendRefs[0]", namespace, backend(json!({"localPort": 80, "namespace": "a"}))),
        row("spec.rules[0].backendRefs[0].tls", tls, backend(json!({"localPort": 80, "tls": {}}))),
        row(
            "spec.backendPolicy.healthCheck",
            way,
            with("everything", &[("/spec/backendPolicy/healthCheck/tcp", json!({}))]),
        ),
        row(
            "spec.backendPolicy.healthCheck",
            way,
            with("everything", &[("/spec/backendPolicy/healthCheck/http", Value::Null)]),
        ),
        row(
            "spec.backendPolicy.outlierDetection",
            outlier,
            with("everything", &[("/spec/backendPolicy/outlierDetection/maxEjectionTime", json!("9s"))]),
        ),
    ]
}

/// Times beyond their bounds, at both ends.
fn times() -> Vec<Row> {
    let fields: [(&str, &str, &[&str], &str); 12] = [
        ("spec.limits.pendingTimeout", "limits.pendingTimeout", &["61s"], "up to 1m"),
        (
            "spec.backendPolicy.pool.pendingTimeout",
            "backendPolicy.pool.pendingTimeout",
            &["0s", "25h"],
            "from 1ms to 24h",
        ),
        (
            "spec.backendPolicy.pool.connectTimeout",
            "backendPolicy.pool.connectTimeout",
            &["0s", "25h"],
            "from 1ms to 24h",
        ),
        ("spec.backendPolicy.pool.idleTimeout", "backendPolicy.pool.idleTimeout", &["0s", "25h"], "from 1ms to 24h"),
        ("spec.backendPolicy.pool.maxAge", "backendPolicy.pool.maxAge", &["0s", "25h"], "from 1ms to 24h"),
        (
            "spec.backendPolicy.healthCheck.interval",
            "backendPolicy.healthCheck.interval",
            &["99ms", "25h"],
            "from 100ms to 24h",
        ),
        (
            "spec.backendPolicy.healthCheck.timeout",
            "backendPolicy.healthCheck.timeout",
            &["0s", "61s"],
            "from 1ms to 1m",
        ),
        (
            "spec.backendPolicy.outlierDetection.baseEjectionTime",
            "backendPolicy.outlierDetection.baseEjectionTime",
            &["0s", "25h"],
            "from 1ms to 24h",
        ),
        (
            "spec.backendPolicy.outlierDetection.maxEjectionTime",
            "backendPolicy.outlierDetection.maxEjectionTime",
            &["0s", "25h"],
            "from 1ms to 24h",
        ),
        ("spec.rules[0].timeouts.request", "timeouts.request", &["25h"], "up to 24h"),
        ("spec.rules[0].timeouts.backendRequest", "timeouts.backendRequest", &["25h"], "up to 24h"),
        ("spec.certificate.duration", "certificate.duration", &["9m", "87601h"], "from 10m to 87600h"),
    ];
    let rows = |(place, name, times, range): (&str, &str, &[&str], &str)| {
        let sample = if place.starts_with("spec.certificate") { "issued" } else { "everything" };
        let pointer = format!("/{}", place.replace("[0]", "/0").replace('.', "/"));
        let message = format!("{name}: write a time {range}");
        times.iter().map(|time| row(place, &message, with(sample, &[(&pointer, json!(time))]))).collect::<Vec<_>>()
    };
    fields.into_iter().flat_map(rows).collect()
}

fn identities() -> Vec<Row> {
    let one = "spec: write exactly one of issue, csr, serviceAccount and external";
    let certificate = "spec.certificate is about what Postern issues; leave it out with serviceAccount and external";
    let size = "privateKey.size does not fit its algorithm; write 256 with ECDSA, 2048, 3072 or 4096 with RSA, and none with Ed25519";
    let key = |algorithm: &str, size: u16| {
        with("issued", &[("/spec/issue/privateKey", json!({"algorithm": algorithm, "size": size}))])
    };
    let trust = json!({"caCertificateRefs": [{"name": "utility-ca"}]});
    vec![
        row("spec", one, with("account", &[("/spec/serviceAccount", Value::Null)])),
        row("spec", one, with("account", &[("/spec/issue", json!({"secretName": "front"}))])),
        row("spec", certificate, with("account", &[("/spec/certificate", json!({}))])),
        row("spec", certificate, with("external", &[("/spec/certificate", json!({}))])),
        row("spec.issue.privateKey", size, key("ECDSA", 2048)),
        row("spec.issue.privateKey", size, key("RSA", 256)),
        row("spec.issue.privateKey", size, key("Ed25519", 256)),
        row(
            "spec.certificate",
            "certificate.renewBefore is not shorter than certificate.duration; write a shorter time",
            with("issued", &[("/spec/certificate/renewBefore", json!("720h"))]),
        ),
        row(
            "spec.external",
            "spec.external recognises nobody; write uris, dnsNames, commonNames, fingerprints, lfdi, sfdi, serials or spki",
            with("external", &[("/spec/external", json!({"trust": trust}))]),
        ),
        row(
            "spec.external",
            "spec.external.commonNames count only under authorities that vouch for them; write trust.vouchesFor.commonName true",
            with("external", &[("/spec/external/trust", trust.clone())]),
        ),
    ]
}

/// What must not become something else.
fn changes() -> Vec<Row> {
    let changed = |row: Row, before: Value| Row { before: Some(before), ..row };
    let kind = "spec: issue, csr, serviceAccount and external cannot replace each other; delete the identity and create another";
    let state = "spec.state: what is revoked stays revoked; create another identity";
    let revoked = || with("account", &[("/spec/state", json!("Revoked"))]);
    let kinds = ["issued", "requested", "account", "external"];
    let pairs = kinds.iter().flat_map(|before| kinds.iter().map(move |after| (before, after)));
    let mut rows: Vec<Row> = pairs
        .filter(|(before, after)| before != after)
        .map(|(before, after)| changed(row("spec", kind, named(after)), named(before)))
        .collect();
    rows.push(changed(row("spec.state", state, named("account")), revoked()));
    rows.push(changed(row("spec.state", state, with("account", &[("/spec/state", json!("Suspended"))])), revoked()));
    rows.push(changed(
        row(
            "spec.podSelector",
            "spec.podSelector cannot be changed; delete the route and create another",
            with("everything", &[("/spec/podSelector/matchLabels/app", json!("other"))]),
        ),
        named("everything"),
    ));
    rows
}
