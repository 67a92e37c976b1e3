//! Measures a sidecar as it is shipped: its size, the time from exec to ready, and its memory when idle.
#![expect(clippy::print_stdout, reason = "a program whose result is what it prints")]

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use postern_tests::gate::Gate;

/// What an image may grow by; above it the run fails.
const SIZE_LIMIT_BYTES: u64 = 10_000_000;
/// Aims, printed beside the figures: they depend on the machine, so they fail nothing.
const READY_AIM_MS: u128 = 100;
const MEMORY_AIM_KIB: u64 = 10_000_000 / 1024;

/// Starts measured; the middle one counts, because the first reads the binary from the disk.
const STARTS: usize = 5;

fn main() -> Result<()> {
    let binary = std::env::args_os().nth(1).map(PathBuf::from).context("usage: postern-figures SIDECAR")?;
    let size_bytes = fs::metadata(&binary).with_context(|| format!("read {}", binary.display()))?.len();
    let mut starts = (0..STARTS).map(|_| measure_start(&binary)).collect::<Result<Vec<_>>>()?;
    starts.sort_unstable_by_key(|start| start.ready);
    let typical = &starts[STARTS / 2];
    println!("size of the binary     {:>8} bytes  (at most {SIZE_LIMIT_BYTES})", size_bytes);
    println!("from exec to ready     {:>8} ms     (aim under {READY_AIM_MS})", typical.ready.as_millis());
    println!("resident memory, idle  {:>8} KiB    (aim under {MEMORY_AIM_KIB})", typical.memory_kib);
    ensure!(size_bytes <= SIZE_LIMIT_BYTES, "the binary is larger than {SIZE_LIMIT_BYTES} bytes");
    Ok(())
}

struct Start {
    ready: Duration,
    memory_kib: u64,
}

fn measure_start(binary: &Path) -> Result<Start> {
    let gate = Gate::start_binary(binary.to_owned(), |_| {})?;
    let ready = gate.sidecar.wait_ready()?;
    Ok(Start { ready, memory_kib: resident_kib(gate.sidecar.id())? })
}

/// Resident set size as the kernel accounts it (proc_pid_status(5)).
fn resident_kib(process: u32) -> Result<u64> {
    let status = fs::read_to_string(format!("/proc/{process}/status"))?;
    let line =
        status.lines().find_map(|line| line.strip_prefix("VmRSS:")).context("no VmRSS in the process's status")?;
    Ok(line.trim().trim_end_matches(" kB").parse()?)
}
