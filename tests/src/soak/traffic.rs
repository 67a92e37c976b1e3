//! Clients of every kind that a reload could disturb; curl speaks for all of them, because nobody here wrote it.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};

use anyhow::{Context, Result, anyhow};

use super::tunnels;
use crate::clients::Curl;
use crate::gate::Gate;

/// Bytes of a body that takes long.
const BODY_BYTES: usize = 3_000_000;
/// A file of that size, in the gate's folder.
const BODY_FILE: &str = "body.bin";

/// Clients at work.
pub(super) struct Traffic {
    stop: Arc<AtomicBool>,
    threads: Vec<(&'static str, JoinHandle<Result<Tally>>)>,
}

/// What a client did.
#[derive(Debug, Default)]
pub struct Tally {
    /// Requests that were answered as they should be.
    pub made: usize,
    /// Those that were not, with what curl says.
    pub failed: Vec<String>,
    /// Runs of curl, each of which begins with a connection of its own.
    pub runs: usize,
    /// Connections made.
    pub connects: usize,
    /// Answers that told to use another connection.
    pub told: usize,
}

/// A kind of client: what curl is told besides, and what it has to print of each request.
struct Kind {
    name: &'static str,
    listener: &'static str,
    path: String,
    arguments: Vec<String>,
    expected: String,
}

impl Kind {
    fn new(name: &'static str, path: &str, arguments: &[&str], bytes: Option<usize>) -> Self {
        let expected = bytes.map_or_else(|| "200".to_owned(), |bytes| format!("200 {bytes}"));
        let arguments = arguments.iter().map(|argument| (*argument).to_owned()).collect();
        Self { name, listener: "gate", path: path.to_owned(), arguments, expected }
    }

    /// The same at the listener that passes bytes on: what answers then is the application itself.
    fn forwarded(self) -> Self {
        Self { listener: "raw", ..self }
    }
}

/// The kinds of traffic that curl makes. gRPC becomes a row here.
fn kinds() -> Vec<Kind> {
    let (download, upload) = (format!("/bytes?n={BODY_BYTES}"), format!("@{BODY_FILE}"));
    let slow = |version| ["--limit-rate", "1500k", version];
    let sending = |version| ["--limit-rate", "1500k", version, "--data-binary", &upload, "-H", "expect:"];
    vec![
        Kind::new("keep-alive", "/orders/[1-200]", &["--http1.1"], None),
        Kind::new("HTTP/2", "/orders/[1-200]", &["--http2"], None),
        // A connection for each request: the handshakes of a change's moment.
        Kind::new("new connections", "/orders/[1-20]", &["--http1.1", "-H", "connection: close"], None),
        // A request every two seconds; in between the connection waits.
        Kind::new("idle", "/orders/[1-5]", &["--http1.1", "--rate", "30/m"], None),
        Kind::new("idle HTTP/2", "/orders/[1-5]", &["--http2", "--rate", "30/m"], None),
        Kind::new("download", &download, &slow("--http1.1"), Some(BODY_BYTES)),
        Kind::new("download HTTP/2", &download, &slow("--http2"), Some(BODY_BYTES)),
        Kind::new("upload", "/upload", &sending("--http1.1"), None),
        Kind::new("L4", "/orders/[1-200]", &["--http1.1"], None).forwarded(),
        Kind::new("L4 idle", "/orders/[1-5]", &["--http1.1", "--rate", "30/m"], None).forwarded(),
        Kind::new("L4 download", &download, &slow("--http1.1"), Some(BODY_BYTES)).forwarded(),
        Kind::new("upload HTTP/2", "/upload", &sending("--http2"), None),
    ]
}

impl Traffic {
    pub(super) fn start(gate: &Gate) -> Result<Self> {
        gate.folder.write(BODY_FILE, &"x".repeat(BODY_BYTES))?;
        let stop = Arc::new(AtomicBool::new(false));
        let mut threads = Vec::new();
        for kind in kinds() {
            let port = gate.sidecar.listener(kind.listener)?.port();
            let curl = Curl::new(format!("https://localhost:{port}{}", kind.path)).folder(gate.folder.path());
            let curl = curl.authority("ca.pem").certificate("billing");
            let curl = kind.arguments.iter().fold(curl, |curl, argument| curl.arg(argument));
            let bytes = if kind.expected == "200" { "" } else { " %{size_download}" };
            let shown = format!("%{{num_connects}} %header{{connection}}|%{{http_code}}{bytes}|%{{errormsg}}\\n");
            let curl = curl.arg("-o").arg("/dev/null").arg("-w").arg(shown);
            let stop = Arc::clone(&stop);
            let client = move || call_until(&stop, &curl, &kind.expected);
            threads.push((kind.name, thread::Builder::new().name(kind.name.to_owned()).spawn(client)?));
        }
        for (name, client, expected) in tunnels::clients(gate)? {
            let stop = Arc::clone(&stop);
            let client = move || tunnels::stream_until(&stop, client, expected);
            threads.push((name, thread::Builder::new().name(name.to_owned()).spawn(client)?));
        }
        Ok(Self { stop, threads })
    }

    /// Lets every client end what it is at.
    pub(super) fn finish(self) -> Result<Vec<(&'static str, Tally)>> {
        self.stop.store(true, Ordering::Relaxed);
        let ended = self.threads.into_iter().map(|(name, thread)| {
            let tally = thread.join().map_err(|_| anyhow!("client {name} panicked"))?;
            Ok((name, tally.with_context(|| name)?))
        });
        ended.collect()
    }
}

fn call_until(stop: &AtomicBool, curl: &Curl, expected: &str) -> Result<Tally> {
    let mut tally = Tally::default();
    while !stop.load(Ordering::Relaxed) {
        let answer = curl.call()?;
        tally.runs += 1;
        for line in answer.text().lines() {
            tally.enter(line, expected);
        }
        if answer.exit_code != Some(0) {
            tally.failed.push(answer.stderr);
        }
    }
    Ok(tally)
}

impl Tally {
    pub(super) fn enter(&mut self, line: &str, expected: &str) {
        let mut columns = line.splitn(3, '|');
        let (connection, answer) = (columns.next().unwrap_or_default(), columns.next().unwrap_or_default());
        let connects = connection.split(' ').next().and_then(|count| count.parse::<usize>().ok());
        self.connects += connects.unwrap_or(0);
        self.told += usize::from(connection.contains("close"));
        if answer == expected {
            self.made += 1;
        } else {
            self.failed.push(line.to_owned());
        }
    }
}
