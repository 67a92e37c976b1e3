//! A gate in a control group with little memory takes as much as fits, and lives.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::process::Command;
use std::sync::Arc;

use postern_tests::control_group::ControlGroup;
use postern_tests::gate::Gate;
use postern_tests::process::built_sidecar;
use rustls::{ClientConfig, ClientConnection, StreamOwned};
use serde_json::json;
use sidecar_decide::budget;

use crate::observed::{metric, wait_metric};
use crate::pressure::stubborn;
use crate::rustls_client::client;

const MEMORY: u64 = 64 << 20;

/// File descriptors of this test beside its own connections: other tests run in the same process.
const FILES: u32 = 8192;

type Stream = StreamOwned<ClientConnection, TcpStream>;

/// Lets this process have as many open files as it takes.
fn raise_open_files() {
    let process = std::process::id().to_string();
    let raised = Command::new("prlimit").args(["--pid", &process, &format!("--nofile={FILES}:")]).status();
    assert!(raised.unwrap().success(), "{FILES} open files at once");
}

fn connect(gate: &Gate, client: &Arc<ClientConfig>) -> Stream {
    let connection = ClientConnection::new(Arc::clone(client), "localhost".try_into().unwrap()).unwrap();
    StreamOwned::new(connection, TcpStream::connect(gate.sidecar.listener("gate").unwrap()).unwrap())
}

fn send(stream: &mut Stream, path: &str) {
    stream.write_all(format!("GET {path} HTTP/1.1\r\nHost: localhost\r\n\r\n").as_bytes()).unwrap();
}

/// The first line of the next answer, and its reason if it has one.
fn answer(stream: &mut Stream) -> (String, Option<String>) {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        let mut byte = [0];
        stream.read_exact(&mut byte).unwrap();
        head.extend(byte);
    }
    let head = String::from_utf8(head).unwrap();
    let field = |name: &str| head.lines().find_map(|line| line.strip_prefix(name)).map(|value| value.trim().to_owned());
    let length: usize = field("content-length:").unwrap().parse().unwrap();
    stream.read_exact(&mut vec![0; length]).unwrap();
    (head.lines().next().unwrap().to_owned(), field("postern-reason:"))
}

#[test]
fn a_gate_takes_what_fits_its_memory_and_lives() {
    let group = match ControlGroup::with_memory(MEMORY) {
        Ok(group) => group,
        Err(error) => {
            writeln!(std::io::stderr(), "skipped: no control group can be made here: {error:#}").unwrap();
            return;
        }
    };
    raise_open_files();
    let folder = tempfile::tempdir().unwrap();
    let program = group.confine(&built_sidecar().unwrap(), folder.path()).unwrap();
    let gate = Gate::start_binary(program, |document| {
        document["settings"]["workers"] = json!(1);
        document["policy"]["routes"][0]["rules"][0]["backends"] = json!([{ "address": stubborn() }]);
    })
    .unwrap();
    let fits = budget::within(MEMORY);
    let told = gate.sidecar.wait_for("its limits", |line| line.message() == "limits").unwrap();
    assert_eq!(
        (told.text("memory_limit"), told.text("connections_why")),
        (Some("64Mi"), Some("a memory limit of 64Mi"))
    );
    let limits = ["postern_memory_limit_bytes", "postern_connections_limit", "postern_streams_limit"];
    let limits = limits.map(|series| metric(&gate.sidecar, series));
    assert_eq!(limits, [MEMORY, fits.connections.into(), fits.requests.into()]);

    let client = client(&gate, "billing");
    let mut open: Vec<_> = (0..fits.connections).map(|_| connect(&gate, &client)).collect();
    for stream in &mut open {
        send(stream, "/free");
        assert_eq!(answer(stream), ("HTTP/1.1 200 OK".to_owned(), None));
    }
    let mut above = connect(&gate, &client);
    assert!(above.conn.complete_io(&mut above.sock).is_err(), "one more is closed");
    let labels = r#"{listener="gate",reason="limit_connections",limiter="limits.maxConnections"}"#;
    wait_metric(&gate.sidecar, &format!("postern_handshakes_refused_total{labels}"), 1);

    // On top of all that as many requests as there may be, none of which is answered.
    let (busy, idle) = open.split_at_mut(usize::try_from(fits.requests).unwrap());
    for stream in &mut *busy {
        send(stream, "/stuck");
    }
    wait_metric(&gate.sidecar, "postern_streams_open", fits.requests.into());
    send(&mut idle[0], "/stuck");
    let refusal = ("HTTP/1.1 503 Service Unavailable".to_owned(), Some("limit_streams".to_owned()));
    assert_eq!(answer(&mut idle[0]), refusal);
    assert_eq!(group.killed().unwrap(), 0);
    wait_metric(&gate.sidecar, "postern_connections_open", fits.connections.into());
    drop(open);
    wait_metric(&gate.sidecar, "postern_connections_open", 0);
    gate.sidecar.has_decided(u64::from(fits.connections + 1 + fits.requests + 1)).unwrap();
}
