//! The request log while its disk fails, and after a kill: traffic goes on, and every decision is in a row or counted.

use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::thread;
use std::time::{Duration, SystemTime};

use postern_tests::clients::run;
use postern_tests::disk::Disk;
use postern_tests::gate::Gate;
use postern_tests::wait::PATIENCE;
use serde_json::json;

use crate::observed::{dropped, metric, wait_metric, wait_until};

/// What a program has to do, with success.
fn must(program: &str, arguments: &[&str]) -> String {
    let finished = run(Command::new(program).args(arguments), b"", PATIENCE).unwrap();
    assert_eq!(finished.code, Some(0), "{program} {arguments:?}: {}", finished.stderr);
    finished.text()
}

/// Decisions that the rows of a file stand for; none where there is no log yet.
fn decisions(database: &Path) -> u64 {
    let sql = "select coalesce(sum(repeat), 0) from requests";
    let finished = run(Command::new("sqlite3").arg(database).arg(sql), b"", PATIENCE).unwrap();
    finished.text().trim().parse().unwrap_or(0)
}

/// Waits until every decision is in a row of one of these files, or counted as dropped.
fn wait_balance(case: &str, gate: &Gate, databases: &[&Path], expected: u64) {
    let mut found = (0, 0);
    wait_until(&format!("{case}: {expected} decisions in {databases:?}"), || {
        found = (databases.iter().map(|database| decisions(database)).sum(), dropped(&gate.sidecar));
        found.0 + found.1 == expected
    });
    assert_eq!(found, (expected, 0), "{case}: the queue had a place for all");
}

fn call(gate: &Gate, count: u64) {
    let curl = gate.curl(Some("billing"), &format!("/orders/[1-{count}]")).unwrap();
    let answer = curl.arg("-o").arg("/dev/null").call().unwrap();
    assert_eq!(answer.exit_code, Some(0), "{answer:?}");
}

/// A disk of 2 MiB; `None`, and a word about it, where there can be none.
fn disk() -> Option<Disk> {
    let disk = Disk::mount("2m").unwrap();
    if disk.is_none() {
        std::io::stderr().write_all(b"skipped: no file system may be mounted here\n").unwrap();
    }
    disk
}

/// How the log is broken and repaired.
type Fault = (&'static str, fn(&Gate, &Disk), fn(&Gate, &Disk));

const FAULTS: [Fault; 4] = [
    ("the disk is full", |_, disk| disk.fill().unwrap(), |_, disk| disk.empty().unwrap()),
    ("files may not grow", |gate, _| limit_files(gate, "1"), |gate, _| limit_files(gate, "unlimited")),
    (
        "the folder is gone",
        |_, disk| fs::rename(disk.path().join("log"), disk.path().join("away")).unwrap(),
        |_, disk| fs::create_dir(disk.path().join("log")).unwrap(),
    ),
    (
        "a folder in its place",
        |_, disk| {
            fs::create_dir(disk.path().join("away")).unwrap();
            for name in ["requests.db", "requests.db-wal", "requests.db-shm"] {
                fs::rename(disk.path().join("log").join(name), disk.path().join("away").join(name)).unwrap();
            }
            fs::create_dir(disk.path().join("log/requests.db")).unwrap();
        },
        |_, disk| fs::remove_dir(disk.path().join("log/requests.db")).unwrap(),
    ),
];

fn limit_files(gate: &Gate, bytes: &str) {
    must("prlimit", &["--pid", &gate.sidecar.id().to_string(), &format!("--fsize={bytes}:")]);
}

/// A gate that logs on a disk of its own.
fn gate_on(disk: &Disk) -> (Gate, PathBuf) {
    let folder = disk.path().join("log");
    let database = folder.join("requests.db");
    let gate = Gate::start_with(|document| {
        document["settings"]["log"]["path"] = json!(database.to_str().unwrap());
        document["settings"]["log"]["maxSize"] = json!("1Mi");
    });
    (gate.unwrap(), database)
}

#[test]
fn traffic_goes_on_while_the_log_fails_and_every_decision_is_a_row() {
    for (fault, break_it, repair) in FAULTS {
        let Some(disk) = disk() else { return };
        fs::create_dir(disk.path().join("log")).unwrap();
        let (gate, database) = gate_on(&disk);
        call(&gate, 20);
        wait_metric(&gate.sidecar, "postern_log_rows_written_total", 20);
        break_it(&gate, &disk);
        call(&gate, 500);
        wait_metric(&gate.sidecar, "postern_log_up", 0);
        call(&gate, 500);
        assert!(metric(&gate.sidecar, "postern_log_write_errors_total") > 0, "{fault}");
        repair(&gate, &disk);
        call(&gate, 30);
        wait_metric(&gate.sidecar, "postern_log_up", 1);
        wait_balance(fault, &gate, &[&database, &disk.path().join("away/requests.db")], 1050);
        // Some of them in a file that the gate has no more.
        gate.sidecar.leave_unaudited();
    }
}

#[test]
fn a_log_on_a_read_only_disk_is_written_when_it_can_be() {
    let Some(disk) = disk() else { return };
    fs::create_dir(disk.path().join("log")).unwrap();
    disk.remount("ro").unwrap();
    let (gate, database) = gate_on(&disk);
    call(&gate, 50);
    wait_metric(&gate.sidecar, "postern_log_up", 0);
    disk.remount("rw").unwrap();
    call(&gate, 50);
    wait_balance("", &gate, &[&database], 100);
}

#[test]
fn a_log_that_is_damaged_is_set_aside() {
    let mut gate = Gate::start().unwrap();
    let database = gate.folder.file("requests.db");
    call(&gate, 50);
    wait_balance("", &gate, &[&database], 50);
    gate.sidecar.terminate().unwrap();
    gate.sidecar.wait_exit().unwrap();
    let mut bytes = fs::read(&database).unwrap();
    bytes[..100].fill(b'x');
    fs::write(&database, bytes).unwrap();
    gate.sidecar = gate.sidecar.launch().start_ready().unwrap();
    call(&gate, 30);
    wait_balance("", &gate, &[&database], 30);
    assert_eq!(metric(&gate.sidecar, "postern_log_files_set_aside_total"), 1);
    assert!(fs::read(gate.folder.file("requests.db.damaged")).unwrap().starts_with(b"xxxx"));
    let kinds = "select kind, count(*), sum(repeat) from requests group by kind";
    assert_eq!(must("sqlite3", &[database.to_str().unwrap(), kinds]), "gap|1|0\nrequest|30|30\n");
}

#[test]
fn a_flood_of_refused_handshakes_is_counted_and_takes_few_rows() {
    let mut gate = Gate::start().unwrap();
    let database = gate.folder.file("requests.db");
    call(&gate, 5);
    // Two networks, several addresses in each: without a certificate they have nothing else to be told apart by.
    for (network, count) in [(1, 25), (2, 12)] {
        for number in 0..count {
            let curl = gate
                .curl(None, "/orders")
                .unwrap()
                .arg("--interface")
                .arg(format!("127.0.{network}.{}", 1 + number % 7));
            assert_eq!(curl.call().unwrap().status, None);
        }
    }
    wait_metric(&gate.sidecar, "postern_log_refusals_held", 17);
    wait_metric(&gate.sidecar, "postern_log_rows_written_total", 25);
    gate.sidecar.has_decided(5 + 25 + 12).unwrap();
    gate.sidecar.terminate().unwrap();
    assert_eq!(gate.sidecar.wait_exit().unwrap().code(), Some(0));
    assert_eq!(decisions(&database), 5 + 25 + 12);
    let sql = "select client_addr, repeat, reason, listener from requests where repeat > 1 order by client_addr";
    let shared = must("sqlite3", &[database.to_str().unwrap(), sql]);
    assert_eq!(shared, "127.0.1.0/24|15|tls_no_certificate|gate\n127.0.2.0/24|2|tls_no_certificate|gate\n");
}

/// What a machine that does other things adds to the window: a commit, and the writer's turn.
const SLACK: Duration = Duration::from_millis(700);

#[test]
fn a_kill_loses_one_batch_window_at_most() {
    for window_ms in [100, 1000] {
        let mut gate = Gate::start_with(|document| {
            document["settings"]["log"]["flushEvery"] = json!(format!("{window_ms}ms"));
            document["settings"]["log"]["flushRows"] = json!(8192);
        })
        .unwrap();
        let curl =
            gate.curl(Some("billing"), "/orders/[1-1000000]").unwrap().arg("--fail-early").arg("-o").arg("/dev/null");
        let client = thread::spawn(move || curl.call());
        let written = || metric(&gate.sidecar, "postern_log_rows_written_total");
        let queued = || metric(&gate.sidecar, "postern_log_queue_rows");
        wait_until("two batches", || written() > 200);
        // Near the end of a window, where a kill loses most.
        let before = written();
        wait_until("a batch", || written() > before);
        let batch = written() - before;
        wait_until("most of the next one", || queued() * 4 > batch * 3);
        let decided = written() + queued();
        let killed = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap();
        gate.sidecar.kill().unwrap();
        assert!(client.join().unwrap().is_ok());
        gate.sidecar = gate.sidecar.launch().start_ready().unwrap();
        wait_metric(&gate.sidecar, "postern_log_up", 1);
        let database = gate.folder.file("requests.db");
        let sql = "select sum(kind = 'gap'), sum(repeat), max(cast(substr(path, 9) as integer)), \
                   max(case kind when 'request' then at end) from entry";
        let answer = must("sqlite3", &[database.to_str().unwrap(), sql]);
        let found: Vec<u64> = answer.trim().split('|').map(|number| number.parse().unwrap()).collect();
        assert_eq!((found[0], found[1]), (1, found[2]), "a gap, and no row missing before the last one: {answer}");
        let lost_ms = killed.saturating_sub(Duration::from_micros(found[3])).as_millis();
        let lost = decided.saturating_sub(found[1]);
        assert!(lost_ms <= window_ms + SLACK.as_millis(), "{lost} rows of {lost_ms} ms, the window is {window_ms} ms");
    }
}
