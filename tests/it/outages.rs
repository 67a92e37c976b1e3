//! PostgreSQL away for long, in every way it can be: rows wait in the log, however that keeps them, and are sent afterwards.

use std::collections::BTreeSet;
use std::env;
use std::fs;
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use postern_tests::ca::LeafOptions;
use postern_tests::clients::Curl;
use postern_tests::clock::Clock;
use postern_tests::config::client_uri;
use postern_tests::gate::{GATE_URI, Gate};
use postern_tests::postgres::Postgres;
use postern_tests::process::Sidecar;
use serde_json::{Value, json};

use crate::log::call;
use crate::observed::{metric, page, status, wait_metric, wait_until};
use crate::shipping::{BACKLOG, Rig, failures};

/// Rows of an outage; of an hour with ten a second: `OUTAGE_ROWS=36000 cargo test …`.
fn outage_rows() -> usize {
    env::var("OUTAGE_ROWS").ok().and_then(|text| text.parse().ok()).unwrap_or(6000)
}

/// Small segments, in a log of that size.
pub(crate) fn cut_often(max_size: &'static str) -> impl FnOnce(&mut Value) {
    move |document| {
        document["settings"]["log"]["segmentSize"] = json!("128Ki");
        document["settings"]["log"]["maxSize"] = json!(max_size);
    }
}

/// Segments as they are kept.
pub(crate) fn segments(sidecar: &Sidecar, form: &str) -> u64 {
    metric(sidecar, &format!("postern_log_segments{{form=\"{form}\"}}"))
}

fn lost(sidecar: &Sidecar, reason: &str) -> u64 {
    metric(sidecar, &format!("postern_log_ship_rows_dropped_total{{reason=\"{reason}\"}}"))
}

fn written(sidecar: &Sidecar, count: usize) {
    wait_metric(sidecar, "postern_log_rows_written_total", count as u64);
}

#[test]
fn a_long_outage_is_sent_from_compressed_segments_and_costs_what_is_damaged_at_most() {
    let count = outage_rows();
    let mut rig = Rig::start();
    let mut gate = rig.gate_with(cut_often("256Mi"));
    call(&gate, "billing", 10);
    rig.has_all(&gate.sidecar, 10);
    rig.server.kill();
    call(&gate, "billing", count);
    written(&gate.sidecar, count + 10);
    wait_until("small segments", || segments(&gate.sidecar, "plain") == 0);
    assert!(segments(&gate.sidecar, "compressed") > 2);
    wait_until("what is told of it", || {
        let shipping = status(&gate.sidecar).shipping.unwrap();
        shipping.failing.as_deref() == Some("connect") && shipping.backlog_rows == count as u64
    });
    let names = ["ship_backlog_bytes", "segment_bytes{form=\"compressed\"}", "database_bytes"];
    let [bytes, closed, all] = names.map(|name| metric(&gate.sidecar, &format!("postern_log_{name}")));
    assert!((closed - closed / 10..=all).contains(&bytes), "{bytes} of {closed} and more, {all} in all");
    rig.server.resume().unwrap();
    wait_until("all of it", || rig.count() >= count + 10);
    wait_metric(&gate.sidecar, BACKLOG, 0);
    let before = logged(&gate);
    assert!((before.len(), rig.ids()) == (count + 10, before));
    assert_eq!(metric(&gate.sidecar, "postern_log_ship_backlog_bytes"), 0);
    assert_eq!(status(&gate.sidecar).shipping.unwrap().failing, None);
    // Once more, and one of the files is torn before it is over.
    rig.server.kill();
    call(&gate, "billing", count);
    written(&gate.sidecar, 2 * count + 10);
    wait_until("small segments", || segments(&gate.sidecar, "plain") == 0);
    let before = logged(&gate);
    gate.sidecar.kill().unwrap();
    let (torn, numbers) = newest_segment(gate.folder.path());
    let file = fs::read(&torn).unwrap();
    fs::write(&torn, &file[..file.len() / 2]).unwrap();
    gate.sidecar = gate.sidecar.launch().start_ready().unwrap();
    rig.server.resume().unwrap();
    wait_until("all that can be read", || rig.count() as u64 + numbers > before.len() as u64);
    wait_metric(&gate.sidecar, BACKLOG, 0);
    assert_eq!((lost(&gate.sidecar, "damaged"), lost(&gate.sidecar, "size")), (numbers, 0));
    // With the gap of the kill.
    assert_eq!(rig.count() as u64, before.len() as u64 - numbers + 1);
    assert!(before.difference(&rig.ids()).count() as u64 == numbers);
}

/// Ids of all rows in the log.
fn logged(gate: &Gate) -> BTreeSet<String> {
    let rows = gate.sidecar.launch().query("SELECT id FROM requests").unwrap();
    rows.iter().map(|row| row["id"].as_str().unwrap().to_owned()).collect()
}

/// The newest segment of a log, and how many numbers are in it.
pub(crate) fn newest_segment(folder: &Path) -> (PathBuf, u64) {
    let files = fs::read_dir(folder).unwrap().map(|file| file.unwrap().path());
    let mut segments: Vec<_> = files.filter(|path| path.extension().is_some_and(|end| end == "zst")).collect();
    segments.sort();
    let newest = segments.pop().unwrap();
    let name = newest.file_name().unwrap().to_str().unwrap();
    let mut numbers = name.split(['.', '-']).filter_map(|part| part.parse::<u64>().ok());
    let (first, last) = (numbers.next().unwrap(), numbers.next().unwrap());
    (newest, last - first + 1)
}

#[test]
fn of_what_there_is_no_room_for_in_an_outage_all_is_counted_and_none_was_refused() {
    let turns = outage_rows() / 250;
    let mut rig = Rig::start();
    // Less would have no room for what was refused alone.
    let gate = rig.gate_with(cut_often("1280Ki"));
    call(&gate, "billing", 10);
    rig.has_all(&gate.sidecar, 10);
    rig.server.kill();
    for _ in 0..turns {
        call(&gate, "billing", 1000);
        call(&gate, "reports", 40);
    }
    let (allowed, refused) = (10 + turns * 1000, turns * 40);
    let decided = (allowed + refused) as u64;
    written(&gate.sidecar, allowed + refused);
    rig.server.resume().unwrap();
    wait_until("all that is left", || rig.count() as u64 + lost(&gate.sidecar, "size") == decided);
    wait_metric(&gate.sidecar, BACKLOG, 0);
    let gone = lost(&gate.sidecar, "size");
    assert!(gone > decided / 8, "{gone} of {decided}");
    assert_eq!(["age", "damaged", "rejected"].map(|reason| lost(&gate.sidecar, reason)), [0, 0, 0]);
    let by_status = "SELECT status, count(*) FROM postern.requests GROUP BY 1 ORDER BY 1";
    assert_eq!(rig.server.sql(by_status).unwrap(), format!("200|{}\n403|{refused}", decided - refused as u64 - gone));
}

/// The longest rest between two tries in seconds (`RETRY_MAX`); the shortest of those is half of it.
const REST_MAX: u64 = 60;

/// Tries until rests have their length.
const FIRST_TRIES: u64 = 8;

/// Tries that failed, for whatever reason: one that is under way when the clock is put forward has taken too long.
fn tries(sidecar: &Sidecar) -> u64 {
    let page = page(sidecar, "/metrics").text();
    let failures = page.lines().filter(|line| line.starts_with("postern_log_ship_failures_total{"));
    failures.map(|line| line.rsplit_once(' ').unwrap().1.parse::<u64>().unwrap()).sum()
}

/// A gate for whose clock an hour passes without PostgreSQL, with calls in each minute; how many decisions there were.
fn hour_without_postgres(rig: &mut Rig, clock: &mut Clock, max_age: &str) -> (Gate, usize) {
    const CALLS: usize = 20;
    const STEP: u64 = 10;
    let mut gate = rig.gate_with(|document| {
        cut_often("64Mi")(document);
        document["settings"]["log"]["segmentAge"] = json!("5m");
        document["settings"]["log"]["maxAge"] = json!(max_age);
    });
    gate.sidecar.terminate().unwrap();
    assert!(gate.sidecar.wait_exit().unwrap().success());
    // For its clock those that it has become too old.
    let server = LeafOptions { uris: vec![GATE_URI.to_owned()], ..LeafOptions::server("gate") };
    for (stem, options) in [("server", server), ("billing", LeafOptions::client("billing", &client_uri("billing")))] {
        gate.keep(stem, &gate.authority.issue(&options.for_a_day()).unwrap()).unwrap();
    }
    gate.sidecar = clock.of(gate.sidecar.launch()).start_ready().unwrap();
    call(&gate, "billing", CALLS);
    rig.has_all(&gate.sidecar, CALLS);
    rig.server.kill();
    let began = Instant::now();
    for _ in 0..60 {
        call(&gate, "billing", CALLS);
        let before = tries(&gate.sidecar);
        for _ in 0..REST_MAX / STEP {
            clock.pass(Duration::from_secs(STEP)).unwrap();
            // What is due is done before it is asked once more, most often.
            metric(&gate.sidecar, BACKLOG);
        }
        wait_until("a try in each minute", || tries(&gate.sidecar) > before);
    }
    // Some seconds went by themselves.
    let passed = (clock.ahead() + began.elapsed()).as_secs();
    let tries = tries(&gate.sidecar);
    assert!(tries <= FIRST_TRIES + passed / (REST_MAX / 2), "{tries} tries in {passed} s");
    call(&gate, "billing", CALLS);
    let decided = 62 * CALLS;
    written(&gate.sidecar, decided);
    rig.server.resume().unwrap();
    clock.pass(Duration::from_secs(REST_MAX)).unwrap();
    (gate, decided)
}

#[test]
fn an_hour_without_postgres_is_sent_whole_oldest_first_when_it_is_back() {
    let (mut rig, mut clock) = (Rig::start(), Clock::new().unwrap());
    let (gate, decided) = hour_without_postgres(&mut rig, &mut clock, "2h");
    wait_until("all of it", || rig.count() >= decided);
    wait_metric(&gate.sidecar, BACKLOG, 0);
    // What is inserted first lies first; a day has its partition.
    let sent = rig.server.sql("SELECT id FROM postern.requests ORDER BY tableoid::regclass::text, ctid").unwrap();
    let logged = gate.sidecar.launch().query("SELECT id FROM entry ORDER BY seq").unwrap();
    let logged: Vec<_> = logged.iter().map(|row| row["id"].as_str().unwrap()).collect();
    assert_eq!((logged.len(), sent.lines().collect::<Vec<_>>()), (decided, logged));
    let span = rig.server.sql("SELECT max(time) - min(time) >= interval '1 hour' FROM postern.requests").unwrap();
    assert_eq!((span.as_str(), metric(&gate.sidecar, "postern_log_ship_rows_known_total")), ("t", 0));
    assert_eq!(["size", "age", "damaged", "rejected"].map(|reason| lost(&gate.sidecar, reason)), [0; 4]);
    let cuts = ["plain", "compressed"].map(|form| segments(&gate.sidecar, form)).iter().sum::<u64>();
    assert!(cuts >= 10, "cut every five minutes, there are {cuts} segments");
}

#[test]
fn what_becomes_too_old_in_an_hour_without_postgres_is_counted() {
    let (mut rig, mut clock) = (Rig::start(), Clock::new().unwrap());
    let (gate, decided) = hour_without_postgres(&mut rig, &mut clock, "20m");
    wait_until("all that is left", || rig.count() as u64 + lost(&gate.sidecar, "age") == decided as u64);
    wait_metric(&gate.sidecar, BACKLOG, 0);
    assert_eq!(["size", "damaged", "rejected"].map(|reason| lost(&gate.sidecar, reason)), [0; 3]);
    let kept = "SELECT count(*) FROM postern.requests WHERE time > (SELECT max(time) FROM postern.requests) - interval '15 minutes'";
    assert!(rig.server.sql(kept).unwrap().parse::<u64>().unwrap() >= 300);
    assert!(lost(&gate.sidecar, "age") > 0);
}

#[test]
fn a_server_that_does_not_answer_any_more_is_left_in_time() {
    let rig = Rig::start();
    let gate = rig.gate();
    call(&gate, "billing", 3);
    rig.has_all(&gate.sidecar, 3);
    // In the middle of a connection, and then before its beginning.
    rig.server.freeze().unwrap();
    call(&gate, "billing", 5);
    wait_until("two tries in vain", || failures(&gate.sidecar, "timeout") > 1);
    wait_metric(&gate.sidecar, BACKLOG, 5);
    call(&gate, "billing", 1);
    rig.server.thaw().unwrap();
    rig.has_all(&gate.sidecar, 9);
}

#[test]
fn a_server_that_never_answers_keeps_no_other_from_its_turn() {
    let rig = Rig::start();
    // The kernel lets everybody in.
    let silent = TcpListener::bind("127.0.0.1:0").unwrap();
    let (port, ours) = (silent.local_addr().unwrap().port(), format!("127.0.0.1:{}", rig.server.port()));
    rig.write("url", &rig.server.url("gate").replace(&ours, &format!("127.0.0.1:{port},{ours}")));
    let gate = rig.gate();
    call(&gate, "billing", 2);
    rig.has_all(&gate.sidecar, 2);
    assert_eq!(failures(&gate.sidecar, "timeout"), 0);
}

#[test]
fn rows_go_to_the_server_that_takes_writes_whichever_it_is() {
    let mut rig = Rig::start();
    let standby = rig.server.standby().unwrap();
    let both = |first: &Postgres, second: &Postgres| {
        let [first, second] = [first, second].map(|server| format!("127.0.0.1:{}", server.port()));
        format!("postgres://gate@{first},{second}/postgres")
    };
    rig.write("url", &both(&standby, &rig.server));
    let gate = rig.gate();
    call(&gate, "billing", 20);
    rig.has_all(&gate.sidecar, 20);
    let followed = || standby.sql("SELECT count(*) FROM postern.requests").unwrap();
    wait_until("the standby", || followed() == "20");
    rig.server.kill();
    call(&gate, "billing", 5);
    wait_until("failures", || metric(&gate.sidecar, "postern_log_ship_up") == 0);
    assert_eq!(followed(), "20");
    standby.promote().unwrap();
    rig.server = standby;
    rig.has_all(&gate.sidecar, 25);
}

#[test]
fn what_is_not_sent_at_the_end_is_in_the_last_line_and_in_the_last_scrape() {
    let mut rig = Rig::start();
    let mut gate = rig.gate_with(|document| document["settings"]["drainTimeout"] = json!("1s"));
    call(&gate, "billing", 3);
    rig.has_all(&gate.sidecar, 3);
    rig.server.kill();
    call(&gate, "billing", 7);
    written(&gate.sidecar, 10);
    let metrics = format!("http://{}/metrics", gate.sidecar.status_address().unwrap());
    gate.sidecar.terminate().unwrap();
    let mut last = String::new();
    wait_until("no more scrapes", || {
        let scrape = Curl::new(metrics.clone()).call().unwrap();
        let is_over = scrape.status != Some(200);
        last = if is_over { std::mem::take(&mut last) } else { scrape.text() };
        is_over
    });
    let line = gate.sidecar.wait_for("the end", |line| line.message() == "stopped").unwrap();
    assert!(gate.sidecar.wait_exit().unwrap().success());
    assert_eq!(line.fields.get("unshipped"), Some(&json!(7)));
    assert!(last.lines().any(|line| line == format!("{BACKLOG} 7")), "{last}");
}
