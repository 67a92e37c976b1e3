//! When connections of HTTP/2 to upstreams begin and end: who shares one that is being made, who waits for a server that takes
//! nothing, and what ends with the last that wants it.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::process::Command;
use std::thread;
use std::time::Duration;

use postern_tests::clients::run;
use serde_json::json;

use crate::observed::{columns, metric, newest, wait_metric, wait_until};
use crate::upstream_http2::{OPEN, call, curl, frame, gate, through_nginx};

/// Types of frames (RFC 9113 §6).
const HEADERS: u8 = 1;
const SETTINGS: u8 = 4;
const WINDOW_UPDATE: u8 = 8;

/// An HTTP/2 connection as its server sees it, which does nothing by itself but take the client's first words.
struct Accepted {
    stream: TcpStream,
}

impl Accepted {
    fn from(listener: &TcpListener) -> Self {
        let (mut stream, _) = listener.accept().unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(60))).unwrap();
        stream.read_exact(&mut [0; 24]).unwrap();
        Self { stream }
    }

    fn send(&mut self, kind: u8, flags: u8, stream: u8, payload: &[u8]) {
        self.stream.write_all(&frame(kind, flags, stream, payload)).unwrap();
    }

    /// So many streams may be open at once (RFC 9113 §6.5.2).
    fn allow(&mut self, streams: u8) {
        self.send(SETTINGS, 0, 0, &[0, 3, 0, 0, 0, streams]);
    }

    /// Reads until each of these frames has come, in whatever order: the streams of requests among them.
    fn wait(&mut self, wanted: &[Frame]) -> Vec<u8> {
        let (mut wanted, mut streams) = (wanted.to_vec(), Vec::new());
        while !wanted.is_empty() {
            let mut head = [0; 9];
            self.stream.read_exact(&mut head).unwrap();
            let [_, high, low, kind, flags, .., stream] = head;
            self.stream.read_exact(&mut vec![0; usize::from(u16::from_be_bytes([high, low]))]).unwrap();
            if let Some(at) = wanted.iter().position(|frame| *frame == (kind, flags & 1)) {
                let came = wanted.remove(at);
                streams.extend((came == REQUEST).then_some(stream));
            }
        }
        streams
    }
}

/// What a frame is, and its first flag.
type Frame = (u8, u8);
/// A request without a body.
const REQUEST: Frame = (HEADERS, 1);
const ACKNOWLEDGED: Frame = (SETTINGS, 1);

/// A server that takes no more requests for a while says when it takes some again, and those that wait go then.
#[test]
fn requests_go_as_soon_as_the_server_takes_them_again() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let gate = gate(&json!({ "address": listener.local_addr().unwrap() }), |document| {
        let pool = json!({ "maxConnections": 1, "pendingTimeout": "60s" });
        document["policy"]["routes"][0]["backendPolicy"] = json!({ "pool": pool });
    });
    thread::scope(|scope| {
        let gate = &gate;
        let ask = |path| scope.spawn(move || call(gate, path).status);
        let first = ask("/first");
        let mut server = Accepted::from(&listener);
        server.allow(100);
        let mut streams = server.wait(&[REQUEST, ACKNOWLEDGED]);
        server.allow(0);
        server.wait(&[ACKNOWLEDGED]);
        // By this one the gate finds out that it has to wait, and the next one waits from the beginning.
        let second = ask("/second");
        wait_metric(&gate.sidecar, "postern_requests_pending", 2);
        let third = ask("/third");
        wait_metric(&gate.sidecar, "postern_upstream_requests_pending", 1);
        server.allow(100);
        streams.extend(server.wait(&[REQUEST, REQUEST]));
        for stream in streams {
            server.send(HEADERS, 0b101, stream, &[0x88]);
        }
        assert_eq!([first, second, third].map(|call| call.join().unwrap()), [Some(200); 3]);
    });
}

/// Those that come while a connection is being made share it: none of them waits for one, so that none is one too many.
#[test]
fn a_burst_shares_the_connection_that_is_being_made() {
    let (gate, _nginx, _upstream) = through_nginx("", &json!({ "maxPending": 0 }));
    let url = format!("http://127.0.0.1:{}/tell", gate.sidecar.listener("out").unwrap().port());
    let mut command = Command::new("h2load");
    command.args(["-n", "64", "-c", "1", "-m", "64"]).arg(&url);
    let told = run(&mut command, b"", Duration::from_secs(60)).unwrap().text();
    assert!(told.contains("status codes: 64 2xx"), "{told}");
    assert_eq!(metric(&gate.sidecar, OPEN), 1);
}

/// Who waits too long for a connection that another request is making is told which limit that was.
#[test]
fn a_connection_that_takes_too_long_is_not_waited_for() {
    // Takes connections, and never answers the hello.
    let silent = TcpListener::bind("127.0.0.1:0").unwrap();
    let tls = json!({ "serverName": "app.test", "trust": ["ours"] });
    let gate = gate(&json!({ "address": silent.local_addr().unwrap(), "tls": tls }), |document| {
        let pool = json!({ "pendingTimeout": "300ms", "connectTimeout": "10s" });
        document["policy"]["routes"][0]["backendPolicy"] = json!({ "pool": pool });
        document["policy"]["routes"][0]["rules"][0]["timeouts"] = json!({ "request": "5s" });
    });
    thread::scope(|scope| {
        let first = scope.spawn(|| call(&gate, "/first").status);
        wait_metric(&gate.sidecar, OPEN, 1);
        assert_eq!(call(&gate, "/second").status, Some(503));
        let row = newest(&gate.sidecar, 1);
        let shown = columns(&row, &["path", "reason", "limiter"]);
        assert_eq!(shown, json!(["/second", "upstream_pool_full", "pool.pendingTimeout"]));
        assert_eq!(first.join().unwrap(), Some(504));
    });
}

/// An upstream that reads nothing cannot be told that nobody wants it any more; its connection ends all the same.
#[test]
fn a_connection_that_nobody_wants_ends_though_its_upstream_reads_nothing() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let gate = gate(&json!({ "address": listener.local_addr().unwrap() }), |document| {
        document["policy"]["routes"][0]["rules"][0]["timeouts"] = json!({ "request": "2s" });
        document["policy"]["routes"][0]["backendPolicy"] = json!({ "pool": { "idleTimeout": "200ms" } });
    });
    gate.folder.write("body", &"x".repeat(20_000_000)).unwrap();
    let body = format!("@{}", gate.folder.file("body").display());
    let answer = thread::scope(|scope| {
        let call = scope.spawn(|| curl(&gate, "/").arg("--data-binary").arg(&body).call().unwrap());
        let mut server = Accepted::from(&listener);
        // As much as anybody may send, and none of it is read.
        server.send(SETTINGS, 0, 0, &[0, 4, 0x7f, 0xff, 0xff, 0xff]);
        server.send(WINDOW_UPDATE, 0, 0, &[0x7f, 0, 0, 0]);
        let answer = call.join().unwrap();
        wait_metric(&gate.sidecar, OPEN, 0);
        wait_until("the connection's end", || !is_held(listener.local_addr().unwrap()));
        answer
    });
    // Its client owes nothing.
    assert_eq!(answer.header("postern-reason"), Some("upstream_timeout"), "{answer:?}");
}

/// Whether any process has a connection to an address, by the kernel's list (`proc_net_tcp(5)`).
fn is_held(address: SocketAddr) -> bool {
    let remote = format!(":{:04X}", address.port());
    let list = std::fs::read_to_string("/proc/net/tcp").unwrap();
    // What its process has closed, and the kernel not yet, has no inode any more.
    list.lines()
        .map(|line| line.split_whitespace().collect::<Vec<_>>())
        .any(|columns| columns[2].ends_with(&remote) && columns[9] != "0")
}
