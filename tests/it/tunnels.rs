//! Requests that are upgraded: what is passed on and what is refused, bytes both ways, and how a tunnel ends by itself.

use std::io::{Read, Write};
use std::net::{Shutdown, TcpStream};

use postern_tests::gate::Gate;
use postern_tests::websocket::{WebSocketServer, talk};
use serde_json::{Value, json};

use crate::listeners::{application, script};
use crate::observed::{columns, metric, newest, rows, status, wait_until};

/// What a tunnel's row says of how it went.
const HOW: [&str; 6] = ["kind", "verdict", "reason", "status", "request_bytes", "response_bytes"];

/// A request to go on with a protocol that nobody knows, and what a script needs to speak it.
pub(crate) const ASK: &str = r#"
class Tunnel(Tls):
    def __init__(self, more=b"", **options):
        super().__init__(ADDRESS, **options)
        self.send(b"GET /chat HTTP/1.1\r\nHost: localhost\r\nConnection: Upgrade\r\nUpgrade: raw/1\r\n\r\n" + more)
        self.rest = b""
        self.head = self.until(b"\r\n\r\n")

    def until(self, end):
        while end not in self.rest:
            piece = self.read()
            if not piece:
                raise EOFError(self.rest)
            self.rest += piece
        text, self.rest = self.rest.split(end, 1)
        return (text + end).decode()
"#;

/// A gate whose one rule lets `demo/billing` do everything, with this application behind it.
pub(crate) fn gate(serve: impl Fn(TcpStream) + Send + Clone + 'static, change: impl FnOnce(&mut Value)) -> Gate {
    let address = application(serve);
    Gate::start_with(|document| {
        document["policy"]["routes"][0]["rules"][0]["matches"] = json!([]);
        document["policy"]["routes"][0]["rules"][0]["backends"] = json!([{ "address": address }]);
        change(document);
    })
    .unwrap()
}

/// A head, and what came with it.
pub(crate) fn head(stream: &mut TcpStream) -> (String, Vec<u8>) {
    let mut got = Vec::new();
    let mut bytes = [0; 4096];
    loop {
        if let Some(end) = got.windows(4).position(|window| window == b"\r\n\r\n") {
            let rest = got.split_off(end + 4);
            return (String::from_utf8(got).unwrap(), rest);
        }
        match stream.read(&mut bytes).unwrap() {
            0 => return (String::new(), Vec::new()),
            count => got.extend_from_slice(&bytes[..count]),
        }
    }
}

/// Agrees to whatever protocol it is asked for, which is: its own sort of greeting, all that comes sent back, and how much
/// it was when no more comes.
pub(crate) fn agrees(mut stream: TcpStream) {
    let (head, early) = head(&mut stream);
    let protocol = head.lines().find_map(|line| line.strip_prefix("upgrade: ")).unwrap_or("nothing");
    let answer = format!("HTTP/1.1 101 Switching\r\nConnection: upgrade\r\nUpgrade: {protocol}\r\nX-Kept: 1\r\n\r\n");
    // In one piece, so that what follows HTTP comes along with its last head.
    stream.write_all(format!("{answer}{head}").as_bytes()).unwrap();
    stream.write_all(&early).unwrap();
    let mut total = early.len();
    let mut bytes = vec![0; 64 << 10];
    while let Ok(count @ 1..) = stream.read(&mut bytes) {
        total += count;
        if stream.write_all(&bytes[..count]).is_err() {
            return;
        }
    }
    // The client may be gone, which is its business.
    let _gone = stream.write_all(format!("total {total}").as_bytes());
}

#[test]
fn websockets_pass_every_kind_of_message_both_ways() {
    let server = WebSocketServer::start().unwrap();
    let gate = Gate::start_with(|document| {
        document["policy"]["routes"][0]["rules"][0]["matches"] =
            json!([{ "path": { "type": "Exact", "value": "/chat" }, "method": "GET" }]);
        document["policy"]["routes"][0]["rules"][0]["backends"] = json!([{ "address": server.address() }]);
    })
    .unwrap();
    let address = gate.sidecar.listener("gate").unwrap();
    let talked = talk(gate.folder.path(), "talk", address, "billing").unwrap();
    assert_eq!((talked.code, talked.text().as_str()), (Some(0), "4001 chat\n4001 chat\n"), "{}", talked.stderr);
    let refused = talk(gate.folder.path(), "talk", address, "reports").unwrap();
    assert_eq!((refused.code, refused.stderr.as_str()), (Some(1), "status 403 policy_not_allowed\n"));
    let found = rows(&gate.sidecar, 3);
    let shown = |row| columns(row, &["kind", "verdict", "reason", "status", "method", "path", "protocol", "attempts"]);
    let tunnel = json!(["tunnel", "allowed", null, 101, "GET", "/chat", "HTTP/1.1", 1]);
    let request = json!(["request", "refused", "policy_not_allowed", 403, "GET", "/chat", "HTTP/1.1", 0]);
    assert_eq!(found.iter().map(shown).collect::<Vec<_>>(), [tunnel.clone(), tunnel, request]);
    // All messages without compression, and as many there and back as it takes to fill what is in between.
    let bytes = |column: &str| found[0][column].as_u64().unwrap();
    assert!(bytes("request_bytes") > 8 << 20 && bytes("response_bytes") > 8 << 20, "{}", found[0]);
    assert!(found[1]["request_bytes"].as_u64().unwrap() < 1 << 20, "compressed: {}", found[1]);
    let labels = r#"listener="gate",route="demo/orders",rule="all""#;
    let counted = |name: &str, rest: &str| metric(&gate.sidecar, &format!("{name}{{{labels},{rest}}}"));
    assert_eq!(counted("postern_tunnels_total", r#"verdict="allowed",reason="""#), 2);
    let refused = r#"verdict="refused",reason="policy_not_allowed""#;
    assert_eq!(counted("postern_requests_total", refused), 1);
    assert_eq!(counted("postern_requests_total", r#"verdict="allowed",reason="""#), 0);
    gate.sidecar.has_decided(3).unwrap();
}

#[test]
fn any_protocol_passes_with_what_comes_early() {
    let gate = gate(agrees, |document| {
        let mut open = document["policy"]["listeners"][0].clone();
        (open["name"], open["protocol"]) = (json!("open"), json!("HTTP"));
        open.as_object_mut().unwrap().remove("tls");
        document["policy"]["listeners"].as_array_mut().unwrap().push(open);
        let mut route = document["policy"]["routes"][0].clone();
        (route["name"], route["listener"]) = (json!("demo/open"), json!("open"));
        route["rules"][0]["allow"] = json!([{ "anyone": {} }]);
        document["policy"]["routes"].as_array_mut().unwrap().push(route);
        document["version"] = json!("1.2");
    });
    let open = gate.sidecar.listener("open").unwrap().port();
    let text = r#"
class Plain:
    def __init__(self, address):
        self.raw = socket.create_connection(address, timeout=30)
        self.send, self.read, self.end = self.raw.sendall, lambda: self.raw.recv(65536), lambda: self.raw.shutdown(1)
    read_all = Tls.read_all
    until = Tunnel.until

for make in (lambda: Tls(ADDRESS), lambda: Plain(("127.0.0.1", OPEN))):
    client = make()
    client.rest, client.until = b"", Tunnel.until.__get__(client)
    client.send(b"GET /chat?a=b HTTP/1.1\r\nHost: localhost\r\nConnection: keep-alive, Upgrade, x-own\r\n"
        b"X-Own: 1\r\nX-Kept: 1\r\nUpgrade: Raw/1\r\n\r\nearly ")
    print(*sorted(line for line in client.until(b"\r\n\r\n").strip().split("\r\n") if "date" not in line), sep="\n")
    seen = client.until(b"\r\n\r\n").strip().split("\r\n")
    print(*sorted(line for line in seen if "x-f" not in line and "x-r" not in line), sep="\n")
    client.send(b"late")
    print(client.until(b"late"))
    client.end()
    print((client.rest + client.read_all()).decode())
"#;
    let said = script(&gate, &format!("{ASK}\nOPEN = {open}\n{text}"));
    let once = "HTTP/1.1 101 Switching Protocols\nconnection: upgrade\nupgrade: Raw/1\nx-kept: 1\n\
                GET /chat?a=b HTTP/1.1\nconnection: upgrade\nhost: localhost\nupgrade: Raw/1\nx-kept: 1\n\
                early late\ntotal 10\n";
    assert_eq!(said, format!("{once}{once}"));
    let found = rows(&gate.sidecar, 2);
    for (row, listener) in found.iter().zip(["gate", "open"]) {
        assert_eq!(columns(row, &HOW[..5]), json!(["tunnel", "allowed", null, 101, 10]), "{listener}");
        // The head it was shown, what it sent back, and how much that was.
        assert!(row["response_bytes"].as_u64().unwrap() > 10 + 8, "{row}");
        assert_eq!(columns(row, &["listener", "host", "path"]), json!([listener, "localhost", "/chat"]));
    }
    gate.sidecar.has_decided(2).unwrap();
}

#[test]
fn a_switch_that_nobody_asked_for_is_refused() {
    let table = [
        (false, "Connection: upgrade\r\nUpgrade: raw/1\r\n"),
        (false, ""),
        (true, "Connection: upgrade\r\nUpgrade: other\r\n"),
        (true, "Connection: upgrade\r\nUpgrade: raw/1, other\r\n"),
        (true, "Connection: upgrade\r\nUpgrade: raw/1\r\nUpgrade: other\r\n"),
        (true, "Connection: upgrade\r\n"),
        (true, "Upgrade: raw/1\r\n"),
        (true, "Connection: upgrade\r\nUpgrade: raw/1\r\nContent-Length: 2\r\n"),
        (true, ""),
    ];
    for (is_asked, fields) in table {
        let gate = gate(
            move |mut stream| {
                let (_, _) = head(&mut stream);
                let answer = format!("HTTP/1.1 101 Switching Protocols\r\n{fields}\r\nGET / HTTP/1.1");
                stream.write_all(answer.as_bytes()).unwrap();
                // Whoever refuses the answer has no use for the connection.
                let mut rest = Vec::new();
                let _reset = stream.read_to_end(&mut rest);
                assert_eq!(rest, b"", "{fields}");
            },
            |_| {},
        );
        let mut curl = gate.curl(Some("billing"), "/chat").unwrap().arg("--http1.1");
        if is_asked {
            curl = curl.arg("-H").arg("Connection: Upgrade").arg("-H").arg("Upgrade: raw/1");
        }
        let answer = curl.call().unwrap();
        let reason = answer.header("postern-reason");
        assert_eq!((answer.status, reason), (Some(502), Some("upstream_upgrade")), "{is_asked} {fields}");
        let row = newest(&gate.sidecar, 1);
        let shown = columns(&row, &["kind", "verdict", "reason", "status"]);
        assert_eq!(shown, json!(["request", "allowed", "upstream_upgrade", 502]), "{is_asked} {fields}");
        gate.sidecar.has_decided(1).unwrap();
    }
}

#[test]
fn what_is_not_passed_on_is_an_ordinary_request() {
    let gate = Gate::start_with(|document| document["policy"]["routes"][0]["rules"][0]["matches"] = json!([])).unwrap();
    let table: [(&[&str], Option<&str>); 9] = [
        (&["Connection: Upgrade", "Upgrade: websocket"], Some("websocket")),
        (&["Connection: Upgrade, HTTP2-Settings", "Upgrade: h2c", "HTTP2-Settings: AAMAAABk"], None),
        (&["Connection: Upgrade", "Upgrade: TLS/1.2"], None),
        (&["Connection: Upgrade", "Upgrade: HTTP/3.0"], None),
        (&["Connection: Upgrade", "Upgrade: websocket, h2c"], None),
        (&["Connection: Upgrade", "Upgrade: websocket", "Upgrade: h2c"], None),
        (&["Upgrade: websocket"], None),
        (&["Connection: Upgrade", "Upgrade: websocket", "Transfer-Encoding: chunked"], None),
        (&["Connection: keep-alive", "Upgrade: websocket"], None),
    ];
    for (fields, passed) in table {
        let has_body = fields.iter().any(|field| field.starts_with("Transfer-Encoding"));
        // Twice in one invocation: the connection goes on.
        let curl = gate.curl(Some("billing"), "/chat/[1-2]").unwrap().arg("--http1.1");
        let curl = fields.iter().fold(curl, |curl, field| curl.arg("-H").arg(*field));
        let curl = if has_body { curl.arg("--data").arg("hello") } else { curl };
        let curl = curl.arg("--no-include").arg("-w").arg("\\n%{http_code} %{num_connects}\\n");
        let text = curl.call().unwrap().text();
        let lines: Vec<_> = text.lines().collect();
        assert_eq!([lines[1], lines[3]], ["200 1", "200 0"], "{fields:?}: {text}");
        for echo in [lines[0], lines[2]] {
            let echo: Value = serde_json::from_str(echo).unwrap();
            let names = ["connection", "upgrade", "http2-settings"];
            let seen = |name: &str| {
                let headers = echo["headers"].as_array().unwrap();
                headers.iter().filter(|pair| pair[0] == name).map(|pair| pair[1].as_str().unwrap()).next()
            };
            let expected = [passed.map(|_| "upgrade"), passed, None];
            assert_eq!(names.map(seen), expected, "{fields:?}: {echo}");
        }
    }
    let found = rows(&gate.sidecar, 2 * table.len());
    assert!(found.iter().all(|row| columns(row, &["kind", "reason", "status"]) == json!(["request", null, 200])));
    // A connection on which an upgrade was asked for in vain is closed like any other, at TLS' own end.
    let text = r#"
client = Tls(ADDRESS)
client.send(b"GET /chat HTTP/1.1\r\nHost: localhost\r\nConnection: Upgrade, close\r\nUpgrade: raw/1\r\n\r\n")
print(client.read_all().split(b"\r\n")[0])
"#;
    assert_eq!(script(&gate, text), "b'HTTP/1.1 200 OK'\n");
    gate.sidecar.has_decided(19).unwrap();
}

#[test]
fn what_ends_at_one_end_ends_at_the_other() {
    let dies = |mut stream: TcpStream| {
        agrees_to(&mut stream);
        // The kernel resets what is closed with bytes unread.
        stream.peek(&mut [0]).unwrap();
    };
    let leaves = |mut stream: TcpStream| {
        agrees_to(&mut stream);
        stream.write_all(b"bye").unwrap();
        stream.shutdown(Shutdown::Write).unwrap();
        let mut rest = Vec::new();
        let _end = stream.read_to_end(&mut rest);
    };
    type Serve = fn(TcpStream);
    let table: [(&str, Serve, &str, &str, Value); 4] = [
        (
            "the application dies",
            dies,
            "client.send(b'x')\nprint(how_it_ends(client.read_all))",
            "reset",
            json!(["upstream_reset", 1, 0]),
        ),
        (
            "the application ends first",
            leaves,
            "print((client.rest + client.read_all()).decode())\nclient.end()",
            "bye",
            json!([null, 0, 3]),
        ),
        (
            "the client vanishes",
            agrees,
            "client.raw.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b'\\1\\0\\0\\0\\0\\0\\0\\0')\nclient.raw.close()\nprint('gone')",
            "gone",
            json!(["client_closed", 0]),
        ),
        (
            "the client leaves without a word",
            leaves,
            "client.raw.close()\nprint('gone')",
            "gone",
            json!(["client_closed", 0]),
        ),
    ];
    for (case, serve, text, said, expected) in table {
        let gate = gate(serve, |_| {});
        assert_eq!(script(&gate, &format!("{ASK}\nclient = Tunnel()\n{text}\n")), format!("{said}\n"), "{case}");
        let row = newest(&gate.sidecar, 1);
        let shown = ["reason", "request_bytes", "response_bytes"];
        assert_eq!(columns(&row, &shown[..expected.as_array().unwrap().len()]), expected, "{case}");
        assert_eq!(columns(&row, &["kind", "status"]), json!(["tunnel", 101]), "{case}");
        gate.sidecar.has_decided(1).unwrap();
    }
}

fn agrees_to(stream: &mut TcpStream) {
    let (_, _) = head(stream);
    stream.write_all(b"HTTP/1.1 101 Switching\r\nConnection: upgrade\r\nUpgrade: raw/1\r\n\r\n").unwrap();
}

pub(crate) fn websockets(change: impl FnOnce(&mut Value)) -> (WebSocketServer, Gate) {
    let server = WebSocketServer::start().unwrap();
    let gate = Gate::start_with(|document| {
        document["policy"]["routes"][0]["rules"][0]["matches"] = json!([]);
        document["policy"]["routes"][0]["rules"][0]["allow"] =
            json!([{ "identity": "demo/billing" }, { "identity": "demo/reports" }]);
        document["policy"]["routes"][0]["rules"][0]["backends"] = json!([{ "address": server.address() }]);
        change(document);
    })
    .unwrap();
    (server, gate)
}

pub(crate) fn kinds_and_reasons(gate: &Gate, count: usize) -> Vec<Value> {
    rows(&gate.sidecar, count).iter().map(|row| columns(row, &["kind", "verdict", "reason", "identity"])).collect()
}

/// Changes the policy, and waits until it is in use.
pub(crate) fn change(gate: &mut Gate, edit: impl FnOnce(&mut Value)) {
    let before = status(&gate.sidecar).parts.policy.loaded;
    edit(&mut gate.document);
    gate.folder.write_document(&gate.document).unwrap();
    wait_until("another policy", || status(&gate.sidecar).parts.policy.loaded != before);
}
