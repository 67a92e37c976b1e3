//! What is done to the request log in PostgreSQL by the clock: the chart's CronJobs, as Pod Security `restricted` lets them run.

use serde_json::json;

use crate::cluster::{in_checkout, path};
use crate::scene::Scene;
use crate::shipping::database;

/// As many days are kept, beside this one.
const DAYS: u32 = 5;
/// Once a year: here they are called.
const SELDOM: &str = "17 3 1 1 *";
/// Two requests a day, of so many days ago; two of these days are too old.
const ROWS: &str = "SELECT postern.prepare(day) FROM (SELECT (now() AT TIME ZONE 'UTC')::date - ago AS day \
                    FROM unnest(ARRAY[0, 1, 9, 10]) ago) days; \
                    INSERT INTO postern.requests (id, time, kind, repeat, verdict, status, duration_us, namespace) \
                    SELECT gen_random_uuid(), now() - ago * interval '1 day', 'request', 1, 'allowed', 200, 1000, 'shop' \
                    FROM unnest(ARRAY[0, 0, 1, 1, 9, 9, 10, 10]) ago";
/// Rows, and what sums say of them: those that came with rows, then all.
const THERE: &str = "SELECT (SELECT count(*) FROM postern.requests), (SELECT count(*) FROM postern.per_minute_new), \
                     (SELECT count(*) FROM postern.per_hour_new), (SELECT sum(requests) FROM postern.requests_per_minute), \
                     (SELECT sum(decisions) FROM postern.requests_per_hour)";

/// Calls what is there for it, and gives what it said.
fn called(scene: &Scene, name: &str) -> String {
    let job = format!("job/{name}");
    scene.kubectl(&["create", "job", name, &format!("--from=cronjob/{name}")]).unwrap();
    let waited = scene.wait(&job, "Complete");
    let said = scene.kubectl(&["logs", &job]).unwrap_or_default();
    waited.unwrap_or_else(|error| panic!("{error:#}: {said}"));
    said
}

#[test]
fn sums_are_moved_and_old_days_are_dropped_by_jobs() {
    let scene = Scene::new("kept");
    let server = database(&scene);
    let chart = in_checkout("charts/postern");
    let values = json!({"enabled": true, "days": DAYS, "refreshSchedule": SELDOM, "schedule": SELDOM});
    let jobs = ["--show-only", "templates/log-keep.yaml", "--set-json", &format!("logKeep={values}")];
    let words = ["template", "postern", path(&chart).unwrap(), "--namespace", &scene.namespace];
    let rendered = scene.cluster.helm(&[&words[..], &jobs].concat()).unwrap();
    let applied = scene.cluster.kubectl(&["apply", "--server-side", "-f", "-"], &rendered).unwrap();
    assert_eq!(applied.code, Some(0), "{}", applied.stderr);

    server.sql(ROWS).unwrap();
    assert_eq!(server.sql(THERE).unwrap(), "8|4|4|8|8");
    // Of each day one by the minute, one by the hour and one of latencies.
    assert_eq!(called(&scene, "postern-log-refresh"), "sums moved: 12\n");
    assert_eq!(server.sql(THERE).unwrap(), "8|0|0|8|8");
    assert_eq!(called(&scene, "postern-log-keep"), "sums moved: 0\ndays dropped: 2\n");
    assert_eq!(server.sql(THERE).unwrap(), "4|0|0|4|8");
}
