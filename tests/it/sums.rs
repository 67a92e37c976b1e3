//! What views of the request log in Postgres say is what its rows say, whenever which of them came and whoever keeps them.

use std::fs;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};

use postern_tests::ca::Authority;
use postern_tests::postgres::Postgres;

use crate::postgres::{VERSION, operator, schema_text, with_schema};

/// Makes rows of every kind: `make_rows(first, last, newest, step)`.
pub(crate) const ROWS: &str = include_str!("sums/rows.sql");

/// Each view and the same over all rows.
const VIEWS: [(&str, &str); 5] = [
    (
        "requests_per_minute",
        "SELECT date_trunc('minute', time, 'UTC'), namespace, workload, \
         coalesce(sum(repeat) FILTER (WHERE kind IN ('request', 'tunnel')), 0), \
         coalesce(sum(repeat) FILTER (WHERE kind IN ('request', 'tunnel') AND verdict = 'refused'), 0), \
         coalesce(sum(repeat) FILTER (WHERE kind IN ('request', 'tunnel') AND verdict = 'would_refuse'), 0), \
         coalesce(sum(repeat) FILTER (WHERE kind IN ('request', 'tunnel') AND verdict <> 'refused' AND status >= 500), 0), \
         coalesce(sum(repeat) FILTER (WHERE kind = 'connection' AND verdict <> 'refused'), 0), \
         coalesce(sum(repeat) FILTER (WHERE kind IN ('handshake', 'connection') AND verdict = 'refused'), 0) \
         FROM postern.requests WHERE kind NOT IN ('gap', 'cut') GROUP BY 1, 2, 3",
    ),
    (
        "requests_per_hour",
        "SELECT date_trunc('hour', time, 'UTC'), namespace, workload, kind, route, rule, identity, verdict, reason, sum(repeat), \
         sum(request_bytes), sum(response_bytes), min(time), max(time) FROM postern.requests WHERE kind <> 'gap' \
         GROUP BY 1, 2, 3, 4, 5, 6, 7, 8, 9",
    ),
    (
        "refusals_by_identity",
        "SELECT date_trunc('hour', time, 'UTC'), namespace, workload, identity, verdict, reason, sum(repeat), min(time), max(time) \
         FROM postern.requests WHERE verdict IN ('refused', 'would_refuse') GROUP BY 1, 2, 3, 4, 5, 6",
    ),
    (
        "grants",
        "SELECT namespace, workload, route, rule, identity, sum(repeat), min(time), max(time) FROM postern.requests \
         WHERE verdict = 'allowed' AND identity IS NOT NULL AND route IS NOT NULL GROUP BY 1, 2, 3, 4, 5",
    ),
    (
        "identities_last_seen",
        "SELECT identity, min(time), max(time), max(time) FILTER (WHERE verdict = 'allowed'), sum(repeat), \
         coalesce(sum(repeat) FILTER (WHERE verdict = 'refused'), 0) FROM postern.requests WHERE identity IS NOT NULL GROUP BY 1",
    ),
];

fn with_rows() -> (Postgres, Authority) {
    let (server, authority) = with_schema();
    server.sql(ROWS).unwrap();
    (server, authority)
}

/// Looks that every view says what all rows say.
fn assert_exact(server: &Postgres, when: &str) {
    for (view, rows) in VIEWS {
        let sql = format!(
            "WITH told AS (SELECT * FROM postern.{view}), counted AS ({rows}) \
             SELECT (SELECT count(*) FROM (TABLE told EXCEPT ALL TABLE counted) a), \
             (SELECT count(*) FROM (TABLE counted EXCEPT ALL TABLE told) b), (SELECT count(*) > 0 FROM told)"
        );
        assert_eq!(server.sql(&sql).unwrap(), "0|0|t", "{view} {when}");
    }
}

/// Looks that what is told of latencies is within 5 % of them.
fn assert_close(server: &Postgres, when: &str) {
    let sql = "WITH rows AS (SELECT date_trunc('hour', time, 'UTC') AS hour, namespace, workload, route, rule, count(*) AS requests, \
         round(avg(duration_us)) AS mean, percentile_disc(ARRAY[0.50, 0.95, 0.99]) WITHIN GROUP (ORDER BY duration_us) AS p \
         FROM postern.requests WHERE kind = 'request' AND verdict <> 'refused' GROUP BY 1, 2, 3, 4, 5) \
         SELECT count(*) > 0, count(*) FILTER (WHERE t.requests IS DISTINCT FROM r.requests OR t.mean_us <> r.mean \
         OR abs(t.p50_us - p[1]) > 1 + 0.05 * p[1] OR abs(t.p95_us - p[2]) > 1 + 0.05 * p[2] \
         OR abs(t.p99_us - p[3]) > 1 + 0.05 * p[3]) FROM rows r FULL JOIN postern.latency_by_route t \
         ON (t.hour, t.workload, t.route, t.rule) = (r.hour, r.workload, r.route, r.rule)";
    assert_eq!(server.sql(sql).unwrap(), "t|0", "{when}");
}

#[test]
fn views_say_what_rows_say_whatever_came_late_or_twice() {
    let (server, _authority) = with_rows();
    let newest = server.sql("SELECT date_trunc('hour', now())").unwrap();
    // Of four days.
    let rows = |first: u32, last: u32| format!("SELECT make_rows({first}, {last}, '{newest}', interval '70 s')");
    let refresh = || server.sql("SELECT postern.refresh() > 0").unwrap();
    let prepare = "SELECT postern.prepare((now() AT TIME ZONE 'UTC')::date - d) FROM generate_series(0, 4) d";
    let every_kind = format!(
        "INSERT INTO postern.requests (id, time, kind, repeat, namespace, workload, route, rule, identity, verdict, status, \
         request_bytes, response_bytes, duration_us) SELECT gen_random_uuid(), '{newest}', kind, 1, 'demo', 'every', 'demo/every', 'all', \
         'demo/every', verdict, status, 3, 4, 500 FROM unnest(ARRAY['request', 'tunnel', 'connection', 'handshake', 'cut']) kind, \
         unnest(ARRAY['allowed', 'refused', 'would_refuse']) verdict, unnest(ARRAY[200, 502]) status"
    );
    let steps = [
        ("nothing was moved", rows(1, 2000)),
        ("all was moved", "SELECT postern.refresh()".to_owned()),
        ("rows came late", rows(2500, 5000)),
        ("rows came late for hours that were moved, and others twice", rows(1000, 3000)),
        ("that was moved", "SELECT postern.refresh()".to_owned()),
        ("rows were given their partitions", prepare.to_owned()),
        ("a batch came once more", rows(1, 5000)),
        ("nothing was to be moved", "SELECT postern.refresh()".to_owned()),
        ("every kind had every verdict", every_kind.clone()),
        ("that was moved, of one hour alone", "SELECT postern.refresh()".to_owned()),
        ("the same came again, and its sums are equal", every_kind),
        ("these were moved to those", "SELECT postern.refresh()".to_owned()),
    ];
    for (when, sql) in steps {
        server.sql(&sql).unwrap();
        assert_exact(&server, when);
        assert_close(&server, when);
    }
    assert_eq!(refresh(), "f");
    for (table, key) in [
        ("per_minute", "minute, namespace, workload"),
        ("per_hour", "hour, namespace, workload, kind, route, rule, identity, verdict, reason"),
        ("latency_per_hour", "hour, namespace, workload, route, rule, bucket"),
        ("uses", "namespace, workload, route, rule, identity, verdict"),
    ] {
        let twice = format!(
            "SELECT (SELECT count(*) FROM (SELECT FROM postern.{table} GROUP BY {key} HAVING count(*) > 1) twice), \
             (SELECT count(*) > 0 FROM postern.{table})"
        );
        assert_eq!(server.sql(&twice).unwrap(), "0|t", "of one time there is one sum in {table}");
    }
}

#[test]
fn views_are_exact_at_every_moment_while_many_write() {
    const WRITERS: usize = 4;
    const BATCHES: usize = 25;
    const BATCH: usize = 100;
    let (server, _authority) = with_rows();
    server.sql("SELECT postern.prepare((now() AT TIME ZONE 'UTC')::date)").unwrap();
    let compare = "SELECT (SELECT coalesce(sum(repeat), 0) FROM postern.requests WHERE kind <> 'gap') = \
         (SELECT coalesce(sum(decisions), 0) FROM postern.requests_per_hour)";
    let newest = server.sql("SELECT now()").unwrap();
    let is_over = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let repeatedly = |sql: &'static str, expected: &'static str| {
            let (server, is_over) = (&server, &is_over);
            scope.spawn(move || {
                while !is_over.load(Ordering::Relaxed) {
                    assert_eq!(server.sql(sql).unwrap(), expected);
                }
            })
        };
        let others = [
            repeatedly("SELECT postern.refresh() >= 0", "t"),
            repeatedly("SELECT postern.refresh() >= 0", "t"),
            repeatedly(compare, "t"),
        ];
        let writers: Vec<_> = (0..WRITERS)
            .map(|writer| {
                let (server, newest) = (&server, &newest);
                // Each batch is a transaction of its own, and one in two comes once more.
                let batches: String = (0..BATCHES)
                    .flat_map(|batch| [batch, batch / 2])
                    .map(|batch| {
                        let first = (writer * BATCHES + batch) * BATCH + 1;
                        let last = first + BATCH - 1;
                        format!("SELECT make_rows({first}, {last}, '{newest}', interval '1 s');\n")
                    })
                    .collect();
                scope.spawn(move || server.sql(&batches).unwrap())
            })
            .collect();
        let written: Vec<_> = writers.into_iter().map(std::thread::ScopedJoinHandle::join).collect();
        is_over.store(true, Ordering::Relaxed);
        assert!(
            written.into_iter().chain(others.map(|other| other.join().map(|()| String::new()))).all(|end| end.is_ok())
        );
    });
    let count = (WRITERS * BATCHES * BATCH).to_string();
    assert_eq!(server.sql("SELECT count(*) FROM postern.requests").unwrap(), count);
    assert_exact(&server, "at the end");
}

#[test]
fn rows_of_a_schema_before_sums_are_counted_when_it_is_brought_up_to_date() {
    let server = Postgres::start(&Authority::new("Postern test authority").unwrap()).unwrap();
    let text = schema_text();
    let (first, _) = text.split_once("COMMIT;\n").unwrap();
    server.sql(&format!("{first}COMMIT;\n{ROWS}")).unwrap();
    server.sql("SELECT postern.prepare((now() AT TIME ZONE 'UTC')::date - d) FROM generate_series(0, 2) d").unwrap();
    // Some of days that have no partition.
    server.sql("SELECT make_rows(1, 3000, now(), interval '100 s')").unwrap();
    let told = operator(&["log-schema", "--apply", &server.local_url()]);
    assert_eq!(told, (Some(0), format!("the request log's schema was brought from version 1 to {VERSION}\n")));
    assert_exact(&server, "of before");
    server.sql("SELECT make_rows(2000, 4000, now(), interval '100 s')").unwrap();
    assert_exact(&server, "and of after");
    assert_close(&server, "and of after");
}

#[test]
fn days_go_and_their_sums_stay_for_longer() {
    let (server, _authority) = with_rows();
    let days = "SELECT postern.prepare((now() AT TIME ZONE 'UTC')::date - d) FROM generate_series(0, 25) d";
    server.sql(days).unwrap();
    // One row in a quarter of an hour, for 42 days; the last 16 days of them have no partition.
    server.sql("SELECT make_rows(1, 4000, now(), interval '900 s')").unwrap();
    let newer = |days: u32| format!("(SELECT (now() AT TIME ZONE 'UTC')::date - {days})::timestamp AT TIME ZONE 'UTC'");
    let counted = |table: &str, time: &str, sum: &str| {
        let sql = format!("SELECT min({time}) >= {}, sum({sum}) FROM postern.{table}", newer(10));
        server.sql(&sql).unwrap()
    };
    let hours = counted("requests_per_hour", "hour", "decisions");
    let others = || {
        let sums = "SELECT (SELECT sum(requests) FROM postern.latency_by_route), (SELECT sum(decisions) FROM postern.identities_last_seen)";
        server.sql(sums).unwrap()
    };
    let before = others();
    let kept = "SELECT count(*), sum(repeat) FILTER (WHERE kind IN ('request', 'tunnel')) FROM postern.requests WHERE time >= ";
    let kept = server.sql(&format!("{kept}{}", newer(10))).unwrap();
    let (rows, requests) = kept.split_once('|').unwrap();
    let url = server.local_url();
    let (code, told) = operator(&["log-keep", &url]);
    assert_eq!((code, told.starts_with("sums moved: "), told.lines().count()), (Some(0), true, 1), "{told}");
    let told = operator(&["log-keep", &url, "--days", "10"]);
    assert_eq!(told, (Some(0), "sums moved: 0\ndays dropped: 15\n".to_owned()));
    assert_eq!(counted("requests", "time", "1"), format!("t|{rows}"));
    assert_eq!(counted("requests_per_minute", "minute", "requests"), format!("t|{requests}"));
    assert_eq!((counted("requests_per_hour", "hour", "decisions"), others()), (hours.clone(), before));
    // A day comes back for a row that is late; its hour has the row and what was dropped.
    server.sql("SELECT postern.prepare((now() AT TIME ZONE 'UTC')::date - 20)").unwrap();
    let late = "INSERT INTO postern.requests (id, time, kind, repeat) VALUES (gen_random_uuid(), now() - interval '20 days', 'request', 1)";
    server.sql(late).unwrap();
    let sum: u64 = hours.split_once('|').unwrap().1.parse().unwrap();
    for _ in 0..2 {
        assert_eq!(counted("requests_per_hour", "hour", "decisions"), format!("f|{}", sum + 1));
        server.sql("SELECT postern.refresh()").unwrap();
    }
    let told = operator(&["log-keep", &url, "--days", "10", "--summed-days", "10"]);
    assert_eq!(told, (Some(0), "sums moved: 0\ndays dropped: 1\n".to_owned()));
    assert_eq!(counted("requests_per_hour", "hour", "decisions").split_once('|').unwrap().0, "t");
    let newest = format!(
        "SELECT (SELECT min(hour) >= {0} FROM postern.latency_by_route), (SELECT min(last_seen) >= {0} FROM postern.identities_last_seen)",
        newer(10)
    );
    assert_eq!(server.sql(&newest).unwrap(), "t|t");
    let (code, told) = operator(&["log-keep", &url, "--days", "0"]);
    assert_eq!(
        (code, told.lines().next()),
        (Some(2), Some("error: invalid value '0' for '--days <DAYS>': 0 is not in 1..=65535"))
    );
}

#[test]
fn what_was_used_and_is_not_any_more_is_told() {
    let (server, _authority) = with_schema();
    let insert = |identity: &str, route: &str, verdict: &str, days: u32| {
        let sql = format!(
            "INSERT INTO postern.requests (id, time, kind, repeat, namespace, workload, route, rule, identity, verdict) VALUES \
             (gen_random_uuid(), timestamptz '2026-11-20 12:00Z' - interval '{days} days', 'request', 1, 'demo', 'shop', \
             '{route}', 'all', '{identity}', '{verdict}')"
        );
        server.sql(&sql).unwrap();
    };
    for (identity, route, verdict, days) in [
        ("billing", "orders", "allowed", 90),
        ("billing", "orders", "allowed", 31),
        ("billing", "orders", "refused", 3),
        ("billing", "prices", "allowed", 30),
        ("reports", "orders", "allowed", 80),
        ("reports", "orders", "allowed", 0),
        ("audit", "orders", "refused", 60),
        ("audit", "orders", "would_refuse", 60),
    ] {
        insert(identity, route, verdict, days);
    }
    let unused = "SELECT identity, route, rule, decisions, extract(day FROM unused_for) FROM postern.unused_grants";
    for _ in 0..2 {
        assert_eq!(server.sql(unused).unwrap(), "billing|orders|all|2|31");
        server.sql("SELECT postern.refresh()").unwrap();
    }
    insert("billing", "orders", "allowed", 29);
    assert_eq!(server.sql(unused).unwrap(), "");
}

fn reports_page() -> String {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap();
    fs::read_to_string(root.join("docs/reports.md")).unwrap()
}

#[test]
fn documented_columns_are_the_views() {
    let (server, _authority) = with_schema();
    let page = reports_page();
    let views = page.split("\n## Questions").next().unwrap();
    let mut documented: Vec<_> = views
        .split("\n### ")
        .skip(1)
        .map(|section| {
            let rows = section.lines().filter(|line| line.starts_with("| `"));
            let cells = rows.map(|line| line.split(" | ").next().unwrap().to_owned());
            let names =
                cells.flat_map(|cell| cell.split('`').skip(1).step_by(2).map(str::to_owned).collect::<Vec<_>>());
            format!("{}|{}", section.lines().next().unwrap(), names.collect::<Vec<_>>().join(","))
        })
        .collect();
    let sql = "SELECT table_name, string_agg(column_name, ',' ORDER BY ordinal_position) FROM information_schema.columns \
         JOIN information_schema.views USING (table_schema, table_name) WHERE table_schema = 'postern' GROUP BY 1 ORDER BY 1";
    documented.sort();
    assert_eq!(server.sql(sql).unwrap().lines().collect::<Vec<_>>(), documented);
}

#[test]
fn documented_queries_are_answered_to_whoever_may_read() {
    let (server, _authority) = with_schema();
    let page = reports_page();
    let blocks: Vec<_> = page.split("```sql\n").skip(1).map(|rest| rest.split("```").next().unwrap()).collect();
    assert_eq!(blocks.len(), 9);
    for block in blocks {
        server.sql(&format!("SET ROLE postern_reader; {block}")).unwrap();
    }
}
