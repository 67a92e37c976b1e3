//! WebSockets on streams of HTTP/2 (RFC 8441): Node asks, a Go server answers over HTTP/1.1.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::process::Stdio;

use postern_tests::gate::Gate;
use postern_tests::node::{command, node};
use serde_json::{Value, json};

use crate::observed::{columns, metric, newest, rows, wait_metric};
use crate::tunnels::{change, gate, head, kinds_and_reasons, websockets};

/// What a script says that talks to listener `gate`.
fn script(gate: &Gate, script: &str) -> String {
    let finished = node(gate.folder.path(), gate.sidecar.listener("gate").unwrap(), script).unwrap();
    assert_eq!((finished.code, finished.stderr.as_str()), (Some(0), ""), "{script}");
    finished.text()
}

/// Agrees as a server of WebSockets does, and then echoes bytes until there are no more.
fn agrees(mut stream: TcpStream) {
    let (head, _) = head(&mut stream);
    let key = head.lines().find_map(|line| line.strip_prefix("sec-websocket-key: ")).unwrap();
    // Python hashes for it, so that nobody here does.
    let hash = "import sys,hashlib,base64; print(base64.b64encode(hashlib.sha1((sys.argv[1]+'258EAFA5-E914-47DA-95CA-C5AB0DC85B11').encode()).digest()).decode())";
    let accept = std::process::Command::new("python3").args(["-c", hash, key]).output().unwrap().stdout;
    let accept = String::from_utf8(accept).unwrap();
    let agreed = "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade";
    stream.write_all(format!("{agreed}\r\nSec-WebSocket-Accept: {}\r\n\r\n", accept.trim()).as_bytes()).unwrap();
    let (mut total, mut is_staying) = (0, false);
    let mut bytes = vec![0; 64 << 10];
    while let Ok(count @ 1..) = stream.read(&mut bytes) {
        if bytes[..count].starts_with(b"die") {
            return;
        }
        is_staying |= bytes[..count].starts_with(b"stay");
        total += count;
        if stream.write_all(&bytes[..count]).is_err() {
            return;
        }
    }
    // One that does not take an end for a break has to be told of the break.
    if is_staying {
        loop {
            std::thread::park();
        }
    }
    // The client may be gone, which is its business.
    let _gone = stream.write_all(format!("total {total}").as_bytes());
}

#[test]
fn websockets_pass_on_streams() {
    let (_server, gate) = websockets(|document| {
        document["policy"]["routes"][0]["rules"][0]["matches"] =
            json!([{ "path": { "type": "Exact", "value": "/chat" }, "method": "GET" }]);
    });
    let said = script(
        &gate,
        r#"
const session = connect();
await once(session, "remoteSettings");
console.log(session.remoteSettings.enableConnectProtocol);
const talk = async (letter) => {
  const stream = ask(session, { "sec-websocket-key": "dGhlaXJzIGFuZCBpZ25vcmVk" });
  const head = await answer(stream);
  for (const size of [0, 1, 125, 126, 65535, 65536, 1 << 20]) {
    const sent = Buffer.alloc(size, letter);
    stream.write(frame(1, sent));
    const [opcode, got] = await message(stream);
    if (opcode !== 1 || !got.equals(sent)) throw new Error(`${size}: ${opcode} ${got.length}`);
  }
  stream.write(frame(1, Buffer.from("close")));
  const [opcode, reason] = await message(stream);
  stream.end(frame(8, reason));
  await ended(stream);
  return [head[":status"], head["sec-websocket-protocol"], head["sec-websocket-accept"], head["upgrade"],
    opcode, reason.readUInt16BE(0)].join();
};
console.log((await Promise.all(["a", "b", "c"].map(talk))).join("\n"));
session.close();
await once(session, "close");
"#,
    );
    assert_eq!(said, format!("true\n{}", "200,chat,,,8,4001\n".repeat(3)));
    let found = rows(&gate.sidecar, 3);
    for row in &found {
        let shown = columns(row, &["kind", "verdict", "reason", "status", "method", "path", "protocol", "host"]);
        assert_eq!(shown, json!(["tunnel", "allowed", null, 200, "GET", "/chat", "HTTP/2", "localhost"]));
        assert!(row["request_bytes"].as_u64().unwrap() > 1 << 20, "{row}");
    }
    wait_metric(&gate.sidecar, "postern_tunnels_open", 0);
    gate.sidecar.has_decided(3).unwrap();
}

#[test]
fn each_direction_of_a_stream_ends_by_itself() {
    let gate = gate(agrees, |_| {});
    let said = script(
        &gate,
        r#"
const stream = ask(connect());
await answer(stream);
// More than any window on the way holds, of which nothing is read for a while.
const sent = Buffer.alloc(20 << 20, "postern ");
stream.pause();
stream.end(sent);
setTimeout(() => stream.resume(), 500);
await ended(stream);
console.log((await bytes(stream, sent.length)).equals(sent), (await rest(stream)).toString());
"#,
    );
    assert_eq!(said, format!("true total {}\n", 20 << 20));
    let row = newest(&gate.sidecar, 1);
    let shown = columns(&row, &["kind", "reason", "request_bytes", "response_bytes"]);
    assert_eq!(shown, json!(["tunnel", null, 20 << 20, (20 << 20) + "total 20971520".len()]));
    gate.sidecar.has_decided(1).unwrap();
}

#[test]
fn what_is_no_websocket_is_refused_on_a_stream() {
    let gate = Gate::start_with(|document| {
        document["policy"]["routes"][0]["rules"][0]["matches"] = json!([]);
    })
    .unwrap();
    // The last is an ordinary answer of the application's, which on a stream would look as if it agreed.
    let table = [
        (r#"{ ":protocol": "connect-udp" }"#, "501", "route_no_protocol"),
        (r#"{ ":protocol": undefined, ":path": undefined }"#, "405", "route_no_method"),
        (r#"{ ":path": "/status?code=426" }"#, "426", "undefined"),
        (r#"{ ":path": "/orders" }"#, "502", "upstream_upgrade"),
    ];
    let mut text = "const session = connect();\nawait once(session, 'remoteSettings');\n".to_owned();
    for (headers, _, _) in table {
        text += &format!(
            "let head = await answer(ask(session, {headers}));\nconsole.log(head[':status'], head['postern-reason']);\n"
        )
        .replace("let head", "var head");
    }
    let expected: String = table.iter().map(|(_, status, reason)| format!("{status} {reason}\n")).collect();
    assert_eq!(script(&gate, &text), expected);
    let found = rows(&gate.sidecar, table.len());
    let shown: Vec<_> = found.iter().map(|row| columns(row, &["kind", "reason", "status", "method"])).collect();
    let expected = [
        json!(["request", "route_no_protocol", 501, "CONNECT"]),
        json!(["request", "route_no_method", 405, "CONNECT"]),
        json!(["request", null, 426, "GET"]),
        json!(["request", "upstream_upgrade", 502, "GET"]),
    ];
    assert_eq!(shown, expected);
    gate.sidecar.has_decided(4).unwrap();
}

#[test]
fn an_upstream_that_has_not_read_the_key_is_refused() {
    let fields = ["Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n", ""];
    for field in fields {
        let gate = gate(
            move |mut stream| {
                let (_, _) = head(&mut stream);
                let agreed = "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n";
                stream.write_all(format!("{agreed}{field}\r\n").as_bytes()).unwrap();
                let _end = stream.read(&mut [0]);
            },
            |_| {},
        );
        let text = "const head = await answer(ask(connect()));\nconsole.log(head[':status'], head['postern-reason']);";
        assert_eq!(script(&gate, text), "502 upstream_upgrade\n", "{field}");
        let shown = columns(&newest(&gate.sidecar, 1), &["kind", "verdict", "reason"]);
        assert_eq!(shown, json!(["request", "allowed", "upstream_upgrade"]), "{field}");
        gate.sidecar.has_decided(1).unwrap();
    }
}

#[test]
fn what_breaks_on_a_stream_breaks_alone() {
    let gate = gate(agrees, |_| {});
    let said = script(
        &gate,
        r#"
const session = connect();
const [doomed, gone, other] = [ask(session), ask(session), ask(session)];
await Promise.all([doomed, gone, other].map(answer));
doomed.write("die");
await ended(doomed);
doomed.end();
await once(doomed, "close");
console.log("ended");
gone.write("stay");
await bytes(gone, 4);
gone.close(http2.constants.NGHTTP2_CANCEL);
await once(gone, "close");
other.write("hello");
console.log((await bytes(other, 5)).toString());
other.end();
await ended(other);
console.log((await rest(other)).toString());
"#,
    );
    assert_eq!(said, "ended\nhello\ntotal 5\n");
    let found = rows(&gate.sidecar, 3);
    let mut shown: Vec<_> = found.iter().map(|row| columns(row, &["kind", "reason"]).to_string()).collect();
    shown.sort_unstable();
    let expected = [json!(["tunnel", "client_closed"]), json!(["tunnel", null]), json!(["tunnel", null])];
    assert_eq!(shown, expected.map(|row| row.to_string()));
    gate.sidecar.has_decided(3).unwrap();
}

#[test]
fn a_stream_is_cut_alone_by_the_policy_and_with_its_connection_by_trust() {
    let (_server, mut gate) = websockets(|_| {});
    let text = r#"
const session = connect();
const [first, second] = [ask(session), ask(session, { ":path": "/other" })];
await Promise.all([first, second].map(answer));
console.log("open");
await ended(first);
console.log("first", session.closed || session.destroyed);
await ended(second);
console.log("second");
"#;
    let mut client = command(gate.folder.path(), gate.sidecar.listener("gate").unwrap(), text);
    let mut client = client.stdin(Stdio::null()).stdout(Stdio::piped()).spawn().unwrap();
    let mut lines = BufReader::new(client.stdout.take().unwrap()).lines();
    assert_eq!(lines.next().unwrap().unwrap(), "open");
    assert_eq!(metric(&gate.sidecar, "postern_tunnels_open"), 2);
    change(&mut gate, |document| {
        document["policy"]["routes"][0]["rules"][0]["matches"] =
            json!([{ "path": { "type": "Exact", "value": "/other" } }]);
    });
    assert_eq!(lines.next().unwrap().unwrap(), "first false");
    gate.document["trust"]["revocations"]["identities"] = json!([{ "name": "demo/billing", "state": "Revoked" }]);
    gate.folder.write_document(&gate.document).unwrap();
    assert_eq!(lines.next().unwrap().unwrap(), "second");
    client.wait().unwrap();
    let mut shown: Vec<_> = kinds_and_reasons(&gate, 3).iter().map(Value::to_string).collect();
    shown.sort_unstable();
    let revoked = "policy_identity_revoked";
    let expected = [
        json!(["cut", "refused", revoked, "demo/billing"]),
        json!(["tunnel", "allowed", revoked, "demo/billing"]),
        json!(["tunnel", "allowed", "route_no_path", "demo/billing"]),
    ];
    assert_eq!(shown, expected.map(|row| row.to_string()));
    gate.sidecar.has_decided(3).unwrap();
}
