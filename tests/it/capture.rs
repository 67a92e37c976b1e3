//! What is captured of requests with the real binary: what a route lists is in rows wherever they are read, and what it does
//! not list is nowhere.

use std::fs;

use postern_tests::clients::Finished;
use postern_tests::gate::Gate;
use serde_json::{Value, json};

use crate::listeners::script;
use crate::observed::{columns, metric, rows, wait_metric, wait_until};
use crate::shipping::Rig;

const SALT: &str = "0123456789abcdef";

/// `alice` with that salt: half of what `openssl dgst -sha256 -hmac` says.
const ALICE: &str = "sha256:fdbf8b1cacd3d578e062d0e41104357d";

/// Values that no rule lists, or that a rule drops, masks or hashes: none of them may be in a file.
const SECRETS: [&str; 6] =
    ["hunter2-bearer", "hunter2-token", "hunter2-cookie", "hunter2-other", "hunter2-debug", "alice"];

fn capturing(document: &mut Value) {
    document["version"] = json!("1.8");
    document["settings"]["log"]["captureSaltFile"] = json!("capture.salt");
    document["policy"]["routes"][0]["capture"] = json!({
        "headers": [
            {"name": "X-Tenant"}, {"name": "x-user", "as": "Sha256"}, {"name": "x-debug-key", "as": "Drop"}, {"name": "x-debug-*"},
            {"name": "authorization", "as": "Mask"},
        ],
        "query": [{"name": "token", "as": "Drop"}, {"name": "page"}, {"name": "p*", "as": "Mask"}],
        "cookies": [{"name": "theme"}],
    });
}

fn call(gate: &Gate, certificate: &str) -> Option<u16> {
    call_by(gate, "--http2", certificate)
}

/// A call with everything that a client may send.
fn call_by(gate: &Gate, version: &str, certificate: &str) -> Option<u16> {
    let path = "/orders?%70age=7&tok%65n=hunter2-token&place=hunter2-other&x=hunter2-other";
    let mut curl = gate.curl(Some(certificate), path).unwrap().arg(version);
    for field in [
        "x-tenant: blue",
        "x-user: alice",
        "x-debug-key: hunter2-debug",
        "x-debug-level: 3",
        "x-other: hunter2-other",
        "authorization: Bearer hunter2-bearer",
        "cookie: sid=hunter2-cookie; theme=dark",
    ] {
        curl = curl.arg("-H").arg(field);
    }
    curl.call().unwrap().status
}

fn captured() -> Value {
    json!({
        "headers": {"x-tenant": "blue", "x-user": ALICE, "x-debug-level": "3", "authorization": "***"},
        "query": {"page": "7", "place": "***"},
        "cookies": {"theme": "dark"},
    })
}

fn log(gate: &Gate, arguments: &[&str]) -> Finished {
    let finished = gate.sidecar.launch().subcommand("log", arguments).unwrap();
    assert_eq!((finished.code, finished.stderr.as_str()), (Some(0), ""), "{arguments:?}");
    finished
}

fn is_captured(row: &Value) {
    let text = row["captured"].as_str().unwrap();
    assert_eq!(serde_json::from_str::<Value>(text).unwrap(), captured());
}

/// Whether any file of the log has these bytes.
fn is_in_files(gate: &Gate, text: &str) -> bool {
    let files = fs::read_dir(gate.folder.path()).unwrap().map(|entry| entry.unwrap().path());
    let mut logs = files.filter(|path| path.file_name().unwrap().to_string_lossy().starts_with("requests.db"));
    logs.any(|path| fs::read(path).unwrap().windows(text.len()).any(|bytes| bytes == text.as_bytes()))
}

#[test]
fn what_a_route_lists_is_in_rows_and_nothing_else_is_in_files() {
    let gate = Gate::start_with(capturing).unwrap();
    fs::write(gate.folder.file("capture.salt"), SALT).unwrap();
    assert_eq!(call(&gate, "billing"), Some(200));
    assert_eq!(call_by(&gate, "--http1.1", "billing"), Some(200));
    assert_eq!(call(&gate, "reports"), Some(403), "refused, by a rule of the route");
    let other = gate.curl(Some("billing"), "/orders").unwrap().arg("-X").arg("PUT").arg("-H").arg("x-tenant: blue");
    assert_eq!(other.call().unwrap().status, Some(405), "of no rule");
    assert_eq!(gate.curl(Some("billing"), "/orders").unwrap().call().unwrap().status, Some(200));
    let written = rows(&gate.sidecar, 5);
    written[..3].iter().for_each(is_captured);
    assert!(written[3..].iter().all(|row| row["captured"].is_null()), "{written:?}");
    let exported = log(&gate, &["export", "--format", "jsonl"]).text();
    let exported: Vec<Value> = exported.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    exported[..2].iter().for_each(is_captured);
    let sql = "SELECT captured ->> '$.headers.x-tenant' AS tenant, captured ->> '$.query.page' AS page FROM requests \
               WHERE captured IS NOT NULL";
    let found = log(&gate, &["--sql", sql, "--output", "csv"]).text();
    assert_eq!(found, "tenant,page\r\nblue,7\r\nblue,7\r\nblue,7\r\n");
    let why = log(&gate, &["why", written[1]["id"].as_str().unwrap()]).text();
    assert!(why.contains(&format!("  captured: {}\n", written[1]["captured"].as_str().unwrap())), "{why}");
    assert!(is_in_files(&gate, "blue"));
    for secret in SECRETS {
        assert!(!is_in_files(&gate, secret), "{secret}");
    }
    assert_eq!(metric(&gate.sidecar, "postern_log_captures_lost_total{reason=\"no_salt\"}"), 0);
}

#[test]
fn what_is_on_trial_and_what_becomes_a_tunnel_is_captured_too() {
    let gate = Gate::start_with(|document| {
        capturing(document);
        let rule = &mut document["policy"]["routes"][0]["rules"][0];
        (rule["mode"], rule["matches"]) = (json!("Audit"), json!([]));
    })
    .unwrap();
    fs::write(gate.folder.file("capture.salt"), SALT).unwrap();
    assert_eq!(call(&gate, "reports"), Some(200));
    is_captured(&rows(&gate.sidecar, 1)[0]);
    let ask = r#"
tls = Tls(ADDRESS)
tls.send(b"GET /switch?page=7 HTTP/1.1\r\nHost: localhost\r\nConnection: Upgrade\r\nUpgrade: test\r\n\r\n")
print(tls.read()[9:12].decode())
tls.raw.close()
"#;
    assert_eq!(script(&gate, ask), "101\n");
    let rows = rows(&gate.sidecar, 2);
    let shown = rows.iter().map(|row| columns(row, &["kind", "verdict"])).collect::<Vec<_>>();
    assert_eq!(shown, [json!(["request", "would_refuse"]), json!(["tunnel", "allowed"])]);
    assert_eq!(rows[1]["captured"], json!(r#"{"query":{"page":"7"}}"#));
}

#[test]
fn a_row_in_postgres_has_it_and_its_hash_covers_it() {
    let rig = Rig::start();
    let gate = rig.gate_with(|document| {
        capturing(document);
        document["settings"]["log"]["chain"] = json!("Unkeyed");
        document["policy"]["routes"][0]["capture"]["query"] = json!([{"name": "*"}]);
    });
    fs::write(gate.folder.file("capture.salt"), SALT).unwrap();
    let curl = gate.curl(Some("billing"), "/orders?odd=%00%22%5c%ff&tenant=blue").unwrap();
    assert_eq!(curl.call().unwrap().status, Some(200));
    let many: Vec<_> = (0..20).map(|number| format!("n{number}={}", "a".repeat(256))).collect();
    let curl = gate.curl(Some("billing"), &format!("/orders?{}", many.join("&"))).unwrap();
    assert_eq!(curl.call().unwrap().status, Some(200));
    rig.has_all(&gate.sidecar, 2);
    // Of the second, what a row has room for.
    assert_eq!(metric(&gate.sidecar, "postern_log_captures_lost_total{reason=\"row_full\"}"), 13);
    assert!(rows(&gate.sidecar, 2)[1]["captured"].as_str().unwrap().ends_with(r#","truncated":true}"#));
    let captured: Vec<_> =
        rows(&gate.sidecar, 2).iter().map(|row| row["captured"].as_str().unwrap().to_owned()).collect();
    assert_eq!(rig.server.sql("SELECT captured FROM postern.requests ORDER BY id").unwrap(), captured.join("\n"));
    let sql = "SELECT captured::jsonb -> 'query' ->> 'tenant' FROM postern.requests ORDER BY id LIMIT 1";
    assert_eq!(rig.server.sql(sql).unwrap(), "blue");
    assert!(log(&gate, &["verify"]).text().starts_with("2 rows fit;"));
}

#[test]
fn without_a_salt_values_are_masked_until_there_is_one() {
    let gate = Gate::start_with(|document| {
        capturing(document);
        document["settings"]["log"].as_object_mut().unwrap().remove("captureSaltFile");
    })
    .unwrap();
    assert_eq!(call(&gate, "billing"), Some(200));
    let row: Value = serde_json::from_str(rows(&gate.sidecar, 1)[0]["captured"].as_str().unwrap()).unwrap();
    assert_eq!(row["headers"]["x-user"], "***");
    wait_metric(&gate.sidecar, "postern_log_captures_lost_total{reason=\"no_salt\"}", 1);
    let warned = |line: &&postern_tests::process::LogLine| line.message().contains("for want of a salt");
    assert_eq!(gate.sidecar.lines().iter().filter(warned).count(), 1);
    // Where one is looked for that no setting names.
    fs::create_dir(gate.folder.file("log")).unwrap();
    fs::write(gate.folder.file("log/capture-salt"), SALT).unwrap();
    let mut calls = 1;
    wait_until("a hash", || {
        calls += 1;
        assert_eq!(call(&gate, "billing"), Some(200));
        let newest = rows(&gate.sidecar, calls).pop().unwrap();
        newest["captured"].as_str().unwrap().contains(ALICE)
    });
}
