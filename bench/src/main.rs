//! Postern and HAProxy side by side, in turns: what they cost for the same work. `make bench` runs it.
#![expect(clippy::print_stdout, reason = "a program whose result is what it prints")]

mod figures;
mod full;
mod load;
mod measure;
mod peers;
mod report;
mod rounds;
mod rows;
mod waits;
mod watch;
mod writers;

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context, Result};

use self::figures::Figures;
use self::measure::Core;
use self::peers::{Application, Scene};
use self::report::Report;
use self::rounds::Rounds;
use self::rows::RowsBench;

/// Rounds however short the time: fewer have no spread to speak of.
const ROUNDS_MIN: usize = 3;
/// Rounds that measure memory, too, which hardly varies and takes long.
const MEMORY_ROUNDS: usize = 3;

const USAGE: &str = "usage: postern-bench SIDECAR SECONDS RESULT, where RESULT is a path without its extension; or: \
     postern-bench rows SIDECAR SECONDS RESULT; or: postern-bench writers SIDECAR RESULT [GATES]";

fn main() -> Result<()> {
    let mut arguments = std::env::args_os().skip(1).peekable();
    let part = arguments.next_if(|word| word == "rows" || word == "writers");
    let mut argument = || arguments.next().context(USAGE);
    let sidecar = PathBuf::from(argument()?);
    if part.as_ref().is_some_and(|part| part == "writers") {
        measure::raise_open_files()?;
        let result = PathBuf::from(argument()?);
        let gates = argument().map_or(Some(writers::GATES), |text| text.to_str()?.parse().ok());
        return writers::run(sidecar, &result, gates.context(USAGE)?);
    }
    let seconds = argument()?.to_str().and_then(|text| text.parse().ok()).context(USAGE)?;
    compare(sidecar, Duration::from_secs(seconds), &PathBuf::from(argument()?), part.is_some())
}

/// Rounds for so long; only those of rows, or all.
fn compare(sidecar: PathBuf, time: Duration, result: &Path, only_rows: bool) -> Result<()> {
    measure::move_to(Core::Others)?;
    let many = measure::raise_open_files()?;
    let application = Application::start()?;
    let scene = Scene::new(application.address(), sidecar, many)?;
    let rounds = Rounds::new(&scene, many)?;
    let mut of_rows = RowsBench::new(&scene)?;
    let mut figures = Figures::default();
    let until = Instant::now() + time;
    for round in 0.. {
        if round >= ROUNDS_MIN && Instant::now() >= until {
            break;
        }
        println!("round {}", round + 1);
        if !only_rows {
            rounds.cpu(round, &mut figures)?;
            if round < MEMORY_ROUNDS {
                rounds.memory(round, &mut figures)?;
            }
        }
        of_rows.round(round)?;
    }
    if !only_rows {
        let report = Report::new(&figures, many)?;
        print!("{}", report.table());
        report.write(result)?;
    }
    of_rows.write(&result.with_extension("rows.md"))
}
