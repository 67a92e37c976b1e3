//! Postern with client authentication, identities, a policy and its request log.

use anyhow::Result;
use postern_tests::config::document;
use postern_tests::process::Launch;
use serde_json::json;

use super::scene::Scene;
use super::{Process, Running};

pub(super) fn start(scene: &Scene) -> Result<Running> {
    let mut document = document(scene.application);
    document["settings"] = json!({
        "statusAddress": "127.0.0.1:0",
        "workers": 1,
        "log": { "path": "requests.db" },
    });
    document["policy"]["limits"] = json!({ "maxConnections": scene.connections });
    scene.folder.write_document(&document)?;
    let sidecar = Launch::of(scene.sidecar.clone(), scene.path()).start_ready()?;
    // Rows by the million take their time to be counted, and this is no test of them.
    sidecar.leave_unaudited();
    let address = sidecar.listener("gate")?;
    Ok(Running { address, process: Process::Postern(sidecar) })
}
