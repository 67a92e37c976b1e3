//! What the kernel says of this process, under the names that Prometheus' client libraries have for it.

use std::fs;

use prometheus::{Counter, Gauge};
use rustix::param::{clock_ticks_per_second, page_size};
use rustix::process::{Resource, getrlimit};

use super::{Made, Maker};

/// The families.
pub(super) struct Process {
    cpu: Counter,
    resident: Gauge,
    virtual_memory: Gauge,
    threads: Gauge,
    start: Gauge,
    files: Gauge,
    most_files: Gauge,
}

impl Process {
    pub(super) fn new(make: &Maker) -> Made<Self> {
        let help = "Time on a processor, of the process and for it in the kernel.";
        Ok(Self {
            cpu: make.enter(Counter::new("process_cpu_seconds_total", help))?,
            resident: make.gauge("process_resident_memory_bytes", "Memory that is in use.")?,
            virtual_memory: make.gauge("process_virtual_memory_bytes", "Address space.")?,
            threads: make.gauge("process_threads", "Threads.")?,
            start: make.gauge("process_start_time_seconds", "When the process began, seconds since the epoch.")?,
            files: make.gauge("process_open_fds", "Files open, sockets included.")?,
            most_files: make.gauge("process_max_fds", "Files that may be open.")?,
        })
    }

    /// Looks. Where the kernel says nothing, what was said last stays.
    pub(super) fn look(&self) {
        let stat = fs::read_to_string("/proc/self/stat").ok();
        if let Some(stat) = stat.as_deref().and_then(Stat::parse) {
            let seconds = |ticks: u64| float(ticks) / float(clock_ticks_per_second());
            // A counter can only be added to.
            let spent = seconds(stat.cpu_ticks) - self.cpu.get();
            self.cpu.inc_by(spent.max(0.0));
            self.resident.set(float(stat.resident_pages.saturating_mul(page_size() as u64)));
            self.virtual_memory.set(float(stat.virtual_bytes));
            self.threads.set(float(stat.threads));
            if let Some(boot) = boot_time() {
                self.start.set(float(boot) + seconds(stat.start_ticks));
            }
        }
        if let Ok(files) = fs::read_dir("/proc/self/fd") {
            // Reading the folder has a file open itself.
            self.files.set(float(u64::try_from(files.count().saturating_sub(1)).unwrap_or(u64::MAX)));
        }
        if let Some(most) = getrlimit(Resource::Nofile).current {
            self.most_files.set(float(most));
        }
    }
}

/// Some fields of `/proc/self/stat` (proc(5)).
#[derive(Debug, PartialEq, Eq)]
struct Stat {
    cpu_ticks: u64,
    threads: u64,
    start_ticks: u64,
    virtual_bytes: u64,
    resident_pages: u64,
}

impl Stat {
    fn parse(text: &str) -> Option<Self> {
        // The second field is a name in brackets, and may have spaces and brackets in it. The next one is number 3.
        let (_, rest) = text.rsplit_once(") ")?;
        let fields: Vec<_> = rest.split(' ').collect();
        let field = |number: usize| fields.get(number - 3)?.trim().parse::<u64>().ok();
        Some(Self {
            cpu_ticks: field(14)? + field(15)?,
            threads: field(20)?,
            start_ticks: field(22)?,
            virtual_bytes: field(23)?,
            resident_pages: field(24)?,
        })
    }
}

/// When the machine was started, seconds since the epoch.
fn boot_time() -> Option<u64> {
    let stat = fs::read_to_string("/proc/stat").ok()?;
    stat.lines().find_map(|line| line.strip_prefix("btime ")?.trim().parse().ok())
}

#[expect(clippy::cast_precision_loss, reason = "Prometheus' numbers are 64-bit floats; counts are exact to 2^53")]
fn float(count: u64) -> f64 {
    count as f64
}

#[cfg(test)]
mod tests {
    use super::Stat;

    #[test]
    fn a_name_with_brackets_and_spaces_shifts_nothing() {
        let text =
            "7 (a) b (c) S 1 7 7 0 -1 4194304 1 0 0 0 250 50 0 0 20 0 5 0 1234 9000000 321 18446744073709551615\n";
        let expected =
            Stat { cpu_ticks: 300, threads: 5, start_ticks: 1234, virtual_bytes: 9_000_000, resident_pages: 321 };
        assert_eq!(Stat::parse(text), Some(expected));
        assert_eq!(Stat::parse("7 (a) S 1"), None);
    }
}
