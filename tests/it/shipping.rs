//! Rows of the log in Postgres: all of them, once, whatever happens to whom.

use std::collections::BTreeSet;
use std::env;
use std::fs;
use std::io::{self, Write};
use std::path::PathBuf;

use postern_tests::ca::Authority;
use postern_tests::gate::Gate;
use postern_tests::postgres::Postgres;
use postern_tests::process::{LogLine, Sidecar};
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::log::{COLUMNS, call};
use crate::observed::{metric, rows, status, wait_metric, wait_until};
use crate::postgres::{VERSION, with_schema};

pub(crate) const BACKLOG: &str = "postern_log_ship_backlog_rows";

/// A server, and the files with which a gate finds it: as they are in the Secret of a pod.
pub(crate) struct Rig {
    pub(crate) server: Postgres,
    authority: Authority,
    folder: TempDir,
}

impl Rig {
    pub(crate) fn start() -> Self {
        let (server, authority) = with_schema();
        server.sql("CREATE ROLE gate LOGIN PASSWORD 'first' IN ROLE postern_writer").unwrap();
        Self::of(server, authority)
    }

    fn of(server: Postgres, authority: Authority) -> Self {
        let rig = Self { folder: TempDir::new().unwrap(), authority, server };
        rig.write("ca.crt", rig.authority.root_pem());
        rig.write("password", "first\n");
        rig.write("url", &(rig.server.url("gate") + "\n"));
        rig
    }

    pub(crate) fn file(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    pub(crate) fn write(&self, name: &str, text: &str) {
        fs::write(self.file(name), text).unwrap();
    }

    fn settings(&self) -> Value {
        json!({
            "urlFile": self.file("url"), "passwordFile": self.file("password"), "caFile": self.file("ca.crt"), "every": "50ms",
        })
    }

    pub(crate) fn gate(&self) -> Gate {
        self.gate_with(|_| {})
    }

    pub(crate) fn gate_with(&self, change: impl FnOnce(&mut Value)) -> Gate {
        Gate::start_with(|document| {
            document["version"] = json!("1.6");
            document["settings"]["log"]["postgres"] = self.settings();
            change(document);
        })
        .unwrap()
    }

    pub(crate) fn count(&self) -> usize {
        self.server.sql("SELECT count(*) FROM postern.requests").unwrap().parse().unwrap()
    }

    pub(crate) fn ids(&self) -> BTreeSet<String> {
        let ids = self.server.sql("SELECT id FROM postern.requests").unwrap();
        ids.lines().map(str::to_owned).collect()
    }

    /// Waits until Postgres has as many rows, and looks that they are the log's.
    pub(crate) fn has_all(&self, sidecar: &Sidecar, count: usize) {
        let logged = rows(sidecar, count);
        wait_until("all rows in Postgres", || self.count() >= logged.len());
        wait_metric(sidecar, BACKLOG, 0);
        let logged: BTreeSet<_> = logged.iter().map(|row| row["id"].as_str().unwrap().to_owned()).collect();
        assert_eq!((logged.len(), self.ids()), (count, logged));
    }
}

/// The reasons that were told, in order; and "again" where rows were sent after one.
fn told(sidecar: &Sidecar) -> Vec<String> {
    let word = |line: &LogLine| match line.message() {
        "rows are not sent to Postgres, and wait in the log" => line.text("reason").map(str::to_owned),
        "rows are sent to Postgres again" => Some("again".to_owned()),
        _ => None,
    };
    sidecar.lines().iter().filter_map(word).collect()
}

pub(crate) fn failures(sidecar: &Sidecar, reason: &str) -> u64 {
    metric(sidecar, &format!("postern_log_ship_failures_total{{reason=\"{reason}\"}}"))
}

pub(crate) fn chained(document: &mut Value) {
    document["version"] = json!("1.7");
    document["settings"]["log"]["chain"] = json!("Unkeyed");
}

#[test]
fn rows_are_in_postgres_as_they_are_in_the_log() {
    let rig = Rig::start();
    let gate = rig.gate_with(chained);
    call(&gate, "billing", 3);
    call(&gate, "reports", 1);
    assert_eq!(gate.curl(None, "/orders").unwrap().call().unwrap().status, None);
    rig.has_all(&gate.sidecar, 5);
    let columns: Vec<_> = COLUMNS
        .iter()
        .map(|name| match *name {
            "time" => "to_char(time AT TIME ZONE 'UTC', 'YYYY-MM-DD\"T\"HH24:MI:SS.US\"Z\"') AS time".to_owned(),
            "resumed" => "resumed::int AS resumed".to_owned(),
            name => name.to_owned(),
        })
        .collect();
    let sql = format!("SELECT json_agg(r) FROM (SELECT {} FROM postern.requests ORDER BY id) r", columns.join(", "));
    let sent: Vec<Value> = serde_json::from_str(&rig.server.sql(&sql).unwrap()).unwrap();
    assert_eq!(sent, rows(&gate.sidecar, 5));
    assert!(sent.iter().all(|row| row["chain"].is_string()), "{sent:?}");
    let placed = "SELECT count(*) FROM postern.requests_other";
    assert_eq!(rig.server.sql(placed).unwrap(), "0", "rows of today have their partition");
    assert_eq!(metric(&gate.sidecar, "postern_log_ship_rows_total"), 5);
    assert_eq!(metric(&gate.sidecar, "postern_log_ship_rows_known_total"), 0);
    assert_eq!(told(&gate.sidecar), Vec::<String>::new());
}

#[test]
fn gates_that_are_told_to_make_the_schema_make_it_once() {
    let authority = Authority::new("Postern test authority").unwrap();
    let server = Postgres::start(&authority).unwrap();
    server.sql("CREATE ROLE gate LOGIN CREATEROLE PASSWORD 'first'").unwrap();
    let rig = Rig::of(server, authority);
    let told_to = |document: &mut Value| {
        document["version"] = json!("1.8");
        document["settings"]["log"]["postgres"]["applySchema"] = json!(true);
    };
    let gates = [(); 3].map(|()| rig.gate_with(told_to));
    for gate in &gates {
        call(gate, "billing", 2);
    }
    for gate in &gates {
        wait_until("a right to be missed", || failures(&gate.sidecar, "permission") > 0);
    }
    assert_eq!(rig.server.sql("SELECT count(*) FROM pg_namespace WHERE nspname = 'postern'").unwrap(), "0");
    let database = rig.server.sql("SELECT current_database()").unwrap();
    rig.server.sql(&format!("GRANT CREATE ON DATABASE {database} TO gate")).unwrap();
    wait_until("the schema", || rig.server.try_sql("SELECT FROM postern.requests").unwrap().code == Some(0));
    wait_until("all rows", || rig.count() == 6);
    let made = "the schema of the request log in Postgres was brought up to date";
    let makers = gates.iter().filter(|gate| gate.sidecar.lines().iter().any(|line| line.message() == made)).count();
    assert!(makers >= 1, "{makers}");
    // Whoever came later waited, and found it.
    for gate in &gates {
        assert_eq!(["schema", "server", "rejected"].map(|reason| failures(&gate.sidecar, reason)), [0; 3]);
    }
    assert_eq!(rig.server.sql("SELECT value FROM postern.meta WHERE key = 'version'").unwrap(), VERSION);
    // One that is not told to has what it needs.
    let other = rig.gate();
    call(&other, "billing", 1);
    wait_until("its row", || rig.count() == 7);
}

/// What the process has used so far.
fn processor_ms(sidecar: &Sidecar) -> u64 {
    let stat = fs::read_to_string(format!("/proc/{}/stat", sidecar.id())).unwrap();
    let fields: Vec<_> = stat.rsplit_once(") ").unwrap().1.split(' ').collect();
    // User's and system's, in hundredths of a second (proc(5)).
    fields[11..13].iter().map(|ticks| ticks.parse::<u64>().unwrap() * 10).sum()
}

/// For more rows: `SHIP_ROWS=50000 cargo test …`.
#[test]
fn an_outage_costs_nothing_and_is_told_once() {
    let count: usize = env::var("SHIP_ROWS").ok().and_then(|text| text.parse().ok()).unwrap_or(700);
    let mut rig = Rig::start();
    let gate = rig.gate();
    call(&gate, "billing", 10);
    rig.has_all(&gate.sidecar, 10);
    rig.server.kill();
    call(&gate, "billing", count);
    wait_until("a failure", || failures(&gate.sidecar, "connect") > 2);
    assert_eq!(metric(&gate.sidecar, "postern_log_ship_up"), 0);
    wait_metric(&gate.sidecar, "postern_log_rows_written_total", count as u64 + 10);
    wait_metric(&gate.sidecar, BACKLOG, count as u64);
    rig.server.resume().unwrap();
    let before = processor_ms(&gate.sidecar);
    wait_metric(&gate.sidecar, BACKLOG, 0);
    let spent = processor_ms(&gate.sidecar) - before;
    writeln!(io::stdout(), "{count} rows were sent with {spent} ms of CPU").unwrap();
    rig.has_all(&gate.sidecar, count + 10);
    assert_eq!(metric(&gate.sidecar, "postern_log_ship_up"), 1);
    assert_eq!(told(&gate.sidecar), ["connect", "again"]);
}

#[test]
fn whatever_is_wrong_with_postgres_has_its_reason_and_rows_wait() {
    let rig = Rig::start();
    let gate = rig.gate();
    let end = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = 'gate'; ";
    let table = [
        ("read_only", "ALTER ROLE gate SET default_transaction_read_only = on", "ALTER ROLE gate RESET ALL"),
        ("full", "ALTER ROLE gate CONNECTION LIMIT 0", "ALTER ROLE gate CONNECTION LIMIT -1"),
        (
            "permission",
            "REVOKE INSERT ON postern.requests FROM postern_writer",
            "GRANT INSERT ON postern.requests TO postern_writer",
        ),
        (
            "schema",
            "UPDATE postern.meta SET value = 99 WHERE key = 'writers_from'",
            "UPDATE postern.meta SET value = 1 WHERE key = 'writers_from'",
        ),
        (
            "schema",
            "UPDATE postern.meta SET value = 0 WHERE key = 'version'",
            &*format!("UPDATE postern.meta SET value = {VERSION} WHERE key = 'version'"),
        ),
        ("schema", "ALTER SCHEMA postern RENAME TO away", "ALTER SCHEMA away RENAME TO postern"),
        ("password", "ALTER ROLE gate PASSWORD 'second'", ""),
    ];
    let (mut expected, mut count) = (Vec::new(), 0);
    for (reason, breaks, mends) in table {
        let before = failures(&gate.sidecar, reason);
        rig.server.sql(&format!("{breaks}; {end}")).unwrap();
        count += 1;
        call(&gate, "billing", 1);
        wait_until(breaks, || failures(&gate.sidecar, reason) > before);
        // At most so many: one that was written while it was counted may be in it twice until the next try.
        wait_metric(&gate.sidecar, BACKLOG, 1);
        match mends {
            // A password is changed where the gate reads it, without a restart.
            "" => rig.write("password", "second"),
            mends => drop(rig.server.sql(mends).unwrap()),
        }
        rig.has_all(&gate.sidecar, count);
        expected.extend([reason.to_owned(), "again".to_owned()]);
    }
    // A connection that was ended is one more line, if it was noticed first.
    let told: Vec<_> = told(&gate.sidecar).into_iter().filter(|word| word != "connect").collect();
    assert_eq!(told, expected);
}

#[test]
fn a_server_that_nobody_vouches_for_gets_nothing() {
    let rig = Rig::start();
    rig.write("ca.crt", Authority::new("another").unwrap().root_pem());
    let gate = rig.gate();
    call(&gate, "billing", 1);
    wait_until("a failure", || failures(&gate.sidecar, "tls") > 0);
    assert_eq!(rig.count(), 0);
    rig.write("ca.crt", rig.authority.root_pem());
    rig.has_all(&gate.sidecar, 1);
}

#[test]
fn a_secret_that_comes_later_is_taken_up() {
    let rig = Rig::start();
    let url = fs::read_to_string(rig.file("url")).unwrap();
    fs::remove_file(rig.file("url")).unwrap();
    // Until then it is looked for as often as for other files of the configuration.
    let gate = rig.gate_with(|document| document["settings"]["log"]["postgres"]["every"] = json!("1ms"));
    call(&gate, "billing", 300);
    assert_eq!(rows(&gate.sidecar, 300).len(), 300);
    let turns = wakes(&gate.sidecar, "log-ship");
    assert!(turns < 100, "{turns}");
    assert_eq!((rig.count(), told(&gate.sidecar), status(&gate.sidecar).shipping), (0, Vec::new(), None));
    rig.write("url", &url);
    rig.has_all(&gate.sidecar, 300);
    fs::remove_file(rig.file("url")).unwrap();
    call(&gate, "billing", 1);
    wait_until("nothing to be told", || status(&gate.sidecar).shipping.is_none());
}

/// How often a thread has gone to sleep.
fn wakes(sidecar: &Sidecar, name: &str) -> u64 {
    let threads = fs::read_dir(format!("/proc/{}/task", sidecar.id())).unwrap();
    let mut statuses = threads.map(|thread| fs::read_to_string(thread.unwrap().path().join("status")).unwrap());
    let status = statuses.find(|status| status.lines().any(|line| line == format!("Name:\t{name}"))).unwrap();
    let switches = status.lines().find_map(|line| line.strip_prefix("voluntary_ctxt_switches:\t"));
    switches.unwrap().parse().unwrap()
}

#[test]
fn a_row_that_postgres_does_not_take_keeps_no_other_back() {
    let rig = Rig::start();
    rig.server.sql("ALTER TABLE postern.requests ADD CHECK (path <> '/orders/7') NOT VALID").unwrap();
    let gate = rig.gate();
    call(&gate, "billing", 20);
    wait_until("nineteen rows in Postgres", || rig.count() == 19);
    let lost = "postern_log_ship_rows_dropped_total{reason=\"rejected\"}";
    wait_metric(&gate.sidecar, lost, 1);
    wait_metric(&gate.sidecar, BACKLOG, 0);
    // Also where it is alone.
    assert_eq!(gate.curl(Some("billing"), "/orders/7").unwrap().call().unwrap().status, Some(200));
    wait_metric(&gate.sidecar, lost, 2);
    wait_metric(&gate.sidecar, BACKLOG, 0);
    call(&gate, "billing", 1);
    wait_until("another row in Postgres", || rig.count() == 20);
    assert_eq!(rig.server.sql("SELECT count(*) FROM postern.requests WHERE path = '/orders/7'").unwrap(), "0");
}

#[test]
fn rows_of_a_log_that_is_begun_anew_are_sent() {
    let rig = Rig::start();
    let mut gate = rig.gate();
    call(&gate, "billing", 3);
    rig.has_all(&gate.sidecar, 3);
    // The sender has it open still.
    for end in ["", "-wal", "-shm"] {
        fs::remove_file(gate.folder.file(&format!("requests.db{end}"))).unwrap();
    }
    call(&gate, "billing", 2);
    let requests = "SELECT count(*) FROM postern.requests WHERE kind = 'request'";
    wait_until("the rows of the new log", || rig.server.sql(requests).unwrap() == "5");
    // What was removed is in no account.
    gate.sidecar.kill().unwrap();
}

#[test]
fn two_gates_of_one_name_keep_their_rows() {
    let rig = Rig::start();
    let pod = |document: &mut Value| document["settings"]["pod"] = json!({"name": "gate-0", "namespace": "demo"});
    let (first, second) = (rig.gate_with(pod), rig.gate_with(pod));
    call(&first, "billing", 30);
    call(&second, "billing", 40);
    wait_until("all rows in Postgres", || rig.count() == 70);
    assert_eq!(rig.server.sql("SELECT DISTINCT pod FROM postern.requests").unwrap(), "gate-0");
}

#[test]
fn a_stop_sends_what_is_left_and_tells_what_stays() {
    let mut rig = Rig::start();
    // It would not look for new rows by itself.
    let mut gate = rig.gate_with(|document| document["settings"]["log"]["postgres"]["every"] = json!("1h"));
    let stop = |sidecar: &mut Sidecar| {
        sidecar.terminate().unwrap();
        let line = sidecar.wait_for("the end", |line| line.message() == "stopped").unwrap();
        assert!(sidecar.wait_exit().unwrap().success());
        line.fields.get("unshipped").cloned()
    };
    call(&gate, "billing", 600);
    assert_eq!(stop(&mut gate.sidecar), Some(json!(0)));
    assert_eq!(rig.count(), 600);
    gate.sidecar = gate.sidecar.launch().start_ready().unwrap();
    rig.server.kill();
    call(&gate, "billing", 5);
    assert_eq!(stop(&mut gate.sidecar), Some(json!(5)));
    rig.server.resume().unwrap();
    gate.sidecar = gate.sidecar.launch().start_ready().unwrap();
    call(&gate, "billing", 1);
    assert_eq!(stop(&mut gate.sidecar), Some(json!(0)));
    assert_eq!(rig.count(), 606);
}
