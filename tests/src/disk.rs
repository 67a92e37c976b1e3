//! A file system of a few megabytes, which can be filled and made read-only.

use std::fs::{self, File};
use std::io::Write;
use std::path::Path;
use std::process::{Command, Stdio};

use anyhow::{Result, ensure};
use tempfile::TempDir;

/// A folder in memory that holds so much and no more.
pub struct Disk(TempDir);

impl Disk {
    /// Mounts one of a size as mount(8) writes it, such as `2m`; `None` where nobody may, because that takes root.
    ///
    /// # Errors
    /// When there is no folder to mount it on.
    pub fn mount(size: &str) -> Result<Option<Self>> {
        let folder = tempfile::tempdir()?;
        let mut command = Command::new("mount");
        command.args(["-t", "tmpfs", "-o", &format!("size={size}"), "tmpfs"]).arg(folder.path());
        let mounted = command.stdin(Stdio::null()).output();
        Ok(mounted.is_ok_and(|output| output.status.success()).then_some(Self(folder)))
    }

    /// Where it is.
    #[must_use]
    pub fn path(&self) -> &Path {
        self.0.path()
    }

    /// Mounts it again with an option, such as `ro`.
    ///
    /// # Errors
    /// When mount(8) does not do it.
    pub fn remount(&self, option: &str) -> Result<()> {
        let status = Command::new("mount").args(["-o", &format!("remount,{option}")]).arg(self.path()).status()?;
        ensure!(status.success(), "remount {}: {status}", self.path().display());
        Ok(())
    }

    /// Leaves no room on it.
    ///
    /// # Errors
    /// When the file that takes it cannot be made.
    pub fn fill(&self) -> Result<()> {
        let mut file = File::create(self.path().join("fill"))?;
        let piece = vec![0; 1 << 20];
        while file.write_all(&piece).is_ok() {}
        // What is left is less than a piece.
        while file.write_all(&piece[..4096]).is_ok() {}
        Ok(())
    }

    /// Gives the room back.
    ///
    /// # Errors
    /// When it was not filled.
    pub fn empty(&self) -> Result<()> {
        Ok(fs::remove_file(self.path().join("fill"))?)
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        // A file may still be open on it.
        let _ = Command::new("umount").arg("--lazy").arg(self.path()).status();
    }
}
