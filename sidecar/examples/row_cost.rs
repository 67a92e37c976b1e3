//! What a row of the request log costs: bytes of file, and CPU from the queue to the end of its transaction.
//!
//! `row_cost [ROWS]`: so many rows (200,000) of 100 clients under 20 rules, as fast as the log takes them.
#![expect(clippy::unwrap_used, clippy::print_stdout, reason = "a measurement that fails has no result")]

use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};
use std::{env, fs, thread};

use http::Method;
use postern_sidecar::log::{self, Client, Kind, Peer, PeerFacts, Record, Scope, ScopeFacts, Stats, WriterOptions};
use sidecar_config::settings::Pod;
use sidecar_decide::Verdict;
use sidecar_decide::filter::{RequestId, Uuid7};

/// Rows that wait at most, so that none is dropped.
const AHEAD: usize = 4000;

fn main() {
    let rows: u64 = env::args().nth(1).map_or(200_000, |rows| rows.parse().unwrap());
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("requests.db");
    let stats = Arc::new(Stats::default());
    let (sender, receiver) = log::channel(log::QUEUE_ROWS, 500, Arc::clone(&stats));
    let options = WriterOptions {
        path: path.clone(),
        flush_every: Duration::from_millis(100),
        sizes: log::Sizes { segment: 1 << 30, age: Duration::from_secs(3600), total: 1 << 30, keep: None },
        pod: Pod::default(),
    };
    let writer = log::start(options, receiver).unwrap();
    let scopes: Vec<_> = (0..20).map(|number| Arc::new(scope(number))).collect();
    let peers: Vec<_> = (0..100).map(|number| Arc::new(peer(number))).collect();
    let (started, before) = (Instant::now(), cpu());
    for number in 0..rows {
        while stats.queue_depth() > AHEAD {
            thread::sleep(Duration::from_millis(1));
        }
        let index = usize::try_from(number).unwrap();
        sender.send(Box::new(record(number, &scopes[index % 20], &peers[index % 100])));
    }
    let summary = writer.stop(Duration::from_secs(60));
    let (wall, cpu) = (started.elapsed(), cpu() - before);
    assert_eq!((summary.written, summary.lost), (rows, 0));
    if let Some(to) = env::args().nth(3) {
        fs::copy(&path, to).unwrap();
    }
    let (bytes, count) = (fs::metadata(&path).unwrap().len(), f64::from(u32::try_from(rows).unwrap()));
    let micros = |time: Duration| time.as_secs_f64() * 1e6 / count;
    println!("{} bytes, {:.2} us of CPU, {:.2} us a row", bytes / rows, micros(cpu), micros(wall));
}

/// The process's, of all its threads.
fn cpu() -> Duration {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::ProcessCPUTime);
    Duration::try_from(time).unwrap()
}

fn record(number: u64, scope: &Arc<Scope>, peer: &Arc<Peer>) -> Record {
    let time = SystemTime::now();
    let micros = u64::try_from(time.duration_since(SystemTime::UNIX_EPOCH).unwrap().as_micros()).unwrap();
    Record {
        verdict: Verdict::Allowed,
        scope: Some(Arc::clone(scope)),
        peer: Some(Arc::clone(peer)),
        sni: Some("orders.example".into()),
        resumed: true,
        protocol: Some("HTTP/2"),
        method: Some(Method::GET),
        host: Some("orders.example".into()),
        path: Some(format!("/orders/{}", chance(number) % 5000).into()),
        status: Some(200),
        response_bytes: 1000 + chance(number + 1) % 3000,
        duration_us: 1500 + chance(number + 2) % 1000,
        upstream_us: Some(1200 + chance(number + 3) % 300),
        upstream: Some("10.0.0.7:8080".parse().unwrap()),
        attempts: 1,
        request_id: Some(RequestId::Own(Uuid7::new(micros, chance(number)))),
        trace_id: (env::args().nth(2).as_deref() == Some("trace"))
            .then(|| (u128::from(chance(number + 5)) << 64 | u128::from(chance(number + 6))).to_be_bytes()),
        client_addr: Some(Client::Address(std::net::SocketAddr::from((
            [10, 0, 0, (number % 100) as u8],
            32768 + ((number / 100) % 7 * 977) as u16,
        )))),
        ..Record::new(Kind::Request, time)
    }
}

/// Splitmix64: of a number another that looks random.
fn chance(number: u64) -> u64 {
    let number = number.wrapping_mul(0x9e37_79b9_7f4a_7c15);
    let number = (number ^ number >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let number = (number ^ number >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
    number ^ number >> 31
}

fn scope(number: u32) -> Scope {
    Scope::new(ScopeFacts {
        listener: Some("main".into()),
        route: Some("shop/orders".into()),
        rule: Some(format!("rule-{number}").into()),
        mode: Some("Enforce"),
        policy_revision: Some("0123456789ab".into()),
        ..ScopeFacts::default()
    })
}

fn peer(number: u32) -> Peer {
    Peer::new(PeerFacts {
        identity: Some(format!("shop/client-{number}").into()),
        bundle: Some("fleet".into()),
        subject: Some(format!("CN=client-{number}").into()),
        tls_version: Some("TLSv1.3"),
        ..PeerFacts::default()
    })
}
