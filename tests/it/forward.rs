//! What the application is told of a request, with real clients: who calls, how the request came, and nothing that a
//! client says of itself.

use std::process::Command;
use std::time::Duration;

use postern_tests::ca::LeafOptions;
use postern_tests::clients::{Curl, run};
use postern_tests::config::client_uri;
use postern_tests::gate::Gate;
use serde_json::{Value, json};

use crate::observed::{columns, newest, status, wait_until};
use crate::reload::KeepAlive;

const PROTOCOLS: [&str; 2] = ["--http1.1", "--http2"];
const PATIENCE: Duration = Duration::from_secs(30);

/// A filter that tells everything.
fn telling() -> Value {
    let headers = [
        ("ssl-client-cert", "EscapedPem"),
        ("Client-Cert", "Rfc9440"),
        ("Client-Cert-Chain", "Rfc9440Chain"),
        ("x-client-name", "Identity"),
        ("x-client-spiffe", "SpiffeId"),
        ("x-client-bundle", "Bundle"),
        ("x-client-sha256", "Sha256"),
        ("x-client-lfdi", "Lfdi"),
        ("x-client-sfdi", "Sfdi"),
    ];
    let headers = headers.map(|(name, value)| json!({ "name": name, "value": value }));
    let fields = ["Hash", "Subject", "URI", "DNS", "Cert", "Chain"];
    json!({ "forwardIdentity": { "xForwardedClientCert": fields, "headers": headers } })
}

/// A gate whose rule `told` for `/told` has these filters, and whose rule `plain` has none.
fn gate_with(filters: &Value, change: impl FnOnce(&mut Value)) -> Gate {
    Gate::start_with(|document| {
        document["version"] = json!("1.2");
        let rules = &mut document["policy"]["routes"][0]["rules"];
        rules[0]["allow"] = json!([{ "anyone": {} }]);
        rules[0]["matches"] = json!([]);
        let mut told = rules[0].clone();
        told["name"] = json!("told");
        told["matches"] = json!([{ "path": { "type": "PathPrefix", "value": "/told" } }]);
        told["filters"] = filters.clone();
        rules.as_array_mut().unwrap().push(told);
        change(document);
    })
    .unwrap()
}

/// All pairs of a list in the upstream's echo.
fn pairs(echo: &Value, list: &str) -> Vec<(String, String)> {
    let pairs = echo[list].as_array().unwrap().iter();
    pairs.map(|pair| (pair[0].as_str().unwrap().to_owned(), pair[1].as_str().unwrap().to_owned())).collect()
}

/// All values of a field that the upstream saw.
fn seen(echo: &Value, name: &str) -> Vec<String> {
    pairs(echo, "headers").into_iter().filter(|(known, _)| known == name).map(|(_, value)| value).collect()
}

fn with(curl: Curl, headers: &[&str]) -> Curl {
    headers.iter().fold(curl, |curl, header| curl.arg("-H").arg(*header))
}

#[test]
fn no_client_says_who_it_is() {
    let gate = gate_with(&json!([telling()]), |_| {});
    let table: [&[&str]; 14] = [
        &["X-Forwarded-Client-Cert: spoofed"],
        &["x_forwarded_client_cert: spoofed"],
        &["X-Forwarded_Client.Cert: spoofed"],
        &["X-Forwarded-Client-Cert: spoofed", "X-Forwarded-Client-Cert: spoofed", "x_forwarded_client_cert: spoofed"],
        &["Client-Cert: :spoofed:", "Client_Cert: spoofed", "Client-Cert-Chain: :spoofed:"],
        &["ssl-client-cert: spoofed", "SSL_CLIENT_CERT: spoofed", "ssl-client-verify: spoofed"],
        &["X-SSL-Client-Cert: spoofed", "X_SSL_CLIENT_S_DN: spoofed"],
        &["X-Client-Name: spoofed", "x_client_name: spoofed", "x.client.name: spoofed"],
        &["Postern-Identity: spoofed", "postern_reason: spoofed"],
        &["X-Forwarded-For: spoofed", "X_Forwarded_For: spoofed", "Forwarded: for=spoofed", "X-Real-IP: spoofed"],
        &["X-Forwarded-Proto: spoofed", "X-Forwarded-Host: spoofed", "X-Forwarded-Port: spoofed"],
        &["X-Request-Id: spoofed", "x_request_id: spoofed"],
        &["traceparent: spoofed", "tracestate: spoofed"],
        &[
            "Connection: x-forwarded-client-cert, x-forwarded-for, x-client-name, x-request-id",
            "X-Client-Name: spoofed",
        ],
    ];
    for protocol in PROTOCOLS {
        for sent in table {
            // HTTP/2 has no such field (RFC 9113 §8.2.2); curl drops it or the gate refuses it.
            if protocol == "--http2" && sent[0].starts_with("Connection") {
                continue;
            }
            for path in ["/told", "/plain"] {
                let curl = gate.curl(Some("billing"), path).unwrap().arg(protocol);
                let answer = with(curl, sent).arg("-H").arg("X-Kept: kept").call().unwrap();
                let case = format!("{protocol} {path} {sent:?}");
                assert_eq!(answer.status, Some(200), "{case}: {answer:?}");
                let echo = answer.json().unwrap();
                assert!(!answer.text().contains("spoofed"), "{case}: {echo}");
                assert_eq!(seen(&echo, "x-kept"), ["kept"], "{case}");
                assert_eq!(seen(&echo, "x-forwarded-for"), ["127.0.0.1"], "{case}");
                assert_eq!(seen(&echo, "x-request-id").len(), 1, "{case}");
                let told = usize::from(path == "/told");
                for name in ["x-forwarded-client-cert", "client-cert", "ssl-client-cert", "x-client-name"] {
                    assert_eq!(seen(&echo, name).len(), told, "{case} {name}");
                }
            }
        }
    }
}

#[test]
fn trailers_say_no_more_than_heads_may() {
    let gate = gate_with(&json!([telling()]), |_| {});
    let trailers =
        "X-Kept: kept\r\nx_forwarded_client_cert: spoofed\r\nX-Client-Name: spoofed\r\nX-Forwarded-For: spoofed\r\n";
    let names = "X-Kept, x_forwarded_client_cert, X-Client-Name, X-Forwarded-For";
    let head = "POST /told HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\nTransfer-Encoding: chunked\r\n";
    let request = format!("{head}TE: trailers\r\nTrailer: {names}\r\n\r\n5\r\nhello\r\n0\r\n{trailers}\r\n");
    let handshake = gate.openssl(Some("billing")).unwrap().talk(&request).unwrap();
    let body = handshake.output.lines().rfind(|line| line.starts_with('{')).unwrap();
    // openssl may write the rest of its own report right behind it.
    let first = serde_json::Deserializer::from_str(body).into_iter().next().unwrap();
    let http1: Value = first.unwrap_or_else(|error| panic!("{error}: {}", handshake.output));
    std::fs::write(gate.folder.file("body"), "hello").unwrap();
    let mut nghttp = Command::new("nghttp");
    nghttp.current_dir(gate.folder.path()).args(["--cert=billing.pem", "--key=billing.key", "-y", "-d", "body"]);
    for trailer in trailers.lines() {
        nghttp.arg("--trailer").arg(trailer.to_ascii_lowercase());
    }
    // Of a body whose length is told, HTTP/1.1 has no trailers.
    nghttp.arg("--no-content-length");
    nghttp.arg(format!("https://localhost:{}/told", gate.sidecar.listener("gate").unwrap().port()));
    let answer = run(&mut nghttp, b"", PATIENCE).unwrap();
    let http2: Value = serde_json::from_str(&answer.text()).unwrap_or_else(|error| panic!("{error}: {answer:?}"));
    for (case, echo) in [("HTTP/1.1", http1), ("HTTP/2", http2)] {
        assert_eq!(pairs(&echo, "trailers"), [("x-kept".to_owned(), "kept".to_owned())], "{case}: {echo}");
        assert_eq!(echo["bodyBytes"], json!(5), "{case}");
    }
}

/// What openssl says of a certificate.
fn openssl_says(gate: &Gate, file: &str, arguments: &[&str]) -> Vec<u8> {
    let mut openssl = Command::new("openssl");
    openssl.args(["x509", "-in", file]).args(arguments).current_dir(gate.folder.path());
    let finished = run(&mut openssl, b"", PATIENCE).unwrap();
    assert_eq!(finished.code, Some(0), "{finished:?}");
    finished.stdout
}

/// What Python makes of a value, given by an expression over `value`.
fn python_reads(expression: &str, value: &str) -> Vec<u8> {
    let script = format!("import sys,base64,urllib.parse; value=sys.argv[1]; sys.stdout.buffer.write({expression})");
    let finished = run(Command::new("python3").args(["-c", &script, value]), b"", PATIENCE).unwrap();
    assert_eq!(finished.code, Some(0), "{finished:?}");
    finished.stdout
}

#[test]
fn others_read_what_is_told() {
    let gate = gate_with(&json!([telling()]), |_| {});
    let echo = gate.curl(Some("billing"), "/told").unwrap().call().unwrap().json().unwrap();
    let one = |name: &str| seen(&echo, name).pop().unwrap_or_default();
    let (pem, der) =
        (openssl_says(&gate, "billing.pem", &[]), openssl_says(&gate, "billing.pem", &["-outform", "DER"]));
    let subject = openssl_says(&gate, "billing.pem", &["-noout", "-subject", "-nameopt", "RFC2253"]);
    let subject = String::from_utf8(subject).unwrap();
    let subject = subject.trim().trim_start_matches("subject=");
    let row = newest(&gate.sidecar, 1);
    let hash = row["fingerprint"].as_str().unwrap().trim_start_matches("sha256:");
    let unquoted = "urllib.parse.unquote(value).encode()";
    assert_eq!(python_reads(unquoted, &one("ssl-client-cert")), pem);
    assert_eq!(python_reads("base64.b64decode(value.strip(':'))", &one("client-cert")), der);
    let names = ["x-client-name", "x-client-spiffe", "x-client-bundle", "x-client-sha256", "x-client-lfdi"];
    let uri = client_uri("billing");
    assert_eq!(names.map(one), ["demo/billing", &uri, "ours", hash, row["lfdi"].as_str().unwrap()]);
    assert_eq!(json!(one("x-client-sfdi")), row["sfdi"]);
    let escaped = one("ssl-client-cert");
    // curl sends what it finds in its authorities along.
    let root = String::from_utf8(openssl_says(&gate, "ca.pem", &[])).unwrap();
    let root = String::from_utf8(python_reads("urllib.parse.quote(value, safe='').encode()", &root)).unwrap();
    let expected = format!("Hash={hash};Subject=\"{subject}\";URI={uri};Cert=\"{escaped}\";Chain=\"{escaped}{root}\"");
    assert_eq!(one("x-forwarded-client-cert"), expected);
    let above = python_reads("base64.b64decode(value.strip(':'))", &one("client-cert-chain"));
    assert_eq!(above, openssl_says(&gate, "ca.pem", &["-outform", "DER"]));
    assert_eq!([one("x-forwarded-proto"), one("x-forwarded-for")], ["https", "127.0.0.1"]);
    assert_eq!(one("x-forwarded-host"), one("host"));
}

#[test]
fn a_resumed_session_is_told_like_the_first() {
    let gate = gate_with(&json!([telling()]), |_| {});
    let request = "GET /told HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n";
    for version in ["-tls1_3", "-tls1_2"] {
        let first =
            gate.openssl(Some("billing")).unwrap().args([version, "-sess_out", "session"]).talk(request).unwrap();
        let again = gate.openssl(None).unwrap().args([version, "-sess_in", "session"]).talk(request).unwrap();
        assert!(again.output.contains("Reused, TLSv1."), "{version}: {again:?}");
        let told = |output: &str| {
            let line = output.lines().rfind(|line| line.starts_with('{')).unwrap();
            // openssl may write of its session right behind it.
            let echo: Value = serde_json::Deserializer::from_str(line).into_iter().next().unwrap().unwrap();
            (seen(&echo, "x-forwarded-client-cert"), seen(&echo, "client-cert"), seen(&echo, "x-client-name"))
        };
        assert_eq!(told(&again.output), told(&first.output), "{version}");
        assert_eq!(told(&again.output).2, ["demo/billing"], "{version}");
    }
}

#[test]
fn an_open_connection_is_told_from_the_moment_a_rule_asks() {
    let mut gate = gate_with(&json!([]), |_| {});
    let mut connection = KeepAlive::open(&gate, "billing");
    let mut names = |path: &str| {
        let echo: Value = serde_json::from_slice(&connection.exchange(path).1).unwrap();
        seen(&echo, "x-client-name")
    };
    assert_eq!(names("/told"), Vec::<String>::new());
    let before = status(&gate.sidecar).parts.policy.loaded;
    gate.document["policy"]["routes"][0]["rules"][1]["filters"] = json!([telling()]);
    gate.folder.write_document(&gate.document).unwrap();
    wait_until("another policy", || status(&gate.sidecar).parts.policy.loaded != before);
    assert_eq!(names("/told"), ["demo/billing"]);
    let before = status(&gate.sidecar).parts.identities.loaded;
    gate.document["identities"][0]["name"] = json!("demo/renamed");
    gate.folder.write_document(&gate.document).unwrap();
    wait_until("other identities", || status(&gate.sidecar).parts.identities.loaded != before);
    assert_eq!(names("/told"), ["demo/renamed"]);
}

#[test]
fn of_nobody_nothing_is_told() {
    let gate = gate_with(&json!([telling()]), |document| {
        document["policy"]["listeners"][0]["tls"]["clientAuth"] = json!("Optional");
        let mut open = document["policy"]["listeners"][0].clone();
        (open["name"], open["protocol"]) = (json!("open"), json!("HTTP"));
        open.as_object_mut().unwrap().remove("tls");
        document["policy"]["listeners"].as_array_mut().unwrap().push(open);
        let mut route = document["policy"]["routes"][0].clone();
        (route["name"], route["listener"]) = (json!("demo/open"), json!("open"));
        document["policy"]["routes"].as_array_mut().unwrap().push(route);
    });
    let stranger = gate.authority.issue(&LeafOptions::client("", "urn:stranger")).unwrap();
    gate.keep("stranger", &stranger).unwrap();
    let asked = ["x-forwarded-client-cert", "client-cert", "ssl-client-cert", "x-client-name", "x-client-sha256"];
    let told = |echo: &Value| asked.map(|name| seen(echo, name).len());
    let nobody = gate.curl(None, "/told").unwrap().call().unwrap().json().unwrap();
    assert_eq!(told(&nobody), [0; 5], "no certificate");
    let stranger = gate.curl(Some("stranger"), "/told").unwrap().call().unwrap().json().unwrap();
    assert_eq!(told(&stranger), [1, 1, 1, 0, 1], "a certificate, and nobody's that is known");
    let open = format!("http://{}/told", gate.sidecar.listener("open").unwrap());
    let open = Curl::new(open).arg("-H").arg("Host: localhost").arg("-H").arg("Client-Cert: :AA==:");
    let open = open.call().unwrap().json().unwrap();
    assert_eq!(told(&open), [0; 5], "no TLS");
    assert_eq!(
        (seen(&open, "x-forwarded-proto"), seen(&nobody, "x-forwarded-proto")),
        (vec!["http".to_owned()], vec!["https".to_owned()])
    );
}

#[test]
fn what_cannot_be_told_is_refused() {
    let gate = gate_with(&json!([telling()]), |document| {
        document["policy"]["routes"][0]["rules"][1]["mode"] = json!("Audit");
    });
    let table = [
        ("large", (0..400).map(|number| format!("urn:{number:030}")).collect(), "limit_identity_size", 431),
        ("unwritable", vec!["urn:a\";URI=urn:b".to_owned()], "policy_identity_unwritable", 403),
    ];
    let mut count = 0;
    for (name, uris, reason, code) in table {
        let issued = gate.authority.issue(&LeafOptions { uris, ..LeafOptions::client(name, "") }).unwrap();
        gate.keep(name, &issued).unwrap();
        for protocol in PROTOCOLS {
            let answer =
                gate.curl(Some(name), "/told").unwrap().arg(protocol).arg("--data").arg("hello").call().unwrap();
            assert_eq!((answer.status, answer.header("postern-reason")), (Some(code), Some(reason)), "{name}");
            count += 1;
            let row = newest(&gate.sidecar, count);
            let shown = columns(&row, &["verdict", "reason", "status", "rule", "attempts"]);
            assert_eq!(shown, json!(["refused", reason, code, "told", 0]), "{name} {protocol}");
            let plain = gate.curl(Some(name), "/plain").unwrap().arg(protocol).call().unwrap();
            assert_eq!(plain.status, Some(200), "{name}: a rule that tells nothing");
            count += 1;
        }
    }
}

#[test]
fn proxies_in_front_are_believed_as_far_as_they_are_trusted() {
    let gate = gate_with(&json!([]), |document| {
        document["policy"]["forwarding"] = json!({ "trustedHops": 1 });
    });
    let sent = [
        "X-Forwarded-For: 198.51.100.66, 203.0.113.1",
        "X-Forwarded-Proto: http",
        "X-Forwarded-Host: shop.example",
        "X-Request-Id: theirs-1",
        "x_forwarded_for: 198.51.100.67",
        "Forwarded: for=198.51.100.68",
    ];
    for protocol in PROTOCOLS {
        let curl = gate.curl(Some("billing"), "/plain").unwrap().arg(protocol);
        let echo = with(curl, &sent).call().unwrap().json().unwrap();
        let names = ["x-forwarded-for", "x-forwarded-proto", "x-forwarded-host", "x-request-id"];
        let told = names.map(|name| seen(&echo, name).join("|"));
        assert_eq!(told, ["203.0.113.1, 127.0.0.1", "http", "shop.example", "theirs-1"], "{protocol}");
        let others = ["x_forwarded_for", "forwarded"].map(|name| seen(&echo, name).len());
        assert_eq!(others, [0, 0], "{protocol}");
    }
}

#[test]
fn header_fields_are_set_added_and_removed() {
    let filters = json!([
        { "requestHeaderModifier": {
            "set": [{ "name": "X-Set", "value": "set" }],
            "add": [{ "name": "X-Added", "value": "added" }],
            "remove": ["X-Removed"],
        } },
        { "responseHeaderModifier": {
            "set": [{ "name": "Content-Type", "value": "text/plain" }],
            "add": [{ "name": "Strict-Transport-Security", "value": "max-age=60" }],
        } },
    ]);
    let gate = gate_with(&filters, |_| {});
    let sent = ["X-Set: theirs", "X-Added: theirs", "X-Removed: theirs", "Connection: x-set"];
    for protocol in PROTOCOLS {
        let sent = if protocol == "--http2" { &sent[..3] } else { &sent[..] };
        let answer = with(gate.curl(Some("billing"), "/told").unwrap().arg(protocol), sent).call().unwrap();
        let echo = answer.json().unwrap();
        let names = ["x-set", "x-added", "x-removed"].map(|name| seen(&echo, name).join("|"));
        assert_eq!(names, ["set", "theirs|added", ""], "{protocol}");
        let response = ["content-type", "strict-transport-security"].map(|name| answer.header(name));
        assert_eq!(response, [Some("text/plain"), Some("max-age=60")], "{protocol}");
        let plain = with(gate.curl(Some("billing"), "/plain").unwrap().arg(protocol), sent).call().unwrap();
        assert_eq!(plain.header("content-type"), Some("application/json"), "{protocol}");
    }
}
