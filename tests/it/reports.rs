//! What is told of the log: explained, counted, exported; from files and from PostgreSQL, in the same words.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use postern_tests::clients::{Finished, run};
use postern_tests::gate::Gate;
use postern_tests::process::built_sidecar;
use postern_tests::wait::PATIENCE;
use serde_json::Value;

use crate::log::{COLUMNS, call, gate_with_rows};
use crate::observed::{rows, wait_metric, wait_until};
use crate::outages::{cut_often, newest_segment, segments};
use crate::postgres::with_schema;
use crate::shipping::Rig;

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap().to_owned()
}

fn log(gate: &Gate, arguments: &[&str]) -> Finished {
    gate.sidecar.launch().subcommand("log", arguments).unwrap()
}

/// What it prints where it prints no error.
fn printed(gate: &Gate, arguments: &[&str]) -> String {
    let finished = log(gate, arguments);
    assert_eq!((finished.code, finished.stderr.as_str()), (Some(0), ""), "{arguments:?}");
    finished.text()
}

fn refused(gate: &Gate, arguments: &[&str]) -> String {
    let finished = log(gate, arguments);
    assert_eq!((finished.code, finished.text().as_str()), (Some(1), ""), "{arguments:?}");
    finished.stderr
}

fn lines(text: &str) -> Vec<Value> {
    text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

#[test]
fn rows_that_cannot_be_read_are_told_in_one_line_and_by_the_exit_status() {
    let mut gate = Gate::start_with(cut_often("64Mi")).unwrap();
    call(&gate, "billing", 4000);
    wait_until("small segments", || segments(&gate.sidecar, "compressed") > 1 && segments(&gate.sidecar, "plain") == 0);
    wait_metric(&gate.sidecar, "postern_log_rows_written_total", 4000);
    gate.sidecar.kill().unwrap();
    assert_eq!(printed(&gate, &["--sql", "SELECT count(*) FROM requests", "-o", "csv"]), "count(*)\r\n4000\r\n");
    let (torn, lost) = newest_segment(gate.folder.path());
    fs::write(&torn, "torn").unwrap();
    let line = format!(
        "postern-sidecar: rows are missing of segments that are damaged (restore them, or try `sqlite3 FILE .recover`): {}\n",
        torn.display()
    );
    let left = 4000 - usize::try_from(lost).unwrap();
    let file = gate.folder.file("all.jsonl");
    let table: [(&[&str], i32, &str); 6] = [
        (&["--limit", "100000", "-o", "json"], 3, ""),
        (&["-o", "json", "--sql", "SELECT id FROM requests"], 3, ""),
        (&["top", "-o", "json"], 3, ""),
        (&["export", "--format", "jsonl", "--output", file.to_str().unwrap()], 3, ""),
        (&["why", "one-that-is-missing"], 1, "postern-sidecar: no row and no request has the id one-that-is-missing\n"),
        // It is not looked at.
        (&["--limit", "1", "-o", "json"], 0, ""),
    ];
    for (arguments, code, error) in table {
        let finished = log(&gate, arguments);
        let told = if code == 0 { String::new() } else { format!("{line}{error}") };
        assert_eq!((finished.code, finished.stderr.clone()), (Some(code), told), "{arguments:?}");
        let rows = lines(&finished.text());
        match arguments {
            ["top", ..] => assert_eq!(rows[0]["decisions"], left),
            ["export", ..] => assert_eq!(lines(&fs::read_to_string(&file).unwrap()).len(), left),
            [.., "1", "-o", _] => assert_eq!(rows.len(), 1),
            ["why", ..] => assert_eq!(rows.len(), 0),
            _ => assert_eq!(rows.len(), left),
        }
    }
}

#[test]
fn a_refusal_is_explained_by_the_id_that_its_client_got() {
    let gate = gate_with_rows();
    assert_eq!(gate.curl(Some("reports"), "/orders/9").unwrap().call().unwrap().status, Some(403));
    let found = rows(&gate.sidecar, 4);
    let id = found[3]["request_id"].as_str().unwrap();
    let told = printed(&gate, &["why", id]);
    let beginnings =
        ["refused (policy_not_allowed) by rule ", "  what: GET /orders/9, for host ", "  where: listener gate,"];
    for (line, beginning) in told.lines().zip(beginnings) {
        assert!(line.starts_with(beginning), "{told}");
    }
    for part in [
        "  who: demo/reports, by its certificate, verified by bundle ours, from 127.0.0.1:",
        "  why: the identity is known and the rule does not allow it\n",
        "  what to do: add it to the rule's `allow`, if it should be there\n  answer: status 403, took ",
        "In the configuration, which has not changed since:\n  identity demo/reports is recognised by uri spiffe://",
        " of demo/orders allows {\"identity\":\"demo/billing\"}\n",
    ] {
        assert!(told.contains(part), "{told}");
    }
    let row = gate.sidecar.launch().query("select id from requests order by id desc limit 1").unwrap();
    assert_eq!(printed(&gate, &["why", row[0]["id"].as_str().unwrap()]), told);
    assert_eq!(refused(&gate, &["why", "nobody's"]), "postern-sidecar: no row and no request has the id nobody's\n");
    assert_eq!(
        refused(&gate, &["why", id, "--verdict", "allowed"]),
        format!("postern-sidecar: no row and no request has the id {id}\n")
    );
}

#[test]
fn decisions_are_counted_by_what_is_asked_for() {
    let gate = gate_with_rows();
    let counts = |arguments: &[&str]| {
        let text = printed(&gate, &[&["top", "-o", "json"], arguments].concat());
        // What it is counted by is the first member, and serde_json sorts them.
        let column = text.split('"').nth(1).unwrap_or_default().to_owned();
        let rows = lines(&text).into_iter().map(|row| {
            let key = row[&column].as_str().unwrap_or("-").to_owned();
            (key, ["decisions", "allowed", "refused"].map(|name| row[name].as_u64().unwrap()))
        });
        let mut rows: Vec<_> = rows.collect();
        rows.sort();
        rows
    };
    let of =
        |table: &[(&str, [u64; 3])]| table.iter().map(|(key, counts)| ((*key).to_owned(), *counts)).collect::<Vec<_>>();
    let identities = of(&[("-", [1, 0, 1]), ("demo/billing", [1, 1, 0]), ("demo/reports", [1, 0, 1])]);
    assert_eq!(counts(&[]), identities);
    assert_eq!(counts(&["identities", "--since", "1h"]), identities);
    assert_eq!(counts(&["routes", "--kind", "request"]), of(&[("demo/orders", [2, 1, 1])]));
    assert_eq!(counts(&["reasons", "--verdict", "refused", "--limit", "5"]).len(), 2);
    assert_eq!(counts(&["clients"]), of(&[("127.0.0.1", [3, 1, 2])]));
    assert_eq!(counts(&["hosts", "--identity", "demo/nobody"]), []);
    let header = printed(&gate, &["top", "reasons"]);
    let names: Vec<_> = header.lines().next().unwrap().split_whitespace().collect();
    assert_eq!(
        names,
        ["reason", "decisions", "allowed", "refused", "would_refuse", "p50_us", "p99_us", "max_us", "last"]
    );
}

#[test]
fn an_export_is_whole_or_not_there() {
    let gate = gate_with_rows();
    let path = gate.folder.file("all.csv");
    let to = ["export", "--format", "csv", "--output", path.to_str().unwrap()];
    assert_eq!(printed(&gate, &to), "");
    assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
    let text = fs::read_to_string(&path).unwrap();
    assert_eq!(text, printed(&gate, &["export", "--format", "csv"]));
    assert_eq!(text, printed(&gate, &["-o", "csv"]), "rows are as `log` prints them");
    assert_eq!((text.lines().next(), text.lines().count()), (Some(COLUMNS.join(",").as_str()), 4));
    let there = format!("postern-sidecar: {} is there already, and is not overwritten\n", path.display());
    assert_eq!(refused(&gate, &to), there);
    assert_eq!(fs::read_to_string(&path).unwrap(), text);
    // One that fails leaves nothing.
    let other = gate.folder.file("other.jsonl");
    let arguments = ["export", "--format", "jsonl", "--database", "/nowhere.db", "--output", other.to_str().unwrap()];
    refused(&gate, &arguments);
    let files = fs::read_dir(gate.folder.path()).unwrap().map(|file| file.unwrap().file_name().into_string().unwrap());
    let left: Vec<_> = files.filter(|name| name.contains("other") || name.ends_with(".part")).collect();
    assert_eq!(left, Vec::<String>::new());
    let newest = lines(&printed(&gate, &["export", "--format", "jsonl", "--newest-first"]));
    let mut oldest = lines(&printed(&gate, &["export", "--format", "jsonl"]));
    assert_eq!(oldest, rows(&gate.sidecar, 3));
    oldest.reverse();
    assert_eq!(newest, oldest);
    let refusals = lines(&printed(&gate, &["export", "--format", "jsonl", "--verdict", "refused"]));
    assert_eq!(refusals.len(), 2);
}

#[test]
fn who_has_read_enough_is_no_failure() {
    let gate = gate_with_rows();
    for arguments in [&["export", "--format", "csv"][..], &["top"], &["-o", "json"], &["-o", "table"]] {
        let mut command = Command::new(built_sidecar().unwrap());
        command.arg("log").args(arguments).arg("--config").arg(gate.folder.path());
        let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        drop(child.stdout.take());
        let ended = child.wait_with_output().unwrap();
        assert_eq!((ended.status.code(), ended.stderr.as_slice()), (Some(0), &b""[..]), "{arguments:?}");
    }
}

#[test]
fn what_does_not_go_together_is_an_error() {
    let gate = gate_with_rows();
    let alone = "postern-sidecar: --follow, --sql and an --output before the command's name are of rows alone\n";
    for arguments in [["--follow", "top"], ["--sql=select 1", "top"], ["-ojson", "top"]] {
        assert_eq!(refused(&gate, &arguments), alone, "{arguments:?}");
    }
    let every = "postern-sidecar: an export has every row that matches: leave out --limit\n";
    assert_eq!(refused(&gate, &["export", "--format", "csv", "--limit", "3"]), every);
}

/// PostgreSQL with the rows of a gate, and somebody who may read them.
fn shipped() -> (Rig, Gate) {
    let rig = Rig::start();
    rig.server.sql("CREATE ROLE auditor LOGIN PASSWORD 'tr ue' IN ROLE postern_reader").unwrap();
    rig.write("auditor", "tr ue\n");
    let gate = rig.gate();
    call(&gate, "billing", 5);
    call(&gate, "reports", 2);
    assert_eq!(gate.curl(None, "/orders").unwrap().call().unwrap().status, None);
    rig.has_all(&gate.sidecar, 8);
    (rig, gate)
}

/// What `log` says of PostgreSQL.
fn asked(rig: &Rig, folder: &Path, arguments: &[&str], variables: &[(&str, &str)]) -> Finished {
    let mut command = Command::new(built_sidecar().unwrap());
    command.arg("log").args(arguments).args(["--postgres", &rig.server.url("auditor")]).arg("--ca-file");
    command.arg(rig.file("ca.crt")).env_remove("PGPASSWORD").envs(variables.iter().copied()).current_dir(folder);
    run(&mut command, b"", PATIENCE).unwrap()
}

#[test]
fn postgres_is_asked_in_the_same_words() {
    let (rig, gate) = shipped();
    let password = rig.file("auditor");
    let password = ["--password-file", password.to_str().unwrap()];
    let found = rows(&gate.sidecar, 8);
    let [first, last] = [&found[0], &found[7]];
    let id = first["id"].as_str().unwrap();
    let request = found[5]["request_id"].as_str().unwrap();
    let time = found[3]["time"].as_str().unwrap();
    let serial = last["serial"].as_str().unwrap_or("00");
    let table: [&[&str]; 26] = [
        &[],
        &["--limit", "3", "-o", "json"],
        &["-o", "csv"],
        &["--since", "1h", "-o", "json"],
        &["--since", time, "-o", "json"],
        &["--until", time, "-o", "json"],
        &["--verdict", "refused", "-o", "json"],
        &["--kind", "handshake", "-o", "csv"],
        &["--reason", "policy_not_allowed", "-o", "json"],
        &["--identity", "demo/billing", "-o", "json"],
        &["--route", "demo/orders", "--listener", "gate", "-o", "json"],
        &["--path", "/orders/1", "-o", "json"],
        &["--path", "/%", "-o", "json"],
        &["--status", "4xx", "-o", "json"],
        &["--client", "127.0.0.1", "-o", "json"],
        &["--client", "127.0.0.2", "-o", "json"],
        &["--serial", serial, "-o", "json"],
        &["--request-id", request, "-o", "json"],
        &["why", id],
        &["why", request],
        &["top", "-o", "csv"],
        &["top", "routes", "-o", "json"],
        &["top", "clients", "-o", "json"],
        &["top", "statuses", "--kind", "request"],
        &["export", "--format", "jsonl"],
        &["export", "--format", "csv", "--newest-first", "--verdict", "refused"],
    ];
    for arguments in table {
        let remote = asked(&rig, gate.folder.path(), &[arguments, &password].concat(), &[]);
        assert_eq!((remote.code, remote.stderr.as_str()), (Some(0), ""), "{arguments:?}");
        // Of files, the configuration beside them has a word, too.
        let local = printed(&gate, arguments);
        let local = local.split("In the configuration").next().unwrap();
        assert_eq!(remote.text(), local, "{arguments:?}");
    }
}

#[test]
fn a_password_is_looked_for_and_never_told() {
    let (rig, gate) = shipped();
    let ask = |arguments: &[&str], variables: &[(&str, &str)]| {
        let finished = asked(&rig, gate.folder.path(), arguments, variables);
        assert!(!finished.stderr.contains("tr ue") && !finished.stderr.contains("false"), "{}", finished.stderr);
        (finished.code, finished.text().lines().count(), finished.stderr)
    };
    let file = rig.file("auditor").to_str().unwrap().to_owned();
    let fine = (Some(0), 9, String::new());
    assert_eq!(ask(&[], &[("PGPASSWORD", "tr ue")]), fine);
    assert_eq!(ask(&["--password-file", &file], &[("PGPASSWORD", "false")]), fine);
    let wrong = "postern-sidecar: password authentication failed for user \"auditor\" (SQLSTATE 28P01)\n".to_owned();
    assert_eq!(ask(&[], &[("PGPASSWORD", "false")]), (Some(1), 0, wrong));
    let none = "postern-sidecar: invalid configuration: password missing\n".to_owned();
    assert_eq!(ask(&[], &[]), (Some(1), 0, none));
    // Who may not read is told so, and whoever asks a database without a log.
    rig.server.sql("REVOKE postern_reader FROM auditor").unwrap();
    let (code, _, told) = ask(&["--password-file", &file], &[]);
    assert_eq!((code, told.contains("permission denied")), (Some(1), true), "{told}");
    rig.server.sql("DROP SCHEMA postern CASCADE").unwrap();
    let nothing =
        "postern-sidecar: there is no request log in this database: `postern-operator log-schema` makes one\n";
    assert_eq!(ask(&["--password-file", &file], &[]), (Some(1), 0, nothing.to_owned()));
}

/// The reference, which is generated, is what both databases have.
#[test]
fn columns_are_of_the_same_names_and_types_everywhere() {
    let (server, _authority) = with_schema();
    let sql = "SELECT attname, format_type(atttypid, NULL) FROM pg_attribute WHERE attrelid = 'postern.requests'::regclass \
         AND attnum > 0 AND NOT attisdropped ORDER BY attnum";
    let columns = server.sql(sql).unwrap().replace("timestamp with time zone", "timestamptz");
    let page = fs::read_to_string(root().join("docs/request-log.md")).unwrap();
    let table = page.split("\n| column | type | ").nth(1).unwrap().split("\n\n").next().unwrap();
    let cells = table.lines().skip(2).map(|row| row.split('|').map(|cell| cell.trim().trim_matches('`')).collect());
    let documented = cells.map(|cells: Vec<_>| format!("{}|{}", cells[1], cells[2])).collect::<Vec<_>>();
    assert_eq!(columns.lines().collect::<Vec<_>>(), documented);
    assert_eq!(documented.iter().map(|column| column.split('|').next().unwrap()).collect::<Vec<_>>(), COLUMNS);
    // SQLite has no types in a view: by what is in it.
    let gate = gate_with_rows();
    for column in &documented {
        let (name, kind) = column.split_once('|').unwrap();
        let is_number = ["boolean", "integer", "bigint"].contains(&kind);
        let sql = format!("select distinct typeof({name}) as kind from requests where {name} is not null");
        let kinds = gate.sidecar.launch().query(&sql).unwrap();
        let expected = if is_number { "integer" } else { "text" };
        assert!(kinds.iter().all(|found| found["kind"] == expected), "{name}: {kinds:?}");
    }
}

/// Commands of the page, as they stand there.
fn commands() -> Vec<String> {
    let page = fs::read_to_string(root().join("docs/log-reports.md")).unwrap();
    let commands = page.lines().filter_map(|line| line.strip_prefix("$ postern-sidecar "));
    commands.map(str::to_owned).collect()
}

#[test]
fn the_commands_of_the_page_answer() {
    let (rig, gate) = shipped();
    let id = rows(&gate.sidecar, 8)[6]["id"].as_str().unwrap().to_owned();
    let commands = commands();
    assert!(commands.len() > 10, "{commands:?}");
    let url = format!("{}?sslrootcert={}", rig.server.url("auditor"), rig.file("ca.crt").display());
    for command in &commands {
        let mut shell = Command::new("sh");
        let line = command.replace(" ID", &format!(" {id}"));
        let line = line.replace("postern.toml", gate.folder.path().to_str().unwrap());
        shell.arg("-c").arg(format!("\"$SIDECAR\" {line}")).current_dir(gate.folder.path());
        shell.env("SIDECAR", built_sidecar().unwrap()).env("URL", &url).env("PGPASSWORD", "tr ue");
        let finished = run(&mut shell, b"", PATIENCE).unwrap();
        assert_eq!((finished.code, finished.stderr.as_str()), (Some(0), ""), "{command}");
        let is_file = line.split(" --output ").nth(1).is_some_and(|name| gate.folder.file(name).exists());
        assert!(is_file || !finished.text().is_empty(), "{command}");
    }
}
