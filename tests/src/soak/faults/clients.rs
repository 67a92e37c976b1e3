//! Clients that count what they get, so that the gate's own account can be compared with theirs. All are curl.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use anyhow::{Context, Result, anyhow};

use crate::clients::Curl;
use crate::gate::Gate;

/// A body that takes several reads and writes, so that faults meet it half-way.
const BODY_BYTES: usize = 300_000;
const BODY_FILE: &str = "body.bin";
/// More than the buffers on the way hold.
const LONG_BYTES: usize = 20_000_000;
/// For one run of curl, whatever its requests have to wait for.
const RUN: Duration = Duration::from_secs(90);

/// curl's exit code for a stream that was reset (libcurl-errors(3)).
const CURLE_HTTP2_STREAM: u8 = 92;

/// What curl prints of each request.
const SHOWN: &str = "%{num_connects}|%{http_code}|%{exitcode}|%header{postern-reason}|%{errormsg}\\n";

/// What a client's decisions are, as the gate counts them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Counts {
    /// Each request.
    Requests,
    /// Each connection, which comes without a certificate and is refused.
    Handshakes,
    /// Each connection, which is passed on.
    Connections,
}

/// A kind of client.
struct Kind {
    name: &'static str,
    counts: Counts,
    certificate: Option<&'static str>,
    path: String,
    arguments: Vec<String>,
}

/// What the clients got.
#[derive(Debug, Default)]
pub(super) struct Account {
    /// Requests by the status of their response's head.
    pub(super) statuses: BTreeMap<u16, u64>,
    /// Of them, those whose response ended too early.
    pub(super) broken: u64,
    /// Responses over HTTP/2 that broke off so early that the reset overtook their head, whose status was 200.
    pub(super) headless: u64,
    /// Refused handshakes.
    pub(super) handshakes: u64,
    /// Connections that were passed on, or not.
    pub(super) connections: u64,
    /// What is neither an answer nor a refusal with a reason.
    pub(super) strange: Vec<String>,
}

/// Clients at work.
pub(super) struct Clients {
    stop: Arc<AtomicBool>,
    threads: Vec<JoinHandle<Result<Account>>>,
}

fn kinds() -> Vec<Kind> {
    let new = |name, counts, certificate, path: &str, arguments: &[&str]| {
        let arguments = arguments.iter().map(|argument| (*argument).to_owned()).collect();
        Kind { name, counts, certificate, path: path.to_owned(), arguments }
    };
    let (download, upload) = (format!("/bytes?n={BODY_BYTES}&i=[1-20]"), format!("@{BODY_FILE}"));
    let long = format!("/bytes?n={LONG_BYTES}&i=[1-5]");
    let of_requests = |name, path: &str, arguments: &[&str]| {
        new(name, Counts::Requests, Some("billing"), path, &[&["--rate", "100/s"], arguments].concat())
    };
    vec![
        of_requests("keep-alive", "/orders/[1-100]", &["--http1.1"]),
        of_requests("HTTP/2", "/orders/[1-100]", &["--http2"]),
        of_requests("new connections", "/orders/[1-50]", &["--http1.1", "-H", "connection: close"]),
        of_requests("download", &download, &["--http1.1"]),
        of_requests("download HTTP/2", &download, &["--http2"]),
        // These take longer than the rule lets them.
        of_requests("slow download", &long, &["--http1.1", "--limit-rate", "6M"]),
        of_requests("slow download HTTP/2", &long, &["--http2", "--limit-rate", "6M"]),
        of_requests("upload", "/upload?i=[1-20]", &["--http1.1", "--data-binary", &upload, "-H", "expect:"]),
        of_requests("upload HTTP/2", "/upload?i=[1-20]", &["--http2", "--data-binary", &upload, "-H", "expect:"]),
        of_requests("reset", "/close?i=[1-20]", &["--http1.1", "--rate", "10/s"]),
        new("forbidden", Counts::Requests, Some("reports"), "/orders/[1-50]", &["--rate", "20/s"]),
        new("nobody", Counts::Handshakes, None, "/orders/[1-20]", &["--rate", "20/s"]),
        new("L4", Counts::Connections, Some("billing"), "/orders/[1-100]", &["--http1.1", "--rate", "50/s"]),
        new("L4 new", Counts::Connections, Some("billing"), "/orders/[1-20]", &["-H", "connection: close"]),
    ]
}

impl Clients {
    pub(super) fn start(gate: &Gate) -> Result<Self> {
        gate.folder.write(BODY_FILE, &"x".repeat(BODY_BYTES))?;
        let stop = Arc::new(AtomicBool::new(false));
        let mut threads = Vec::new();
        for kind in kinds() {
            let listener = if kind.counts == Counts::Connections { "raw" } else { "gate" };
            let curl = kind.curl(gate.sidecar.listener(listener)?.port(), gate.folder.path());
            let stop = Arc::clone(&stop);
            threads.push(thread::Builder::new().spawn(move || kind.call_until(&stop, &curl))?);
        }
        Ok(Self { stop, threads })
    }

    /// Lets every client end what it is at.
    pub(super) fn finish(self) -> Result<Account> {
        self.stop.store(true, Ordering::Relaxed);
        let mut sum = Account::default();
        for thread in self.threads {
            sum.add(thread.join().map_err(|_| anyhow!("a client panicked"))??);
        }
        Ok(sum)
    }
}

impl Kind {
    fn curl(&self, port: u16, folder: &Path) -> Curl {
        let curl =
            Curl::new(format!("https://localhost:{port}{}", self.path)).within(RUN).folder(folder).authority("ca.pem");
        let curl = self.certificate.into_iter().fold(curl, Curl::certificate);
        let curl = self.arguments.iter().fold(curl, |curl, argument| curl.arg(argument));
        curl.arg("-o").arg("/dev/null").arg("-w").arg(SHOWN)
    }

    fn call_until(&self, stop: &AtomicBool, curl: &Curl) -> Result<Account> {
        let mut account = Account::default();
        while !stop.load(Ordering::Relaxed) {
            let answer = curl.call().with_context(|| self.name)?;
            for line in answer.text().lines() {
                account.enter(self, line).with_context(|| format!("{}: {line}", self.name))?;
            }
        }
        Ok(account)
    }
}

impl Account {
    /// Decisions, as the gate counts them.
    pub(super) fn decisions(&self) -> u64 {
        self.requests() + self.handshakes + self.connections
    }

    pub(super) fn requests(&self) -> u64 {
        self.statuses.values().sum::<u64>() + self.headless
    }

    fn enter(&mut self, kind: &Kind, line: &str) -> Result<()> {
        let columns: Vec<_> = line.splitn(5, '|').collect();
        let [connects, status, exit, reason, error] = columns[..] else { return Err(anyhow!("not five columns")) };
        let (connects, status, exit): (u64, u16, u8) = (connects.parse()?, status.parse()?, exit.parse()?);
        match kind.counts {
            Counts::Connections => self.connections += connects,
            Counts::Handshakes if status == 0 => self.handshakes += connects,
            Counts::Requests if status != 0 => {
                *self.statuses.entry(status).or_default() += 1;
                self.broken += u64::from(exit != 0);
                if status != 200 && reason.is_empty() {
                    self.strange.push(format!("{}: {line}", kind.name));
                }
            }
            Counts::Requests if exit == CURLE_HTTP2_STREAM && error.contains("INTERNAL_ERROR") => self.headless += 1,
            Counts::Handshakes | Counts::Requests => self.strange.push(format!("{}: {line}", kind.name)),
        }
        Ok(())
    }

    fn add(&mut self, other: Self) {
        for (status, count) in other.statuses {
            *self.statuses.entry(status).or_default() += count;
        }
        self.broken += other.broken;
        self.headless += other.headless;
        self.handshakes += other.handshakes;
        self.connections += other.connections;
        self.strange.extend(other.strange);
    }
}
