//! Bodies in rows with the real binary and curl: they come back as they passed, and are plain nowhere.

use std::fs;
use std::io::{Read, Write};
use std::path::PathBuf;
use std::thread;
use std::time::Duration;

use postern_tests::clients::Finished;
use postern_tests::clock::Clock;
use postern_tests::gate::Gate;
use postern_tests::grpc::{GrpcServer, call};
use postern_tests::python::python;
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::listeners::{application, script};
use crate::observed::{columns, metric, newest, rows, status, wait_metric, wait_until};
use crate::shipping::Rig;
use crate::tunnels::head;

const KEY: &str = "00112233445566778899aabbccddeeff00112233445566778899aabbccddeeff";
const OTHER_KEY: &str = "ffeeddccbbaa99887766554433221100ffeeddccbbaa99887766554433221100";

/// What is in every body of these tests, and is to be in no file.
const SECRET: &str = "reading of meter 7: ";

const MISSED: &str = "postern_log_bodies_missed_total";

/// A folder with keys.
pub(crate) struct Keys(TempDir);

impl Keys {
    pub(crate) fn new() -> Self {
        let keys = Self(TempDir::new().unwrap());
        fs::write(keys.file("key"), format!("{KEY}\n")).unwrap();
        fs::write(keys.file("other"), OTHER_KEY).unwrap();
        keys
    }

    fn file(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    fn text(&self, name: &str) -> String {
        self.file(name).to_str().unwrap().to_owned()
    }

    /// Has a gate keep bodies, and seal them with the key in the file of that name.
    pub(crate) fn keeps(&self, document: &mut Value, name: &str, bodies: &Value) {
        document["version"] = json!("1.8");
        document["settings"]["log"]["bodyKeyFile"] = json!(self.file(name));
        document["policy"]["routes"][0]["capture"] = json!({ "bodies": bodies });
    }
}

fn both() -> Value {
    json!({ "request": true, "response": true })
}

/// A body of so many bytes, of which no part is like another.
fn body(length: usize) -> Vec<u8> {
    let lines = (0..).flat_map(|line| format!("{line} {SECRET}{}\n", line * 7919).into_bytes());
    lines.take(length).collect()
}

/// Calls the upstream, which answers with the same backwards.
fn mirrored(gate: &Gate, version: &str, sent: &[u8]) -> Vec<u8> {
    fs::write(gate.folder.file("body.bin"), sent).unwrap();
    let curl = gate.curl(Some("billing"), "/mirror").unwrap().arg(version);
    let answer = curl.arg("-H").arg("expect:").arg("--data-binary").arg("@body.bin").call().unwrap();
    fs::remove_file(gate.folder.file("body.bin")).unwrap();
    assert_eq!(answer.status, Some(200), "{}", answer.stderr);
    answer.body
}

fn backwards(bytes: &[u8]) -> Vec<u8> {
    bytes.iter().rev().copied().collect()
}

fn log(gate: &Gate, arguments: &[&str]) -> Finished {
    gate.sidecar.launch().subcommand("log", arguments).unwrap()
}

fn opened(gate: &Gate, arguments: &[&str]) -> Vec<u8> {
    let finished = log(gate, &[&["body"], arguments].concat());
    assert_eq!((finished.code, finished.stderr.as_str()), (Some(0), ""), "{arguments:?}");
    finished.stdout
}

fn refused(gate: &Gate, arguments: &[&str]) -> String {
    let finished = log(gate, &[&["body"], arguments].concat());
    assert_eq!((finished.code, finished.stdout.len()), (Some(1), 0), "{arguments:?}");
    finished.stderr
}

fn id(row: &Value) -> String {
    row["id"].as_str().unwrap().to_owned()
}

/// Looks that what was sent is in no file of the gate, forwards or backwards.
fn is_plain_nowhere(gate: &Gate) {
    let words = [SECRET.as_bytes().to_vec(), backwards(SECRET.as_bytes())];
    let mut files = 0;
    for file in fs::read_dir(gate.folder.path()).unwrap() {
        let file = file.unwrap().path();
        let bytes = fs::read(&file).unwrap();
        let found = words.iter().any(|word| bytes.windows(word.len()).any(|window| window == word));
        assert!(!found, "{}", file.display());
        files += usize::from(file.to_string_lossy().contains("requests.db"));
    }
    assert!(files > 0, "there is a log");
}

#[test]
fn bodies_come_back_as_they_passed_and_are_plain_nowhere() {
    let keys = Keys::new();
    let gate = Gate::start_with(|document| keys.keeps(document, "key", &both())).unwrap();
    let mut count = 0;
    for version in ["--http1.1", "--http2"] {
        for length in [1, 5000, 8192] {
            let sent = body(length);
            assert_eq!(mirrored(&gate, version, &sent), backwards(&sent));
            count += 1;
            let row = newest(&gate.sidecar, count);
            let (id, request_id) = (id(&row), row["request_id"].as_str().unwrap());
            // The key is the one that the configuration names.
            assert_eq!(opened(&gate, &[&id, "--request"]), sent, "{version} {length}");
            let (first, second) = (keys.text("other"), keys.text("key"));
            let given = [request_id, "--response", "--key-file", &first, "--key-file", &second];
            assert_eq!(opened(&gate, &given), backwards(&sent), "{version} {length}");
        }
    }
    is_plain_nowhere(&gate);
    let id = id(&newest(&gate.sidecar, count));
    let told = refused(&gate, &[&id]);
    assert_eq!(
        told,
        format!("postern-sidecar: {id} has a request body and a response body: choose by --request or --response\n")
    );
    let told = refused(&gate, &[&id, "--key-file", &keys.text("other")]);
    let name = log(&gate, &["--sql", "select substr(bodies, 5, 16) as name from requests limit 1", "-o", "csv"]).text();
    let name = name.lines().nth(1).unwrap().to_owned();
    assert_eq!(
        told,
        format!("postern-sidecar: {id}: its bodies are sealed with key {name}, and that is none of the keys given\n")
    );
    let why = log(&gate, &["why", &id]).text();
    assert!(why.contains("\n  bodies: ") && why.contains("sealed"), "{why}");
    assert!(!log(&gate, &[]).text().contains("\\x"), "the table is for people");
    gate.sidecar.has_decided(count as u64).unwrap();
}

#[test]
fn what_is_longer_passes_whole_and_is_kept_in_part() {
    let keys = Keys::new();
    let bodies = json!({ "request": true, "response": true, "maxBytes": 100 });
    let gate = Gate::start_with(|document| keys.keeps(document, "key", &bodies)).unwrap();
    let sent = body(300_000);
    for (count, version) in (1..).zip(["--http1.1", "--http2"]) {
        assert_eq!(mirrored(&gate, version, &sent), backwards(&sent));
        let row = newest(&gate.sidecar, count);
        assert_eq!(columns(&row, &["request_bytes", "response_bytes"]), json!([300_000, 300_000]));
        let id = id(&row);
        for (which, kept) in [("request", sent.clone()), ("response", backwards(&sent))] {
            let finished = log(&gate, &["body", &id, &format!("--{which}")]);
            assert_eq!((finished.code, finished.stdout.as_slice()), (Some(0), &kept[..100]));
            assert_eq!(finished.stderr, format!("postern-sidecar: the first 100 bytes of a {which} body of 300000\n"));
        }
    }
}

#[test]
fn a_route_keeps_what_it_asks_for_alone() {
    let keys = Keys::new();
    let gate = Gate::start_with(|document| {
        keys.keeps(document, "key", &json!({ "response": true }));
        for (name, capture) in [("silent", Value::Null), ("asking", json!({ "bodies": { "request": true } }))] {
            let mut route = document["policy"]["routes"][0].clone();
            route["name"] = json!(name);
            route["capture"] = capture;
            route["rules"][0]["matches"] = json!([{ "path": { "type": "PathPrefix", "value": format!("/{name}") } }]);
            document["policy"]["routes"].as_array_mut().unwrap().push(route);
        }
    })
    .unwrap();
    let sent = body(50);
    mirrored(&gate, "--http1.1", &sent);
    for path in ["/silent", "/asking"] {
        gate.curl(Some("billing"), path).unwrap().arg("--data-binary").arg("x").call().unwrap();
    }
    // A refusal's body is the gate's own.
    assert_eq!(gate.curl(Some("reports"), "/mirror").unwrap().call().unwrap().status, Some(403));
    let mut rows = rows(&gate.sidecar, 4);
    // The one there is need not be chosen.
    assert_eq!(opened(&gate, &[&id(&rows[0])]), backwards(&sent));
    assert_eq!(opened(&gate, &[&id(&rows.remove(2))]), b"x");
    let none = |id: &str| {
        format!(
            "postern-sidecar: {id} has no such body: its route does not ask for it, none came, or there was no key\n"
        )
    };
    let first = id(&rows[0]);
    assert_eq!(refused(&gate, &[&first, "--request"]), none(&first));
    for row in &rows[1..] {
        assert_eq!((&row["bodies"], refused(&gate, &[&id(row)])), (&Value::Null, none(&id(row))));
    }
    assert_eq!(refused(&gate, &["nobody's"]), "postern-sidecar: no row and no request has the id nobody's\n");
}

#[test]
fn without_a_key_nothing_is_kept_and_that_is_counted_and_told_once() {
    let keys = Keys::new();
    let gate = Gate::start_with(|document| {
        keys.keeps(document, "key", &both());
        document["settings"]["log"].as_object_mut().unwrap().remove("bodyKeyFile");
    })
    .unwrap();
    for count in 1..=3 {
        let sent = body(50);
        assert_eq!(mirrored(&gate, "--http1.1", &sent), backwards(&sent));
        assert_eq!(newest(&gate.sidecar, count)["bodies"], Value::Null);
    }
    // A request without a body misses none.
    assert_eq!(gate.curl(Some("billing"), "/bytes?n=0").unwrap().call().unwrap().status, Some(200));
    wait_metric(&gate.sidecar, &format!("{MISSED}{{reason=\"no_key\"}}"), 6);
    assert_eq!(metric(&gate.sidecar, &format!("{MISSED}{{reason=\"memory\"}}")), 0);
    let told = |message: &str| gate.sidecar.lines().iter().filter(|line| line.message() == message).count();
    assert_eq!(
        told("rows keep no bodies, or seal them with the key from before"),
        0,
        "there is none that cannot be read"
    );
    assert_eq!(told("a route's rows are to keep bodies, and there is no key: see settings.log.bodyKeyFile"), 1);
    let told = refused(&gate, &[&id(&newest(&gate.sidecar, 4))]);
    assert!(told.contains("or there was no key"), "{told}");
    is_plain_nowhere(&gate);
    // Where one is looked for that no setting names.
    fs::create_dir(gate.folder.file("log")).unwrap();
    fs::copy(keys.file("key"), gate.folder.file("log/body-key")).unwrap();
    let mut count = 4;
    wait_until("a key", || {
        count += 1;
        mirrored(&gate, "--http1.1", &body(50));
        !newest(&gate.sidecar, count)["bodies"].is_null()
    });
    assert_eq!(opened(&gate, &[&id(&newest(&gate.sidecar, count)), "--request"]), body(50));
}

#[test]
fn a_kill_leaves_nothing_plain() {
    let keys = Keys::new();
    let mut gate = Gate::start_with(|document| keys.keeps(document, "key", &both())).unwrap();
    for _ in 0..20 {
        mirrored(&gate, "--http1.1", &body(5000));
    }
    gate.sidecar.leave_unaudited();
    gate.sidecar.kill().unwrap();
    is_plain_nowhere(&gate);
}

#[test]
fn messages_of_grpc_are_kept() {
    let keys = Keys::new();
    let server = GrpcServer::start(None).unwrap();
    let gate = Gate::start_with(|document| {
        keys.keeps(document, "key", &both());
        document["policy"]["routes"][0]["rules"][0]["backends"] =
            json!([{ "address": server.address(), "protocol": "HTTP2" }]);
    })
    .unwrap();
    let address = gate.sidecar.listener("gate").unwrap();
    for (count, (method, messages)) in (1..).zip([("Unary", &["hello"][..]), ("Stream", &["one", "two", "three"])]) {
        call(address, gate.folder.path(), method, messages).unwrap();
        let row = newest(&gate.sidecar, count);
        for which in ["--request", "--response"] {
            let body = opened(&gate, &[&id(&row), which]);
            // Each message is behind its length (gRPC over HTTP/2, "Length-Prefixed-Message").
            let mut rest = body.as_slice();
            for message in messages {
                let (head, after) = rest.split_at(5);
                let (framed, after) = after.split_at(usize::from(head[4]));
                assert!(framed.ends_with(message.as_bytes()), "{method} {which}: {body:?}");
                rest = after;
            }
            assert_eq!(rest, b"", "{method} {which}");
        }
    }
}

#[test]
fn bodies_are_in_postgres_as_they_are_in_the_log() {
    let (keys, rig) = (Keys::new(), Rig::start());
    let gate = rig.gate_with(|document| {
        keys.keeps(document, "key", &json!({ "request": true, "response": true, "maxBytes": 65536 }));
        document["settings"]["log"]["chain"] = json!("Unkeyed");
    });
    let mut sent = vec![body(65_536); 12];
    sent.push(body(10));
    for sent in &sent {
        assert_eq!(mirrored(&gate, "--http1.1", sent), backwards(sent));
    }
    rig.has_all(&gate.sidecar, sent.len());
    let (url, key) = (rig.server.local_url(), keys.text("key"));
    let rows = rows(&gate.sidecar, sent.len());
    for (row, sent) in rows.iter().zip(&sent) {
        for (which, expected) in [("--request", sent.clone()), ("--response", backwards(sent))] {
            let id = id(row);
            assert!(opened(&gate, &["--postgres", &url, &id, which, "--key-file", &key]) == expected, "{id} {which}");
        }
        assert_eq!(
            rig.server.sql(&format!("SELECT bodies::text FROM postern.requests WHERE id = '{}'", id(row))).unwrap(),
            row["bodies"].as_str().unwrap()
        );
    }
    for secret in [SECRET.to_owned(), SECRET.chars().rev().collect()] {
        let found = format!(
            "SELECT count(*) FROM postern.requests r WHERE position('{secret}'::bytea in bodies) > 0 OR r::text LIKE '%{secret}%'"
        );
        assert_eq!(rig.server.sql(&found).unwrap(), "0");
    }
    let verified = log(&gate, &["verify"]);
    assert_eq!((verified.code, verified.stderr.as_str()), (Some(0), ""), "the chain covers them");
    let exported = log(&gate, &["export", "--format", "jsonl", "--postgres", &url]).text();
    assert_eq!(exported, log(&gate, &["export", "--format", "jsonl"]).text());
}

/// What a client needs that is not done with its body.
const HALF: &str = r#"
def half(path):
    tls = Tls(ADDRESS)
    tls.send(b"POST %s HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\nContent-Length: 18\r\n\r\nthe first" % path)
    return tls
"#;

/// Whichever side breaks it off, or does not hear it to its end.
#[test]
fn of_a_body_that_breaks_off_what_came_is_kept() {
    let keys = Keys::new();
    let address = application(|mut stream| {
        let (head, _) = head(&mut stream);
        let is_whole = head.starts_with("POST /early");
        let body = if is_whole { "4\r\n\r\nsoon" } else { "100\r\n\r\nonly" };
        stream.write_all(format!("HTTP/1.1 200 OK\r\nContent-Length: {body}").as_bytes()).unwrap();
        // Not before the gate has closed it: what is sent and not read would take the answer away.
        let _closed = is_whole.then(|| stream.read_to_end(&mut Vec::new()));
    });
    let keeping = |document: &mut Value| keys.keeps(document, "key", &both());
    let gate = Gate::start_with(|document| {
        keeping(document);
        document["policy"]["routes"][0]["rules"][0]["backends"] = json!([{ "address": address }]);
    })
    .unwrap();
    for (count, version) in (1..).zip(["--http1.1", "--http2"]) {
        let answer = gate.curl(Some("billing"), "/cut").unwrap().arg(version).call().unwrap();
        assert_eq!((answer.status, answer.text().as_str()), (Some(200), "only"), "{version}");
        let row = newest(&gate.sidecar, count);
        let body = opened(&gate, &[&id(&row)]);
        assert_eq!((row["reason"].as_str(), body), (Some("upstream_reset"), b"only".to_vec()), "{version}");
    }
    let said = script(&gate, &format!("{HALF}\nprint(half(b'/early').read_all().decode().endswith('soon'))"));
    let row = newest(&gate.sidecar, 3);
    let bodies = ["--request", "--response"].map(|which| opened(&gate, &[&id(&row), which]));
    assert_eq!((said.as_str(), bodies), ("True\n", [b"the first".to_vec(), b"soon".to_vec()]), "{row}");
    // Its application hears all of a request before it answers.
    let gate = Gate::start_with(keeping).unwrap();
    script(&gate, &format!("{HALF}\nhalf(b'/mirror').raw.close()"));
    let row = newest(&gate.sidecar, 1);
    let body = opened(&gate, &[&id(&row)]);
    assert_eq!((row["reason"].as_str(), body), (Some("client_closed"), b"the first".to_vec()));
}

/// Nor do they take it away.
#[test]
fn framing_and_trailers_are_no_part_of_a_body() {
    let keys = Keys::new();
    let gate = Gate::start_with(|document| {
        keys.keeps(document, "key", &both());
        document["settings"]["workers"] = json!(1);
    })
    .unwrap();
    let ask = r#"
tls = Tls(ADDRESS)
tls.send(b"POST /mirror HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\nTransfer-Encoding: chunked\r\n\r\n")
tls.send(b"3;x=y\r\nhel\r\n2\r\nlo\r\n0\r\nX-Kept: kept\r\n\r\n")
print(tls.read_all().decode().endswith("olleh"))
"#;
    for count in 1..=2 {
        let said = script(&gate, ask);
        let row = newest(&gate.sidecar, count);
        let bodies = ["--request", "--response"].map(|which| opened(&gate, &[&id(&row), which]));
        assert_eq!((said.as_str(), bodies), ("True\n", [b"hello".to_vec(), b"olleh".to_vec()]));
    }
    assert_eq!(gate.upstream.connections(), 1, "a request with trailers has ended with them");
}

/// A request ends on the configuration that it began with.
#[test]
fn a_route_that_changes_during_a_request_changes_the_next() {
    let keys = Keys::new();
    let mut gate = Gate::start_with(|document| {
        keys.keeps(document, "key", &both());
        document["policy"]["routes"][0]["capture"]["query"] = json!([{ "name": "page" }]);
        document["settings"]["workers"] = json!(1);
    })
    .unwrap();
    let (folder, address) = (gate.folder.path().to_owned(), gate.sidecar.listener("gate").unwrap());
    let said = thread::spawn(move || {
        let rest = r#"
client = half(b"/mirror?page=7")
open("begun", "w").close()
while not os.path.exists("changed"):
    time.sleep(0.01)
client.send(b" and more")
print(client.read_all().decode().endswith("erom dna tsrif eht"))
"#;
        python(&folder, address, &format!("{HALF}{rest}")).unwrap()
    });
    wait_until("a request", || gate.folder.file("begun").exists() && gate.upstream.connections() == 1);
    let before = status(&gate.sidecar).parts.policy.loaded;
    gate.document["policy"]["routes"][0].as_object_mut().unwrap().remove("capture");
    gate.folder.write_document(&gate.document).unwrap();
    wait_until("another policy", || status(&gate.sidecar).parts.policy.loaded != before);
    // One that comes now may still be before its worker has heard of it.
    let mut count = 0;
    wait_until("rows without", || {
        mirrored(&gate, "--http1.1", &body(50));
        count += 1;
        newest(&gate.sidecar, count)["bodies"].is_null()
    });
    fs::write(gate.folder.file("changed"), "").unwrap();
    assert_eq!(said.join().unwrap().text(), "True\n");
    let rows = rows(&gate.sidecar, count + 1);
    let row = rows.iter().find(|row| row["captured"].is_string() && row["request_bytes"] == 18).unwrap();
    let bodies = ["--request", "--response"].map(|which| opened(&gate, &[&id(row), which]));
    assert_eq!(bodies, [b"the first and more".to_vec(), b"erom dna tsrif eht".to_vec()]);
}

/// Time between two looks at the file (`LOOK_EVERY`).
const LOOK_EVERY: Duration = Duration::from_secs(5);

#[test]
fn a_key_that_is_replaced_seals_what_comes_then() {
    let (keys, mut clock) = (Keys::new(), Clock::new().unwrap());
    let mut gate = Gate::start_with(|document| keys.keeps(document, "key", &both())).unwrap();
    gate.sidecar.terminate().unwrap();
    assert!(gate.sidecar.wait_exit().unwrap().success());
    gate.sidecar = clock.of(gate.sidecar.launch()).start_ready().unwrap();
    let (sent, opens) = (body(50), |id: &str, name: &str| {
        let file = keys.text(name);
        log(&gate, &["body", id, "--request", "--key-file", &file]).code == Some(0)
    });
    mirrored(&gate, "--http1.1", &sent);
    let first = id(&newest(&gate.sidecar, 1));
    fs::write(keys.file("first"), KEY).unwrap();
    fs::copy(keys.file("other"), keys.file("key")).unwrap();
    clock.pass(LOOK_EVERY).unwrap();
    mirrored(&gate, "--http1.1", &sent);
    let second = id(&newest(&gate.sidecar, 2));
    assert_eq!([opens(&first, "first"), opens(&first, "other")], [true, false]);
    assert_eq!([opens(&second, "first"), opens(&second, "other")], [false, true]);
    // Also where the log is opened once more.
    fs::remove_file(gate.folder.file("requests.db")).unwrap();
    mirrored(&gate, "--http1.1", &sent);
    let third = id(&newest(&gate.sidecar, 1));
    assert_eq!([opens(&third, "first"), opens(&third, "other")], [false, true]);
    gate.sidecar.leave_unaudited();
}
