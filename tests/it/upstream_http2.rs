//! HTTP/2 to upstreams through the real gate: what requests share, what goes again, what is told when they end early.

use std::collections::VecDeque;
use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::process::Command;
use std::sync::{Arc, Mutex, mpsc};
use std::thread;
use std::time::Duration;

use postern_tests::ca::LeafOptions;
use postern_tests::clients::{Answer, Curl, run};
use postern_tests::gate::Gate;
use postern_tests::nginx::Nginx;
use postern_tests::upstream::Upstream;
use postern_tests::wait::PATIENCE;
use serde_json::{Value, json};

use crate::bodies::Keys;
use crate::observed::{columns, metric, newest, rows, wait_metric, wait_until};

pub(crate) const OPEN: &str = "postern_upstream_connections_open";

/// A gate that lets everyone in without TLS, and speaks HTTP/2 with this backend.
pub(crate) fn gate(backend: &Value, change: impl FnOnce(&mut Value)) -> Gate {
    Gate::start_with(|document| {
        document["version"] = json!("1.3");
        document["settings"]["workers"] = json!(1);
        document["policy"]["listeners"] = json!([{ "name": "out", "address": "127.0.0.1:0", "protocol": "HTTP" }]);
        let mut backend = backend.clone();
        backend["protocol"] = json!("HTTP2");
        document["policy"]["routes"] = json!([{
            "name": "demo/out",
            "listener": "out",
            "rules": [{ "name": "all", "allow": [{ "anyone": {} }], "backends": [backend] }],
        }]);
        change(document);
    })
    .unwrap()
}

pub(crate) fn curl(gate: &Gate, path: &str) -> Curl {
    Curl::new(format!("http://localhost:{}{path}", gate.sidecar.listener("out").unwrap().port()))
}

pub(crate) fn call(gate: &Gate, path: &str) -> Answer {
    curl(gate, path).call().unwrap()
}

/// nginx without TLS and with HTTP/2, which passes on to the gate's other upstream what it does not answer itself.
fn nginx(upstream: SocketAddr, directives: &str) -> Nginx {
    let tell = "location = /tell { return 200 \"$server_protocol,$host,$http_te,$http_connection\"; }";
    let proxy = format!("location ~ ^/(slow|bytes|orders) {{ proxy_buffering off; proxy_pass http://{upstream}; }}");
    Nginx::listening("http2", &format!("client_body_buffer_size 64k; {directives} {tell} {proxy}")).unwrap()
}

/// An upstream, and a gate that reaches it through nginx.
pub(crate) fn through_nginx(directives: &str, pool: &Value) -> (Gate, Nginx, Upstream) {
    let upstream = Upstream::start().unwrap();
    let nginx = nginx(upstream.address(), directives);
    let gate = gate(&json!({ "address": nginx.address() }), |document| {
        document["policy"]["routes"][0]["backendPolicy"] = json!({ "pool": pool });
    });
    (gate, nginx, upstream)
}

#[test]
fn the_request_is_http2s() {
    let (gate, _nginx, _upstream) = through_nginx("", &json!({}));
    let answer = curl(&gate, "/tell").arg("-H").arg("TE: trailers").call().unwrap();
    assert_eq!((answer.text().as_str(), answer.version.as_deref()), ("HTTP/2.0,localhost,trailers,", Some("HTTP/1.1")));
    let row = newest(&gate.sidecar, 1);
    assert_eq!(columns(&row, &["status", "protocol", "attempts"]), json!([200, "HTTP/1.1", 1]));
    // A connection that two requests had, and a body up and down.
    let body = "x".repeat(100_000);
    let answer = curl(&gate, "/orders").arg("--data").arg(&body).call().unwrap();
    assert_eq!(answer.json().unwrap()["bodyBytes"], json!(100_000));
    assert_eq!(call(&gate, "/bytes?n=5000000").body.len(), 5_000_000);
    assert_eq!(metric(&gate.sidecar, OPEN), 1);
}

/// With TLS, HTTP/2 is agreed on by ALPN or not spoken.
#[test]
fn http2_in_tls_is_agreed_on() {
    let gate = Gate::start().unwrap();
    let leaf = LeafOptions { dns_names: vec!["orders.test".to_owned()], ..LeafOptions::server("orders") };
    gate.keep("orders", &gate.authority.issue(&leaf).unwrap()).unwrap();
    let folder = gate.folder.path().display();
    let certificate = format!("ssl_certificate {folder}/orders.pem; ssl_certificate_key {folder}/orders.key;");
    let tell = "location = /tell { return 200 \"$server_protocol,$ssl_alpn_protocol\"; }";
    for (how, body) in [("ssl http2", "HTTP/2.0,h2"), ("ssl", "{\"reason\":\"upstream_tls\"}\n")] {
        let nginx = Nginx::listening(how, &format!("{certificate} {tell}")).unwrap();
        let tls = json!({ "serverName": "orders.test", "trust": ["ours"] });
        let backend = json!({ "address": nginx.address(), "protocol": "HTTP2", "tls": tls });
        let other = gate
            .start_beside(|document| {
                document["version"] = json!("1.3");
                document["policy"]["routes"][0]["rules"][0]["backends"] = json!([backend]);
            })
            .unwrap();
        assert_eq!(other.curl(Some("billing"), "/tell").unwrap().call().unwrap().text(), body, "{how}");
    }
}

/// Many at once on one connection, or on as many as the server's limit of streams needs; none of them fails.
#[test]
fn requests_share_connections() {
    for (directives, connections) in [("", 1..=1), ("http2_max_concurrent_streams 4;", 3..=8)] {
        let (gate, _nginx, _upstream) = through_nginx(directives, &json!({}));
        assert_eq!(call(&gate, "/tell").status, Some(200));
        // One process, so that they are under way together on a busy machine, too.
        let url = format!("http://127.0.0.1:{}/slow?ms=3000&[1-12]", gate.sidecar.listener("out").unwrap().port());
        let mut command = Command::new("curl");
        command.args(["--silent", "--parallel", "--parallel-immediate", "--output", "/dev/null"]);
        let told = run(command.args(["--write-out", "%{http_code} ", &url]), b"", PATIENCE).unwrap().text();
        assert_eq!(told.trim(), ["200"; 12].join(" "));
        let open = metric(&gate.sidecar, OPEN);
        assert!(connections.contains(&open), "{directives} {open}");
        gate.sidecar.has_decided(13).unwrap();
    }
}

/// nginx ends a connection with GOAWAY after so many requests; nothing that it did not begin fails, with a body or without.
#[test]
fn no_request_fails_that_is_above_the_last() {
    let (gate, _nginx, _upstream) = through_nginx("keepalive_requests 50;", &json!({}));
    let url = format!("http://127.0.0.1:{}/orders", gate.sidecar.listener("out").unwrap().port());
    gate.folder.write("body", "1234").unwrap();
    for arguments in [&[][..], &["-d", "body"]] {
        let mut command = Command::new("h2load");
        command.current_dir(gate.folder.path()).args(["-n", "2000", "-c", "4", "-m", "16"]).args(arguments).arg(&url);
        let told = run(&mut command, b"", Duration::from_secs(120)).unwrap().text();
        assert!(told.contains("2000 succeeded, 0 failed, 0 errored"), "{arguments:?}: {told}");
        assert!(told.contains("2000 2xx"), "{arguments:?}: {told}");
    }
    gate.sidecar.has_decided(4000).unwrap();
}

/// Idle connections are bounded and closed as those of HTTP/1.1 are.
#[test]
fn shared_connections_are_kept_as_long_as_they_may() {
    let table = [
        (json!({ "idleTimeout": "100ms" }), 0),
        (json!({ "maxIdle": 0 }), 0),
        (json!({ "maxRequestsPerConnection": 2 }), 0),
        (json!({ "idleTimeout": "1h" }), 1),
    ];
    for (pool, open) in table {
        let (gate, _nginx, _upstream) = through_nginx("", &pool);
        for _ in 0..2 {
            assert_eq!(call(&gate, "/tell").status, Some(200), "{pool}");
        }
        wait_metric(&gate.sidecar, OPEN, open);
    }
}

/// A client that does not read holds up nobody else on the connection.
#[test]
fn a_slow_client_holds_up_nobody_else() {
    let (gate, _nginx, _upstream) = through_nginx("", &json!({ "maxConnections": 1 }));
    let port = gate.sidecar.listener("out").unwrap().port();
    let stalled: Vec<_> = (0..8)
        .map(|_| {
            let mut stream = TcpStream::connect(("127.0.0.1", port)).unwrap();
            stream.write_all(b"GET /bytes?n=100000000 HTTP/1.1\r\nHost: a\r\n\r\n").unwrap();
            // The head is here, so the body is on its way.
            stream.read_exact(&mut [0; 12]).unwrap();
            stream
        })
        .collect();
    for _ in 0..3 {
        assert_eq!(call(&gate, "/bytes?n=3000000").body.len(), 3_000_000);
    }
    assert_eq!(metric(&gate.sidecar, OPEN), 1);
    drop(stalled);
}

/// Types of frames (RFC 9113 §6), and what is done with a request that has come.
const DATA: u8 = 0;
const HEADERS: u8 = 1;
const RST_STREAM: u8 = 3;
const SETTINGS: u8 = 4;
const GOAWAY: u8 = 7;
const WINDOW_UPDATE: u8 = 8;

#[derive(Clone, Copy, Debug)]
enum Deed {
    Answer,
    Reset(u8),
    /// GOAWAY whose last stream is this.
    Leave(u8),
    Close,
    /// Waits for the stream's reset.
    Wait,
    /// Answers, and takes no body on this connection until it is told to.
    Hold,
    /// Refuses it (RFC 9113 §8.7) when its head has come.
    RefuseHead,
    /// Begins an answer when the head has come, and ends it when it is told to.
    AnswerHead,
    /// The same, and takes the body when it is told to: the rest of the answer is how long that was.
    AnswerLength,
}

/// An HTTP/2 server that does one deed after the other, one for each request, over all its connections. It tells each
/// frame that comes, by its type.
struct Scripted {
    address: SocketAddr,
    frames: mpsc::Receiver<u8>,
    /// Tells it to go on.
    go_on: mpsc::Sender<()>,
}

fn scripted(deeds: &[Deed]) -> Scripted {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let deeds = Arc::new(Mutex::new(deeds.iter().copied().collect()));
    let ((sender, frames), (go_on, going_on)) = (mpsc::channel(), mpsc::channel());
    let going_on = Arc::new(Mutex::new(going_on));
    thread::spawn(move || {
        for stream in listener.incoming() {
            let (deeds, sender, going_on) = (Arc::clone(&deeds), sender.clone(), Arc::clone(&going_on));
            // It ends with the gate's end of the connection, whichever is first.
            thread::spawn(move || drop(serve(stream.unwrap(), &deeds, &sender, &going_on)));
        }
    });
    Scripted { address, frames, go_on }
}

pub(crate) fn frame(kind: u8, flags: u8, stream: u8, payload: &[u8]) -> Vec<u8> {
    let length = u8::try_from(payload.len()).unwrap();
    [&[0, 0, length, kind, flags, 0, 0, 0, stream], payload].concat()
}

/// Serves one connection until it ends, whoever ends it.
fn serve(
    mut stream: TcpStream,
    deeds: &Mutex<VecDeque<Deed>>,
    frames: &mpsc::Sender<u8>,
    going_on: &Mutex<mpsc::Receiver<()>>,
) -> io::Result<()> {
    stream.read_exact(&mut [0; 24])?;
    stream.write_all(&frame(SETTINGS, 0, 0, &[]))?;
    let (mut head, mut body_bytes, mut answered) = ([0; 9], 0, None);
    loop {
        stream.read_exact(&mut head)?;
        let [_, high, low, kind, flags, .., number] = head;
        let length = u16::from_be_bytes([high, low]);
        stream.read_exact(&mut vec![0; usize::from(length)])?;
        let _nobody_asks = frames.send(kind);
        if (kind, flags & 1) == (SETTINGS, 0) {
            stream.write_all(&frame(SETTINGS, 1, 0, &[]))?;
        }
        let is_request_end = matches!(kind, DATA | HEADERS) && flags & 1 == 1;
        if kind == DATA && answered == Some(number) {
            body_bytes += length;
            if is_request_end {
                stream.write_all(&frame(DATA, 1, number, body_bytes.to_string().as_bytes()))?;
            }
            continue;
        }
        let next = deeds.lock().unwrap().front().copied();
        let is_early = matches!(next, Some(Deed::RefuseHead | Deed::AnswerHead | Deed::AnswerLength));
        if !(is_request_end || is_early && kind == HEADERS) {
            continue;
        }
        let deed = deeds.lock().unwrap().pop_front().unwrap_or(Deed::Answer);
        match deed {
            // `:status: 200`, by the static table of HPACK.
            Deed::Answer => stream.write_all(&frame(HEADERS, 0b101, number, &[0x88]))?,
            Deed::Reset(code) => stream.write_all(&frame(RST_STREAM, 0, number, &[0, 0, 0, code]))?,
            Deed::Leave(last) => stream.write_all(&frame(GOAWAY, 0, 0, &[0, 0, 0, last, 0, 0, 0, 0]))?,
            Deed::Close => return Ok(()),
            Deed::Wait => {}
            Deed::Hold => {
                // SETTINGS_INITIAL_WINDOW_SIZE.
                stream.write_all(&frame(SETTINGS, 0, 0, &[0, 4, 0, 0, 0, 0]))?;
                stream.write_all(&frame(HEADERS, 0b101, number, &[0x88]))?;
            }
            Deed::RefuseHead => stream.write_all(&frame(RST_STREAM, 0, number, &[0, 0, 0, 7]))?,
            Deed::AnswerHead | Deed::AnswerLength => {
                stream.write_all(&frame(HEADERS, 0b100, number, &[0x88]))?;
                going_on.lock().unwrap().recv().unwrap();
                if matches!(deed, Deed::AnswerHead) {
                    stream.write_all(&frame(DATA, 1, number, &[]))?;
                    continue;
                }
                answered = Some(number);
                stream.write_all(&frame(WINDOW_UPDATE, 0, number, &[0, 0, 0xff, 0xff]))?;
            }
        }
    }
}

/// What the upstream says it has not begun goes again, whatever it is; what it may have begun goes again where HTTP/1.1's
/// would: once, if it can be asked for twice.
#[test]
fn what_the_upstream_has_not_begun_goes_again() {
    use Deed::{Answer, Close, Leave, Reset};
    const REFUSED: Deed = Reset(7);
    let get: &[&str] = &[];
    let post: &[&str] = &["--data", "a small body"];
    let large = "x".repeat(20_000);
    let table: [(&[Deed], &[&str], u16, u64); 11] = [
        (&[Answer, Answer], get, 200, 1),
        (&[Answer, REFUSED, Answer], get, 200, 2),
        (&[Answer, REFUSED, Answer], post, 200, 2),
        // More than is kept of a body.
        (&[Answer, REFUSED, Answer], &["--data", &large], 502, 1),
        (&[Answer, Leave(1), Answer], get, 200, 2),
        (&[Answer, Leave(1), Answer], post, 200, 2),
        (&[Answer, Reset(2), Answer], get, 502, 1),
        (&[Answer, Close, Answer], get, 200, 2),
        (&[Answer, Close, Answer], post, 502, 1),
        (&[Answer, Close, Close], get, 502, 2),
        // Every connection refuses: there is one address, so that it ends.
        (&[Answer, REFUSED, REFUSED, REFUSED, REFUSED], post, 502, 2),
    ];
    for (deeds, arguments, status, attempts) in table {
        let server = scripted(deeds);
        let gate = gate(&json!({ "address": server.address }), |_| {});
        assert_eq!(call(&gate, "/first").status, Some(200));
        let curl = arguments.iter().fold(curl(&gate, "/second"), |curl, argument| curl.arg(*argument));
        assert_eq!(curl.call().unwrap().status, Some(status), "{deeds:?} {arguments:?}");
        let row = newest(&gate.sidecar, 2);
        let reason = (status != 200).then_some("upstream_reset");
        assert_eq!(columns(&row, &["status", "reason", "attempts"]), json!([status, reason, attempts]), "{deeds:?}");
        gate.sidecar.has_decided(2).unwrap();
    }
}

/// A client that goes away resets its stream, and the connection lives on.
#[test]
fn a_client_that_goes_away_resets_its_stream() {
    let server = scripted(&[Deed::Wait, Deed::Answer]);
    let gate = gate(&json!({ "address": server.address }), |_| {});
    let port = gate.sidecar.listener("out").unwrap().port();
    let mut stream = TcpStream::connect(("127.0.0.1", port)).unwrap();
    stream.write_all(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n").unwrap();
    let next = |wanted| while server.frames.recv_timeout(Duration::from_secs(30)).unwrap() != wanted {};
    next(HEADERS);
    drop(stream);
    next(RST_STREAM);
    assert_eq!(call(&gate, "/next").status, Some(200));
    let shown: Vec<_> = rows(&gate.sidecar, 2).iter().map(|row| columns(row, &["reason", "attempts"])).collect();
    assert_eq!(shown, [json!(["client_closed", 1]), json!([null, 1])]);
    assert_eq!(metric(&gate.sidecar, OPEN), 1);
    gate.sidecar.has_decided(2).unwrap();
}

/// A connection that says nothing while a request's time passes gets no further request: it may be dead.
#[test]
fn a_silent_connection_gets_no_further_request() {
    let server = scripted(&[Deed::Answer, Deed::Wait, Deed::Answer]);
    let gate = gate(&json!({ "address": server.address }), |document| {
        document["policy"]["routes"][0]["rules"][0]["timeouts"] = json!({ "backendRequest": "500ms" });
    });
    let statuses: Vec<_> = (0..2).map(|_| call(&gate, "/").status).collect();
    assert_eq!(statuses, [Some(200), Some(504)]);
    assert_eq!(call(&gate, "/").status, Some(200));
    let settings = || server.frames.try_iter().filter(|kind| *kind == SETTINGS).count();
    let mut seen = 0;
    wait_until("two connections, each with settings and their acknowledgement", || {
        seen += settings();
        seen == 4
    });
    gate.sidecar.has_decided(3).unwrap();
}

/// A request with the beginning of its body.
fn post(gate: &Gate, length: usize, body: &str) -> TcpStream {
    let mut stream = TcpStream::connect(("127.0.0.1", gate.sidecar.listener("out").unwrap().port())).unwrap();
    let head = format!("POST / HTTP/1.1\r\nHost: a\r\nConnection: close\r\nContent-Length: {length}\r\n\r\n{body}");
    stream.write_all(head.as_bytes()).unwrap();
    stream
}

/// Waits for an answer's beginning.
fn answered(stream: &mut TcpStream) {
    let mut status = [0; 15];
    stream.read_exact(&mut status).unwrap();
    assert_eq!(&status, b"HTTP/1.1 200 OK");
}

/// Waits for a frame of this type.
fn wait_frame(server: &Scripted, wanted: u8) {
    while server.frames.recv_timeout(PATIENCE).unwrap() != wanted {}
}

/// What is sent again is sent to its end, also to who has answered before.
#[test]
fn a_body_goes_again_whole_to_an_upstream_that_answers_early() {
    use Deed::{AnswerLength, Hold, RefuseHead, Reset};
    let keys = Keys::new();
    // One server under two addresses: an idle connection to each, a new one to the first, then the idle one to the other.
    let server = scripted(&[Hold, Hold, RefuseHead, Reset(7), AnswerLength]);
    let gate = gate(&json!({ "address": server.address }), |document| {
        let address = format!("[::ffff:127.0.0.1]:{}", server.address.port());
        let other = json!({ "address": address, "protocol": "HTTP2" });
        document["policy"]["routes"][0]["rules"][0]["backends"].as_array_mut().unwrap().push(other);
        keys.keeps(document, "key", &json!({ "request": true }));
    });
    assert_eq!([(); 2].map(|()| call(&gate, "/").status), [Some(200); 2]);
    let mut stream = post(&gate, 12, "whole ");
    // Two pieces: nothing of the second is there before the first has been sent.
    wait_frame(&server, DATA);
    stream.write_all(b"bodies").unwrap();
    answered(&mut stream);
    server.go_on.send(()).unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    assert!(answer.ends_with("\r\n2\r\n12\r\n0\r\n\r\n"), "{answer}");
    let row = newest(&gate.sidecar, 3);
    let shown = columns(&row, &["reason", "status", "attempts", "request_bytes", "response_bytes"]);
    assert_eq!(shown, json!([null, 200, 3, 12, 2]));
    let kept = gate.sidecar.launch().subcommand("log", &["body", row["id"].as_str().unwrap()]).unwrap();
    assert_eq!(kept.text(), "whole bodies", "once, however often it is sent");
    gate.sidecar.has_decided(3).unwrap();
}

/// An upstream that has said all it has to say does not wait for more of a request that nobody sends on.
#[test]
fn the_stream_of_an_upload_that_nobody_wants_is_reset() {
    let server = scripted(&[Deed::AnswerHead, Deed::Answer]);
    let gate = gate(&json!({ "address": server.address }), |_| {});
    let mut stream = post(&gate, 100, "the beginning");
    answered(&mut stream);
    server.go_on.send(()).unwrap();
    wait_frame(&server, RST_STREAM);
    assert_eq!(call(&gate, "/next").status, Some(200));
    assert_eq!(metric(&gate.sidecar, OPEN), 1, "the connection is good for others");
    gate.sidecar.has_decided(2).unwrap();
    drop(stream);
}
