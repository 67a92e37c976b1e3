//! How many workers to start unasked: what the processors that this process may use are worth.
//!
//! The facts are texts of the kernel, and everything but reading them is a function of those texts.

use std::cell::RefCell;
use std::fmt;
use std::fs;
use std::path::{Path, PathBuf};

use crate::control_groups::{self, Version};
use crate::limits::WORKERS_DEFAULT_MAX;

/// A number of workers, and why it is this one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Workers {
    /// How many.
    pub count: usize,
    /// Why.
    pub why: Why,
}

/// Why there are so many workers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Why {
    /// The settings say so.
    Setting,
    /// The CPU limit, in thousandths of a processor, rounded up.
    Limit(u64),
    /// No limit in Kubernetes: the node is not this pod's to take.
    NoLimitInKubernetes,
    /// The processors that this process may run on.
    Processors(usize),
    /// As many as are ever started unasked.
    Most,
}

impl fmt::Display for Why {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Setting => f.write_str("settings.workers"),
            Self::Limit(thousandths) => write!(f, "a CPU limit of {thousandths}m"),
            Self::NoLimitInKubernetes => f.write_str("no CPU limit in Kubernetes"),
            Self::Processors(count) => write!(f, "{count} processors"),
            Self::Most => write!(f, "at most {WORKERS_DEFAULT_MAX} unasked"),
        }
    }
}

/// From now on this thread works when no other of the process wants its processor: one that wakes does not wait for it, as
/// it may for one of the lowest priority (sched(7), SCHED_IDLE). Where that is refused, the thread has the lowest priority.
pub fn be_idle() {
    let none = libc::sched_param { sched_priority: 0 };
    // SAFETY: 0 is the calling thread; the parameter is read before the call returns.
    if unsafe { libc::sched_setscheduler(0, libc::SCHED_IDLE, &raw const none) } != 0 {
        let _as_it_was = rustix::process::setpriority_process(None, LOWEST);
    }
}

/// The lowest priority there is; each thread has its own on Linux (setpriority(2)).
pub const LOWEST: i32 = 19;

/// How many workers this process is worth.
pub fn workers(in_kubernetes: bool) -> Workers {
    decide(in_kubernetes, |path| fs::read_to_string(path).ok())
}

/// The CPU limit that this process falls under, in thousandths of a processor, if there is one.
pub fn limit() -> Option<u64> {
    thousandths(&|path| fs::read_to_string(path).ok())
}

/// How often the kernel has held back this process's group, and those above it, for their limits of CPU.
#[derive(Debug)]
pub struct HeldBack {
    /// A file of each group.
    counted: Vec<PathBuf>,
}

impl HeldBack {
    /// Of the groups that this process is in now.
    pub fn new() -> Self {
        Self::of(&|path| fs::read_to_string(path).ok())
    }

    /// How often until now.
    pub fn times(&self) -> u64 {
        self.times_of(&|path| fs::read_to_string(path).ok())
    }

    /// The same for what is read from a machine's files.
    fn of(read: &impl Fn(&Path) -> Option<String>) -> Self {
        let counted = RefCell::new(Vec::new());
        // Both versions call it the same; there is no least of them to be found.
        let _none = control_groups::least("cpu", read, |_, folder| {
            counted.borrow_mut().push(folder.join("cpu.stat"));
            None
        });
        Self::counted_in(counted.into_inner())
    }

    /// What each of these files counts; those that cannot be read count nothing.
    pub(crate) const fn counted_in(counted: Vec<PathBuf>) -> Self {
        Self { counted }
    }

    fn times_of(&self, read: &impl Fn(&Path) -> Option<String>) -> u64 {
        let times = |path: &PathBuf| {
            let text = read(path)?;
            let line = text.lines().find_map(|line| line.strip_prefix("nr_throttled "))?;
            line.trim().parse::<u64>().ok()
        };
        self.counted.iter().filter_map(times).sum()
    }
}

/// The same for what is read from a machine's files.
fn decide(in_kubernetes: bool, read: impl Fn(&Path) -> Option<String>) -> Workers {
    let status = read(Path::new("/proc/self/status"));
    let processors = status.as_deref().and_then(allowed_processors).unwrap_or(1);
    let limit = thousandths(&read);
    let by_limit = limit.map(|thousandths| usize::try_from(thousandths.div_ceil(1000)).unwrap_or(usize::MAX).max(1));
    let (count, why) = match (by_limit, limit) {
        (Some(count), Some(thousandths)) if count <= processors => (count, Why::Limit(thousandths)),
        (None, _) if in_kubernetes => (1, Why::NoLimitInKubernetes),
        _ => (processors, Why::Processors(processors)),
    };
    if count > WORKERS_DEFAULT_MAX {
        Workers { count: WORKERS_DEFAULT_MAX, why: Why::Most }
    } else {
        Workers { count, why }
    }
}

/// The processors of the affinity mask, which cpusets narrow too.
fn allowed_processors(status: &str) -> Option<usize> {
    let list = status.lines().find_map(|line| line.strip_prefix("Cpus_allowed_list:"))?;
    let mut count = 0;
    for range in list.trim().split(',') {
        let (first, last) = range.split_once('-').unwrap_or((range, range));
        let (first, last): (usize, usize) = (first.parse().ok()?, last.parse().ok()?);
        count += last.checked_sub(first)? + 1;
    }
    (count > 0).then_some(count)
}

/// The tightest CPU limit of the process's group and of all groups above it that can be seen, in thousandths of a
/// processor.
fn thousandths(read: &impl Fn(&Path) -> Option<String>) -> Option<u64> {
    control_groups::least("cpu", read, |version, folder| {
        let number = |name: &str| read(&folder.join(name))?.trim().parse().ok();
        let (quota, period): (u64, u64) = match version {
            // `max 100000`, or a quota and a period in microseconds.
            Version::Two => {
                let text = read(&folder.join("cpu.max"))?;
                let (quota, period) = text.trim().split_once(' ')?;
                (quota.parse().ok()?, period.parse().ok()?)
            }
            // Without a limit the quota is -1, which is no number of these.
            Version::One => (number("cpu.cfs_quota_us")?, number("cpu.cfs_period_us")?),
        };
        quota.checked_mul(1000)?.checked_div(period).filter(|thousandths| *thousandths > 0)
    })
}

#[cfg(test)]
mod tests;
