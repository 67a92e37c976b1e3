//! Gate and PostgreSQL killed at any moment under load: what is lost, and that it is told; and that nothing is where the gate
//! lives on.

use std::collections::BTreeSet;
use std::env;
use std::io::{self, Write};
use std::thread;
use std::time::{Duration, Instant};

use postern_tests::clients::Curl;
use postern_tests::gate::Gate;
use postern_tests::wait::{PATIENCE, eventually};
use serde_json::{Value, json};

use crate::log::{Lock, call};
use crate::observed::{metric, wait_metric, wait_until};
use crate::shipping::{BACKLOG, Rig, chained};

/// Rows of one transaction: what a kill may cost.
const FLUSH_ROWS: usize = 100;

/// What the log has, read as it comes: five minutes leave more than a query prints.
#[derive(Default)]
struct Logged {
    ids: BTreeSet<String>,
    rows: usize,
    /// Requests that were answered with 200: of each process those it has written, oldest first.
    answered: Vec<usize>,
}

impl Logged {
    fn of(gate: &Gate) -> Self {
        let mut logged = Self { answered: vec![0], ..Self::default() };
        let each = |line: &str| {
            let row: Value = serde_json::from_str(line).unwrap();
            logged.rows += 1;
            logged.ids.insert(row["id"].as_str().unwrap().to_owned());
            if row["kind"] == "gap" {
                logged.answered.push(0);
            } else if row["status"] == 200 {
                *logged.answered.last_mut().unwrap() += 1;
            }
        };
        gate.sidecar.launch().each_line("log", &["export", "--format", "jsonl"], each).unwrap();
        logged
    }

    fn is_in_postgres_once(&self, rig: &Rig) {
        assert_eq!((self.ids.len(), rig.count()), (self.rows, self.rows));
        // Not with assert_eq, which would print all of them.
        assert!(rig.ids() == self.ids, "other rows are in Postgres than in the log");
    }
}

/// Waits until Postgres has the newest row, and so all: they are sent in order.
fn wait_all_sent(gate: &Gate, rig: &Rig) {
    let newest = || {
        let finished = gate.sidecar.launch().subcommand("log", &["-o", "json", "--limit", "1"])?;
        let row = serde_json::from_slice::<Value>(&finished.stdout).ok();
        // A gate is ready before its log is open.
        Ok(row.and_then(|row| Some(row["id"].as_str()?.to_owned())))
    };
    let id = eventually("a row", PATIENCE, newest).unwrap();
    let is_over =
        || rig.server.sql(&format!("SELECT count(*) FROM postern.requests WHERE id = '{id}'")).unwrap() == "1";
    while !is_over() {
        let before = rig.count();
        wait_until("more rows in Postgres", || rig.count() > before || is_over());
    }
    wait_metric(&gate.sidecar, BACKLOG, 0);
}

/// Many calls that tell their status, a line each.
fn calls(gate: &Gate, count: usize) -> Curl {
    let curl = gate.curl(Some("billing"), &format!("/orders/[1-{count}]")).unwrap();
    curl.arg("-o").arg("/dev/null").arg("-w").arg("%{http_code}\n")
}

fn answered(curl: &Curl) -> usize {
    curl.call().unwrap().text().lines().filter(|line| *line == "200").count()
}

/// For a longer run: `make kills`.
#[test]
fn kills_at_any_moment_lose_one_batch_at_most_and_double_nothing() {
    let seconds = env::var("SHIP_KILL_SECONDS").ok().and_then(|text| text.parse().ok()).unwrap_or(8);
    let mut rig = Rig::start();
    let mut gate = rig.gate_with(|document| {
        chained(document);
        document["settings"]["log"]["flushRows"] = json!(FLUSH_ROWS);
        document["settings"]["log"]["postgres"]["batchRows"] = json!(50);
    });
    let until = Instant::now() + Duration::from_secs(seconds);
    // What clients of each process were answered.
    let (mut decisions, mut turn) = (vec![0], 0_u64);
    // It is ready before its log is open, and leaves nothing to tell of until then.
    wait_metric(&gate.sidecar, "postern_log_up", 1);
    while Instant::now() < until {
        turn += 1;
        let curl = calls(&gate, 3000);
        // A number of its own for each turn, and the same in each run.
        let after = Duration::from_millis(turn.wrapping_mul(2_654_435_761) % 400);
        let is_postgres = turn.is_multiple_of(3);
        *decisions.last_mut().unwrap() += thread::scope(|scope| {
            let calls = scope.spawn(|| answered(&curl));
            thread::sleep(after);
            if is_postgres {
                rig.server.kill();
            } else {
                gate.sidecar.kill().unwrap();
            }
            calls.join().unwrap()
        });
        if is_postgres {
            rig.server.resume().unwrap();
        } else {
            decisions.push(0);
            gate.sidecar = gate.sidecar.launch().start_ready().unwrap();
            wait_metric(&gate.sidecar, "postern_log_up", 1);
        }
    }
    let kills = decisions.len() - 1;
    assert!(kills > 1, "no kill in {seconds} s");
    wait_all_sent(&gate, &rig);
    let logged = Logged::of(&gate);
    logged.is_in_postgres_once(&rig);
    assert_eq!(logged.answered.len() - 1, kills, "each kill has its gap");
    let verified = gate.sidecar.launch().subcommand("log", &["verify"]).unwrap();
    assert_eq!(verified.code, Some(0), "{}", verified.stderr);
    assert!(verified.text().starts_with(&format!("{} rows fit; 0 more ", logged.rows)), "{}", verified.text());
    let lost: Vec<_> = decisions.iter().zip(&logged.answered).map(|(all, rows)| all.saturating_sub(*rows)).collect();
    let most = lost.iter().max().copied().unwrap_or_default();
    let (answers, lost): (usize, usize) = (decisions.iter().sum(), lost.iter().sum());
    let rows = logged.rows;
    writeln!(
        io::stdout(),
        "{answers} answers, {rows} rows, {kills} kills of the gate, {} of PostgreSQL; {lost} lost, {most} by one kill at most",
        turn / 3
    )
    .unwrap();
    assert!(lost <= kills * FLUSH_ROWS, "{lost} of {answers} are lost after {kills} kills");
}

#[test]
fn without_a_kill_of_the_gate_rows_and_counted_drops_are_all_decisions() {
    /// More than wait in memory while nothing can be written (`QUEUE_ROWS`).
    const TOO_MANY: usize = 9000;
    let mut rig = Rig::start();
    let gate = rig.gate_with(chained);
    call(&gate, "billing", 100);
    rig.server.kill();
    let lock = Lock::take(&gate.folder.file("requests.db"));
    assert_eq!(answered(&calls(&gate, TOO_MANY)), TOO_MANY);
    call(&gate, "reports", 10);
    drop(lock);
    call(&gate, "billing", 100);
    rig.server.resume().unwrap();
    let decisions = 100 + TOO_MANY + 10 + 100;
    gate.sidecar.has_decided(decisions as u64).unwrap();
    wait_all_sent(&gate, &rig);
    let logged = Logged::of(&gate);
    logged.is_in_postgres_once(&rig);
    let dropped = |reason| metric(&gate.sidecar, &format!("postern_log_rows_dropped_total{{reason=\"{reason}\"}}"));
    let full = usize::try_from(dropped("queue_full")).unwrap();
    assert_eq!((logged.rows + full, ["write_failed", "stopped"].map(dropped)), (decisions, [0, 0]));
    assert!(full > 0);
}
