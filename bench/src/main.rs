//! Postern and HAProxy side by side, in turns: what they cost for the same work. `make bench` runs it.
#![expect(clippy::print_stdout, reason = "a program whose result is what it prints")]

mod figures;
mod load;
mod measure;
mod peers;
mod report;
mod rounds;

use std::path::PathBuf;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};

use self::figures::Figures;
use self::measure::Core;
use self::peers::{Application, Scene};
use self::report::Report;
use self::rounds::Rounds;

/// Rounds however short the time: fewer have no spread to speak of.
const ROUNDS_MIN: usize = 3;
/// Rounds that measure memory, too, which hardly varies and takes long.
const MEMORY_ROUNDS: usize = 3;

fn main() -> Result<()> {
    let mut arguments = std::env::args_os().skip(1);
    let usage = "usage: postern-bench SIDECAR SECONDS RESULT, where RESULT is a path without its extension";
    let sidecar = PathBuf::from(arguments.next().context(usage)?);
    let seconds = arguments.next().and_then(|text| text.to_str()?.parse().ok()).context(usage)?;
    let result = PathBuf::from(arguments.next().context(usage)?);

    measure::move_to(Core::Others)?;
    let many = measure::raise_open_files()?;
    let application = Application::start()?;
    let scene = Scene::new(application.address(), sidecar, many)?;
    let rounds = Rounds::new(&scene, many)?;
    let mut figures = Figures::default();
    let until = Instant::now() + Duration::from_secs(seconds);
    for round in 0.. {
        if round >= ROUNDS_MIN && Instant::now() >= until {
            break;
        }
        println!("round {}", round + 1);
        rounds.cpu(round, &mut figures)?;
        if round < MEMORY_ROUNDS {
            rounds.memory(round, &mut figures)?;
        }
    }
    let report = Report::new(&figures, many)?;
    print!("{}", report.table());
    report.write(&result)
}
