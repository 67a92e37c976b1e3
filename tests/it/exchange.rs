//! What crosses the gate and what does not: headers, and exchanges that break, on the client's side or the upstream's.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc;
use std::thread::{self, JoinHandle};

use postern_tests::gate::Gate;
use postern_tests::wait::PATIENCE;
use serde_json::{Value, json};

use crate::listeners::{application, script};
use crate::observed::{columns, newest, rows, wait_until};

const PROTOCOLS: [(&str, &str); 2] = [("--http1.1", "HTTP/1.1"), ("--http2", "HTTP/2")];

/// A gate whose one rule lets `demo/billing` do everything.
fn open_gate() -> Gate {
    Gate::start_with(|document| document["policy"]["routes"][0]["rules"][0]["matches"] = json!([])).unwrap()
}

/// What curl and the gate add to every request.
const ALWAYS: [&str; 6] =
    ["accept", "user-agent", "x-forwarded-for", "x-forwarded-host", "x-forwarded-proto", "x-request-id"];

/// The headers the upstream saw, without those that curl and the gate add by themselves, sorted.
fn headers_seen(echo: &Value) -> Vec<(String, String)> {
    let pairs = echo["headers"].as_array().unwrap().iter();
    let pairs = pairs.map(|pair| (pair[0].as_str().unwrap().to_owned(), pair[1].as_str().unwrap().to_owned()));
    let mut seen: Vec<_> = pairs.filter(|(name, _)| !ALWAYS.contains(&name.as_str())).collect();
    seen.sort_unstable();
    seen
}

#[test]
fn headers_of_one_connection_stay_on_it() {
    let gate = open_gate();
    let host = format!("localhost:{}", gate.sidecar.listener("gate").unwrap().port());
    /// curl's flag, what is sent, and what of it the upstream sees.
    type Row = (&'static str, &'static [&'static str], &'static [(&'static str, &'static str)]);
    let table: [Row; 10] = [
        ("--http1.1", &["X-Kept: 1"], &[("x-kept", "1")]),
        ("--http1.1", &["Connection: x-named, keep-alive", "X-Named: 1", "X-Kept: 1"], &[("x-kept", "1")]),
        ("--http1.1", &["Keep-Alive: timeout=5", "Proxy-Connection: keep-alive", "Upgrade: websocket"], &[]),
        ("--http1.1", &["TE: gzip"], &[]),
        ("--http1.1", &["TE: gzip, trailers"], &[("te", "trailers")]),
        // What says whom a request is for is no client's to take away.
        ("--http1.1", &["Connection: host"], &[]),
        ("--http1.1", &["Cookie: a=1", "Cookie: b=2"], &[("cookie", "a=1; b=2")]),
        ("--http2", &["X-Kept: 1", "TE: trailers"], &[("te", "trailers"), ("x-kept", "1")]),
        ("--http2", &["Cookie: a=1", "Cookie: b=2", "Cookie: c=3"], &[("cookie", "a=1; b=2; c=3")]),
        ("--http2", &["Cookie: a=1"], &[("cookie", "a=1")]),
    ];
    for (flag, sent, kept) in table {
        let curl = gate.curl(Some("billing"), "/orders").unwrap().arg(flag);
        let curl = sent.iter().fold(curl, |curl, header| curl.arg("-H").arg(*header));
        let answer = curl.call().unwrap();
        let mut expected = vec![("host".to_owned(), host.clone())];
        expected.extend(kept.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())));
        expected.sort_unstable();
        assert_eq!(answer.status, Some(200), "{flag} {sent:?}: {answer:?}");
        assert_eq!(headers_seen(&answer.json().unwrap()), expected, "{flag} {sent:?}");
    }
}

#[test]
fn the_upstream_sees_the_host_the_client_asked_for() {
    let gate = open_gate();
    for (flag, protocol) in PROTOCOLS {
        for host in ["localhost", "LOCALHOST:1234", "localhost."] {
            let curl = gate.curl(Some("billing"), "/orders").unwrap().arg(flag).arg("-H").arg(format!("Host: {host}"));
            let echo = curl.call().unwrap().json().unwrap();
            assert_eq!(headers_seen(&echo), [("host".to_owned(), host.to_owned())], "{host} {protocol}");
        }
    }
}

/// Answers the first connection with these bytes, whatever it asks, and closes it.
fn answers_once(answer: &'static [u8]) -> (SocketAddr, JoinHandle<()>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let answering = thread::spawn(move || {
        let (mut stream, _) = listener.accept().unwrap();
        let mut request = Vec::new();
        while !request.ends_with(b"\r\n\r\n") {
            let mut byte = [0];
            stream.read_exact(&mut byte).unwrap();
            request.extend(byte);
        }
        stream.write_all(answer).unwrap();
    });
    (address, answering)
}

#[test]
fn answers_of_a_strange_upstream() {
    const HOP: &[u8] = b"HTTP/1.1 200 OK\r\nConnection: x-named, close\r\nX-Named: 1\r\nKeep-Alive: timeout=5\r\n\
                         Postern-Reason: policy_not_allowed\r\nX-Kept: 1\r\nContent-Length: 2\r\n\r\nok";
    const SHORT: &[u8] = b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nonly";
    const CHUNK: &[u8] = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nonly\r\n";
    const UNTIL_CLOSE: &[u8] = b"HTTP/1.1 200 OK\r\n\r\nok";
    let lost = "{\"reason\":\"upstream_reset\"}\n";
    // Status and body; whether curl has a complete answer; reason and bytes in the row.
    let reset = json!("upstream_reset");
    type Row = (&'static str, &'static [u8], (u16, &'static str), bool, (Value, u64));
    let table: [Row; 6] = [
        ("headers of its own connection", HOP, (200, "ok"), true, (Value::Null, 2)),
        ("a body until it closes", UNTIL_CLOSE, (200, "ok"), true, (Value::Null, 2)),
        ("a body that is cut short", SHORT, (200, "only"), false, (reset.clone(), 4)),
        ("a chunked body that is cut short", CHUNK, (200, "only"), false, (reset.clone(), 4)),
        ("no HTTP", b"SSH-2.0-OpenSSH\r\n\r\n", (502, lost), true, (reset.clone(), 28)),
        ("nothing", b"", (502, lost), true, (reset, 28)),
    ];
    for (flag, protocol) in PROTOCOLS {
        for (case, bytes, (status, body), is_complete, (reason, response_bytes)) in table.clone() {
            let case = format!("{case} {protocol}");
            let (address, answering) = answers_once(bytes);
            let gate = Gate::start_with(|document| {
                document["policy"]["routes"][0]["rules"][0]["backends"] = json!([{ "address": address }]);
            })
            .unwrap();
            let answer = gate.curl(Some("billing"), "/orders").unwrap().arg(flag).call().unwrap();
            answering.join().unwrap();
            assert_eq!((answer.status, answer.text().as_str()), (Some(status), body), "{case}");
            assert_eq!(answer.exit_code == Some(0), is_complete, "{case}: {answer:?}");
            let kept: Vec<_> = ["connection", "x-named", "keep-alive", "x-kept"]
                .into_iter()
                .filter(|name| answer.header(name).is_some())
                .collect();
            assert_eq!(kept, if bytes == HOP { vec!["x-kept"] } else { vec![] }, "{case}");
            // The reason is the gate's word alone.
            let told = reason.as_str().filter(|_| status == 502);
            assert_eq!(answer.header("postern-reason"), told, "{case}");
            let row = newest(&gate.sidecar, 1);
            let shown = columns(&row, &["verdict", "reason", "status", "response_bytes"]);
            assert_eq!(shown, json!(["allowed", reason, status, response_bytes]), "{case}");
        }
    }
}

/// curl as a child that can be ended in the middle; it is killed when dropped.
struct Leaving(Child);

impl Leaving {
    fn start(gate: &Gate, flag: &str, path: &str) -> Self {
        let port = gate.sidecar.listener("gate").unwrap().port();
        let mut command = Command::new("curl");
        command.args(["--disable", "--noproxy", "*", "-sS", "--cacert", "ca.pem", "--cert", "billing.pem"]);
        command.args(["--key", "billing.key", flag]).arg(format!("https://localhost:{port}{path}"));
        command.current_dir(gate.folder.path()).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::null());
        Self(command.spawn().unwrap())
    }
}

impl Drop for Leaving {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[test]
fn a_client_that_goes_away_is_recorded_with_what_it_got() {
    const TOTAL: u64 = 1 << 30;
    let gate = open_gate();
    let shown = ["verdict", "reason", "status", "path"];
    let mut count = 0;
    for (flag, protocol) in PROTOCOLS {
        let mut leaving = Leaving::start(&gate, flag, &format!("/bytes?n={TOTAL}"));
        let mut some = vec![0; 100_000];
        leaving.0.stdout.as_mut().unwrap().read_exact(&mut some).unwrap();
        drop(leaving);
        count += 1;
        let row = newest(&gate.sidecar, count);
        assert_eq!(columns(&row, &shown), json!(["allowed", "client_closed", 200, "/bytes"]), "{protocol}");
        let sent = row["response_bytes"].as_u64().unwrap();
        assert!((100_000..TOTAL).contains(&sent), "{protocol}: {sent} bytes");

        let asked = gate.upstream.requests();
        let leaving = Leaving::start(&gate, flag, "/slow?ms=60000");
        wait_until("the slow request", || gate.upstream.requests() > asked);
        drop(leaving);
        count += 1;
        let row = newest(&gate.sidecar, count);
        assert_eq!(columns(&row, &shown), json!(["allowed", "client_closed", 499, "/slow"]), "{protocol}");
    }
    gate.sidecar.has_decided(4).unwrap();
}

const MALFORMED: [(&str, &str, u16); 15] = [
    ("no HTTP at all", "HELLO\r\n\r\n", 400),
    ("a bad method", "G@T / HTTP/1.1\r\nHost: localhost\r\n\r\n", 400),
    ("a version that is none", "GET / HTTP/9.9\r\nHost: localhost\r\n\r\n", 400),
    ("no Host", "GET / HTTP/1.1\r\nConnection: close\r\n\r\n", 400),
    ("two Hosts", "GET / HTTP/1.1\r\nHost: localhost\r\nHost: localhost\r\nConnection: close\r\n\r\n", 400),
    ("a user in Host", "GET / HTTP/1.1\r\nHost: me@localhost\r\nConnection: close\r\n\r\n", 400),
    ("a header without a colon", "GET / HTTP/1.1\r\nHost localhost\r\n\r\n", 400),
    ("a space before a colon", "GET / HTTP/1.1\r\nHost : localhost\r\n\r\n", 400),
    ("a folded header", "GET / HTTP/1.1\r\nHost: localhost\r\nX-Folded: a\r\n b\r\n\r\n", 400),
    ("a NUL in a header", "GET / HTTP/1.1\r\nHost: localhost\r\nX-Nul: a\0b\r\n\r\n", 400),
    ("a length that is none", "POST / HTTP/1.1\r\nHost: localhost\r\nContent-Length: x\r\n\r\n", 400),
    ("two lengths", "POST / HTTP/1.1\r\nHost: localhost\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\nab", 400),
    (
        "a coding that does not end in chunked",
        "POST / HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked, gzip\r\n\r\n",
        400,
    ),
    ("a head that is too large", "", 431),
    ("too many headers", "", 431),
];

#[test]
fn what_is_not_http_is_answered_and_recorded() {
    let gate = open_gate();
    for (index, (case, request, status)) in MALFORMED.into_iter().enumerate() {
        let request = match case {
            "a head that is too large" => {
                format!("GET / HTTP/1.1\r\nHost: localhost\r\nX-Large: {}\r\n\r\n", "a".repeat(70_000))
            }
            "too many headers" => format!("GET / HTTP/1.1\r\nHost: localhost\r\n{}\r\n", "X-Many: 1\r\n".repeat(200)),
            _ => request.to_owned(),
        };
        let handshake = gate.openssl(Some("billing")).unwrap().talk(&request).unwrap();
        assert_eq!(handshake.status(), Some(status), "{case}: {handshake:?}");
        let row = newest(&gate.sidecar, index + 1);
        let shown =
            columns(&row, &["kind", "verdict", "reason", "status", "identity", "protocol", "listener", "route"]);
        let expected =
            json!(["request", "refused", "client_malformed", status, "demo/billing", "HTTP/1.1", "gate", null]);
        assert_eq!(shown, expected, "{case}");
    }
    assert_eq!(gate.upstream.requests(), 0);
    gate.sidecar.has_decided(MALFORMED.len() as u64).unwrap();
}

#[test]
fn a_malformed_upload_is_recorded_as_such() {
    let gate = open_gate();
    let table = [
        ("a chunk's size that is none", "5\r\nhello\r\nxyz\r\n", "client_malformed"),
        ("a first chunk that is none", "\r\n\r\n", "client_malformed"),
        ("a chunk longer than its size", "5\r\nhello, world\r\n0\r\n\r\n", "client_malformed"),
        ("a size that is too large", "f0000000000000003\r\nhello", "client_malformed"),
        ("a trailer that is none", "5\r\nhello\r\n0\r\nno colon\r\n\r\n", "client_malformed"),
    ];
    for (index, (case, body, reason)) in table.into_iter().enumerate() {
        let head = "POST /orders HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n";
        let client = gate.openssl(Some("billing")).unwrap().arg("-quiet");
        let handshake = client.talk(&format!("{head}{body}")).unwrap();
        assert_eq!(handshake.status(), Some(400), "{case}: {handshake:?}");
        let row = newest(&gate.sidecar, index + 1);
        let shown = columns(&row, &["verdict", "reason", "status", "identity"]);
        assert_eq!(shown, json!(["allowed", reason, 400, "demo/billing"]), "{case}");
    }
    assert_eq!(rows(&gate.sidecar, table.len()).len(), table.len());
    gate.sidecar.has_decided(table.len() as u64).unwrap();
}

#[test]
fn a_length_beside_a_coding_counts_for_nothing() {
    let gate = open_gate();
    let (length, coding) = ("Content-Length: 1\r\n", "Transfer-Encoding: chunked\r\n");
    for fields in [[length, coding].concat(), [coding, length].concat()] {
        let head = format!("POST /orders HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n{fields}\r\n");
        // Without its report on sessions, which may stand anywhere in the answer.
        let client = gate.openssl(Some("billing")).unwrap().arg("-quiet");
        let handshake = client.talk(&format!("{head}5\r\nhello\r\n0\r\n\r\n")).unwrap();
        assert_eq!(handshake.status(), Some(200), "{fields:?}");
        let (_, body) = handshake.output.rsplit_once("\r\n\r\n").unwrap();
        let echo: Value = serde_json::from_str(body.trim_end().trim_end_matches("closed")).unwrap();
        // RFC 9112 §6.3: whoever passes such a request on removes the length, or two servers read two requests.
        let expected = [("host", "localhost"), ("transfer-encoding", "chunked")];
        assert_eq!(
            headers_seen(&echo),
            expected.map(|(name, value)| (name.to_owned(), value.to_owned())),
            "{fields:?}"
        );
        assert_eq!(echo["bodyBytes"], json!(5), "{fields:?}");
    }
}

#[test]
fn unusual_requests_that_are_http() {
    let gate = open_gate();
    let close = "Connection: close\r\n\r\n";
    let table = [
        ("an absolute target", format!("GET https://localhost/orders HTTP/1.1\r\nHost: other\r\n{close}"), 200, None),
        ("HTTP/1.0 with a Host", "GET /orders HTTP/1.0\r\nHost: localhost\r\n\r\n".to_owned(), 200, None),
        ("HTTP/1.0 without", "GET /orders HTTP/1.0\r\n\r\n".to_owned(), 400, Some("client_malformed")),
        ("the server itself", format!("OPTIONS * HTTP/1.1\r\nHost: localhost\r\n{close}"), 400, Some("route_bad_path")),
        (
            "a tunnel",
            format!("CONNECT localhost:443 HTTP/1.1\r\nHost: localhost:443\r\n{close}"),
            405,
            Some("route_no_method"),
        ),
        (
            "a tunnel in disguise",
            format!("CONNECT /orders HTTP/1.1\r\nHost: localhost\r\n{close}"),
            405,
            Some("route_no_method"),
        ),
        ("line feeds alone", "GET /orders HTTP/1.1\nHost: localhost\nConnection: close\n\n".to_owned(), 200, None),
    ];
    for (index, (case, request, status, reason)) in table.into_iter().enumerate() {
        let handshake = gate.openssl(Some("billing")).unwrap().talk(&request).unwrap();
        // openssl shows the answer as it came, in whatever version.
        let answered = handshake.output.replace("HTTP/1.0 ", "HTTP/1.1 ").contains(&format!("HTTP/1.1 {status} "));
        assert!(answered, "{case}: {handshake:?}");
        let row = newest(&gate.sidecar, index + 1);
        assert_eq!(columns(&row, &["reason", "status"]), json!([reason, status]), "{case}");
    }
    assert_eq!(rows(&gate.sidecar, 7).len(), 7);
    gate.sidecar.has_decided(7).unwrap();
}

#[test]
fn a_refused_upload_gets_its_answer() {
    let gate = Gate::start().unwrap();
    for (size, version) in
        [5, 30_000, 66_000, 900_000].into_iter().flat_map(|size| [(size, "--http1.1"), (size, "--http2")])
    {
        std::fs::write(gate.folder.file("upload.bin"), vec![7; size]).unwrap();
        let curl = gate.curl(Some("reports"), "/orders/[1-20]").unwrap().arg(version);
        let curl = curl.arg("--data-binary").arg("@upload.bin").arg("-o").arg("/dev/null");
        let answer = curl.arg("-w").arg("%{http_code} %{exitcode}\\n").call().unwrap();
        assert_eq!(answer.text(), "403 0\n".repeat(20), "{size} bytes {version}");
    }
    gate.sidecar.has_decided(160).unwrap();
}

/// Who is refused and slow gets to read why: the gate listens to what is still coming, for longer than to silence.
#[test]
fn a_slow_upload_that_is_refused_gets_its_answer() {
    let gate = Gate::start().unwrap();
    let said = script(
        &gate,
        r#"
client = Tls(ADDRESS, "reports")
client.send(b"POST /orders/1 HTTP/1.1\r\nHost: localhost\r\nContent-Length: 40000\r\n\r\n")
for _ in range(8):
    time.sleep(0.3)
    client.send(bytes(5000))
print(client.read_all()[:12])
"#,
    );
    assert_eq!(said, "b'HTTP/1.1 403'\n");
    gate.sidecar.has_decided(1).unwrap();
}

/// RFC 9112 §9.3 lets an upstream answer before it has read the request, and end the connection; it may as well stop.
#[test]
fn an_answer_that_comes_before_the_uploads_end_gets_through() {
    let answer = "HTTP/1.1 413 Content Too Large\r\nContent-Length: 6\r\nConnection: close\r\n\r\nlarge\n";
    // Kept open by whoever has the other end: it reads no more, and does not close either.
    let (keep, _kept) = mpsc::channel();
    let early = move |mut stream: TcpStream| {
        let mut bytes = [0; 1 << 10];
        if stream.read(&mut bytes).is_ok() {
            stream.write_all(answer.as_bytes()).unwrap();
            keep.send(stream).unwrap();
        }
    };
    let silent = |mut stream: TcpStream| while stream.read(&mut [0; 1 << 10]).is_ok_and(|count| count > 0) {};
    let nobody = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let table: [(SocketAddr, usize, &str); 4] = [
        (application(early), 20, "413"),
        (application(silent), 2, "504"),
        (application(drop), 20, "502"),
        (nobody, 20, "502"),
    ];
    for (address, count, status) in table {
        let gate = Gate::start_with(|document| {
            document["version"] = json!("1.2");
            let rule = &mut document["policy"]["routes"][0]["rules"][0];
            rule["backends"] = json!([{ "address": address }]);
            rule["timeouts"] = json!({ "backendRequest": "300ms" });
        })
        .unwrap();
        std::fs::write(gate.folder.file("upload.bin"), vec![7; 300_000]).unwrap();
        for (flag, version) in PROTOCOLS {
            let curl = gate.curl(Some("billing"), &format!("/orders/[1-{count}]")).unwrap().arg(flag);
            let curl = curl.arg("--data-binary").arg("@upload.bin").arg("-H").arg("expect:").arg("-o").arg("/dev/null");
            let seen = curl.arg("-w").arg("%{http_code} %{exitcode}\\n").call().unwrap();
            assert_eq!(seen.text(), format!("{status} 0\n").repeat(count), "{status} over {version}: {}", seen.stderr);
        }
        for row in rows(&gate.sidecar, 2 * count) {
            assert_eq!(row["status"].to_string(), status, "{row}");
        }
        gate.sidecar.has_decided(2 * count as u64).unwrap();
    }
}

/// Or the client takes it for a connection that died idle, and asks again.
#[test]
fn what_came_of_an_answer_that_breaks_off_gets_through() {
    let answer = "HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\npart";
    let broken = move |mut stream: TcpStream| {
        if stream.read(&mut [0; 1 << 10]).is_ok() {
            stream.write_all(answer.as_bytes()).unwrap();
        }
    };
    let address = application(broken);
    let gate = Gate::start_with(|document| {
        document["policy"]["routes"][0]["rules"][0]["backends"] = json!([{ "address": address }]);
    })
    .unwrap();
    for (index, (flag, version)) in PROTOCOLS.into_iter().enumerate() {
        let curl = gate.curl(Some("billing"), "/orders/[1-10]").unwrap().arg(flag).arg("-o").arg("/dev/null");
        let seen = curl.arg("-w").arg("%{http_code} %{size_download}\\n").call().unwrap();
        assert_eq!(seen.text(), "200 4\n".repeat(10), "{version}: {}", seen.stderr);
        let reasons: Vec<_> = rows(&gate.sidecar, 10 * (index + 1))
            .iter()
            .map(|row| columns(row, &["status", "reason", "response_bytes"]))
            .collect();
        assert_eq!(reasons, vec![json!([200, "upstream_reset", 4]); 10 * (index + 1)], "{version}");
    }
    gate.sidecar.has_decided(20).unwrap();
}

/// A frame of HTTP/2 (RFC 9113 §4.1).
fn frame(kind: u8, flags: u8, stream: u8, payload: &[u8]) -> Vec<u8> {
    let length = u8::try_from(payload.len()).unwrap();
    [&[0, 0, length, kind, flags, 0, 0, 0, stream], payload].concat()
}

/// What one stream has against it ends that stream, which h2 does by itself; what is against the connection ends it.
#[test]
fn what_is_not_http2_ends_its_connection_and_is_recorded() {
    let gate = Gate::start_with(|document| {
        document["version"] = json!("1.3");
        document["policy"]["listeners"] = json!([{ "name": "out", "address": "127.0.0.1:0", "protocol": "HTTP" }]);
        let route = &mut document["policy"]["routes"][0];
        (route["listener"], route["hostnames"]) = (json!("out"), json!([]));
        route["rules"][0]["allow"] = json!([{ "anyone": {} }]);
    })
    .unwrap();
    let settings = frame(4, 0, 0, &[]);
    // `GET`, `http`, `/` and the host `a`, by the static table of HPACK.
    let head = [0x82, 0x86, 0x84, 0x41, 1, b'a'];
    let request = frame(1, 0b101, 1, &head);
    let table: [(&str, Vec<u8>, u64); 5] = [
        ("data of the connection", [&settings[..], &frame(0, 0, 0, b"x")].concat(), 0),
        ("a head that cannot be unpacked", [&settings[..], &frame(1, 0b101, 1, &[0xff; 9])].concat(), 0),
        ("a window of nothing", [&settings[..], &frame(8, 0, 0, &[0; 4])].concat(), 0),
        ("a frame that is too large", [&settings[..], &[0xff, 0xff, 0xff, 0, 0, 0, 0, 0, 1]].concat(), 0),
        ("after a request", [&settings[..], &request, &frame(0, 0, 0, b"x")].concat(), 1),
    ];
    let address = gate.sidecar.listener("out").unwrap();
    let mut decisions = 0;
    for (case, frames, requests) in table {
        let mut stream = TcpStream::connect(address).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        stream.write_all(&[b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", &frames[..]].concat()).unwrap();
        stream.read_to_end(&mut Vec::new()).unwrap();
        decisions += 1 + requests;
        gate.sidecar.has_decided(decisions).unwrap();
        let malformed = "select * from requests where reason = 'client_malformed' order by id desc limit 1";
        let row = &gate.sidecar.launch().query(malformed).unwrap()[0];
        let shown = columns(row, &["kind", "verdict", "reason", "status", "protocol", "listener"]);
        assert_eq!(shown, json!(["request", "refused", "client_malformed", null, "HTTP/2", "out"]), "{case}");
    }
    // A name in capitals makes it none (RFC 9113 §8.2.1), and one that follows on the same connection is.
    let mut stream = TcpStream::connect(address).unwrap();
    let (none, next) = (
        frame(1, 0b101, 1, &[&head[..], &[0, 1, b'A', 1, b'b']].concat()),
        frame(1, 0b101, 3, &[0x82, 0x86, 0x84, 0x41, 1, b'a']),
    );
    stream.write_all(&[b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", &settings[..], &none, &next].concat()).unwrap();
    gate.sidecar.has_decided(decisions + 1).unwrap();
}
