//! A control group with a memory limit, below that of the tests, for programs that are to live within it.

use std::fs;
use std::io::Write;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use anyhow::{Context, Result};

use crate::wait::eventually;

/// Time for the kernel to forget processes that have ended.
const GONE: Duration = Duration::from_secs(5);

/// A control group. It is removed when it is dropped, after whoever was in it has ended.
pub struct ControlGroup {
    folder: PathBuf,
}

impl ControlGroup {
    /// Makes one whose processes may take so much memory together.
    ///
    /// # Errors
    /// Why none can be made here: it takes root, and a hierarchy that may be written.
    pub fn with_memory(bytes: u64) -> Result<Self> {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let name = format!("postern-test-{}-{}", std::process::id(), COUNT.fetch_add(1, Ordering::Relaxed));
        let groups = fs::read_to_string("/proc/self/cgroup")?;
        let path = |hierarchy: &str| groups.lines().find_map(|line| line.split_once(hierarchy).map(|(_, path)| path));
        let made = |own: String, file: &str| -> Result<Self> {
            let folder = Path::new(&own).join(&name);
            fs::create_dir(&folder).with_context(|| format!("make {}", folder.display()))?;
            let group = Self { folder };
            fs::write(group.folder.join(file), bytes.to_string()).with_context(|| format!("set {file}"))?;
            Ok(group)
        };
        if let Some(own) = path(":memory:") {
            return made(format!("/sys/fs/cgroup/memory{own}"), "memory.limit_in_bytes");
        }
        let own = format!("/sys/fs/cgroup{}", path("0::").context("no control groups")?);
        fs::write(Path::new(&own).join("cgroup.subtree_control"), "+memory").context("delegate memory")?;
        made(own, "memory.max")
    }

    /// Writes a program that runs another one in the group, and is it from then on.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn confine(&self, program: &Path, folder: &Path) -> Result<PathBuf> {
        let (enter, program) = (self.folder.join("cgroup.procs"), program.display());
        let confined = folder.join("confined");
        fs::write(&confined, format!("#!/bin/sh\necho $$ > {} && exec {program} \"$@\"\n", enter.display()))?;
        fs::set_permissions(&confined, fs::Permissions::from_mode(0o755))?;
        Ok(confined)
    }

    /// How many of its processes were ended for want of memory.
    ///
    /// # Errors
    /// When the kernel does not tell.
    pub fn killed(&self) -> Result<u64> {
        // Version 1, and version 2.
        let events = ["memory.oom_control", "memory.events"].map(|file| fs::read_to_string(self.folder.join(file)));
        let events = events.into_iter().find_map(Result::ok).context("no events of memory")?;
        let count = events.lines().find_map(|line| line.strip_prefix("oom_kill "));
        Ok(count.context("no count of kills")?.parse()?)
    }
}

impl Drop for ControlGroup {
    fn drop(&mut self) {
        let removed = || Ok(fs::remove_dir(&self.folder).is_ok().then_some(()));
        if let Err(error) = eventually("an empty control group", GONE, removed) {
            let _told = writeln!(std::io::stderr(), "{} stays behind: {error}", self.folder.display());
        }
    }
}
