//! What a process has used: processor time to the nanosecond, memory, files. And which core somebody runs on.

use std::fs;
use std::time::Duration;

use anyhow::{Context, Result};
use rustix::process::{Pid, Resource, Rlimit, getrlimit, setpriority_process, setrlimit};
use rustix::thread::{CpuSet, sched_setaffinity};

/// Who runs where.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Core {
    /// The proxy alone.
    Proxy = 0,
    /// Client and application.
    Others = 1,
}

/// Calls with this thread on that core, and comes back to [`Core::Others`]. Children stay where they were started.
pub fn on_core<T>(core: Core, call: impl FnOnce() -> Result<T>) -> Result<T> {
    move_to(core)?;
    let result = call();
    move_to(Core::Others)?;
    result
}

/// Moves this thread to a core.
pub fn move_to(core: Core) -> Result<()> {
    let mut set = CpuSet::new();
    set.set(core as usize);
    sched_setaffinity(None, &set).context("two cores are needed: one for the proxy, one for client and application")
}

/// From now on a process, and those that it starts, get what others leave of a core: it is in another machine's place.
pub fn yield_to_others(process: u32) -> Result<()> {
    const NICE_MOST: i32 = 19;
    let id = i32::try_from(process).ok().and_then(Pid::from_raw).context("no number of a process")?;
    Ok(setpriority_process(Some(id), NICE_MOST)?)
}

/// Processor time of all threads of a process (schedstat of the kernel: nanoseconds on a core, user and system).
pub fn cpu(process: u32) -> Result<Duration> {
    let mut nanoseconds = 0;
    for thread in fs::read_dir(format!("/proc/{process}/task"))? {
        let text = fs::read_to_string(thread?.path().join("schedstat"))?;
        nanoseconds += text.split(' ').next().context("an empty schedstat")?.parse::<u64>()?;
    }
    Ok(Duration::from_nanos(nanoseconds))
}

/// The same of its threads of one name.
pub fn cpu_of_thread(process: u32, name: &str) -> Result<Duration> {
    let mut nanoseconds = 0;
    for thread in fs::read_dir(format!("/proc/{process}/task"))? {
        let thread = thread?.path();
        if fs::read_to_string(thread.join("comm"))?.trim_end() == name {
            let text = fs::read_to_string(thread.join("schedstat"))?;
            nanoseconds += text.split(' ').next().context("an empty schedstat")?.parse::<u64>()?;
        }
    }
    Ok(Duration::from_nanos(nanoseconds))
}

/// The same of its threads that have ended, in steps of 10 ms (proc_pid_stat(5)).
pub fn cpu_of_ended_threads(process: u32) -> Result<Duration> {
    let text = fs::read_to_string(format!("/proc/{process}/stat"))?;
    let fields: Vec<_> = text.rsplit_once(") ").context("a stat without a name")?.1.split(' ').collect();
    let ticks: u64 = fields[11..13].iter().map(|ticks| ticks.parse::<u64>()).sum::<Result<_, _>>()?;
    Ok(Duration::from_millis(ticks * 10).saturating_sub(cpu(process)?))
}

/// Processor time of a process and of its children, also of those that have ended, in steps of 10 ms (proc_pid_stat(5)).
pub fn cpu_of_tree(process: u32) -> Result<Duration> {
    const TICK_MS: u64 = 10;
    // Fields after the name: the parent's id; user's and system's ticks, the same of children that have ended.
    let fields = |process: &str| -> Result<(u32, u64, u64)> {
        let text = fs::read_to_string(format!("/proc/{process}/stat"))?;
        let fields: Vec<_> = text.rsplit_once(") ").context("a stat without a name")?.1.split(' ').collect();
        let ticks = |range: std::ops::Range<usize>| -> Result<u64> {
            Ok(fields[range].iter().map(|ticks| ticks.parse::<u64>()).sum::<Result<_, _>>()?)
        };
        Ok((fields[1].parse()?, ticks(11..13)?, ticks(13..15)?))
    };
    let (_, own, ended) = fields(&process.to_string())?;
    let names = fs::read_dir("/proc")?.flatten().filter_map(|entry| entry.file_name().into_string().ok());
    let numbers = names.filter(|name| name.bytes().all(|byte| byte.is_ascii_digit()));
    // One that ends meanwhile is nobody's child any more.
    let children = numbers.filter_map(|name| fields(&name).ok()).filter(|(parent, ..)| *parent == process);
    let ticks = own + ended + children.map(|(_, own, ended)| own + ended).sum::<u64>();
    Ok(Duration::from_millis(ticks * TICK_MS))
}

/// Resident memory in KiB (proc_pid_status(5)).
pub fn resident_kib(process: u32) -> Result<u64> {
    let status = fs::read_to_string(format!("/proc/{process}/status"))?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).context("no VmRSS in a process's status")?;
    Ok(line.trim().trim_end_matches(" kB").parse()?)
}

/// Open files, of which a connection is one.
pub fn open_files(process: u32) -> Result<usize> {
    Ok(fs::read_dir(format!("/proc/{process}/fd"))?.count())
}

/// Idle connections wanted at most.
const MANY: u64 = 10_000;
/// Files a proxy needs besides two for each connection: it may want one to the application for each.
const FILES_BESIDES: u64 = 200;

/// Raises this process's limit of open files, which its children have too, and says how many connections fit a proxy.
pub fn raise_open_files() -> Result<usize> {
    let limit = getrlimit(Resource::Nofile);
    setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, maximum: limit.maximum })?;
    let fit = limit.maximum.map_or(MANY, |files| files.saturating_sub(FILES_BESIDES) / 2).min(MANY);
    Ok(usize::try_from(fit)?)
}
