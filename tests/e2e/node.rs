//! The node of this machine's own processes (`tests/cluster/node`), of which parts can be taken away.

use std::fs;
use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use postern_tests::clients::run;
use postern_tests::wait::eventually;

use crate::cluster::{PATIENCE, in_checkout};

/// Where such a node keeps what is running.
pub(crate) struct Node {
    processes: PathBuf,
}

impl Node {
    /// The one that the cases run on; none where the cluster is another one.
    pub(crate) fn ours() -> Option<Self> {
        let cluster = PathBuf::from(std::env::var_os("KUBECONFIG")?).parent()?.to_owned();
        let which = fs::read_to_string(cluster.join("which")).ok()?;
        (which.trim() == "node").then(|| Self { processes: cluster.join("processes") })
    }

    /// Ends one of its programs, which stays away until [`Self::up`].
    pub(crate) fn kill(&self, name: &str) -> Result<()> {
        let told = fs::read_to_string(self.processes.join(name))?;
        let id = told.split_whitespace().next().context("its process id")?;
        kill(id)?;
        eventually(&format!("the end of {name}"), PATIENCE, || Ok(program(id).is_none().then_some(())))
    }

    /// Starts what does not run.
    pub(crate) fn up(&self) -> Result<()> {
        let folder = self.processes.parent().context("its folder")?;
        let mut up = Command::new(in_checkout("tests/cluster/node"));
        // It starts what outlives this, and so may not wait for the end of its output.
        let quiet = run(up.arg(folder).arg("up").env_remove("KUBECONFIG"), b"", Duration::from_secs(200))?;
        ensure!(quiet.code == Some(0), "{}{}", quiet.text(), quiet.stderr);
        Ok(())
    }
}

/// Process ids of a program in pods of this machine, which have all of this in their environment.
pub(crate) fn processes(name: &str, variables: &[&str]) -> Vec<String> {
    let all = fs::read_dir("/proc").into_iter().flatten().filter_map(Result::ok);
    let ids = all.filter_map(|entry| entry.file_name().into_string().ok()).filter(|id| id.parse::<u32>().is_ok());
    let said = |id: &String| fs::read(format!("/proc/{id}/environ")).unwrap_or_default();
    let has = |id: &String| {
        let said = said(id);
        let all: Vec<_> = said.split(|byte| *byte == 0).collect();
        variables.iter().all(|variable| all.contains(&variable.as_bytes()))
    };
    ids.filter(|id| program(id).as_deref() == Some(name)).filter(has).collect()
}

/// What runs by this number; nothing of it where it has ended.
fn program(id: &str) -> Option<String> {
    let line = fs::read(format!("/proc/{id}/cmdline")).ok()?;
    let first = line.split(|byte| *byte == 0).next()?;
    let name = String::from_utf8_lossy(first).rsplit('/').next()?.to_owned();
    (!name.is_empty()).then_some(name)
}

/// Ends a process at once.
pub(crate) fn kill(id: &str) -> Result<()> {
    let killed = run(Command::new("kill").args(["-KILL", id]), b"", PATIENCE)?;
    ensure!(killed.code == Some(0), "{}", killed.stderr);
    Ok(())
}
