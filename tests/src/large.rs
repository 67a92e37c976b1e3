//! A gate with as much configuration and log as a busy one has after a while.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Result, ensure};
use serde_json::{Value, json};

use crate::clients::run;
use crate::gate::Gate;
use crate::wait::{PATIENCE, eventually};

/// Routes of such a gate.
pub const ROUTES: usize = 100;
/// Bytes of its request log at least.
pub const LOG_BYTES: u64 = 256 << 20;

/// Bytes of a path in the log, and of a row with it at least: many rows make the file, as they would in use.
const PATH_BYTES: u64 = 200;

impl Gate {
    /// One of this very binary with [`ROUTES`] routes and a log of [`LOG_BYTES`], which was stopped.
    ///
    /// # Errors
    /// When a part of it does not come up, or sqlite3 cannot fill its log.
    pub fn stopped_large(binary: PathBuf) -> Result<Self> {
        let mut gate = Self::start_binary(binary, |document| {
            document["settings"]["log"]["maxSize"] = json!("1Gi");
            document["policy"]["routes"] = routes(&document["policy"]["routes"][0]);
        })?;
        let answer = gate.curl(Some("billing"), "/orders")?.call()?;
        ensure!(answer.status == Some(200), "the first call: {answer:?}");
        gate.sidecar.terminate()?;
        gate.sidecar.wait_exit()?;
        let log = gate.folder.file("requests.db");
        grow(&log)?;
        // What is too large for a live file becomes a segment, once, at the next start.
        gate.sidecar = gate.sidecar.launch().start_ready()?;
        let is_cut = || log.metadata().is_ok_and(|file| file.len() < LOG_BYTES);
        eventually("a segment of the large log", PATIENCE, || Ok(is_cut().then_some(())))?;
        gate.sidecar.terminate()?;
        gate.sidecar.wait_exit()?;
        Ok(gate)
    }
}

/// The same route for many hosts; the first keeps its own.
fn routes(first: &Value) -> Value {
    let mut routes = vec![first.clone()];
    routes.extend((1..ROUTES).map(|number| {
        let mut route = first.clone();
        route["name"] = json!(format!("demo/orders-{number}"));
        route["hostnames"] = json!([format!("orders-{number}.demo.example")]);
        route["rules"][0]["matches"][0]["path"] = json!({ "type": "PathPrefix", "value": format!("/v{number}") });
        route
    }));
    json!(routes)
}

/// Repeats a row of the log until the file has [`LOG_BYTES`].
fn grow(database: &Path) -> Result<()> {
    let sql = format!(
        "PRAGMA journal_mode = DELETE; PRAGMA journal_mode = OFF; PRAGMA synchronous = OFF;
         CREATE TEMP TABLE one AS SELECT * FROM decision WHERE path IS NOT NULL LIMIT 1;
         UPDATE one SET seq = NULL, path = printf('/%.*c', {PATH_BYTES}, 'x');
         INSERT INTO decision SELECT one.* FROM one, generate_series(1, {count});
         PRAGMA journal_mode = WAL;",
        count = LOG_BYTES / PATH_BYTES
    );
    let finished = run(Command::new("sqlite3").args(["-bail".as_ref(), database.as_os_str()]).arg(sql), b"", PATIENCE)?;
    ensure!(finished.code == Some(0), "fill the log: {}", finished.stderr);
    let bytes = database.metadata()?.len();
    ensure!(bytes >= LOG_BYTES, "the log has {bytes} bytes only");
    Ok(())
}
