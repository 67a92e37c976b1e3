//! Queries over the request log in Postgres by time, identity and reason read what they are about, and no more of it.

use std::collections::BTreeSet;
use std::env;

use postern_tests::postgres::Postgres;
use serde_json::Value;

use crate::postgres::with_schema;
use crate::sums::ROWS;

/// Rows of the test; `make log-plans` asks for 5 million by `PLAN_ROWS`.
const DEFAULT_COUNT: u64 = 60_000;

/// Rows that are made by one call: what `psql` is waited for.
const CHUNK: u64 = 50_000;

/// Days over which they are spread, the last of them today.
const DAYS: u64 = 10;

/// A server with so many rows, which is where it is after a day or two: sums are moved, and tables are analysed.
fn filled(count: u64) -> Postgres {
    let (server, _authority) = with_schema();
    server.sql(ROWS).unwrap();
    let days =
        format!("SELECT postern.prepare((now() AT TIME ZONE 'UTC')::date - d) FROM generate_series(0, {DAYS}) d");
    server.sql(&days).unwrap();
    // The same moment for all calls: the newest row is a minute old.
    let newest = server.sql("SELECT now() - interval '1 minute'").unwrap();
    let step_us = DAYS * 86_400_000_000 / count;
    let mut last = count;
    while last > 0 {
        let first = last.saturating_sub(CHUNK) + 1;
        let made =
            format!("SELECT make_rows({first}, {last}, '{newest}', interval '{step_us} us'); SELECT postern.refresh()");
        server.sql(&made).unwrap();
        last = first - 1;
    }
    server.sql("VACUUM ANALYZE").unwrap();
    assert_eq!(server.sql("SELECT count(*) FROM postern.requests").unwrap(), count.to_string());
    server
}

/// What a query reads: of each table with rows that is looked at, by which index, or that it is read from end to end.
/// Partitions of days are called `DAY`.
fn reads(server: &Postgres, sql: &str) -> (BTreeSet<String>, u64) {
    let plan = server.sql(&format!("SET jit = off; EXPLAIN (ANALYZE, TIMING OFF, FORMAT JSON) {sql}")).unwrap();
    let plan: Value = serde_json::from_str(&plan).unwrap();
    let (mut found, mut rows) = (BTreeSet::new(), 0);
    gather(&plan[0]["Plan"], &mut found, &mut rows);
    (found, rows)
}

fn gather(node: &Value, found: &mut BTreeSet<String>, rows: &mut u64) {
    let number = |name: &str| node[name].as_f64().unwrap_or(0.0);
    let passed = number("Actual Rows") + number("Rows Removed by Filter") + number("Rows Removed by Index Recheck");
    let (index, table) = (node["Index Name"].as_str(), node["Relation Name"].as_str());
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "counts of rows are whole and small")]
    let passed = (passed * number("Actual Loops")) as u64;
    if index.is_some() || table.is_some() {
        *rows += passed;
    }
    // A table without rows is read from end to end, or by any index.
    let name = index.or(table.filter(|_| node["Node Type"] == "Seq Scan" && passed > 0));
    if let Some(name) = name.filter(|name| !name.starts_with("requests_other")) {
        let day = name.split('_').find(|part| part.len() == 8 && part.bytes().all(|byte| byte.is_ascii_digit()));
        found.insert(day.map_or_else(|| name.to_owned(), |day| name.replace(day, "DAY")));
    }
    for child in node["Plans"].as_array().into_iter().flatten() {
        gather(child, found, rows);
    }
}

const TIME: &[&str] = &["requests_DAY_pkey"];
const IDENTITY: &[&str] = &["requests_DAY_identity_time_idx"];
const REASON: &[&str] = &["requests_DAY_reason_time_idx"];

/// What is asked of so many rows, by which index each table is read for it, and how many rows are looked at, at most.
fn queries(count: u64) -> [(String, &'static [&'static str], u64); 13] {
    let hour = count / DAYS / 24;
    let minutes = format!("time >= now() - interval '{} minutes'", 10);
    [
        (format!("SELECT * FROM postern.requests WHERE {minutes}"), TIME, hour),
        ("SELECT * FROM postern.requests ORDER BY time DESC LIMIT 100".to_owned(), TIME, 400),
        (format!("SELECT count(*) FROM postern.requests WHERE {minutes} AND verdict = 'refused'"), TIME, hour),
        (
            "SELECT * FROM postern.requests WHERE identity = 'demo/client-7' ORDER BY time DESC LIMIT 100".to_owned(),
            IDENTITY,
            400,
        ),
        (
            "SELECT * FROM postern.requests WHERE identity = 'demo/client-7' AND time >= now() - interval '2 days'"
                .to_owned(),
            IDENTITY,
            count / 500,
        ),
        (
            "SELECT verdict, count(*) FROM postern.requests WHERE identity = 'demo/client-7' GROUP BY 1".to_owned(),
            IDENTITY,
            count / 200,
        ),
        (
            "SELECT * FROM postern.requests WHERE reason = 'limit_pending' ORDER BY time DESC LIMIT 100".to_owned(),
            REASON,
            400,
        ),
        (
            "SELECT identity, sum(repeat) FROM postern.requests WHERE reason = 'limit_pending' \
             AND time >= now() - interval '6 hours' GROUP BY 1"
                .to_owned(),
            REASON,
            hour,
        ),
        (
            "SELECT minute, requests FROM postern.requests_per_minute WHERE minute >= now() - interval '1 hour'"
                .to_owned(),
            &["per_minute_minute"],
            3 * hour,
        ),
        (
            "SELECT * FROM postern.requests_per_hour WHERE hour >= now() - interval '2 hours'".to_owned(),
            &["per_hour_hour"],
            5 * hour,
        ),
        (
            "SELECT * FROM postern.refusals_by_identity WHERE hour >= now() - interval '2 hours'".to_owned(),
            &["per_hour_hour"],
            5 * hour,
        ),
        (
            "SELECT * FROM postern.latency_by_route WHERE hour >= now() - interval '2 hours'".to_owned(),
            &["latency_per_hour_hour"],
            5 * hour,
        ),
        (
            "SELECT * FROM postern.identities_last_seen WHERE identity = 'demo/client-7'".to_owned(),
            &["uses_identity"],
            100,
        ),
    ]
}

/// With 5 million rows: `make log-plans`.
#[test]
fn queries_by_time_identity_and_reason_use_indexes() {
    let count = env::var("PLAN_ROWS").ok().and_then(|text| text.parse().ok()).unwrap_or(DEFAULT_COUNT);
    let server = filled(count);
    let mut wrong = Vec::new();
    for (sql, by, most) in queries(count) {
        let (found, rows) = reads(&server, &sql);
        let expected: BTreeSet<String> = by.iter().map(|name| (*name).to_owned()).collect();
        if found != expected || rows > most {
            wrong.push(format!("{sql}\n  reads {rows} rows (at most {most}) by {found:?}, and not by {expected:?}"));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}
