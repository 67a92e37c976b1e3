//! What the kernel says of this process, under the names that Prometheus' client libraries have for it.

use std::fs;

use rustix::param::{clock_ticks_per_second, page_size};
use rustix::process::{Resource, getrlimit};

use crate::page::Page;

/// What the kernel says. Where it says nothing, as in a container without `/proc`, the family is left out.
pub fn write(page: &mut Page) {
    let stat = fs::read_to_string("/proc/self/stat").ok();
    if let Some(stat) = stat.as_deref().and_then(Stat::parse) {
        let ticks_per_second = float(clock_ticks_per_second());
        let seconds = |ticks: u64| float(ticks) / ticks_per_second;
        let help = "Time on a processor, of the process and for it in the kernel.";
        page.counter("process_cpu_seconds_total", help, seconds(stat.cpu_ticks));
        page.gauge("process_virtual_memory_bytes", "Address space.", stat.virtual_bytes);
        let resident = stat.resident_pages.saturating_mul(page_size() as u64);
        page.gauge("process_resident_memory_bytes", "Memory that is in use.", resident);
        page.gauge("process_threads", "Threads.", stat.threads);
        if let Some(boot) = boot_time() {
            let help = "When the process began, seconds since the epoch.";
            page.gauge("process_start_time_seconds", help, float(boot) + seconds(stat.start_ticks));
        }
    }
    if let Ok(files) = fs::read_dir("/proc/self/fd") {
        // Reading the folder has a file open itself.
        page.gauge("process_open_fds", "Files open, sockets included.", files.count().saturating_sub(1));
    }
    if let Some(most) = getrlimit(Resource::Nofile).current {
        page.gauge("process_max_fds", "Files that may be open.", most);
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
