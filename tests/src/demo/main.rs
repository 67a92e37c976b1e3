//! The demo: four calls with curl through a real gate, and the rows they leave. `make demo` runs it.

mod calls;
mod page;
mod scene;
mod signals;
mod story;

use std::io;
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::{Context, Result, bail};

use crate::page::Page;
use crate::signals::Signals;

const USAGE: &str = "usage: postern-demo --sidecar PATH [--keep]";

/// What a shell reports for a program that Ctrl-C ended: 128 and the signal's number.
const EXIT_INTERRUPTED: u8 = 130;

struct Options {
    sidecar: PathBuf,
    /// Stay up after the calls, until a signal comes.
    keep: bool,
}

impl Options {
    fn parse(mut arguments: impl Iterator<Item = String>) -> Result<Self> {
        let (mut sidecar, mut keep) = (None, false);
        while let Some(argument) = arguments.next() {
            match argument.as_str() {
                "--sidecar" => sidecar = arguments.next().map(PathBuf::from),
                "--keep" => keep = true,
                other => bail!("{other} is not an option; {USAGE}"),
            }
        }
        Ok(Self { sidecar: sidecar.context(USAGE)?, keep })
    }
}

fn main() -> ExitCode {
    let mut errors = Page::new(io::stderr());
    match run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) if error.is::<signals::Interrupted>() => ExitCode::from(EXIT_INTERRUPTED),
        Err(error) => {
            // If even this cannot be written, the exit code still says it.
            let _ = errors.line(&format!("error: {error:#}"));
            ExitCode::FAILURE
        }
    }
}

/// Everything that is started lives in here, so that it is gone when this returns, however it does.
fn run() -> Result<()> {
    let options = Options::parse(std::env::args().skip(1))?;
    let signals = Signals::watch()?;
    let told = story::tell(&options, &signals, &mut Page::new(io::stdout()));
    // A step that was cut short by a signal did not fail.
    told.map_err(|error| signals.check().err().map_or(error, Into::into))
}
