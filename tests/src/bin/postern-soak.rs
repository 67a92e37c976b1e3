//! A busy gate for a long time: `postern-soak reloads COUNT` changes its configuration again and again, `postern-soak
//! faults SECONDS [SEED]` has everything around it fail. Prints what came of it.
#![expect(clippy::print_stdout, reason = "a program whose result is what it prints")]

use std::time::{Duration, SystemTime};

use anyhow::{Context, Result, bail, ensure};
use postern_tests::soak::{self, faults};

/// What each reload may leave behind. Measured over 300: 2 to 11 KiB either way, which is the allocator and the log's
/// caches (over 1000 it is level); 186 KiB where every generation is leaked on purpose.
const RELOAD_LIMIT_BYTES: f64 = 32.0 * 1024.0;
/// From how many minutes on memory is judged, and what each may leave behind.
const MINUTES_FOR_SLOPE: u64 = 5;
const MINUTE_LIMIT_BYTES: f64 = 1024.0 * 1024.0;

const USAGE: &str = "usage: postern-soak reloads COUNT | faults SECONDS [SEED]";

fn main() -> Result<()> {
    let arguments: Vec<_> = std::env::args().skip(1).collect();
    let words: Vec<_> = arguments.iter().map(String::as_str).collect();
    match words[..] {
        ["reloads", count] => reloads(count.parse().context(USAGE)?),
        ["faults", seconds] => {
            let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH)?;
            faults(seconds.parse().context(USAGE)?, now.as_secs())
        }
        ["faults", seconds, seed] => faults(seconds.parse().context(USAGE)?, seed.parse().context(USAGE)?),
        [faults::UPSTREAM, address] => faults::serve(address.parse()?, |address| println!("{address}")),
        _ => bail!(USAGE),
    }
}

fn reloads(count: usize) -> Result<()> {
    let report = soak::run(count)?;
    println!("{report}");
    ensure!(report.slope_bytes < RELOAD_LIMIT_BYTES, "memory grows by more than {RELOAD_LIMIT_BYTES} bytes a reload");
    Ok(())
}

fn faults(seconds: u64, seed: u64) -> Result<()> {
    println!("seed                   {seed:>8}");
    let report = faults::run(&std::env::current_exe()?, Duration::from_secs(seconds), seed)?;
    println!("{report}");
    // In less time what the allocator holds back hides everything else.
    let is_level = seconds < MINUTES_FOR_SLOPE * 60 || report.slope_bytes < MINUTE_LIMIT_BYTES;
    ensure!(is_level, "memory grows by more than {MINUTE_LIMIT_BYTES} bytes a minute");
    Ok(())
}
