//! Measures a sidecar as it is shipped: its size, the time from exec to ready, its memory when idle, and what a row costs.
#![expect(clippy::print_stdout, reason = "a program whose result is what it prints")]

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use postern_tests::gate::Gate;
use postern_tests::large::{LOG_BYTES, ROUTES};
use postern_tests::process::Sidecar;
use postern_tests::wait::{PATIENCE, eventually};
use rustix::fs::{Advice, fadvise};

/// Of the static binary, which is all of an image; above it the run fails. A node pulls less than half of it, packed.
const SIZE_LIMIT_BYTES: u64 = 12_350_000;
/// What it should have: missed since the C library is in it, 0.9 MB, and all that reads and sends the log, 1.2 MB.
const SIZE_AIM_BYTES: u64 = 10_000_000;
/// What a pod requests for it; above it the run fails.
const MEMORY_LIMIT_KIB: u64 = 10 << 10;
/// Aims, printed beside the figures: they depend on the machine, so they fail nothing.
const READY_AIM_MS: u128 = 100;
const ROW_AIM_NS: u64 = 3_000;
const ROW_AIM_BYTES: u64 = 100;

/// Starts measured; the middle one counts, because the first reads the binary from the disk.
const STARTS: usize = 5;
/// Rows written for a figure of one: enough that pages and batches are full.
const ROWS: u64 = 20_000;

fn main() -> Result<()> {
    let binary = std::env::args_os().nth(1).map(PathBuf::from).context("usage: postern-figures SIDECAR")?;
    let size_bytes = fs::metadata(&binary).with_context(|| format!("read {}", binary.display()))?.len();
    read_anew(&binary)?;
    let plain = typical(|| measured(&Gate::start_binary(binary.clone(), |_| {})?.sidecar))?;
    let stopped = Gate::stopped_large(binary.clone())?;
    let large = typical(|| measured(&stopped.sidecar.launch().start_ready()?))?;
    println!("size of the binary     {size_bytes:>8} bytes  (at most {SIZE_LIMIT_BYTES}, aim {SIZE_AIM_BYTES})");
    println!("from exec to ready     {:>8} ms     (aim under {READY_AIM_MS})", plain.ready.as_millis());
    println!(
        "  {ROUTES} routes, {} MiB log {:>5} ms     (aim under {READY_AIM_MS})",
        LOG_BYTES >> 20,
        large.ready.as_millis()
    );
    println!("resident memory, idle  {:>8} KiB    (at most {MEMORY_LIMIT_KIB})", plain.memory_kib);
    println!("  {ROUTES} routes, {} MiB log {:>5} KiB", LOG_BYTES >> 20, large.memory_kib);
    let row = measure_row(&binary)?;
    println!("processor for a row    {:>8} ns     (aim under {ROW_AIM_NS})", row.cpu_ns);
    println!("database for a row     {:>8} bytes  (aim under {ROW_AIM_BYTES})", row.bytes);
    ensure!(size_bytes <= SIZE_LIMIT_BYTES, "the binary is larger than {SIZE_LIMIT_BYTES} bytes");
    ensure!(plain.memory_kib <= MEMORY_LIMIT_KIB, "an idle gate takes more than {MEMORY_LIMIT_KIB} KiB");
    Ok(())
}

/// Has the kernel forget the file, so that it is read as on a node that has just pulled it: of one that was written a moment ago
/// it keeps larger pieces, and maps 700 KiB more of them.
fn read_anew(binary: &Path) -> Result<()> {
    let file = File::open(binary).with_context(|| format!("read {}", binary.display()))?;
    file.sync_all()?;
    Ok(fadvise(&file, 0, None, Advice::DontNeed)?)
}

struct Start {
    ready: Duration,
    memory_kib: u64,
}

fn typical(start: impl Fn() -> Result<Start>) -> Result<Start> {
    let mut starts = (0..STARTS).map(|_| start()).collect::<Result<Vec<_>>>()?;
    starts.sort_unstable_by_key(|start| start.ready);
    Ok(starts.swap_remove(STARTS / 2))
}

fn measured(sidecar: &Sidecar) -> Result<Start> {
    let ready = sidecar.wait_ready()?;
    Ok(Start { ready, memory_kib: resident_kib(sidecar.id())? })
}

struct Row {
    cpu_ns: u64,
    bytes: u64,
}

/// What the log's threads need for a row of a request, and what is left of it on the disk.
fn measure_row(binary: &Path) -> Result<Row> {
    let mut gate = Gate::start_binary(binary.to_owned(), |_| {})?;
    let path = gate.folder.file("requests.db");
    let curl = gate.curl(Some("billing"), &format!("/orders/[1-{ROWS}]"))?.within(Duration::from_secs(120));
    let answer = curl.arg("-o").arg("/dev/null").call()?;
    ensure!(answer.exit_code == Some(0), "curl: {}", answer.stderr);
    eventually("all rows", PATIENCE, || {
        let rows = gate.sidecar.launch().query("select count(*) as n from requests")?;
        Ok((rows[0]["n"].as_u64() == Some(ROWS)).then_some(()))
    })?;
    let cpu_ns = log_threads_ns(gate.sidecar.id())? / ROWS;
    // The write-ahead log is moved into the database at the end.
    gate.sidecar.terminate()?;
    gate.sidecar.wait_exit()?;
    Ok(Row { cpu_ns, bytes: fs::metadata(&path)?.len() / ROWS })
}

/// Time on a processor of the threads that write the log: its own, and sqlx's for SQLite.
fn log_threads_ns(process: u32) -> Result<u64> {
    let mut sum = 0;
    for thread in fs::read_dir(format!("/proc/{process}/task"))? {
        let thread = thread?.path();
        let name = fs::read_to_string(thread.join("comm"))?;
        if name.trim() == "log" || name.starts_with("sqlx") {
            // Its first number, in nanoseconds (Documentation/scheduler/sched-stats).
            let line = fs::read_to_string(thread.join("schedstat"))?;
            sum += line.split(' ').next().context("an empty schedstat")?.parse::<u64>()?;
        }
    }
    Ok(sum)
}

/// Resident set size as the kernel accounts it (proc_pid_status(5)).
fn resident_kib(process: u32) -> Result<u64> {
    let status = fs::read_to_string(format!("/proc/{process}/status"))?;
    let line =
        status.lines().find_map(|line| line.strip_prefix("VmRSS:")).context("no VmRSS in the process's status")?;
    Ok(line.trim().trim_end_matches(" kB").parse()?)
}
