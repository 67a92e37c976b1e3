//! `log` over PostgreSQL, where it does what files do otherwise: rows as they arrive, a query of the user's own, and counts
//! that no row is read for.

use std::collections::BTreeSet;
use std::fs;
use std::io::{BufRead, BufReader, Read};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::thread;

use postern_tests::ca::Authority;
use postern_tests::clients::{Finished, run};
use postern_tests::postgres::Postgres;
use postern_tests::process::built_sidecar;
use postern_tests::wait::PATIENCE;
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::observed::wait_until;
use crate::postgres::with_schema;
use crate::sums::ROWS;

fn with_rows() -> (Postgres, Authority) {
    let (server, authority) = with_schema();
    server.sql(ROWS).unwrap();
    server.sql("SELECT postern.prepare((now() AT TIME ZONE 'UTC')::date - d) FROM generate_series(-1, 2) d").unwrap();
    (server, authority)
}

fn command(server: &Postgres, arguments: &[&str]) -> Command {
    let mut command = Command::new(built_sidecar().unwrap());
    command.arg("log").args(arguments);
    // Unless another user is to ask.
    if !arguments.contains(&"--postgres") {
        command.args(["--postgres", &server.local_url()]);
    }
    command
}

fn log(server: &Postgres, arguments: &[&str]) -> Finished {
    run(&mut command(server, arguments), b"", PATIENCE).unwrap()
}

fn printed(server: &Postgres, arguments: &[&str]) -> String {
    let finished = log(server, arguments);
    assert_eq!((finished.code, finished.stderr.as_str()), (Some(0), ""), "{arguments:?}");
    finished.text()
}

fn refused(server: &Postgres, arguments: &[&str]) -> String {
    let finished = log(server, arguments);
    assert_eq!(finished.code, Some(1), "{arguments:?}");
    finished.stderr
}

/// `log --follow`, which ends with this.
struct Follower {
    child: Child,
    lines: Receiver<String>,
}

impl Follower {
    fn start(server: &Postgres, arguments: &[&str]) -> Self {
        let arguments = [&["--follow", "-o", "json"], arguments].concat();
        let mut child = command(server, &arguments).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        let output = BufReader::new(child.stdout.take().unwrap());
        let (sender, lines) = channel();
        thread::spawn(move || output.lines().map_while(Result::ok).try_for_each(|line| sender.send(line)));
        Self { child, lines }
    }

    /// The paths of the next rows.
    fn next(&self, count: usize) -> Vec<String> {
        let path = |line: String| serde_json::from_str::<Value>(&line).unwrap()["path"].as_str().unwrap().to_owned();
        (0..count).map(|_| path(self.lines.recv_timeout(PATIENCE).unwrap())).collect()
    }

    /// What it said of failures until now, or until it ended.
    fn end(mut self) -> String {
        self.child.kill().unwrap();
        let mut told = String::new();
        self.child.stderr.take().unwrap().read_to_string(&mut told).unwrap();
        told
    }
}

impl Drop for Follower {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A row of so long ago.
fn arrives(server: &Postgres, path: &str, ago: &str) {
    let sql = format!(
        "INSERT INTO postern.requests (id, time, kind, repeat, verdict, path) VALUES (gen_random_uuid(), now() - interval '{ago}', \
         'request', 1, 'allowed', '{path}')"
    );
    server.sql(&sql).unwrap();
}

#[test]
fn rows_of_postgres_are_followed_as_they_arrive() {
    let (mut server, _authority) = with_rows();
    for (path, ago) in [("/a", "3 s"), ("/c", "1 s"), ("/b", "2 s")] {
        arrives(&server, path, ago);
    }
    let follower = Follower::start(&server, &["--limit", "2", "--verdict", "allowed"]);
    assert_eq!(follower.next(2), ["/b", "/c"]);
    arrives(&server, "/d", "0 s");
    assert_eq!(follower.next(1), ["/d"]);
    // Late, but not too late, and of a clock that is fast.
    arrives(&server, "/late", "9 minutes");
    assert_eq!(follower.next(1), ["/late"]);
    arrives(&server, "/future", "-1 hour");
    assert_eq!(follower.next(1), ["/future"]);
    arrives(&server, "/too-late", "11 minutes");
    arrives(&server, "/e", "0 s");
    assert_eq!(follower.next(1), ["/e"]);
    server.kill();
    server.resume().unwrap();
    arrives(&server, "/f", "1 minute");
    assert_eq!(follower.next(1), ["/f"], "what came meanwhile, and nothing again");
    // Nothing that it holds keeps a day from being dropped.
    assert_ne!(server.sql("SELECT postern.drop_before((now() AT TIME ZONE 'UTC')::date + 1)").unwrap(), "0");
    arrives(&server, "/g", "0 s");
    assert_eq!(follower.next(1), ["/g"]);
    let told = follower.end();
    assert_eq!((told.lines().count(), told.contains("; trying again")), (1, true), "{told}");
}

#[test]
fn more_rows_than_are_remembered_are_followed_each_once() {
    let (server, _authority) = with_rows();
    let make = |first: u32, last: u32, newest: &str| {
        server.sql(&format!("SELECT make_rows({first}, {last}, {newest}, interval '1 ms')")).unwrap();
    };
    make(1, 6000, "now()");
    let follower = Follower::start(&server, &["--limit", "1"]);
    assert_eq!(follower.next(1), ["/orders/1"]);
    let mut seen = BTreeSet::new();
    for batch in 0..3 {
        let first = 10_000 * (batch + 1);
        let last = first + 2999;
        make(first, last, &format!("now() + interval '{last} ms'"));
        let paths = follower.next(3000);
        seen.extend(paths);
        assert_eq!(seen.len(), 3000 * (batch as usize + 1));
    }
    assert!(!seen.iter().any(|path| path.len() < "/orders/10000".len()), "of before it began");
}

#[test]
fn what_cannot_pass_ends_a_follower() {
    let (server, _authority) = with_rows();
    server.sql("CREATE ROLE auditor LOGIN IN ROLE postern_reader").unwrap();
    let url = server.local_url().replace("postgres@", "auditor@");
    arrives(&server, "/a", "0 s");
    let mut follower = Follower::start(&server, &["--postgres", &url]);
    assert_eq!(follower.next(1), ["/a"]);
    server.sql("REVOKE postern_reader FROM auditor").unwrap();
    assert_eq!(follower.child.wait().unwrap().code(), Some(1));
    let mut told = String::new();
    follower.child.stderr.take().unwrap().read_to_string(&mut told).unwrap();
    assert_eq!(told, "postern-sidecar: PostgreSQL: permission denied for schema postern (SQLSTATE 42501)\n");
}

#[test]
fn a_query_of_ones_own_is_answered_and_changes_nothing() {
    let (server, _authority) = with_rows();
    arrives(&server, "/a", "0 s");
    arrives(&server, "/a", "0 s");
    let answers = [
        ("select path, count(*), null as n, 1.5 as x from requests group by path;", "path,count,n,x\r\n/a,2,,1.5\r\n"),
        ("with a as (select 'x;y' as b) select b from a -- at last", "b\r\nx;y\r\n"),
        ("values (-1), (2)", "column1\r\n-1\r\n2\r\n"),
        ("select 1 as one from requests where false", "one\r\n"),
        ("select timestamptz '2026-11-21T10:00:00+02' as t", "t\r\n2026-11-21 08:00:00+00\r\n"),
        ("select current_setting('statement_timeout') as t", "t\r\n59s\r\n"),
    ];
    for (sql, expected) in answers {
        assert_eq!(printed(&server, &["--sql", sql, "-o", "csv"]), expected, "{sql}");
    }
    let sql = "select path, count(*), null as n, true as yes, '{\"a\":\n 1}'::json as j from requests group by path ; ";
    let expected = json!({ "path": "/a", "count": 2, "n": null, "yes": true, "j": { "a": 1 } });
    let lines = printed(&server, &["--sql", sql, "-o", "json"]);
    assert_eq!((lines.lines().count(), serde_json::from_str::<Value>(&lines).unwrap()), (1, expected));
    assert_eq!(printed(&server, &["--sql", "select null as a, 'b' as b"]), "a  b\n-  b\n");
    let alone = "only one SELECT (or WITH … SELECT, or VALUES) is answered; the log cannot be changed here";
    let refusals = [
        ("select nope from requests", "PostgreSQL: column \"nope\" does not exist (SQLSTATE 42703), at character 8"),
        ("select 1 +", "PostgreSQL: syntax error at end of input (SQLSTATE 42601), at character 11"),
        ("delete from requests", alone),
        ("select 1; delete from requests", alone),
        ("commit", alone),
        ("select nextval('n')", "PostgreSQL: cannot execute nextval() in a read-only transaction (SQLSTATE 25006)"),
        (
            "with d as (delete from requests returning 1) select * from d",
            "PostgreSQL: DECLARE CURSOR must not contain data-modifying statements in WITH (SQLSTATE 0A000)",
        ),
    ];
    server.sql("CREATE SEQUENCE n").unwrap();
    assert_eq!(
        refused(&server, &["verify"]),
        "postern-sidecar: rows in PostgreSQL are not verified: this is of the files of a gate\n"
    );
    for (sql, expected) in refusals {
        assert_eq!(refused(&server, &["--sql", sql]), format!("postern-sidecar: {expected}\n"), "{sql}");
    }
    let told = refused(&server, &["--sql", "select\n  nope from requests", "-o", "json"]);
    assert!(told.ends_with("(SQLSTATE 42703), at character 10\n"), "{told}");
    assert_eq!(server.sql("SELECT count(*) FROM postern.requests").unwrap(), "2");
    // The server's own bound goes before ours.
    let url = server.local_url() + "&options=-c%20statement_timeout%3D100";
    let told = refused(&server, &["--postgres", &url, "--sql", "select pg_sleep(60)"]);
    assert_eq!(told, "postern-sidecar: PostgreSQL: canceling statement due to statement timeout (SQLSTATE 57014)\n");
}

#[test]
fn a_query_of_ones_own_ends_after_so_many_rows() {
    let (server, _authority) = with_rows();
    for (count, lines, told) in [(100_000, 100_000, ""), (100_001, 100_000, "postern-sidecar: cut after 100000 rows\n")]
    {
        let sql = format!("select generate_series(1, {count}) as n");
        let finished = log(&server, &["--sql", &sql, "-o", "json"]);
        assert_eq!((finished.code, finished.stderr.as_str()), (Some(0), told));
        assert_eq!(finished.text().lines().count(), lines);
    }
}

#[test]
fn an_export_that_is_ended_by_a_signal_leaves_nothing() {
    let (server, _authority) = with_rows();
    let folder = TempDir::new().unwrap();
    let files = || fs::read_dir(folder.path()).unwrap().count();
    let holding = "SELECT count(*) FROM pg_stat_activity WHERE query LIKE 'SELECT pg_sleep%'";
    thread::scope(|threads| {
        // Until it is ended.
        let holder = "BEGIN; LOCK TABLE postern.requests IN ACCESS EXCLUSIVE MODE;\nSELECT pg_sleep(3600)";
        threads.spawn(|| server.try_sql(holder));
        wait_until("the lock", || server.sql(holding).unwrap() == "1");
        for (index, (signal, code)) in [("HUP", 129), ("INT", 130), ("TERM", 143)].into_iter().enumerate() {
            let path = folder.path().join("all.csv");
            let arguments = ["export", "--format", "csv", "--output", path.to_str().unwrap()];
            let mut child = command(&server, &arguments).stderr(Stdio::piped()).spawn().unwrap();
            // The server does not find out that nobody waits any more.
            let waiting = "SELECT count(*) FROM pg_locks WHERE NOT granted AND relation = 'postern.requests'::regclass";
            wait_until("it to wait", || server.sql(waiting).unwrap() == (index + 1).to_string());
            assert_eq!(files(), 1);
            let kill = run(Command::new("kill").args([&format!("-{signal}"), &child.id().to_string()]), b"", PATIENCE);
            assert_eq!(kill.unwrap().code, Some(0));
            assert_eq!(child.wait().unwrap().code(), Some(code), "{signal}");
            assert_eq!(files(), 0, "{signal}");
        }
        server
            .sql("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE query LIKE 'SELECT pg_sleep%'")
            .unwrap();
    });
}

#[test]
fn counts_are_the_same_from_sums_as_from_rows() {
    let (server, _authority) = with_rows();
    let moment = |sql: &str| {
        let utc = "SELECT to_char((date_trunc('hour', now(), 'UTC') {}) AT TIME ZONE 'UTC', 'YYYY-MM-DD\"T\"HH24:MI:SS\"Z\"')";
        server.sql(&utc.replace("{}", sql)).unwrap()
    };
    let newest = moment("+ interval '1 hour'");
    server.sql(&format!("SELECT make_rows(1, 2000, '{newest}', interval '20 s'); SELECT postern.refresh()")).unwrap();
    server.sql(&format!("SELECT make_rows(2001, 4000, '{newest}', interval '20 s')")).unwrap();
    let (since, until) = (moment("- interval '15 hours 25 minutes'"), moment("- interval '3 hours 1 minute'"));
    let (first, last) = (moment("- interval '15 hours'"), moment("- interval '4 hours'"));
    let table: [&[&str]; 14] = [
        &["identities"],
        &["routes", "--since", &since],
        &["rules", "--until", &until],
        &["reasons", "--since", &since, "--until", &until],
        &["namespaces", "--since", &first, "--until", &last],
        &["workloads", "--since", &since, "--until", &last, "--limit", "7"],
        &["reasons", "--since", &first, "--verdict", "refused"],
        &["identities", "--route", "demo/route-7", "--kind", "request"],
        &["routes", "--identity", "demo/client-7", "--verdict", "allowed"],
        // Within an hour.
        &["identities", "--since", &moment("- interval '50 minutes'"), "--until", &moment("- interval '10 minutes'")],
        // What sums have not.
        &["paths", "--limit", "5", "--since", &since],
        &["reasons", "--status", "4xx", "--since", &since],
        &["workloads", "--since", &newest],
        &["identities", "--kind", "cut", "--since", &since],
    ];
    let without = |line: &str| {
        let mut fields: Vec<_> = line.split(',').map(str::to_owned).collect();
        fields.drain(5..8);
        fields.join(",")
    };
    for arguments in table {
        let of = |more: &[&str]| printed(&server, &[&["top", "-o", "csv"], arguments, more].concat());
        let expected: Vec<_> = of(&[]).lines().map(without).collect();
        let counts = of(&["--counts"]);
        assert_eq!(counts.lines().collect::<Vec<_>>(), expected, "{arguments:?}");
        assert!(expected.len() > 1 || arguments.contains(&newest.as_str()), "{arguments:?}");
    }
    // Of whole hours no row is read, and of others only those before and behind.
    let period = ["top", "reasons", "-o", "csv", "--counts", "--since", &since, "--until", &until];
    let told = printed(&server, &period);
    server.sql(&format!("DELETE FROM postern.requests WHERE time >= '{first}' AND time < '{last}'")).unwrap();
    assert_eq!(printed(&server, &period), told);
    server
        .sql("CREATE ROLE auditor LOGIN IN ROLE postern_reader; REVOKE SELECT ON postern.requests FROM postern_reader")
        .unwrap();
    let url = server.local_url().replace("postgres@", "auditor@");
    let whole = ["top", "--counts", "--since", &first, "--until", &last, "--postgres", &url];
    assert!(printed(&server, &whole).lines().count() > 20);
    let told = refused(&server, &["top", "--counts", "--since", &since, "--postgres", &url]);
    assert!(told.contains("permission denied for table requests"), "{told}");
}
