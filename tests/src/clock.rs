//! A clock that a test puts forward: for a program that is started with it an hour passes in no time, with all its rests and
//! deadlines, and it is the program that is shipped.

use std::fs::{self, File, OpenOptions};
use std::os::unix::fs::FileExt;
use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

use anyhow::{Result, ensure};
use tempfile::TempDir;

use crate::clients::run;
use crate::process::Launch;
use crate::wait::PATIENCE;

/// What is brought into programs.
const SOURCE: &str = include_str!("clock.c");

/// The clock of whoever is started with it.
pub struct Clock {
    folder: TempDir,
    file: File,
    ahead: Duration,
}

impl Clock {
    /// One that goes as the machine's.
    ///
    /// # Errors
    /// When there is no C compiler, or it makes no library.
    pub fn new() -> Result<Self> {
        let folder = TempDir::new()?;
        let (source, library) = (folder.path().join("clock.c"), folder.path().join("clock.so"));
        fs::write(&source, SOURCE)?;
        let mut compiler = Command::new("cc");
        compiler.args(["-shared", "-fPIC", "-O1", "-Wall", "-Werror", "-o"]).arg(&library).arg(&source).arg("-ldl");
        let made = run(&mut compiler, b"", PATIENCE)?;
        ensure!(made.code == Some(0), "cc: {}", made.stderr);
        let file = folder.path().join("ahead");
        fs::write(&file, 0_i64.to_ne_bytes())?;
        let file = OpenOptions::new().write(true).open(file)?;
        Ok(Self { folder, file, ahead: Duration::ZERO })
    }

    /// Puts it forward.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn pass(&mut self, time: Duration) -> Result<()> {
        self.ahead += time;
        // In one piece, for somebody is reading it.
        Ok(self.file.write_all_at(&i64::try_from(self.ahead.as_nanos())?.to_ne_bytes(), 0)?)
    }

    /// How far it is ahead of the machine's.
    #[must_use]
    pub fn ahead(&self) -> Duration {
        self.ahead
    }

    /// Whoever is started so lives by this clock.
    #[must_use]
    pub fn of(&self, launch: &Launch) -> Launch {
        let path = |name: &str| -> PathBuf { self.folder.path().join(name) };
        let launch = launch.clone().variable("LD_PRELOAD", &path("clock.so").display().to_string());
        launch.variable("POSTERN_TESTS_CLOCK", &path("ahead").display().to_string())
    }
}
