//! What a route has captured of its requests: in the gate's log and in PostgreSQL, with keys of the namespace's Secret, which
//! come and change while the gate runs.

use anyhow::Result;
use postern_tests::clients::Finished;
use postern_tests::postgres::Postgres;
use postern_tests::wait::eventually;
use serde_json::{Value, json};

use crate::cluster::PATIENCE;
use crate::scene::{Scene, Served, as_words, rule};
use crate::shipping::{Database, wait_number};

const SALT: &str = "0123456789abcdef";
/// `alice` with that salt: half of what `openssl dgst -sha256 -hmac` says.
const ALICE: &str = "sha256:fdbf8b1cacd3d578e062d0e41104357d";
/// Bytes of a key for bodies, and of the one that follows it.
const KEYS: [&str; 2] = ["5a", "c3"];
/// The body of a request, and what comes before it in the response's.
const READING: &str = "reading of meter 7: 4711";
const HEARD: &str = "heard ";
/// What is sent and is to be plain in no row.
const SECRETS: [&str; 4] = ["alice", "hunter2-bearer", "hunter2-cookie", "reading of meter"];

/// A route that has something captured in each way there is, to an application that answers with what it is told.
fn capturing(served: &mut Served) {
    let command = &mut served.application["spec"]["template"]["spec"]["containers"][0]["command"][2];
    let place = "/tmp/www/cgi-bin/echo";
    let script = format!(r#"#!/bin/sh\nprintf "Content-Type: text/plain\\r\\n\\r\\n{HEARD}"; cat\n"#);
    let made = format!("mkdir -p /tmp/www/cgi-bin && printf '{script}' >{place} && busybox chmod +x {place}");
    *command = json!(format!("{made} && {}", command.as_str().unwrap()));
    served.route["spec"]["rules"].as_array_mut().unwrap().push(rule("cgi-bin", "billing"));
    served.application["spec"]["template"]["metadata"]["annotations"]["config.postern.dev/log-schema"] = json!("apply");
    served.route["spec"]["capture"] = json!({
        "headers": [{"name": "X-Tenant"}, {"name": "x-user", "as": "Sha256"}, {"name": "authorization", "as": "Mask"}],
        "query": [{"name": "page"}],
        "cookies": [{"name": "theme"}],
        "bodies": {"request": true, "response": true},
    });
}

/// A call with everything that a client may send.
fn call(scene: &Scene) -> Finished {
    let mut calling = scene.calling(Some("billing"), "/cgi-bin/echo?page=7&place=hunter2-place");
    let fields =
        ["x-tenant: blue", "x-user: alice", "authorization: hunter2-bearer", "cookie: theme=dark; sid=hunter2-cookie"];
    calling.extend(fields.into_iter().flat_map(|field| ["-H".to_owned(), field.to_owned()]));
    calling.extend(["--data".to_owned(), READING.to_owned()]);
    let words = [["-n", scene.namespace.as_str(), "exec", "client", "--"].as_slice(), &as_words(&calling)].concat();
    scene.cluster.kubectl(&words, "").unwrap()
}

/// What is captured of it, with this for the user.
fn captured(user: &str) -> Value {
    json!({
        "headers": {"x-tenant": "blue", "x-user": user, "authorization": "***"},
        "query": {"page": "7"}, "cookies": {"theme": "dark"},
    })
}

fn of(row: &Value) -> Value {
    serde_json::from_str(row["captured"].as_str().unwrap()).unwrap()
}

/// What `postern-sidecar log` says in the gate.
fn log(scene: &Scene, arguments: &[&str]) -> Result<String> {
    let words = ["exec", "deployment/orders", "-c", "postern-sidecar", "--", "postern-sidecar", "log"];
    scene.kubectl(&[&words, arguments].concat())
}

/// A body of a row, opened with the key that the gate has now.
fn body(scene: &Scene, row: &Value, which: &str) -> Result<String> {
    log(scene, &["body", row["id"].as_str().unwrap(), which])
}

/// Puts something into the Secret, and has it looked at: a kubelet does when the pod changes, else once a minute.
fn put(scene: &Scene, data: &Value, when: &str) {
    let patch = json!({"stringData": data}).to_string();
    scene.kubectl(&["patch", "secret/postern-log", "--type=merge", "-p", &patch]).unwrap();
    scene.kubectl(&["annotate", "pods", "-l", "app=orders", "--overwrite", &format!("looked={when}")]).unwrap();
}

/// Calls until a row shows that something was taken up.
fn taken_up(scene: &Scene, calls: &mut usize, is_it: impl Fn(&Value) -> bool) -> Value {
    let found = eventually("a row with what was put into the Secret", PATIENCE, || {
        *calls += 1;
        call(scene);
        let last = scene.rows("deployment/orders", *calls).pop().unwrap();
        Ok(is_it(&last).then_some(last))
    });
    found.unwrap()
}

/// Rows in PostgreSQL that have a text, or its bytes, anywhere.
fn with(server: &Postgres, text: &str) -> String {
    let hex: String = text.bytes().map(|byte| format!("{byte:02x}")).collect();
    let sql = "SELECT count(*) FROM postern.requests r WHERE";
    server.sql(&format!("{sql} strpos(r::text, '{text}') > 0 OR strpos(r::text, '{hex}') > 0")).unwrap()
}

#[test]
fn what_is_captured_is_in_both_logs_and_bodies_are_for_whoever_has_the_key() {
    let scene = Scene::new("captured");
    let database = Database::empty(&scene);
    let scene = scene.served(capturing);
    let first = call(&scene);
    assert_eq!(first.text(), format!("{HEARD}{READING}\n200"), "{}", first.stderr);
    let row = scene.rows("deployment/orders", 1).remove(0);
    assert_eq!((of(&row), &row["bodies"]), (captured("***"), &Value::Null), "there is no Secret");

    let mut calls = 1;
    // Of this database gates are the owner.
    database.secret(&scene, "postern-log", "owner");
    put(&scene, &json!({"body-key": KEYS[0].repeat(32)}), "first");
    let row = taken_up(&scene, &mut calls, |row| !row["bodies"].is_null());
    assert_eq!(of(&row), captured("***"), "there is no salt");
    assert_eq!(body(&scene, &row, "--request").unwrap(), READING);
    assert_eq!(body(&scene, &row, "--response").unwrap(), format!("{HEARD}{READING}"));

    put(&scene, &json!({"capture-salt": SALT, "body-key": KEYS[1].repeat(32)}), "again");
    let is_opened = |row: &Value| body(&scene, row, "--request").is_ok_and(|body| body == READING);
    let last = taken_up(&scene, &mut calls, |row| of(row) == captured(ALICE) && is_opened(row));
    let other_key = body(&scene, &row, "--request").unwrap_err().to_string();
    assert!(other_key.contains("that is none of the keys given"), "{other_key}");

    let server = &database.server;
    let newest =
        "SELECT count(*) FROM pg_attribute WHERE attrelid = to_regclass('postern.requests') AND attname = 'bodies'";
    wait_number("the schema", server, newest, 1);
    wait_number("a row of each call", server, "SELECT count(*) FROM postern.requests", calls);
    for row in [&row, &last] {
        let (id, text) = (row["id"].as_str().unwrap(), |column: &str| row[column].as_str().unwrap());
        let sql = format!("SELECT captured, bodies FROM postern.requests WHERE id = '{id}'");
        assert_eq!(server.sql(&sql).unwrap(), format!("{}|{}", text("captured"), text("bodies")));
    }
    let exported = log(&scene, &["export", "--format", "jsonl"]).unwrap();
    assert_eq!(exported.lines().count(), calls);
    assert!(exported.contains("blue") && with(server, "blue") != "0", "what is kept is found");
    for secret in SECRETS {
        let hex: String = secret.bytes().map(|byte| format!("{byte:02x}")).collect();
        assert!(!exported.contains(secret) && !exported.contains(&hex), "{secret}: {exported}");
        assert_eq!(with(server, secret), "0", "{secret}");
    }
}
