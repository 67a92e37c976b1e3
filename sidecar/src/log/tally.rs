//! What many rows come to: counts by verdict, latency and the last time, for each identity, route, reason or the like.
//! Memory is bounded, however many there are.

use std::collections::HashMap;
use std::io::{self, Write};

use super::filter::Filter;
use super::print::{Cell, Output, Printer};
use super::query::QueryError;
use super::record::Kind;
use super::segments::Unread;
use super::walk::{Order, Progress, Sink};
use super::{Store, walk};

/// Keys that are counted apart, each in a kilobyte or so. Beyond, the half with fewer decisions becomes one.
const KEYS_MAX: usize = 2048;

/// What the others are called, of which there are too many.
const OTHERS: &str = "…";

/// What rows are counted by.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum By {
    /// Known identities
    Identities,
    /// Routes, namespace/name
    Routes,
    /// Names of rules
    Rules,
    /// Why decisions were as they were
    Reasons,
    /// Limits that refused
    Limiters,
    /// Listeners
    Listeners,
    /// Addresses of clients, without ports
    Clients,
    /// SHA-256 of certificates
    Certificates,
    /// Hosts that were asked for
    Hosts,
    /// Paths that were asked for
    Paths,
    /// Methods
    Methods,
    /// Statuses of answers
    Statuses,
    /// What requests were about
    MessageTypes,
    /// Namespaces of gates
    Namespaces,
    /// Workloads of gates
    Workloads,
    /// Pods of gates
    Pods,
}

impl By {
    /// The column that has it.
    pub(super) fn column(self) -> &'static str {
        match self {
            Self::Identities => "identity",
            Self::Routes => "route",
            Self::Rules => "rule",
            Self::Reasons => "reason",
            Self::Limiters => "limiter",
            Self::Listeners => "listener",
            Self::Clients => "client_addr",
            Self::Certificates => "fingerprint",
            Self::Hosts => "host",
            Self::Paths => "path",
            Self::Methods => "method",
            Self::Statuses => "status",
            Self::MessageTypes => "message_type",
            Self::Namespaces => "namespace",
            Self::Workloads => "workload",
            Self::Pods => "pod",
        }
    }
}

/// Which of the columns are latencies.
const LATENCIES: std::ops::Range<usize> = 5..8;

/// What of the view is counted, behind the key.
const COUNTED: &str = "verdict, kind, duration_us, repeat, time";

/// What [`top`] prints.
#[derive(Clone, Copy, Debug)]
pub struct TopOptions {
    /// What is counted.
    pub by: By,
    /// Without latencies, which sums do not have.
    pub counts: bool,
    /// How it is printed.
    pub output: Output,
}

/// Counts the rows that match and prints the `limit` with the most decisions, the most first. What cannot be read is noted
/// in `unread`.
///
/// # Errors
/// When the log cannot be read, or `out` cannot be written.
pub async fn top(
    store: &mut Store,
    filter: &Filter,
    options: TopOptions,
    out: &mut dyn Write,
    told: &mut dyn FnMut(Progress),
    unread: &Unread,
) -> Result<(), QueryError> {
    let TopOptions { by, counts, output } = options;
    let mut tally = Tally { by, counts, keys: HashMap::new(), others: None, told };
    match store {
        Store::Files(path) => {
            let columns = format!("{}, {COUNTED}", by.column());
            walk::walk(path, filter, &columns, Order::NewestFirst, &mut tally, unread).await?;
        }
        Store::Server(remote) => {
            // Only requests are timed.
            let counts = counts || filter.kind.is_some_and(|kind| kind != Kind::Request);
            remote.groups(filter, by, counts, &mut tally).await?;
        }
    }
    Ok(tally.print(filter.limit, output, out)?)
}

struct Tally<'t> {
    by: By,
    counts: bool,
    keys: HashMap<Option<Box<str>>, Counts>,
    others: Option<Counts>,
    told: &'t mut dyn FnMut(Progress),
}

/// What rows of one key come to.
#[derive(Clone, Debug, Default)]
struct Counts {
    allowed: u64,
    refused: u64,
    would_refuse: u64,
    /// How many requests took how long: by [`bucket`].
    latency: Vec<u64>,
    longest_us: u64,
    /// In RFC 3339, always of the same length, so that later times are greater texts.
    last: String,
}

impl Sink for Tally<'_> {
    fn row(&mut self, cells: &[Cell<'_>]) -> io::Result<()> {
        let [key, Cell::Text(verdict), kind, duration, repeat, Cell::Text(time), summed @ ..] = cells else {
            return Ok(());
        };
        let key: Option<Box<str>> = match key {
            Cell::Text(text) if self.by == By::Clients => Some(without_port(text).into()),
            Cell::Text(text) => Some((*text).into()),
            Cell::Integer(number) => Some(number.to_string().into()),
            _ => None,
        };
        if self.keys.len() >= KEYS_MAX && !self.keys.contains_key(&key) {
            self.fold();
        }
        let counts = self.keys.entry(key).or_default();
        let number = |cell: &Cell<'_>| match cell {
            Cell::Integer(number) => u64::try_from(*number).unwrap_or(0),
            _ => 0,
        };
        match *verdict {
            "allowed" => counts.allowed += number(repeat),
            "refused" => counts.refused += number(repeat),
            _ => counts.would_refuse += number(repeat),
        }
        if *kind == Cell::Text("request") {
            // A row of its own, or a group of them.
            let (rows, longest) = match summed {
                [rows, longest] => (number(rows), number(longest)),
                _ => (1, number(duration)),
            };
            counts.time(bucket(number(duration)), rows);
            counts.longest_us = counts.longest_us.max(longest);
        }
        counts.is_at(time);
        Ok(())
    }

    fn page(&mut self, progress: Progress) -> io::Result<()> {
        (self.told)(progress);
        Ok(())
    }
}

impl Tally<'_> {
    /// Makes room: keys with few decisions are counted as one from now on, with what they had.
    fn fold(&mut self) {
        let mut decisions: Vec<_> = self.keys.values().map(Counts::decisions).collect();
        decisions.sort_unstable();
        let middle = decisions.get(KEYS_MAX / 2).copied().unwrap_or_default();
        let others = self.others.get_or_insert_default();
        self.keys.retain(|_, counts| {
            let stays = counts.decisions() > middle;
            if !stays {
                others.add(counts);
            }
            stays
        });
    }

    fn print(self, limit: u32, output: Output, out: &mut dyn Write) -> io::Result<()> {
        let mut rows: Vec<_> = self.keys.into_iter().collect();
        rows.sort_by(|(key, counts), (other, others)| (others.decisions(), key).cmp(&(counts.decisions(), other)));
        let names = ["decisions", "allowed", "refused", "would_refuse", "p50_us", "p99_us", "max_us", "last"];
        let mut columns: Vec<_> = [self.by.column()].into_iter().chain(names).map(str::to_owned).collect();
        if self.counts {
            columns.drain(LATENCIES);
        }
        let mut printer = Printer::new(output, out, columns)?;
        let rows = rows.iter().take(limit as usize).map(|(key, counts)| (key.as_deref(), counts));
        for (key, counts) in rows.chain(self.others.iter().map(|others| (Some(OTHERS), others))) {
            let mut cells = counts.cells(key).to_vec();
            if self.counts {
                cells.drain(LATENCIES);
            }
            printer.row(&cells)?;
        }
        printer.finish()
    }
}

impl Counts {
    fn decisions(&self) -> u64 {
        self.allowed + self.refused + self.would_refuse
    }

    fn time(&mut self, bucket: usize, rows: u64) {
        if self.latency.len() <= bucket {
            self.latency.resize(bucket + 1, 0);
        }
        self.latency[bucket] += rows;
    }

    fn is_at(&mut self, time: &str) {
        if *self.last < *time {
            time.clone_into(&mut self.last);
        }
    }

    fn add(&mut self, other: &Self) {
        self.allowed += other.allowed;
        self.refused += other.refused;
        self.would_refuse += other.would_refuse;
        other.latency.iter().enumerate().for_each(|(bucket, rows)| self.time(bucket, *rows));
        self.longest_us = self.longest_us.max(other.longest_us);
        self.is_at(&other.last);
    }

    /// What so many hundredths of the requests did not exceed, to an eighth.
    fn percentile(&self, hundredths: u64) -> Option<u64> {
        let rows: u64 = self.latency.iter().sum();
        let wanted = (rows * hundredths).div_ceil(100);
        let mut seen = 0;
        let reaches = |rows: &u64| {
            seen += rows;
            seen >= wanted
        };
        let found = self.latency.iter().position(reaches).filter(|_| rows > 0)?;
        Some(middle(found).min(self.longest_us))
    }

    fn cells<'c>(&'c self, key: Option<&'c str>) -> [Cell<'c>; 9] {
        let count = |number: u64| Cell::Integer(i64::try_from(number).unwrap_or(i64::MAX));
        let time = |time: Option<u64>| time.map_or(Cell::Null, count);
        [
            key.map_or(Cell::Null, Cell::Text),
            count(self.decisions()),
            count(self.allowed),
            count(self.refused),
            count(self.would_refuse),
            time(self.percentile(50)),
            time(self.percentile(99)),
            time(self.percentile(100).map(|_| self.longest_us)),
            Cell::Text(&self.last),
        ]
    }
}

/// Where a duration is counted: four places for each power of two.
fn bucket(duration_us: u64) -> usize {
    let shift = (u64::BITS - duration_us.leading_zeros()).saturating_sub(3);
    // At most 7.
    let digits = usize::try_from(duration_us >> shift).unwrap_or(0);
    4 * shift as usize + digits
}

/// The middle of such a place.
fn middle(bucket: usize) -> u64 {
    let shift = (bucket / 4).saturating_sub(1).min(61);
    let digits = (bucket - 4 * shift) as u64;
    (digits << shift) + (1 << shift) / 2
}

/// An address as rows have it, without its port; a network as it is.
fn without_port(address: &str) -> &str {
    match address.rsplit_once(':') {
        Some((host, port)) if !port.is_empty() && port.bytes().all(|digit| digit.is_ascii_digit()) => host,
        _ => address,
    }
}
