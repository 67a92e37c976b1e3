//! What a row of the request log costs: bytes of file, as it is written and compressed, and CPU from the queue to the end
//! of its transaction, and to the end of its segment's compression; and how many wait where decisions come fast.
//!
//! `row_cost [ROWS [URL]]`: so many rows (200,000) of 100 clients under 20 rules, as fast as the log takes them, once without
//! ids of traces and once with; then as many at 50,000 a second; and, where a PostgreSQL is named, what sending them costs
//! on this side.
#![expect(clippy::unwrap_used, clippy::print_stdout, reason = "a measurement that fails has no result")]

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};
use std::{env, fs, thread};

use http::Method;
use postern_sidecar::log::{
    self, Chained, Kind, Peer, PeerFacts, Record, Scope, ScopeFacts, SegmentForm, ShipOptions, Stats, WriterOptions,
};
use sidecar_config::settings::{ClientAddress, Pod};
use sidecar_decide::Verdict;
use sidecar_decide::filter::{RequestId, Uuid7};

/// What a segment is cut at, if nothing else is set.
const SEGMENT: u64 = 4 << 20;

/// Rows that wait at most, so that none is dropped.
const AHEAD: usize = 4000;

fn main() {
    let rows: u64 = env::args().nth(1).map_or(200_000, |rows| rows.parse().unwrap());
    let (off, on) = (Chained::Off, Chained::Unkeyed);
    for (name, has_trace, chain) in
        [("without trace ids", false, &off), ("with trace ids", true, &off), ("with trace ids and a chain", true, &on)]
    {
        let whole = write(rows, has_trace, chain.clone(), 1 << 30);
        let cut = write(rows, has_trace, chain.clone(), SEGMENT);
        println!(
            "{name}: {:.1} bytes a row, {:.1} compressed; {:.2} us of CPU a row, {:.2} with segments and their compression",
            whole.bytes, cut.packed, whole.cpu, cut.cpu
        );
    }
    crowd(rows);
    if let Some(url) = env::args().nth(2) {
        send(rows, &url);
    }
}

/// Of rows that are in the log already, of which most are compressed.
fn send(rows: u64, url: &str) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("requests.db");
    fill(rows, true, options(path.clone(), SEGMENT, Chained::Off));
    let stats = Arc::new(Stats::default());
    let writer =
        log::start(options(path.clone(), SEGMENT, Chained::Off), log::channel(1, 1, Arc::clone(&stats)).1).unwrap();
    while !stats.store_up() {
        thread::sleep(Duration::from_millis(10));
    }
    let options = ShipOptions {
        log: path,
        url: Some(url.to_owned()),
        url_file: None,
        password_file: None,
        ca_file: None,
        batch_rows: 1000,
        every: Duration::from_secs(1),
        applies_schema: true,
    };
    let (begun, before) = (Instant::now(), cpu());
    let shipper = log::start_shipper(options, Arc::clone(&stats)).unwrap();
    while stats.ship.sent() < rows {
        thread::sleep(Duration::from_millis(10));
    }
    let (cpu, took) = (cpu() - before, begun.elapsed());
    println!(
        "sent in {took:.2?}: {:.2} us of CPU a row",
        cpu.as_secs_f64() * 1e6 / f64::from(u32::try_from(rows).unwrap())
    );
    assert_eq!(shipper.stop(Duration::from_secs(10)), Some(0));
    assert_eq!(writer.stop(Duration::from_secs(10)).lost, 0);
}

/// Of rows that come 50,000 a second, those of a millisecond at once: how many wait at most, and how many are dropped.
fn crowd(rows: u64) {
    let folder = tempfile::tempdir().unwrap();
    let stats = Arc::new(Stats::default());
    let (sender, receiver) = log::channel(log::QUEUE_ROWS, 500, Arc::clone(&stats));
    let writer = log::start(options(folder.path().join("requests.db"), SEGMENT, Chained::Off), receiver).unwrap();
    let (scope, peer) = (Arc::new(scope(0)), Arc::new(peer(0)));
    let (begun, mut deepest) = (Instant::now(), 0);
    for number in 0..rows {
        if number % 50 == 0 {
            thread::sleep((begun + Duration::from_millis(number / 50)).saturating_duration_since(Instant::now()));
            deepest = deepest.max(stats.queue_depth());
        }
        sender.send(Box::new(record(number, &scope, &peer)));
    }
    let took = begun.elapsed();
    let written = writer.stop(Duration::from_secs(60)).written;
    println!(
        "{rows} rows in {took:.2?}: at most {deepest} of {} waited, {written} were written, {} dropped",
        log::QUEUE_ROWS,
        rows - written
    );
}

/// Of a row.
struct Cost {
    bytes: f64,
    packed: f64,
    cpu: f64,
}

fn write(rows: u64, has_trace: bool, chain: Chained, segment: u64) -> Cost {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("requests.db");
    let (cpu, stats) = fill(rows, has_trace, options(path.clone(), segment, chain));
    // The second number in a segment's name is that of its last row.
    let last = fs::read_dir(&folder).unwrap().filter_map(|file| {
        let name = file.unwrap().file_name().into_string().unwrap();
        name.split('-').nth(1)?.parse().ok()
    });
    let packed_rows: u32 = last.max().unwrap_or(0);
    let packed_bytes = u32::try_from(stats.segments(SegmentForm::Compressed).1).unwrap();
    let (bytes, rows) = (fs::metadata(&path).unwrap().len(), f64::from(u32::try_from(rows).unwrap()));
    Cost {
        bytes: f64::from(u32::try_from(bytes).unwrap()) / rows,
        packed: f64::from(packed_bytes) / f64::from(packed_rows),
        cpu: cpu.as_secs_f64() * 1e6 / rows,
    }
}

/// Writes so many rows, as fast as the log takes them, and waits until what is cut of them is compressed: the CPU of it.
fn fill(rows: u64, has_trace: bool, options: WriterOptions) -> (Duration, Arc<Stats>) {
    let stats = Arc::new(Stats::default());
    let (sender, receiver) = log::channel(log::QUEUE_ROWS, 500, Arc::clone(&stats));
    let writer = log::start(options, receiver).unwrap();
    let scopes: Vec<_> = (0..20).map(|number| Arc::new(scope(number))).collect();
    let peers: Vec<_> = (0..100).map(|number| Arc::new(peer(number))).collect();
    let before = cpu();
    for number in 0..rows {
        while stats.queue_depth() > AHEAD {
            thread::sleep(Duration::from_millis(1));
        }
        let index = usize::try_from(number).unwrap();
        let record = record(number, &scopes[index % 20], &peers[index % 100]);
        sender.send(Box::new(Record { trace_id: has_trace.then(|| trace(number)), ..record }));
    }
    while stats.rows_written() < rows || stats.segments(SegmentForm::Plain).0 > 0 {
        thread::sleep(Duration::from_millis(10));
    }
    let cpu = cpu() - before;
    let summary = writer.stop(Duration::from_secs(60));
    assert_eq!((summary.written, summary.lost), (rows, 0));
    (cpu, stats)
}

fn options(path: PathBuf, segment: u64, chain: Chained) -> WriterOptions {
    WriterOptions {
        path,
        flush_every: Duration::from_millis(100),
        sizes: log::Sizes { segment, age: Duration::from_secs(3600), total: 1 << 30, keep: None },
        pod: Pod::default(),
        client_address: ClientAddress::Full,
        chain,
        body_key: None,
    }
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
        request_id: Some(RequestId::Own(Uuid7::new(micros, request(number)))),
        client_addr: Some(client(number).into()),
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

fn trace(number: u64) -> [u8; 16] {
    (u128::from(chance(number + 5)) << 64 | u128::from(chance(number + 6))).to_be_bytes()
}

/// Ids of a connection's requests count up from a chance of its own.
fn request(number: u64) -> u64 {
    let connection = number / 10_000 * 100 + number % 100;
    chance(connection) + number / 100 % 100
}

/// Each has a connection that lasts for 100 requests.
fn client(number: u64) -> SocketAddr {
    let host = u8::try_from(number % 100).unwrap();
    let port = 32_768 + u16::try_from(number / 10_000 * 977 % 28_000).unwrap();
    SocketAddr::from(([10, 0, 0, host], port))
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
