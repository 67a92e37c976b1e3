//! What goes wrong, and how it is mended.

use std::io::Write;
use std::process::{Child, Command, Stdio};

use anyhow::{Context, Result, ensure};
use serde_json::json;

use super::upstreams::UpstreamProcess;
use crate::disk::Disk;
use crate::soak::changes::Scene;
use crate::wait::{PATIENCE, eventually};

/// What can be disturbed.
pub(super) struct Stage {
    pub(super) scene: Scene,
    pub(super) upstreams: [UpstreamProcess; 2],
    /// The log's; `None` where none can be mounted.
    pub(super) disk: Option<Disk>,
    lock: Option<Child>,
    /// Good changes made so far.
    changes: usize,
}

/// Something that goes wrong for a while.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Fault {
    UpstreamKilled,
    BothKilled,
    UpstreamStalls,
    BothStall,
    DatabaseLocked,
    DiskFull,
    BadReload,
    /// A good change: of the certificate, trust, a route, a listener, identities or endpoints.
    Reload,
}

impl Fault {
    pub(super) const ALL: [Self; 8] = [
        Self::UpstreamKilled,
        Self::BothKilled,
        Self::UpstreamStalls,
        Self::BothStall,
        Self::DatabaseLocked,
        Self::DiskFull,
        Self::BadReload,
        Self::Reload,
    ];

    /// Whether both would break the same thing.
    pub(super) fn excludes(self, other: Self) -> bool {
        let place = |fault| match fault {
            Self::UpstreamKilled | Self::BothKilled | Self::UpstreamStalls | Self::BothStall => 0,
            Self::DatabaseLocked | Self::DiskFull => 1,
            Self::BadReload | Self::Reload => 2,
        };
        place(self) == place(other)
    }
}

/// Documents that are refused; what was good before stays.
const BAD: [&str; 4] = ["{", "{\"version\": \"1.0\", \"policy\": {\"routes\": 7}}", "", "{\"version\": \"9.9\"}"];

impl Stage {
    pub(super) fn new(scene: Scene, upstreams: [UpstreamProcess; 2], disk: Option<Disk>) -> Self {
        Self { scene, upstreams, disk, lock: None, changes: 0 }
    }

    /// Whether a fault can be made here.
    pub(super) fn can(&self, fault: Fault) -> bool {
        fault != Fault::DiskFull || self.disk.is_some()
    }

    pub(super) fn begin(&mut self, fault: Fault, random: usize) -> Result<()> {
        match fault {
            Fault::UpstreamKilled => self.upstreams[random % 2].kill(),
            Fault::BothKilled => self.upstreams.iter_mut().try_for_each(UpstreamProcess::kill),
            Fault::UpstreamStalls => self.upstreams[random % 2].pause(),
            Fault::BothStall => self.upstreams.iter().try_for_each(UpstreamProcess::pause),
            Fault::DatabaseLocked => self.lock(),
            Fault::DiskFull => self.disk.as_ref().map_or(Ok(()), Disk::fill),
            Fault::BadReload => self.offer(BAD[random % BAD.len()]),
            Fault::Reload => {
                self.changes += 1;
                self.scene.change(self.changes)
            }
        }
    }

    pub(super) fn end(&mut self, fault: Fault, random: usize) -> Result<()> {
        match fault {
            Fault::UpstreamKilled => self.upstreams[random % 2].restart(),
            Fault::BothKilled => self.upstreams.iter_mut().try_for_each(UpstreamProcess::restart),
            Fault::UpstreamStalls => self.upstreams[random % 2].resume(),
            Fault::BothStall => self.upstreams.iter().try_for_each(UpstreamProcess::resume),
            Fault::DatabaseLocked => self.unlock(),
            Fault::DiskFull => self.disk.as_ref().map_or(Ok(()), Disk::empty),
            Fault::BadReload => self.scene.gate.folder.write_document(&self.scene.gate.document),
            Fault::Reload => Ok(()),
        }
    }

    /// Writes what is no good, and waits until the gate says so. An empty file is no change, and it says nothing.
    fn offer(&self, text: &str) -> Result<()> {
        let gate = &self.scene.gate;
        let before = self.scene.status()?["parts"]["policy"]["loaded"].clone();
        gate.folder.write("postern.json", text)?;
        if text.is_empty() {
            return Ok(());
        }
        eventually("a refusal", PATIENCE, || {
            let parts = &self.scene.status()?["parts"];
            ensure!(parts["policy"]["loaded"] == before, "what is no good was taken: {parts}");
            let is_refused = |part: &serde_json::Value| part["why"] != json!(null);
            Ok(parts.as_object().is_some_and(|parts| parts.values().any(is_refused)).then_some(()))
        })
    }

    /// Holds the database's one write lock, as a reader with a long transaction would.
    fn lock(&mut self) -> Result<()> {
        let path = self.scene.gate.document["settings"]["log"]["path"].as_str().context("the log's path")?;
        let mut command = Command::new("sqlite3");
        command.arg(path).stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::null());
        let mut child = command.spawn().context("start sqlite3")?;
        let input = child.stdin.as_mut().context("its input")?;
        input.write_all(b".timeout 5000\nbegin immediate;\n")?;
        input.flush()?;
        self.lock = Some(child);
        Ok(())
    }

    fn unlock(&mut self) -> Result<()> {
        let Some(mut child) = self.lock.take() else { return Ok(()) };
        // At the end of its input it ends, and its transaction with it.
        drop(child.stdin.take());
        child.wait()?;
        Ok(())
    }
}

impl Drop for Stage {
    fn drop(&mut self) {
        // What is still stopped could not be killed gently; it is killed all the same.
        let _ = self.unlock();
    }
}
