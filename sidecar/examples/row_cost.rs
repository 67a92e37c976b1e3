//! What a row of the request log costs: bytes of file, as it is written and compressed, and CPU from the queue to the end
//! of its transaction, and to the end of its segment's compression; and how many wait where decisions come fast.
//!
//! `row_cost [ROWS [URL]]`: so many rows (200,000) of 100 clients under 20 rules, as fast as the log takes them, once without
//! ids of traces and once with; with values of their heads and with bodies, all of it that the gate does for them; then as
//! many at 50,000 a second; and, where a PostgreSQL is named, what sending them costs on this side.
#![expect(clippy::unwrap_used, clippy::print_stdout, reason = "a measurement that fails has no result")]

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};
use std::{env, fs, thread};

use http::{HeaderMap, HeaderName, HeaderValue, Method};
use postern_sidecar::log::{
    self, Bodies, Chained, Copied, Kind, Missed, Peer, PeerFacts, Record, Scope, ScopeFacts, SegmentForm, Sender,
    ShipOptions, Stats, WriterOptions,
};
use sidecar_config::capture::{self, Captured, CapturedAs};
use sidecar_config::settings::{ClientAddress, Pod};
use sidecar_decide::Verdict;
use sidecar_decide::capture::Capture;
use sidecar_decide::filter::{RequestId, Uuid7};

/// What a segment is cut at, if nothing else is set.
const SEGMENT: u64 = 4 << 20;

/// Rows that wait at most, so that none is dropped; with bodies fewer, which have a bound of their own.
const AHEAD: usize = 4000;
const AHEAD_WITH_BODIES: usize = 2000;

/// Bytes of each body, and of so many bodies at most some are kept.
const BODY: usize = 1024;
const BODY_MOST: usize = 8192;

/// Heads that are captured of, each of another user.
const HEADS: u64 = 1000;

/// What rows have.
#[derive(Clone, Default)]
struct Shape {
    has_trace: bool,
    has_captures: bool,
    has_body: bool,
    chain: Option<Chained>,
}

fn main() {
    let rows: u64 = env::args().nth(1).map_or(200_000, |rows| rows.parse().unwrap());
    let plain = Shape { has_trace: true, ..Shape::default() };
    tell("without trace ids", &Cost::of(rows, &Shape::default()));
    let cost = Cost::of(rows, &plain);
    tell("with trace ids", &cost);
    tell("with trace ids and a chain", &Cost::of(rows, &Shape { chain: Some(Chained::Unkeyed), ..plain.clone() }));
    for (name, shape) in [
        ("and four fields of the head, one of them hashed", Shape { has_captures: true, ..plain.clone() }),
        ("and a body of 1 KiB", Shape { has_body: true, ..plain }),
    ] {
        // A body is as many bytes as ten rows.
        let with = Cost::of(if shape.has_body { rows / 4 } else { rows }, &shape);
        tell(&format!("with trace ids {name}"), &with);
        println!(
            "  more: {:.1} bytes, {:.1} compressed; {:.2} us of CPU with segments and their compression, {:.2} of them the worker's",
            with.bytes - cost.bytes,
            with.packed - cost.packed,
            with.cut - cost.cut,
            with.own - cost.own
        );
    }
    crowd(rows);
    if let Some(url) = env::args().nth(2) {
        send(rows, &url);
    }
}

fn tell(name: &str, cost: &Cost) {
    println!(
        "{name}: {:.1} bytes a row, {:.1} compressed; {:.2} us of CPU a row, {:.2} with segments and their compression",
        cost.bytes, cost.packed, cost.cpu, cost.cut
    );
}

/// Of rows that are in the log already, of which most are compressed.
fn send(rows: u64, url: &str) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("requests.db");
    fill(rows, &Shape { has_trace: true, ..Shape::default() }, options(path.clone(), SEGMENT));
    let stats = Arc::new(Stats::default());
    let writer = log::start(options(path.clone(), SEGMENT), log::channel(1, 1, Arc::clone(&stats)).1).unwrap();
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
    let writer = log::start(options(folder.path().join("requests.db"), SEGMENT), receiver).unwrap();
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
    /// Of CPU, in microseconds: in one file; in segments and with their compression; and of that the thread's that makes rows.
    cpu: f64,
    cut: f64,
    own: f64,
}

impl Cost {
    fn of(rows: u64, shape: &Shape) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("requests.db");
        let (cpu, _, _) = fill(rows, shape, options(path.clone(), 1 << 30));
        let bytes = fs::metadata(&path).unwrap().len();
        let folder = tempfile::tempdir().unwrap();
        let (cut, own, stats) = fill(rows, shape, options(folder.path().join("requests.db"), SEGMENT));
        // The second number in a segment's name is that of its last row.
        let last = fs::read_dir(&folder).unwrap().filter_map(|file| {
            let name = file.unwrap().file_name().into_string().unwrap();
            name.split('-').nth(1)?.parse().ok()
        });
        let packed_rows: u32 = last.max().unwrap_or(0);
        let packed_bytes = u32::try_from(stats.segments(SegmentForm::Compressed).1).unwrap();
        let rows = f64::from(u32::try_from(rows).unwrap());
        let each = |time: Duration| time.as_secs_f64() * 1e6 / rows;
        Self {
            bytes: f64::from(u32::try_from(bytes).unwrap()) / rows,
            packed: f64::from(packed_bytes) / f64::from(packed_rows),
            cpu: each(cpu),
            cut: each(cut),
            own: each(own),
        }
    }
}

/// Writes so many rows, as fast as the log takes them, and waits until what is cut of them is compressed: the CPU of it, and
/// of the thread that makes them.
fn fill(rows: u64, shape: &Shape, mut options: WriterOptions) -> (Duration, Duration, Arc<Stats>) {
    let secrets = tempfile::tempdir().unwrap();
    let [salt, key] = ["salt", "key"].map(|name| secrets.path().join(name));
    fs::write(&salt, "ab".repeat(32)).unwrap();
    fs::write(&key, "ab".repeat(32)).unwrap();
    options.chain = shape.chain.clone().unwrap_or(Chained::Off);
    options.body_key = shape.has_body.then_some(key);
    let stats = Arc::new(Stats::default());
    let (sender, receiver) = log::channel(log::QUEUE_ROWS, 500, Arc::clone(&stats));
    let sender = sender.salting(salt);
    let writer = log::start(options, receiver).unwrap();
    let scopes: Vec<_> = (0..20).map(|number| Arc::new(scope(number))).collect();
    let peers: Vec<_> = (0..100).map(|number| Arc::new(peer(number))).collect();
    let extra = Extra::new();
    let ahead = if shape.has_body { AHEAD_WITH_BODIES } else { AHEAD };
    let (before, own_before) = (cpu(), own_cpu());
    for number in 0..rows {
        while stats.queue_depth() > ahead {
            thread::sleep(Duration::from_millis(1));
        }
        let index = usize::try_from(number).unwrap();
        let record = record(number, &scopes[index % 20], &peers[index % 100]);
        let captured = if shape.has_captures { extra.captured(number, &sender) } else { None };
        let bodies = if shape.has_body { extra.bodies(&sender) } else { None };
        let trace_id = shape.has_trace.then(|| trace(number));
        sender.send(Box::new(Record { trace_id, captured, bodies, ..record }));
    }
    let own = own_cpu() - own_before;
    while stats.rows_written() < rows || stats.segments(SegmentForm::Plain).0 > 0 {
        thread::sleep(Duration::from_millis(10));
    }
    let cpu = cpu() - before;
    let summary = writer.stop(Duration::from_secs(60));
    assert_eq!((summary.written, summary.lost), (rows, 0));
    assert_eq!(Missed::ALL.map(|reason| sender.bodies().missed(reason)), [0; 2], "each body is in its row");
    (cpu, own, stats)
}

/// What routes ask rows to have.
struct Extra {
    capture: Capture,
    heads: Vec<HeaderMap>,
    body: Vec<u8>,
}

impl Extra {
    fn new() -> Self {
        let captured = |name: &str, kept| Captured { name: name.to_owned(), kept };
        let headers = vec![
            captured("x-tenant", CapturedAs::Keep),
            captured("x-user", CapturedAs::Sha256),
            captured("x-client-version", CapturedAs::Keep),
            captured("content-type", CapturedAs::Keep),
        ];
        let capture = Capture::of(&capture::Capture { headers, ..capture::Capture::default() });
        let body = (0..).flat_map(|number| chance(number).to_be_bytes()).take(BODY).collect();
        Self { capture, heads: (0..HEADS).map(head).collect(), body }
    }

    fn captured(&self, number: u64, sender: &Sender) -> Option<Box<str>> {
        let head = &self.heads[usize::try_from(chance(number + 7) % HEADS).unwrap()];
        self.capture.take(head, None, &|value| sender.salted(value)).json
    }

    fn bodies(&self, sender: &Sender) -> Option<Arc<Bodies>> {
        let mut copied = Copied::new(sender.bodies(), BODY_MOST);
        copied.feed(&self.body);
        Bodies::of(Some(copied), None)
    }
}

/// What a client sends, of which four are captured.
fn head(user: u64) -> HeaderMap {
    let tenant = format!("tenant-{}", user % 40);
    let user = format!("user-{user}@orders.example");
    let fields = [
        ("accept", "application/json"),
        ("accept-encoding", "gzip, deflate"),
        ("user-agent", "orders-client/4.17.2"),
        ("content-type", "application/json"),
        ("content-length", "1024"),
        ("traceparent", "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"),
        ("x-client-version", "4.17.2"),
        ("x-tenant", &tenant),
        ("x-user", &user),
    ];
    fields.iter().map(|(name, value)| (HeaderName::from_static(name), HeaderValue::from_str(value).unwrap())).collect()
}

fn options(path: PathBuf, segment: u64) -> WriterOptions {
    WriterOptions {
        path,
        flush_every: Duration::from_millis(100),
        sizes: log::Sizes { segment, age: Duration::from_secs(3600), total: 1 << 30, keep: None },
        pod: Pod::default(),
        client_address: ClientAddress::Full,
        chain: Chained::Off,
        body_key: None,
    }
}

/// The process's, of all its threads.
fn cpu() -> Duration {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::ProcessCPUTime);
    Duration::try_from(time).unwrap()
}

/// That of the thread that asks.
fn own_cpu() -> Duration {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::ThreadCPUTime);
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
