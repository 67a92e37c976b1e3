//! Changes a gate's configuration again and again under load, and prints what came of it.
#![expect(clippy::print_stdout, reason = "a program whose result is what it prints")]

use anyhow::{Context, Result, ensure};
use postern_tests::soak;

/// What each reload may leave behind. A leak of one generation would be tens of KiB; what the allocator's free lists and
/// the log's page cache still do in the second half of a run is below this.
const SLOPE_LIMIT_BYTES: f64 = 4096.0;

fn main() -> Result<()> {
    let reloads = std::env::args().nth(1).context("usage: postern-soak RELOADS")?.parse()?;
    let report = soak::run(reloads)?;
    println!("{report}");
    ensure!(report.slope_bytes < SLOPE_LIMIT_BYTES, "memory grows by more than {SLOPE_LIMIT_BYTES} bytes a reload");
    Ok(())
}
