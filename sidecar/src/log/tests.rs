//! The log as a whole, on real files. What is waited for is a condition, within a bound.

mod bodies;
mod capture;
mod chain;
mod ids;
mod limiters;
mod message_types;
mod privacy;
mod reading;
mod reports;
mod retention;
pub(super) mod segments;
mod sent;
mod shipping;
mod strangers;
mod unread;
mod writing;

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use http::Method;
use sidecar_config::settings::{ClientAddress, Pod};
use sidecar_decide::Verdict;
use sidecar_decide::filter::{RequestId, Uuid7};
use sqlx::sqlite::SqliteConnectOptions;
use sqlx::{AssertSqlSafe, ConnectOptions, Connection, SqliteConnection};
use tempfile::TempDir;

use super::query::{self, Printed, QueryError};
use super::queue::channel_with;
use super::refusals::{Refusals, WINDOW};
use super::segments::{Gone, Retention};
use super::store::{Opening, Store, StoreOptions};
use super::*;

const PATIENCE: Duration = Duration::from_secs(20);
const LARGE: u64 = 64 << 20;

/// A log in a folder of its own, with its writer.
struct Log {
    path: PathBuf,
    sender: Sender,
    stats: Arc<Stats>,
    writer: Writer,
}

impl Log {
    fn start(path: &Path, max_size: u64) -> Self {
        Self::start_with(Refusals::new(WINDOW), path, max_size)
    }

    fn start_with(refusals: Refusals, path: &Path, max_size: u64) -> Self {
        Self::start_cut(refusals, path, whole(max_size))
    }

    fn start_cut(refusals: Refusals, path: &Path, sizes: Sizes) -> Self {
        Self::start_all(refusals, path, sizes, None)
    }

    fn start_sealed(path: &Path, sizes: Sizes, body_key: Option<PathBuf>) -> Self {
        Self::start_all(Refusals::new(WINDOW), path, sizes, body_key)
    }

    fn start_all(refusals: Refusals, path: &Path, sizes: Sizes, body_key: Option<PathBuf>) -> Self {
        let stats = Arc::new(Stats::default());
        let (sender, receiver) = channel_with(refusals, QUEUE_ROWS, 500, Arc::clone(&stats));
        let options = WriterOptions {
            path: path.to_owned(),
            flush_every: Duration::from_millis(5),
            sizes,
            pod: pod(),
            client_address: ClientAddress::Full,
            chain: Chained::Off,
            body_key,
        };
        Self { path: path.to_owned(), sender, stats, writer: start(options, receiver).unwrap() }
    }

    fn stop(self) -> Summary {
        self.writer.stop(PATIENCE)
    }
}

/// Of a store that is not cut, although its rows are of long ago.
fn whole(total: u64) -> Sizes {
    Sizes { segment: total, age: Duration::from_secs(1 << 32), total, keep: None }
}

fn pod() -> Pod {
    Pod { name: "orders-1".into(), uid: "uid-1".into(), namespace: "shop".into(), workload: "orders".into() }
}

fn options(path: &Path, sizes: Sizes) -> StoreOptions {
    let (client_address, chain) = (ClientAddress::Full, Chained::Off);
    let body_key = Some(Arc::new(bodies::key()));
    StoreOptions { path: path.to_owned(), sizes, pod: pod(), client_address, chain, body_key, stats: Arc::default() }
}

/// Has a log delete what is too much.
fn make_room(retention: &Retention, path: &Path, more: u64) -> Gone {
    retention.delete(path, &retention.to_go(path, more, SystemTime::now()).unwrap()).unwrap()
}

pub(super) fn folder() -> (TempDir, PathBuf) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("requests.db");
    (folder, path)
}

/// Row `number`: what an ordinary request leaves.
pub(super) fn request(number: u64) -> Record {
    Record {
        time: UNIX_EPOCH + Duration::from_micros(1_700_000_000_123_456 + number),
        kind: Kind::Request,
        repeat: 1,
        verdict: Verdict::Allowed,
        reason: None,
        limiter: None,
        scope: Some(Arc::new(scope())),
        peer: Some(Arc::new(peer("meter-7"))),
        sni: Some("orders.example".into()),
        resumed: true,
        protocol: Some("HTTP/2"),
        method: Some(Method::GET),
        host: Some("orders.example".into()),
        path: Some(format!("/orders/{number}").into()),
        status: Some(200),
        request_bytes: 10,
        response_bytes: 2000,
        duration_us: 1500,
        queue_us: Some(100),
        connect_us: Some(300),
        upstream_us: Some(1200),
        upstream: Some("10.0.0.7:8080".parse().unwrap()),
        attempts: 1,
        request_id: Some(RequestId::Own(Uuid7::new(1_700_000_000_123_456 + number, 0x0123_4567_89ab_cdef))),
        trace_id: Some(*b"trace of no-one."),
        grpc_status: None,
        message_type: None,
        captured: None,
        bodies: None,
        client_addr: Some(Client::Address("192.0.2.9:51000".parse().unwrap())),
    }
}

fn scope() -> Scope {
    Scope::new(ScopeFacts {
        listener: Some("main".into()),
        route: Some("shop/orders".into()),
        rule: Some("read".into()),
        mode: Some("enforce"),
        policy_revision: Some("0123456789ab".into()),
        ..ScopeFacts::default()
    })
}

fn peer(identity: &str) -> Peer {
    Peer::new(facts(identity))
}

fn facts(identity: &str) -> PeerFacts {
    PeerFacts {
        identity: Some(identity.into()),
        bundle: Some("fleet".into()),
        subject: Some(format!("CN={identity}").into()),
        san: Some(format!("DNS:{identity}.example").into()),
        issuer: Some("CN=Fleet CA".into()),
        serial: Some("0a".into()),
        fingerprint: Some("f1".into()),
        spki: Some("51".into()),
        lfdi: Some("1f".into()),
        sfdi: Some("5f".into()),
        tls_version: Some("TLSv1.3"),
        cipher: Some("TLS13_AES_256_GCM_SHA384"),
    }
}

pub(super) fn wait(what: &str, condition: impl Fn() -> bool) {
    let end = Instant::now() + PATIENCE;
    while !condition() {
        assert!(Instant::now() < end, "waited too long: {what}");
        thread::sleep(Duration::from_millis(2));
    }
}

pub(super) fn block_on<F: Future>(future: F) -> F::Output {
    tokio::runtime::Builder::new_current_thread().build().unwrap().block_on(future)
}

async fn connect(path: &Path) -> SqliteConnection {
    SqliteConnectOptions::new().filename(path).connect().await.unwrap()
}

/// Runs statements as some other program would, in a file that has to be there.
pub(super) fn execute(path: &Path, sql: &str) {
    block_on(async {
        let mut connection = connect(path).await;
        sqlx::raw_sql(AssertSqlSafe(sql.to_owned())).execute(&mut connection).await.unwrap();
        connection.close().await.unwrap();
    });
}

/// What `query` answers, through the same door as the command line.
pub(super) fn ask(path: &Path, query: &str) -> String {
    let mut out = Vec::new();
    block_on(query::sql(path, query, Output::Csv, &mut out, &Unread::default())).unwrap();
    let text = String::from_utf8(out).unwrap();
    text.split_once("\r\n").unwrap().1.trim_end().replace("\r\n", "\n")
}

/// A file that was brought up to date has what a new one has, if in another order.
fn assert_columns_of_a_new_file(path: &Path) {
    let (_folder, fresh) = folder();
    written(&fresh, Vec::new());
    for table in ["decision", "refusal", "peer"] {
        let columns = format!("SELECT name FROM pragma_table_info('{table}') ORDER BY name");
        assert_eq!(ask(path, &columns), ask(&fresh, &columns), "{table}");
    }
}

/// Rows written at once and closed cleanly.
fn written(path: &Path, records: Vec<Record>) {
    let log = Log::start(path, LARGE);
    let count = records.len() as u64;
    for record in records {
        log.sender.send(Box::new(record));
    }
    assert_eq!(log.stop(), Summary { written: count, lost: 0, clean: true });
}
