//! Postern with client authentication, identities, a policy and its request log.

use std::fs;

use anyhow::Result;
use postern_tests::config::{ConfigFolder, document};
use postern_tests::process::Launch;
use serde_json::{Value, json};

use super::scene::Scene;
use super::{Process, Running};

const LOG_FOLDER: &str = "log";

pub(super) fn start(scene: &Scene) -> Result<Running> {
    start_in(scene, None, |_| {})
}

/// One with settings of its own, in a folder of its own.
pub fn start_postern(scene: &Scene, folder: ConfigFolder, change: impl FnOnce(&mut Value)) -> Result<Running> {
    start_in(scene, Some(folder), change)
}

fn start_in(scene: &Scene, own: Option<ConfigFolder>, change: impl FnOnce(&mut Value)) -> Result<Running> {
    let mut document = document(scene.application);
    document["settings"] = json!({
        "statusAddress": "127.0.0.1:0",
        "workers": 1,
        // In a folder of its own, as in a pod: each change beside the configuration is one that the gate looks at.
        "log": { "path": format!("{LOG_FOLDER}/requests.db") },
    });
    document["policy"]["limits"] = json!({ "maxConnections": scene.connections });
    if let Some(own) = &own {
        document["version"] = json!("1.6");
        for name in ["ca.pem", "server.pem", "server.key"] {
            own.write(name, &String::from_utf8(scene.read(name)?)?)?;
        }
    }
    change(&mut document["settings"]);
    let folder = own.as_ref().unwrap_or(&scene.folder);
    folder.write_document(&document)?;
    fs::create_dir_all(folder.file(LOG_FOLDER))?;
    let sidecar = Launch::of(scene.sidecar.clone(), folder.path()).start_ready()?;
    // Rows by the million take their time to be counted, and this is no test of them.
    sidecar.leave_unaudited();
    let address = sidecar.listener("gate")?;
    Ok(Running { address, process: Process::Postern(sidecar), _folder: own })
}
