//! Where an export goes: standard output, or a file that is there when it is whole. And a line that says how far it is.

use std::ffi::OsString;
use std::fs::{self, File, OpenOptions};
use std::io::{self, BufWriter, IsTerminal, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use tokio::signal::unix::{SignalKind, signal};

use crate::log::Progress;

/// How often the line is written: more is not read.
const TELL_EVERY: Duration = Duration::from_millis(200);

/// The number of the signal that ended it.
#[derive(Debug, thiserror::Error)]
#[error("ended by signal {0}; nothing was written")]
pub(in crate::cli) struct Stopped(pub u8);

/// Waits for a signal to end, if there is a file to be taken away then: else a signal does what it does to any program.
pub(super) async fn stopped(has_file: bool) -> io::Result<Stopped> {
    if !has_file {
        return std::future::pending().await;
    }
    let of = |kind: SignalKind| signal(kind).map(|signal| (signal, u8::try_from(kind.as_raw_value()).unwrap_or(0)));
    let (mut hangup, hung_up) = of(SignalKind::hangup())?;
    let (mut interrupt, interrupted) = of(SignalKind::interrupt())?;
    let (mut terminate, terminated) = of(SignalKind::terminate())?;
    Ok(Stopped(tokio::select! {
        _ = hangup.recv() => hung_up,
        _ = interrupt.recv() => interrupted,
        _ = terminate.recv() => terminated,
    }))
}

/// Where rows go.
pub(super) enum Delivery {
    Standard(BufWriter<io::Stdout>),
    File(Unfinished),
}

impl Delivery {
    pub(super) fn begin(path: Option<&Path>) -> Result<Self> {
        match path {
            None => Ok(Self::Standard(BufWriter::new(io::stdout()))),
            Some(path) => Unfinished::new(path).map(Self::File),
        }
    }

    pub(super) fn writer(&mut self) -> &mut dyn Write {
        match self {
            Self::Standard(out) => out,
            Self::File(file) => &mut file.out,
        }
    }

    pub(super) fn finish(self) -> Result<()> {
        match self {
            Self::Standard(mut out) => Ok(out.flush()?),
            Self::File(file) => file.finish(),
        }
    }
}

/// A file under another name, which goes with this.
pub(super) struct Unfinished {
    out: BufWriter<File>,
    part: PathBuf,
    path: PathBuf,
}

impl Unfinished {
    fn new(path: &Path) -> Result<Self> {
        if path.symlink_metadata().is_ok() {
            bail!("{} is there already, and is not overwritten", path.display());
        }
        let Some(name) = path.file_name() else { bail!("{} is no name of a file", path.display()) };
        let mut hidden = OsString::from(".");
        hidden.push(name);
        // Two exports at once are in each other's way only where they end.
        hidden.push(format!(".{}.part", std::process::id()));
        let part = path.with_file_name(hidden);
        // Rows tell who asked for what.
        let file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&part);
        let file = file.with_context(|| format!("cannot write {}", part.display()))?;
        Ok(Self { out: BufWriter::new(file), part, path: path.to_owned() })
    }

    fn finish(mut self) -> Result<()> {
        self.out.flush()?;
        self.out.get_ref().sync_all()?;
        // Unlike a rename this fails where somebody else was faster. Not every file system has links.
        let made = match fs::hard_link(&self.part, &self.path) {
            Err(_) if self.path.symlink_metadata().is_err() => fs::rename(&self.part, &self.path),
            made => made,
        };
        made.with_context(|| format!("cannot make {}", self.path.display()))
    }
}

impl Drop for Unfinished {
    fn drop(&mut self) {
        let _is_gone_then = fs::remove_file(&self.part);
    }
}

/// How far it is, on a terminal that has nothing else to show.
pub(super) struct ProgressLine {
    last: Option<Instant>,
    is_shown: bool,
}

impl ProgressLine {
    pub(super) fn new() -> Self {
        Self { last: io::stderr().is_terminal().then(Instant::now), is_shown: false }
    }

    pub(super) fn tell(&mut self, progress: Progress) {
        if self.last.is_none_or(|last| last.elapsed() < TELL_EVERY) {
            return;
        }
        self.last = Some(Instant::now());
        self.is_shown = true;
        let share = progress.walked.filter(|(_, all)| *all > 0);
        let share = share.map(|(walked, all)| format!(", {} % of the log", 100 * walked / all)).unwrap_or_default();
        let _nowhere_to_tell = write!(io::stderr(), "\r\u{1b}[K{} rows{share}", progress.rows);
    }
}

impl Drop for ProgressLine {
    fn drop(&mut self) {
        if self.is_shown {
            let _nowhere_to_tell = write!(io::stderr(), "\r\u{1b}[K");
        }
    }
}
