//! The request log as its readers see it: while the sidecar writes, when the file breaks, and after a kill.

use std::collections::BTreeMap;
use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Child, Command, Stdio};

use postern_tests::clients::{Finished, run};
use postern_tests::gate::Gate;
use postern_tests::process::built_sidecar;
use postern_tests::wait::PATIENCE;
use serde_json::{Value, json};

use crate::observed::{columns, dropped, metric, rows, wait_metric, wait_until};

/// The view's columns that PostgreSQL has, too: what users build their queries on.
pub(crate) const COLUMNS: [&str; 51] = [
    "id",
    "time",
    "kind",
    "repeat",
    "pod",
    "pod_uid",
    "namespace",
    "workload",
    "listener",
    "sni",
    "route",
    "rule",
    "mode",
    "verdict",
    "reason",
    "limiter",
    "identity",
    "bundle",
    "subject",
    "san",
    "issuer",
    "serial",
    "fingerprint",
    "spki",
    "lfdi",
    "sfdi",
    "tls_version",
    "cipher",
    "resumed",
    "protocol",
    "method",
    "host",
    "path",
    "status",
    "grpc_status",
    "request_bytes",
    "response_bytes",
    "duration_us",
    "queue_us",
    "connect_us",
    "upstream_us",
    "upstream",
    "attempts",
    "request_id",
    "trace_id",
    "message_type",
    "client_addr",
    "policy_revision",
    "chain",
    "captured",
    "bodies",
];

/// What the program `sqlite3` says to a query.
fn sqlite3(database: &Path, sql: &str) -> String {
    let finished = run(Command::new("sqlite3").arg(database).arg(sql), b"", PATIENCE).unwrap();
    assert_eq!((finished.code, finished.stderr.as_str()), (Some(0), ""), "{sql}");
    finished.text()
}

pub(crate) fn call(gate: &Gate, certificate: &str, count: usize) {
    let curl = gate.curl(Some(certificate), &format!("/orders/[1-{count}]")).unwrap();
    let answer = curl.arg("-o").arg("/dev/null").call().unwrap();
    assert_eq!(answer.exit_code, Some(0), "{answer:?}");
}

fn log(gate: &Gate, arguments: &[&str]) -> Finished {
    gate.sidecar.launch().subcommand("log", arguments).unwrap()
}

/// A gate with three rows: an allowed request, a refused one, and a refused handshake.
pub(crate) fn gate_with_rows() -> Gate {
    let gate = Gate::start().unwrap();
    call(&gate, "billing", 1);
    call(&gate, "reports", 1);
    assert_eq!(gate.curl(None, "/orders").unwrap().call().unwrap().status, None);
    assert_eq!(rows(&gate.sidecar, 3).len(), 3);
    gate
}

#[test]
fn sqlite3_reads_the_view_while_the_sidecar_writes() {
    let gate = gate_with_rows();
    let database = gate.folder.file("requests.db");
    let names = sqlite3(&database, "select name from pragma_table_info('requests') order by cid");
    assert_eq!(names.lines().collect::<Vec<_>>(), COLUMNS);
    let sql = "select kind, repeat, verdict, reason, identity, bundle, listener, status from requests order by id";
    let expected = "request|1|allowed||demo/billing|ours|gate|200\n\
                    request|1|refused|policy_not_allowed|demo/reports|ours|gate|403\n\
                    handshake|1|refused|tls_no_certificate|||gate|\n";
    assert_eq!(sqlite3(&database, sql), expected);
    call(&gate, "billing", 50);
    wait_metric(&gate.sidecar, "postern_log_rows_written_total", 53);
    assert_eq!(sqlite3(&database, "select count(*), count(distinct id), sum(repeat) from requests"), "53|53|53\n");
    assert_eq!(sqlite3(&database, "pragma integrity_check"), "ok\n");
}

#[test]
fn the_log_is_readable_by_its_owner_alone() {
    use std::os::unix::fs::PermissionsExt;
    let gate = gate_with_rows();
    for name in ["requests.db", "requests.db-wal"] {
        let mode = fs::metadata(gate.folder.file(name)).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600, "{name}");
    }
}

#[test]
fn log_prints_the_rows_that_are_asked_for() {
    let gate = gate_with_rows();
    let (allowed, refused, handshake) = ("allowed", "policy_not_allowed", "tls_no_certificate");
    let table: [(&[&str], &[&str]); 21] = [
        (&[], &[allowed, refused, handshake]),
        (&["--since", "1h"], &[allowed, refused, handshake]),
        (&["--since", "0s"], &[]),
        (&["--verdict", "allowed"], &[allowed]),
        (&["--verdict", "refused"], &[refused, handshake]),
        (&["--verdict", "would_refuse"], &[]),
        (&["--reason", "tls_no_certificate"], &[handshake]),
        (&["--identity", "demo/reports"], &[refused]),
        (&["--identity", "demo/nobody"], &[]),
        (&["--until", "1h"], &[]),
        (&["--since", "2020-01-01", "--until", "2999-01-01T00:00:00Z"], &[allowed, refused, handshake]),
        (&["--kind", "handshake"], &[handshake]),
        (&["--listener", "gate"], &[allowed, refused, handshake]),
        (&["--route", "demo/orders"], &[allowed, refused]),
        (&["--path", "/ord", "--status", "2xx"], &[allowed]),
        (&["--status", "400-499"], &[refused]),
        (&["--client", "127.0.0.1"], &[allowed, refused, handshake]),
        (&["--client", "127.0.0.2"], &[]),
        (&["--serial", "ff:ff", "--fingerprint", "00"], &[]),
        (&["--limit", "2"], &[refused, handshake]),
        (&["--verdict", "refused", "--identity", "demo/reports", "--limit", "1"], &[refused]),
    ];
    for (arguments, expected) in table {
        let printed = log(&gate, &[arguments, &["-o", "json"]].concat());
        assert_eq!((printed.code, printed.stderr.as_str()), (Some(0), ""), "{arguments:?}");
        let text = printed.text();
        let found: Vec<Value> = text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
        let reasons: Vec<_> = found.iter().map(|row| row["reason"].as_str().unwrap_or(allowed)).collect();
        assert_eq!(reasons, expected, "{arguments:?}");
        assert!(found.iter().all(|row| row.as_object().unwrap().len() == COLUMNS.len()), "{arguments:?}");
    }
}

#[test]
fn log_prints_tables_json_and_csv() {
    let gate = gate_with_rows();
    let sql = "select kind, reason as \"a, b\", status from requests order by id";
    let table = "kind       a, b                status\nrequest    -                   200\n\
                 request    policy_not_allowed  403\nhandshake  tls_no_certificate  -\n";
    let json = "{\"kind\":\"request\",\"a, b\":null,\"status\":200}\n\
                {\"kind\":\"request\",\"a, b\":\"policy_not_allowed\",\"status\":403}\n\
                {\"kind\":\"handshake\",\"a, b\":\"tls_no_certificate\",\"status\":null}\n";
    let csv =
        "kind,\"a, b\",status\r\nrequest,,200\r\nrequest,policy_not_allowed,403\r\nhandshake,tls_no_certificate,\r\n";
    for (output, expected) in [("table", table), ("json", json), ("csv", csv)] {
        let printed = log(&gate, &["-o", output, "--sql", sql]);
        assert_eq!((printed.code, printed.text().as_str(), printed.stderr.as_str()), (Some(0), expected, ""));
    }
    let printed = log(&gate, &["-o", "csv", "--limit", "1"]);
    assert_eq!(printed.text().lines().next(), Some(COLUMNS.join(",").as_str()));
    let printed = log(&gate, &["--limit", "1"]).text();
    let names: Vec<_> = printed.lines().next().unwrap().split_whitespace().collect();
    let shown = ["time", "kind", "verdict", "reason", "identity", "method", "host", "path", "status", "duration_us"];
    assert_eq!(names, shown);
}

#[test]
fn log_changes_nothing() {
    const ONLY_READS: &str =
        "postern-sidecar: only one SELECT (or WITH … SELECT, or VALUES) is answered; the log cannot be changed here\n";
    let gate = gate_with_rows();
    let table = [
        ("delete from decision", ONLY_READS),
        ("drop view requests", ONLY_READS),
        ("select 1; delete from decision", ONLY_READS),
        ("attach 'other.db' as other", ONLY_READS),
        ("vacuum into 'copy.db'", ONLY_READS),
        ("pragma user_version = 7", ONLY_READS),
        ("update sqlite_dbpage set data = zeroblob(4096)", ONLY_READS),
        ("", ONLY_READS),
        ("with gone as (select 1) delete from decision", ONLY_READS),
        (
            "select absent from requests",
            "postern-sidecar: error returned from database: (code: 1) no such column: absent\n",
        ),
    ];
    for (sql, error) in table {
        let printed = log(&gate, &["--sql", sql]);
        assert_eq!((printed.code, printed.text().as_str(), printed.stderr.as_str()), (Some(1), "", error), "{sql}");
    }
    assert_eq!(rows(&gate.sidecar, 3).len(), 3);
    let absent = log(&gate, &["--database", "/nowhere/requests.db"]);
    let error = "postern-sidecar: there is no request log at /nowhere/requests.db: name the file with the setting log.path, \
                 or start the sidecar that writes it\n";
    assert_eq!((absent.code, absent.stderr.as_str()), (Some(1), error));
}

#[test]
fn a_query_has_memory_of_its_own_and_no_more() {
    let gate = gate_with_rows();
    let most = "postern-sidecar: the query takes more memory than it may: ask for fewer rows, or copy the file and query the \
                copy\n";
    for (bytes, code, text, error) in [(1_000_000, 0, "n\r\n2000000\r\n", ""), (20_000_000, 1, "n\r\n", most)] {
        let printed = log(&gate, &["-o", "csv", "--sql", &format!("select length(hex(zeroblob({bytes}))) as n")]);
        assert_eq!((printed.code, printed.text().as_str(), printed.stderr.as_str()), (Some(code), text, error));
    }
}

/// `sqlite3` holding a lock on the database until it is dropped.
pub(crate) struct Lock(Child);

impl Lock {
    pub(crate) fn take(database: &Path) -> Self {
        let mut command = Command::new("sqlite3");
        command.arg(database).stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut child = command.spawn().unwrap();
        // The writer may be in the middle of a transaction: wait for it.
        child.stdin.as_mut().unwrap().write_all(b".timeout 10000\nbegin immediate;\nselect 'locked';\n").unwrap();
        let mut line = String::new();
        BufReader::new(child.stdout.as_mut().unwrap()).read_line(&mut line).unwrap();
        assert_eq!(line, "locked\n");
        Self(child)
    }
}

impl Drop for Lock {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Calls while the log is broken, and checks that the gate serves on and says so.
fn call_while_broken(gate: &Gate, count: usize) {
    call(gate, "billing", count);
    wait_metric(&gate.sidecar, "postern_log_up", 0);
    call(gate, "billing", count);
}

#[test]
fn a_log_that_is_locked_holds_no_traffic_up_and_loses_no_row() {
    let gate = gate_with_rows();
    let lock = Lock::take(&gate.folder.file("requests.db"));
    call_while_broken(&gate, 50);
    drop(lock);
    wait_metric(&gate.sidecar, "postern_log_rows_written_total", 103);
    assert_eq!((rows(&gate.sidecar, 103).len(), dropped(&gate.sidecar)), (103, 0));
    assert_eq!(metric(&gate.sidecar, "postern_log_up"), 1);
}

#[test]
fn a_log_that_is_removed_is_made_anew() {
    let gate = gate_with_rows();
    for name in ["requests.db", "requests.db-wal", "requests.db-shm"] {
        fs::remove_file(gate.folder.file(name)).unwrap();
    }
    call(&gate, "billing", 50);
    wait_metric(&gate.sidecar, "postern_log_rows_written_total", 53);
    assert_eq!((rows(&gate.sidecar, 50).len(), dropped(&gate.sidecar)), (50, 0), "the three before went with the file");
    gate.sidecar.leave_unaudited();
    assert_eq!(metric(&gate.sidecar, "postern_log_up"), 1);
}

#[test]
fn a_log_that_cannot_be_opened_is_tried_until_it_can() {
    for (case, other) in
        [("a folder in its place", None), ("another database in its place", Some("create table a (b)"))]
    {
        let gate = gate_with_rows();
        let database = gate.folder.file("requests.db");
        for name in ["requests.db", "requests.db-wal", "requests.db-shm"] {
            fs::remove_file(gate.folder.file(name)).unwrap();
        }
        match other {
            Some(sql) => assert_eq!(sqlite3(&database, sql), ""),
            None => fs::create_dir(&database).unwrap(),
        }
        call_while_broken(&gate, 25);
        match other {
            Some(_) => fs::remove_file(&database).unwrap(),
            None => fs::remove_dir(&database).unwrap(),
        }
        wait_metric(&gate.sidecar, "postern_log_rows_written_total", 53);
        assert_eq!((rows(&gate.sidecar, 50).len(), dropped(&gate.sidecar)), (50, 0), "{case}");
        // The three before went with the file.
        gate.sidecar.leave_unaudited();
    }
}

#[test]
fn what_finds_no_place_is_counted() {
    // One row a transaction, so that the lock holds one row in hand and the queue its 8192.
    let gate = Gate::start_with(|document| document["settings"]["log"]["flushRows"] = json!(1)).unwrap();
    wait_metric(&gate.sidecar, "postern_log_up", 1);
    let lock = Lock::take(&gate.folder.file("requests.db"));
    let total = 8192 + 1000;
    let curl = gate.curl(Some("reports"), &format!("/orders/[1-{total}]")).unwrap();
    let answer = curl.arg("--http2").arg("-o").arg("/dev/null").call().unwrap();
    assert_eq!(answer.exit_code, Some(0), "{answer:?}");
    let lost = metric(&gate.sidecar, r#"postern_log_rows_dropped_total{reason="queue_full"}"#);
    assert_eq!(lost, 1000 - 1, "all but the queue and the row in the writer's hand");
    drop(lock);
    wait_metric(&gate.sidecar, "postern_log_rows_written_total", total - lost);
    let counted = gate.sidecar.launch().query("select sum(repeat) as decisions from requests").unwrap();
    assert_eq!(counted, [json!({ "decisions": total - lost })]);
}

#[test]
fn after_a_kill_a_gap_says_that_rows_may_be_missing() {
    let mut gate = gate_with_rows();
    call(&gate, "billing", 7);
    assert_eq!(rows(&gate.sidecar, 10).len(), 10);
    // Nothing waits for these: the kill may take them, and no others.
    call(&gate, "billing", 2);
    gate.sidecar.kill().unwrap();
    gate.sidecar = gate.sidecar.launch().start_ready().unwrap();
    call(&gate, "reports", 1);
    // How many rows the kill took is not known, so that their number says nothing.
    let is_gap = |row: &Value| row["kind"] == json!("gap");
    let goes_on = |found: &[Value]| found.iter().position(is_gap).is_some_and(|gap| gap + 1 < found.len());
    wait_until("the call after the gap", || goes_on(&rows(&gate.sidecar, 11)));
    let kinds = |gate: &Gate| {
        let found = rows(&gate.sidecar, 11);
        let mut counts = BTreeMap::new();
        for row in &found {
            *counts.entry(row["kind"].as_str().unwrap().to_owned()).or_insert(0) += 1;
        }
        let gap = found.iter().position(is_gap).unwrap();
        (counts, gap, found)
    };
    let (counts, gap, found) = kinds(&gate);
    assert_eq!((counts["gap"], counts["handshake"]), (1, 1));
    assert!((10..=12).contains(&gap), "{gap} rows before the gap");
    assert_eq!(gap, found.len() - 2, "nothing but the last call comes after it");
    let shown = ["verdict", "reason", "identity", "status"];
    assert_eq!(columns(&found[gap], &shown), json!([null, null, null, null]));
    assert_eq!(columns(&found[gap + 1], &shown), json!(["refused", "policy_not_allowed", "demo/reports", 403]));
    // One that is asked to stop leaves nothing out, so the next start has nothing to say.
    gate.sidecar.terminate().unwrap();
    assert_eq!(gate.sidecar.wait_exit().unwrap().code(), Some(0));
    gate.sidecar = gate.sidecar.launch().start_ready().unwrap();
    wait_metric(&gate.sidecar, "postern_log_up", 1);
    assert_eq!(kinds(&gate).0, counts);
}

#[test]
fn log_follows_what_comes() {
    let gate = gate_with_rows();
    let mut command = Command::new(built_sidecar().unwrap());
    command
        .args(["log", "--follow", "--limit", "1", "-o", "json", "--kind", "request", "--config"])
        .arg(gate.folder.path());
    let mut child = command.stdout(Stdio::piped()).spawn().unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    let mut next = || serde_json::from_str::<Value>(&lines.next().unwrap().unwrap()).unwrap()["identity"].clone();
    assert_eq!(next(), "demo/reports");
    call(&gate, "billing", 1);
    assert_eq!(next(), "demo/billing");
    child.kill().unwrap();
    child.wait().unwrap();
}
