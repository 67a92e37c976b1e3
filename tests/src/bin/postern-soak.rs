//! Changes a gate's configuration again and again under load, and prints what came of it.
#![expect(clippy::print_stdout, reason = "a program whose result is what it prints")]

use anyhow::{Context, Result, ensure};
use postern_tests::soak;

/// What each reload may leave behind. Measured over 300: 2 to 11 KiB either way, which is the allocator and the log's
/// caches (over 1000 it is level); 186 KiB where every generation is leaked on purpose.
const SLOPE_LIMIT_BYTES: f64 = 32.0 * 1024.0;

fn main() -> Result<()> {
    let reloads = std::env::args().nth(1).context("usage: postern-soak RELOADS")?.parse()?;
    let report = soak::run(reloads)?;
    println!("{report}");
    ensure!(report.slope_bytes < SLOPE_LIMIT_BYTES, "memory grows by more than {SLOPE_LIMIT_BYTES} bytes a reload");
    Ok(())
}
