//! The admin socket: its owner's only, of one process, without a key in any answer, and the drain it begins.

use std::fs;
use std::os::unix::fs::{FileTypeExt, PermissionsExt};
use std::os::unix::net::UnixStream;
use std::process::Command;
use std::thread;

use postern_tests::clients::{Answer, Curl, Finished, run};
use postern_tests::config::known;
use postern_tests::gate::Gate;
use postern_tests::process::{Launch, Sidecar, built_sidecar};
use postern_tests::wait::PATIENCE;
use serde_json::{Value, json};

use crate::observed::{metric, page, rows, status, wait_metric, wait_until};

const SOCKET: &str = "admin.sock";

fn with_socket(document: &mut Value) {
    document["version"] = json!("1.3");
    document["settings"]["admin"] = json!({ "socket": SOCKET });
}

fn start() -> Gate {
    Gate::start_with(with_socket).unwrap()
}

/// A call with curl over the socket.
fn ask(gate: &Gate, path: &str) -> Curl {
    let socket = gate.folder.file(SOCKET).display().to_string();
    Curl::new(format!("http://localhost{path}")).arg("--unix-socket").arg(socket)
}

fn get(gate: &Gate, path: &str) -> Answer {
    ask(gate, path).call().unwrap()
}

/// A command that is to succeed, as a person would give it: it finds the socket in the configuration.
fn command(gate: &Gate, name: &str, arguments: &[&str]) -> String {
    let finished = gate.sidecar.launch().subcommand(name, arguments).unwrap();
    assert_eq!((finished.code, finished.stderr.as_str()), (Some(0), ""), "{name} {arguments:?}");
    finished.text()
}

fn mode(gate: &Gate, name: &str) -> u32 {
    fs::metadata(gate.folder.file(name)).unwrap().permissions().mode() & 0o777
}

#[test]
fn the_socket_is_its_owners_only_and_goes_with_the_process() {
    let mut gate = start();
    assert!(fs::metadata(gate.folder.file(SOCKET)).unwrap().file_type().is_socket());
    assert_eq!((mode(&gate, SOCKET), mode(&gate, "admin.sock.lock")), (0o600, 0o600));
    assert_eq!(get(&gate, "/readyz").status, Some(200));
    assert_eq!(get(&gate, "/status").json().unwrap(), serde_json::to_value(status(&gate.sidecar)).unwrap());
    let help = "try /status /upstreams /identities /config /drain /livez /readyz /startupz /metrics\n";
    let unknown = get(&gate, "/");
    assert_eq!((unknown.status, unknown.text().as_str()), (Some(404), help));
    assert_eq!(ask(&gate, "/config").arg("-XPOST").call().unwrap().status, Some(405));
    // What is the owner's is not told on the port.
    for path in ["/upstreams", "/identities", "/config", "/drain"] {
        assert_eq!(page(&gate.sidecar, path).status, Some(404), "{path}");
    }
    gate.sidecar.terminate().unwrap();
    assert_eq!(gate.sidecar.wait_exit().unwrap().code(), Some(0));
    assert!(fs::symlink_metadata(gate.folder.file(SOCKET)).is_err(), "the file is gone");
}

#[test]
fn a_socket_that_was_left_behind_is_taken_over() {
    let mut gate = start();
    gate.sidecar.kill().unwrap();
    assert!(fs::symlink_metadata(gate.folder.file(SOCKET)).is_ok(), "a kill leaves it");
    gate.sidecar = gate.sidecar.launch().start_ready().unwrap();
    assert_eq!(get(&gate, "/readyz").status, Some(200));
}

/// The error a start ends with.
fn refused(mut sidecar: Sidecar) -> String {
    assert_eq!(sidecar.wait_exit().unwrap().code(), Some(1));
    sidecar.lines().pop().unwrap().message().to_owned()
}

#[test]
fn a_socket_in_use_is_not_taken_and_nothing_else_is_removed() {
    let gate = start();
    let socket = gate.folder.file(SOCKET);
    let taken = gate.sidecar.launch().clone().variable("POSTERN__LOG__PATH", "other.db").start().unwrap();
    let error = |why: &str| format!("postern-sidecar: cannot serve the admin socket {}: {why}", socket.display());
    assert_eq!(refused(taken), error("another process serves it; give each its own"));
    assert_eq!(get(&gate, "/readyz").status, Some(200), "the first is not disturbed");
    let mut gate = gate;
    gate.sidecar.terminate().unwrap();
    gate.sidecar.wait_exit().unwrap();
    fs::write(&socket, "mine").unwrap();
    let error = error("it is there and is no socket; remove it, or name another file");
    assert_eq!(refused(gate.sidecar.launch().start().unwrap()), error);
    assert_eq!(fs::read_to_string(&socket).unwrap(), "mine");
}

#[test]
fn no_answer_has_a_key() {
    let gate = start();
    gate.curl(Some("billing"), "/orders").unwrap().call().unwrap();
    let mut told = Vec::new();
    for path in ["/status", "/upstreams", "/identities", "/config", "/metrics", "/drain"] {
        let answer = get(&gate, path);
        assert_eq!(answer.status, Some(200), "{path}");
        told.push((path.to_owned(), answer.text()));
    }
    for name in ["upstreams", "identities", "config"] {
        told.push((name.to_owned(), command(&gate, name, &["--output", "json"])));
    }
    let key = fs::read_to_string(gate.folder.file("server.key")).unwrap();
    let lines: Vec<_> = key.lines().filter(|line| !line.starts_with("-----")).collect();
    assert!(lines.len() >= 2, "a key has lines");
    for (what, text) in &told {
        assert!(!text.contains("PRIVATE KEY"), "{what}");
        assert!(!lines.iter().any(|line| text.contains(line)), "{what} has a line of the key");
    }
    let config = get(&gate, "/config").json().unwrap();
    let key = &config["identity"]["certificates"][0]["key"];
    assert_eq!(key, &json!({ "file": "server.key", "content": "[redacted]" }));
    assert_eq!(config["policy"]["routes"][0]["name"], json!("demo/orders"));
    assert_eq!(config["settings"]["admin"]["socket"], json!(SOCKET));
    assert_eq!(config["revisions"]["policy"], json!(status(&gate.sidecar).parts.policy.loaded));
    assert_eq!(config["trust"]["revocations"]["identities"][0]["name"], json!("demo/mallory"));
}

#[test]
fn upstreams_tells_every_endpoint_as_it_is_now() {
    let gate = Gate::start_with(|document| {
        with_socket(document);
        document["endpoints"] = json!([{ "name": "nobody", "addresses": [] }]);
        let rule = |name: &str, set: &str| {
            let path = json!({ "type": "Exact", "value": format!("/{name}") });
            json!({
                "name": name,
                "matches": [{ "path": path }],
                "allow": [{ "identity": "demo/billing" }],
                "backends": [{ "endpoints": set }],
            })
        };
        let rules = document["policy"]["routes"][0]["rules"].as_array_mut().unwrap();
        rules.extend([rule("empty", "nobody"), rule("missing", "absent")]);
    })
    .unwrap();
    let curl = gate.curl(Some("billing"), "/slow?ms=3000").unwrap();
    let slow = thread::spawn(move || curl.call().unwrap());
    wait_until("the slow request", || gate.upstream.requests() > 0);
    let address = gate.upstream.address().to_string();
    let endpoint = json!({
        "address": address, "condition": "usable", "connections": 1, "maxConnections": 1024, "inFlight": 1,
        "pending": 0, "maxPending": 1024, "routes": ["demo/orders"], "moreRoutes": 0,
    });
    let told = get(&gate, "/upstreams").json().unwrap();
    assert_eq!(told["endpoints"], json!([endpoint]));
    assert_eq!(told["withoutEndpoint"], json!(["demo/orders empty"]));
    assert_eq!(told["invalid"], json!(["demo/orders missing"]));
    let printed = command(&gate, "upstreams", &[]);
    let lines: Vec<Vec<_>> = printed.lines().map(|line| line.split_whitespace().collect()).collect();
    assert_eq!(lines[1], [&address, "usable", "1/1024", "1", "0/1024", "-", "demo/orders"]);
    assert_eq!(lines[2].join(" "), "no endpoint: demo/orders empty");
    assert_eq!(lines[3].join(" "), "names endpoints that do not exist: demo/orders missing");
    assert_eq!(slow.join().unwrap().status, Some(200));
    wait_until("nothing in flight", || {
        get(&gate, "/upstreams").json().unwrap()["endpoints"][0]["inFlight"] == json!(0)
    });
}

#[test]
fn identities_come_page_by_page_and_by_name() {
    const MANY: usize = 2500;
    let gate = Gate::start_with(|document| {
        with_socket(document);
        let identities = document["identities"].as_array_mut().unwrap();
        identities.extend((0..MANY).map(|number| known(&format!("device-{number}"))));
    })
    .unwrap();
    let first = get(&gate, "/identities").json().unwrap();
    assert_eq!(first["known"], json!(MANY + 3));
    assert_eq!(first["identities"].as_array().unwrap().len(), 1000);
    assert_eq!(first["next"], json!(1000));
    let mallory = json!({ "name": "demo/mallory", "state": "Revoked", "recognisers": 1 });
    assert_eq!(first["identities"][2], mallory);
    let printed = command(&gate, "identities", &["--output", "json"]);
    let names: Vec<_> =
        printed.lines().map(|line| serde_json::from_str::<Value>(line).unwrap()["name"].clone()).collect();
    assert_eq!(names.len(), MANY + 3);
    assert_eq!(names.last().unwrap(), &json!(format!("demo/device-{}", MANY - 1)));
    let printed = command(&gate, "identities", &[]);
    assert_eq!(printed.lines().count(), MANY + 4);
    let printed = command(&gate, "identities", &["--name", "o/mallory"]);
    let lines: Vec<Vec<_>> = printed.lines().map(|line| line.split_whitespace().collect()).collect();
    assert_eq!(lines[0].join(" "), "identity state recognisers issued after");
    assert_eq!(lines[1..], [["demo/mallory", "Revoked", "1", "-"]]);
    assert_eq!(get(&gate, "/identities?limit=9").status, Some(400));
}

#[test]
fn a_large_configuration_is_told_whole() {
    const ROUTES: usize = 2000;
    let gate = Gate::start_with(|document| {
        with_socket(document);
        let rule = document["policy"]["routes"][0]["rules"][0].clone();
        let routes = (0..ROUTES).map(|number| {
            let name = format!("demo/route-{number}");
            json!({ "name": name, "listener": "gate", "hostnames": [format!("{number}.test")], "rules": [rule] })
        });
        document["policy"]["routes"] = routes.collect();
    })
    .unwrap();
    let printed: Value = serde_json::from_str(&command(&gate, "config", &[])).unwrap();
    assert_eq!(printed["policy"]["routes"].as_array().unwrap().len(), ROUTES);
    let told = get(&gate, "/upstreams").json().unwrap();
    assert_eq!(
        (&told["endpoints"][0]["moreRoutes"], told["endpoints"].as_array().unwrap().len()),
        (&json!(ROUTES - 8), 1)
    );
}

#[test]
fn a_drain_lets_all_that_is_under_way_finish_and_the_process_live() {
    const REQUESTS: u64 = 8;
    let mut gate = start();
    let calls = (0..REQUESTS).map(|number| {
        let flag = if number % 2 == 0 { "--http1.1" } else { "--http2" };
        let curl = gate.curl(Some("billing"), "/slow?ms=1500").unwrap().arg(flag);
        thread::spawn(move || curl.call().unwrap())
    });
    let calls: Vec<_> = calls.collect();
    wait_until("all requests", || gate.upstream.requests() == REQUESTS);
    let printed = command(&gate, "drain", &[]);
    assert_eq!(metric(&gate.sidecar, "postern_connections_open"), 0, "it returns when the last one has ended");
    let lines: Vec<_> = printed.lines().collect();
    assert_eq!(lines[0], format!("draining: {REQUESTS} connections open"));
    assert!(lines[1].starts_with("drained after "), "{printed}");
    for call in calls {
        let answer = call.join().unwrap();
        assert_eq!((answer.exit_code, answer.status), (Some(0), Some(200)), "{answer:?}");
    }
    // It has ended for clients, and tells so to everybody else until it is told to stop.
    assert_eq!(page(&gate.sidecar, "/readyz").text(), "not ready: draining\n");
    assert_eq!(page(&gate.sidecar, "/livez").status, Some(200));
    assert_eq!(gate.curl(Some("billing"), "/orders").unwrap().call().unwrap().exit_code, Some(7));
    let state = json!({ "draining": true, "drained": true, "connections": 0 });
    assert_eq!(get(&gate, "/drain").json().unwrap(), state);
    assert_eq!(ask(&gate, "/drain").arg("-XPOST").call().unwrap().json().unwrap(), state, "once more changes nothing");
    gate.sidecar.terminate().unwrap();
    assert_eq!(gate.sidecar.wait_exit().unwrap().code(), Some(0));
    gate.sidecar = gate.sidecar.launch().start_ready().unwrap();
    let found = rows(&gate.sidecar, 8);
    assert!(found.iter().all(|row| row["kind"] == json!("request") && row["status"] == json!(200)), "{found:?}");
    assert_eq!(gate.curl(Some("billing"), "/orders").unwrap().call().unwrap().status, Some(200), "a start undoes it");
}

#[test]
fn a_stop_during_a_drain_is_the_same_drain() {
    let mut gate = start();
    let curl = gate.curl(Some("billing"), "/slow?ms=4000").unwrap();
    let slow = thread::spawn(move || curl.call().unwrap());
    wait_until("the slow request", || gate.upstream.requests() == 1);
    assert_eq!(command(&gate, "drain", &["--no-wait"]), "draining: 1 connections open\n");
    let launch = gate.sidecar.launch().clone();
    let waiting = thread::spawn(move || launch.subcommand("drain", &[]).unwrap());
    gate.sidecar.terminate().unwrap();
    assert_eq!(slow.join().unwrap().status, Some(200));
    assert_eq!(gate.sidecar.wait_exit().unwrap().code(), Some(0));
    let waited = waiting.join().unwrap();
    assert_eq!((waited.code, waited.stderr.as_str()), (Some(0), ""), "{}", waited.text());
}

#[test]
fn clients_that_say_nothing_keep_nobody_out_for_long() {
    let gate = start();
    let silent: Vec<_> = (0..8).map(|_| UnixStream::connect(gate.folder.file(SOCKET)).unwrap()).collect();
    // The port has connections of its own.
    assert_eq!(page(&gate.sidecar, "/readyz").status, Some(200));
    let answer = ask(&gate, "/readyz").arg("--max-time").arg("30").call().unwrap();
    assert_eq!(answer.status, Some(200));
    let cut = r#"postern_admin_connections_cut_total{listener="admin_socket"}"#;
    wait_metric(&gate.sidecar, cut, 8);
    drop(silent);
}

/// The binary alone.
fn sidecar(arguments: &[&str]) -> Finished {
    let mut command = Command::new(built_sidecar().unwrap());
    run(command.env_remove("POSTERN__ADMIN__SOCKET").args(arguments), b"", PATIENCE).unwrap()
}

#[test]
fn where_nobody_listens_a_command_says_so() {
    let gate = Gate::start().unwrap();
    let absent = gate.folder.file("absent.sock").display().to_string();
    let text = gate.folder.file("server.pem").display().to_string();
    let config = gate.folder.path().display().to_string();
    let nobody = "there is no such socket; is the sidecar running, with this as settings.admin.socket?";
    let table = [
        (vec!["drain", "--socket", &absent], format!("asking {absent}: {nobody}")),
        (vec!["status", "--socket", &absent], format!("asking {absent}: {nobody}")),
        (vec!["config", "--socket", &text], format!("asking {text}: nobody listens; is the sidecar running?")),
        (
            vec!["upstreams", "--config", &config],
            "there is no admin socket: set settings.admin.socket, or name one with --socket".to_owned(),
        ),
    ];
    for (arguments, error) in table {
        let finished = sidecar(&arguments);
        let expected = (Some(1), "".to_owned(), format!("postern-sidecar: {error}\n"));
        assert_eq!((finished.code, finished.text(), finished.stderr), expected, "{arguments:?}");
    }
}

#[test]
fn status_is_the_same_over_both() {
    let gate = start();
    let address = gate.sidecar.status_address().unwrap().to_string();
    let socket = gate.folder.file(SOCKET).display().to_string();
    for output in [&[][..], &["--output", "json"]] {
        let over = |flags: [&str; 2]| sidecar(&[&["status"], &flags[..], output].concat()).text();
        let printed = over(["--socket", &socket]);
        assert_eq!(printed, over(["--address", &address]));
        assert!(printed.contains(&status(&gate.sidecar).parts.policy.loaded), "{printed}");
    }
}

#[test]
fn a_variable_names_the_socket() {
    let gate = Gate::start().unwrap();
    let socket = gate.folder.file("by-variable.sock").display().to_string();
    let log = gate.folder.file("other.db").display().to_string();
    let launch = Launch::new(gate.folder.path()).unwrap().variable("POSTERN__ADMIN__SOCKET", &socket);
    let second = launch.variable("POSTERN__LOG__PATH", &log).start_ready().unwrap();
    let printed = second.launch().subcommand("upstreams", &[]).unwrap();
    assert_eq!((printed.code, printed.stderr.as_str()), (Some(0), ""));
}
