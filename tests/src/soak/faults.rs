//! A busy gate while everything around it fails at random: every request is answered or refused with a reason, and every
//! decision is in a row or counted as dropped.

mod clients;
mod disturb;
mod upstreams;

use std::collections::BTreeMap;
use std::fmt;
use std::path::Path;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};

use self::clients::{Account, Clients};
use self::disturb::{Fault, Stage};
use self::upstreams::UpstreamProcess;
pub use self::upstreams::{UPSTREAM, serve};
use super::changes::Scene;
use super::memory::Memory;
use crate::balance::NO_DECISION;
use crate::clients::Curl;
use crate::disk::Disk;
use crate::wait::{PATIENCE, eventually};

/// The log's disk, and what the log may take of it: more than all rows of ten minutes, because one that is pruned is in
/// no account.
const DISK: (&str, &str) = ("192m", "160Mi");

/// What a soak came to.
#[derive(Debug)]
pub struct Report {
    /// How often each thing went wrong.
    faults: BTreeMap<Fault, usize>,
    account: Account,
    /// Rows, by what they are of and their status.
    rows: Rows,
    /// Decisions that are in no row, by reason.
    dropped: BTreeMap<String, u64>,
    /// Decisions as the gate's counters have them.
    counted: BTreeMap<String, u64>,
    /// The gate's own memory after each tenth of the time.
    memory_kib: Vec<u64>,
    /// Bytes it grew by in each minute of the second half.
    pub slope_bytes: f64,
    disk: bool,
}

/// Decisions in rows: of requests by status, then of handshakes and of connections.
#[derive(Debug, Default, PartialEq, Eq)]
struct Rows {
    statuses: BTreeMap<u16, u64>,
    handshakes: u64,
    connections: u64,
}

impl Rows {
    fn decisions(&self) -> u64 {
        self.statuses.values().sum::<u64>() + self.handshakes + self.connections
    }
}

/// Disturbs a busy gate for a while; `binary` is the soak's own, and `seed` says what comes when.
///
/// # Errors
/// When a request gets neither an answer nor a reason, when a decision is missing, or the gate does not end well.
pub fn run(binary: &Path, time: Duration, seed: u64) -> Result<Report> {
    let disk = Disk::mount(DISK.0)?;
    let upstreams = [UpstreamProcess::start(binary)?, UpstreamProcess::start(binary)?];
    let log = disk.as_ref().map(|disk| disk.path().join("requests.db"));
    let scene = Scene::start([upstreams[0].address(), upstreams[1].address()], |document| {
        document["policy"]["routes"][0]["rules"][0]["timeouts"] = json!({ "backendRequest": "1s" });
        document["settings"]["log"]["maxSize"] = json!(DISK.1);
        if let Some(path) = &log {
            document["settings"]["log"]["path"] = json!(path);
        }
    })?;
    let mut stage = Stage::new(scene, upstreams, disk);
    let mut memory = Memory::of(stage.scene.gate.sidecar.id());
    let clients = Clients::start(&stage.scene.gate)?;
    let faults = disturb(&mut stage, &mut memory, time, seed)?;
    let account = clients.finish()?;
    let strange = &account.strange;
    ensure!(strange.is_empty(), "{} answers without a reason: {:?}", strange.len(), &strange[..strange.len().min(5)]);
    let (dropped, counted) = settled(&stage.scene, account.decisions())?;
    stage.scene.gate.sidecar.terminate()?;
    let status = stage.scene.gate.sidecar.wait_exit()?;
    ensure!(status.code() == Some(0), "the gate ended with {status}");
    let rows = rows(&stage.scene)?;
    let disk = stage.disk.is_some();
    let slope_bytes = memory.slope_bytes() * 60.0 / SAMPLE.as_secs_f64();
    let report = Report { faults, account, rows, dropped, counted, memory_kib: memory.tenths(), slope_bytes, disk };
    report.check()?;
    Ok(report)
}

/// Between two samples of memory.
const SAMPLE: Duration = Duration::from_secs(1);
/// How long a fault lasts; a log that is held up for longer than its queue takes loses rows, and counts them.
const HOLDS: [Duration; 4] =
    [Duration::from_millis(200), Duration::from_secs(1), Duration::from_secs(3), Duration::from_secs(9)];
/// Between two, so that what was refused is served again.
const CALM: Duration = Duration::from_millis(700);

/// Makes one or two faults at a time until the time is over.
fn disturb(stage: &mut Stage, memory: &mut Memory, time: Duration, seed: u64) -> Result<BTreeMap<Fault, usize>> {
    let mut random = Random(seed | 1);
    let mut counts = BTreeMap::new();
    let begun = Instant::now();
    while begun.elapsed() < time {
        let first = Fault::ALL[random.below(Fault::ALL.len())];
        let second = Fault::ALL[random.below(Fault::ALL.len())];
        let faults = if second.excludes(first) { vec![first] } else { vec![first, second] };
        let faults: Vec<_> = faults.into_iter().filter(|fault| stage.can(*fault)).collect();
        let which = random.below(8);
        for fault in &faults {
            stage.begin(*fault, which).with_context(|| format!("{fault:?}"))?;
            *counts.entry(*fault).or_default() += 1;
        }
        rest(HOLDS[random.below(HOLDS.len())], memory)?;
        for fault in &faults {
            stage.end(*fault, which).with_context(|| format!("the end of {fault:?}"))?;
        }
        rest(CALM, memory)?;
    }
    Ok(counts)
}

/// Lets time pass, and looks at the gate's memory once a second.
fn rest(time: Duration, memory: &mut Memory) -> Result<()> {
    let end = Instant::now() + time;
    while let Some(left) = end.checked_duration_since(Instant::now()) {
        thread::sleep(left.min(memory.until_next(SAMPLE)));
        if memory.until_next(SAMPLE).is_zero() {
            memory.sample()?;
        }
    }
    Ok(())
}

/// Sums of series, by family or by label.
type Sums = BTreeMap<String, u64>;

/// What the gate says it has dropped, and what it has decided, as soon as that is what its clients count and everything else
/// is written.
fn settled(scene: &Scene, decisions: u64) -> Result<(Sums, Sums)> {
    let page = format!("http://{}/metrics", scene.gate.sidecar.status_address()?);
    let mut last = Sums::new();
    let settled = eventually(&format!("all rows of {decisions} decisions"), PATIENCE, || {
        let page = Curl::new(&page).call()?.text();
        let is = |series: &str| page.lines().any(|line| line == series);
        let (mut dropped, mut counted) = (Sums::new(), Sums::new());
        for (series, value) in page.lines().filter_map(|line| line.rsplit_once(' ')) {
            let Ok(value) = value.parse::<u64>() else { continue };
            let (family, labels) = series.split_once('{').unwrap_or((series, ""));
            match family {
                "postern_log_rows_dropped_total" => *dropped.entry(labels.to_owned()).or_default() += value,
                "postern_requests_total"
                | "postern_forwarded_connections_total"
                | "postern_handshakes_refused_total"
                    if !labels.contains(NO_DECISION) =>
                {
                    *counted.entry(family.to_owned()).or_default() += value;
                }
                _ => {}
            }
        }
        last.clone_from(&counted);
        let is_all = counted.values().sum::<u64>() == decisions;
        Ok((is_all && is("postern_log_queue_rows 0") && is("postern_log_up 1")).then_some((dropped, counted)))
    });
    settled.with_context(|| format!("the gate has decided {last:?}"))
}

fn rows(scene: &Scene) -> Result<Rows> {
    let sql = "select kind, status, sum(repeat) as n from requests where kind <> 'gap' group by 1, 2";
    let mut rows = Rows::default();
    for row in scene.gate.sidecar.launch().query(sql)? {
        let count = row["n"].as_u64().context("a sum")?;
        match (row["kind"].as_str(), &row["status"]) {
            (Some("request"), Value::Number(status)) => {
                let status = u16::try_from(status.as_u64().unwrap_or_default())?;
                rows.statuses.insert(status, count);
            }
            (Some("handshake"), Value::Null) => rows.handshakes = count,
            (Some("connection"), Value::Null) => rows.connections = count,
            _ => anyhow::bail!("a row that no client is the cause of: {row}"),
        }
    }
    Ok(rows)
}

impl Report {
    /// Decisions that the clients count.
    #[must_use]
    pub fn decisions(&self) -> u64 {
        self.account.decisions()
    }

    /// Compares the two accounts.
    fn check(&self) -> Result<()> {
        let dropped: u64 = self.dropped.values().sum();
        let (theirs, ours) = (self.account.decisions(), self.rows.decisions() + dropped);
        ensure!(theirs == ours, "the clients count {theirs} decisions, the gate {ours}:\n{self}");
        if dropped == 0 {
            let Account { statuses, headless, handshakes, connections, .. } = &self.account;
            let mut statuses = statuses.clone();
            *statuses.entry(200).or_default() += headless;
            let expected = Rows { statuses, handshakes: *handshakes, connections: *connections };
            ensure!(self.rows == expected, "the clients' account and the gate's differ:\n{self}");
        }
        Ok(())
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if !self.disk {
            writeln!(f, "skipped: a full disk, because no file system may be mounted here")?;
        }
        for (fault, count) in &self.faults {
            writeln!(f, "{:<22} {count:>8}", format!("{fault:?}"))?;
        }
        let Account { statuses, broken, headless, handshakes, connections, .. } = &self.account;
        writeln!(f, "clients                {:>8} decisions", self.account.decisions())?;
        writeln!(f, "  requests             {:>8} {statuses:?}", self.account.requests())?;
        writeln!(f, "  broken off           {broken:>8}, and {headless} before their head was seen")?;
        writeln!(f, "  refused handshakes   {handshakes:>8}\n  L4 connections       {connections:>8}")?;
        writeln!(f, "rows                   {:>8} decisions", self.rows.decisions())?;
        writeln!(f, "  of requests                  {:?}", self.rows.statuses)?;
        writeln!(f, "  of handshakes        {:>8}", self.rows.handshakes)?;
        writeln!(f, "  of connections       {:>8}", self.rows.connections)?;
        writeln!(f, "dropped                {:>8} {:?}", self.dropped.values().sum::<u64>(), self.dropped)?;
        writeln!(f, "counted                {:>8} {:?}", self.counted.values().sum::<u64>(), self.counted)?;
        let memory: Vec<_> = self.memory_kib.iter().map(ToString::to_string).collect();
        writeln!(f, "memory after tenths    {} KiB", memory.join(", "))?;
        write!(f, "slope                  {:>8.0} bytes for each minute of the second half", self.slope_bytes)
    }
}

/// Xorshift: what comes when is said by its seed.
struct Random(u64);

impl Random {
    fn below(&mut self, count: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        usize::try_from(self.0 >> 33).unwrap_or_default() % count
    }
}
