//! The request log in Postgres: its schema as `postern-operator log-schema` makes it, and who may do what in it.

use std::fs;
use std::process::Command;

use postern_tests::ca::Authority;
use postern_tests::clients::{Finished, run};
use postern_tests::postgres::Postgres;
use postern_tests::process::built;
use postern_tests::wait::PATIENCE;
use tempfile::TempDir;

use crate::log::COLUMNS;

/// The schema's version that these programs make.
pub(crate) const VERSION: &str = "4";

fn call(arguments: &[&str]) -> Finished {
    let mut command = Command::new(built("postern-operator").unwrap());
    run(command.args(arguments), b"", PATIENCE).unwrap()
}

/// The schema as it is printed.
pub(crate) fn schema_text() -> String {
    call(&["log-schema"]).text()
}

/// How it ends, and what it says.
type Said = (Option<i32>, String);

/// The operator's command.
pub(crate) fn operator(arguments: &[&str]) -> Said {
    let finished = call(arguments);
    (finished.code, finished.text() + &finished.stderr)
}

fn said(arguments: &[&str]) -> Said {
    operator(&[&["log-schema"], arguments].concat())
}

/// A server with the schema, which whoever has the authority's certificate believes.
pub(crate) fn with_schema() -> (Postgres, Authority) {
    let authority = Authority::new("Postern test authority").unwrap();
    let server = Postgres::start(&authority).unwrap();
    let told = format!("the request log's schema was brought from version 0 to {VERSION}\n");
    assert_eq!(said(&["--apply", &server.local_url()]), (Some(0), told));
    (server, authority)
}

#[test]
fn the_schema_that_is_printed_is_the_one_that_is_applied() {
    let (server, authority) = with_schema();
    let told = format!("the request log's schema is there already, version {VERSION}\n");
    assert_eq!(said(&["--apply", &server.local_url()]), (Some(0), told));
    let by_hand = Postgres::start(&authority).unwrap();
    by_hand.sql(&schema_text()).unwrap();
    let shape = "SELECT table_name, column_name, data_type, is_nullable FROM information_schema.columns \
         WHERE table_schema = 'postern' ORDER BY 1, ordinal_position; SELECT indexdef FROM pg_indexes WHERE schemaname = 'postern' \
         ORDER BY 1; SELECT p.oid::regprocedure, proacl, prosecdef FROM pg_proc p WHERE pronamespace = 'postern'::regnamespace \
         ORDER BY 1; SELECT relname, relacl FROM pg_class WHERE relnamespace = 'postern'::regnamespace ORDER BY 1";
    let applied = server.sql(shape).unwrap();
    assert_eq!(by_hand.sql(shape).unwrap(), applied);
    let columns = "SELECT column_name FROM information_schema.columns WHERE table_schema = 'postern' AND table_name = 'requests' \
         ORDER BY ordinal_position";
    assert_eq!(server.sql(columns).unwrap().lines().collect::<Vec<_>>(), COLUMNS);
}

#[test]
fn many_may_apply_it_at_once() {
    let authority = Authority::new("Postern test authority").unwrap();
    let server = Postgres::start(&authority).unwrap();
    let url = server.local_url();
    let told: Vec<_> = std::thread::scope(|scope| {
        let threads: Vec<_> = (0..4).map(|_| scope.spawn(|| said(&["--apply", &url]))).collect();
        threads.into_iter().map(|thread| thread.join().unwrap()).collect()
    });
    assert!(told.iter().all(|(code, _)| *code == Some(0)), "{told:?}");
    assert_eq!(server.sql("SELECT value FROM postern.meta WHERE key = 'version'").unwrap(), VERSION);
}

#[test]
fn who_writes_may_insert_and_prepare_who_reads_may_read_and_who_keeps_may_move_and_drop() {
    let (server, _authority) = with_schema();
    let as_role = |role: &str, sql: &str| {
        let finished = server.try_sql(&format!("SET ROLE {role}; {sql}")).unwrap();
        if finished.code == Some(0) { "ok".to_owned() } else { finished.stderr.lines().next().unwrap().to_owned() }
    };
    let insert = "INSERT INTO postern.requests (id, time, kind, repeat) VALUES (gen_random_uuid(), now(), 'request', 1) ON CONFLICT DO NOTHING";
    let denied = |what: &str| format!("ERROR:  permission denied for {what}");
    let table = [
        ("postern_writer", insert, "ok".to_owned()),
        ("postern_writer", "SELECT postern.prepare(current_date)", "ok".to_owned()),
        ("postern_writer", "SELECT value FROM postern.meta", "ok".to_owned()),
        ("postern_writer", "SELECT path FROM postern.requests", denied("table requests")),
        ("postern_writer", "DELETE FROM postern.requests", denied("table requests")),
        ("postern_writer", "UPDATE postern.requests SET path = ''", denied("table requests")),
        ("postern_writer", "CREATE TABLE postern.mine ()", denied("schema postern")),
        ("postern_writer", "SELECT postern.drop_before(current_date)", denied("function drop_before")),
        ("postern_writer", "SELECT postern.refresh()", denied("function refresh")),
        ("postern_writer", "SELECT postern.keep(9)", denied("function keep")),
        ("postern_writer", "SELECT minute FROM postern.requests_per_minute", denied("view requests_per_minute")),
        (
            "postern_writer",
            "INSERT INTO postern.per_hour_new SELECT * FROM postern.per_hour",
            denied("table per_hour_new"),
        ),
        ("postern_reader", "SELECT path FROM postern.requests", "ok".to_owned()),
        ("postern_reader", "SELECT minute FROM postern.requests_per_minute", "ok".to_owned()),
        ("postern_reader", "SELECT hour FROM postern.requests_per_hour", "ok".to_owned()),
        ("postern_reader", "SELECT hour FROM postern.refusals_by_identity", "ok".to_owned()),
        ("postern_reader", "SELECT p99_us FROM postern.latency_by_route", "ok".to_owned()),
        ("postern_reader", "SELECT identity FROM postern.identities_last_seen", "ok".to_owned()),
        ("postern_reader", "SELECT identity FROM postern.grants", "ok".to_owned()),
        ("postern_reader", "SELECT identity FROM postern.unused_grants", "ok".to_owned()),
        ("postern_reader", "SELECT postern.refresh()", denied("function refresh")),
        ("postern_keeper", "SELECT postern.refresh()", "ok".to_owned()),
        ("postern_keeper", "SELECT postern.keep(9)", "ok".to_owned()),
        ("postern_keeper", "SELECT postern.keep(0)", "ERROR:  a day is to be kept at least".to_owned()),
        ("postern_keeper", "SELECT path FROM postern.requests", denied("table requests")),
        ("postern_keeper", insert, denied("table requests")),
        ("postern_reader", insert, denied("table requests")),
        ("postern_reader", "SELECT postern.prepare(current_date)", denied("function prepare")),
    ];
    for (role, sql, expected) in table {
        let told = as_role(role, sql);
        assert_eq!(
            told.split(" at character").next().unwrap().trim_start_matches("psql:<stdin>:1: "),
            expected,
            "{role}: {sql}"
        );
    }
}

#[test]
fn partitions_are_of_days_around_now_and_take_what_came_before_them() {
    let (server, _authority) = with_schema();
    let insert = "INSERT INTO postern.requests (id, time, kind, repeat) SELECT gen_random_uuid(), now() - make_interval(days => d), \
         'request', 1 FROM generate_series(-1, 40) d";
    server.sql(insert).unwrap();
    let placed =
        "SELECT count(*) FILTER (WHERE tableoid = 'postern.requests_other'::regclass), count(*) FROM postern.requests";
    assert_eq!(server.sql(placed).unwrap(), "42|42");
    // Many at once, as at midnight.
    std::thread::scope(|scope| {
        for _ in 0..4 {
            let prepare = "SELECT postern.prepare((now() AT TIME ZONE 'UTC')::date - d) FROM generate_series(-2, 31) d";
            scope.spawn(|| assert_eq!(server.sql(prepare).unwrap(), vec!["t"; 34].join("\n")));
        }
    });
    assert_eq!(server.sql(placed).unwrap(), "9|42");
    let beyond = "SELECT postern.prepare((now() AT TIME ZONE 'UTC')::date + d) FROM unnest(ARRAY[-32, 3]) d";
    assert_eq!(server.sql(beyond).unwrap(), "f\nf");
    let days = "SELECT count(*) FROM pg_inherits WHERE inhparent = 'postern.requests'::regclass";
    assert_eq!(server.sql(days).unwrap(), "35");
    assert_eq!(server.sql("SELECT postern.drop_before((now() AT TIME ZONE 'UTC')::date - 1)").unwrap(), "30");
    // With them what is as old and had no partition.
    assert_eq!(server.sql(placed).unwrap(), "0|3");
}

#[test]
fn a_server_that_cannot_be_believed_or_does_not_believe_is_told_of() {
    let (server, authority) = with_schema();
    let folder = TempDir::new().unwrap();
    let file = |name: &str, text: &str| {
        let path = folder.path().join(name);
        fs::write(&path, text).unwrap();
        path.to_str().unwrap().to_owned()
    };
    server.sql("CREATE ROLE owner LOGIN SUPERUSER PASSWORD 'tr ue'; CREATE ROLE poor LOGIN PASSWORD 'tr ue'").unwrap();
    let (ca, password) = (file("ca.pem", authority.root_pem()), file("password", "tr ue\n"));
    let other = file("other.pem", Authority::new("another").unwrap().root_pem());
    let wrong = file("wrong", "false");
    let url = server.url("owner");
    let named = url.replace("127.0.0.1", "localhost");
    let already = format!("the request log's schema is there already, version {VERSION}\n");
    let fault = |text: &str| (Some(1), format!("{text}\n"));
    let table: [(&[&str], Said); 7] = [
        (&[&url, "--ca-file", &ca, "--password-file", &password], (Some(0), already.clone())),
        (&[&format!("{url}?sslmode=disable"), "--password-file", &password], (Some(0), already.clone())),
        (&[&format!("{}?sslrootcert={ca}", url.replace("owner@", "owner:tr%20ue@"))], (Some(0), already)),
        (
            &[&url, "--ca-file", &ca, "--password-file", &wrong],
            fault("password authentication failed for user \"owner\" (SQLSTATE 28P01)"),
        ),
        (&[&url, "--ca-file", &ca], fault("invalid configuration: password missing")),
        (
            &[&url, "--ca-file", &other, "--password-file", &password],
            fault("error performing TLS handshake: invalid peer certificate: UnknownIssuer"),
        ),
        (
            &[&url],
            (Some(1), "nobody vouches for the server: give --ca-file, or sslmode=disable in the URL\n".to_owned()),
        ),
    ];
    for (arguments, expected) in table {
        let arguments: Vec<&str> = ["--apply"].into_iter().chain(arguments.iter().copied()).collect();
        assert_eq!(said(&arguments), expected, "{arguments:?}");
    }
    let (code, told) = said(&["--apply", &named, "--ca-file", &ca, "--password-file", &password]);
    assert_eq!(code, Some(1));
    assert!(told.contains("invalid peer certificate: certificate not valid for name \"localhost\""), "{told}");
}
