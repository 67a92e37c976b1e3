//! What a gate tells about itself: its pages, its counters, its rows.

use anyhow::Result;
use postern_tests::clients::{Answer, Curl};
use postern_tests::process::Sidecar;
use postern_tests::wait::{PATIENCE, eventually};
use serde_json::{Value, json};
use sidecar_config::status::Status;

/// A page of the status port.
pub(crate) fn page(sidecar: &Sidecar, path: &str) -> Answer {
    let address = sidecar.status_address().unwrap();
    Curl::new(format!("http://{address}{path}")).call().unwrap()
}

/// The status document; a field the contract does not have fails.
pub(crate) fn status(sidecar: &Sidecar) -> Status {
    serde_json::from_slice(&page(sidecar, "/status").body).unwrap()
}

/// The value of one series of `/metrics`, written as there; 0 where it is not there yet.
pub(crate) fn metric(sidecar: &Sidecar, series: &str) -> u64 {
    let page = page(sidecar, "/metrics").text();
    let line = page.lines().find_map(|line| line.strip_prefix(series)?.strip_prefix(' '));
    line.map_or(0, |value| value.parse().unwrap())
}

/// Decisions that the gate says are in no row.
pub(crate) fn dropped(sidecar: &Sidecar) -> u64 {
    let series = ["queue_full", "write_failed", "stopped"];
    let of = |reason| metric(sidecar, &format!("postern_log_rows_dropped_total{{reason=\"{reason}\"}}"));
    series.map(of).iter().sum()
}

/// Waits until the value of a series is this.
pub(crate) fn wait_metric(sidecar: &Sidecar, series: &str, wanted: u64) {
    wait_until(&format!("{series} {wanted}"), || metric(sidecar, series) == wanted);
}

/// Waits until `/readyz` answers so: status and body.
pub(crate) fn wait_readiness(sidecar: &Sidecar, status: u16, body: &str) {
    let mut last = None;
    let waited = eventually("readiness", PATIENCE, || {
        let answer = page(sidecar, "/readyz");
        let met = (answer.status, answer.text().as_str()) == (Some(status), body);
        last = Some((answer.status, answer.text()));
        Ok(met.then_some(()))
    });
    assert!(waited.is_ok(), "expected {status} {body:?}, the last answer was {last:?}");
}

/// What the request log holds, oldest first, as soon as it holds at least `count` rows. Unlike [`Gate::rows`] it waits
/// for the log itself too: a gate is ready before its log is open.
///
/// [`Gate::rows`]: postern_tests::gate::Gate::rows
pub(crate) fn rows(sidecar: &Sidecar, count: usize) -> Vec<Value> {
    let mut last = Ok(Vec::new());
    let waited = eventually("rows", PATIENCE, || {
        last = sidecar.launch().query("select * from requests order by id");
        Ok(last.as_ref().is_ok_and(|rows| rows.len() >= count).then_some(()))
    });
    assert!(waited.is_ok(), "expected {count} rows, there were {last:?}");
    last.unwrap()
}

/// The newest row, as soon as there are `count`.
pub(crate) fn newest(sidecar: &Sidecar, count: usize) -> Value {
    rows(sidecar, count).pop().unwrap()
}

/// Waits until a condition holds.
pub(crate) fn wait_until(what: &str, mut condition: impl FnMut() -> bool) {
    eventually(what, PATIENCE, || -> Result<_> { Ok(condition().then_some(())) }).unwrap();
}

/// Some columns of a row, to compare them at once; a column the view does not have fails.
pub(crate) fn columns(row: &Value, names: &[&str]) -> Value {
    let values = names.iter().map(|name| row.get(*name).unwrap_or_else(|| panic!("no column {name} in {row}")).clone());
    json!(values.collect::<Vec<_>>())
}
