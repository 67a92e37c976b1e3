//! The books of a running sidecar: every decision that its counters have is in a row, counted as dropped, or on its way.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::UNIX_EPOCH;

use anyhow::{Context, Result};

use crate::process::Sidecar;
use crate::wait::{PATIENCE, eventually};

/// Families of `/metrics` that count decisions.
const DECISIONS: [&str; 5] = [
    "postern_requests_total",
    "postern_forwarded_connections_total",
    "postern_tunnels_total",
    "postern_handshakes_refused_total",
    "postern_connections_cut_total",
];
/// Who connects and says nothing has asked for nothing: it is counted, and in no row.
pub(crate) const NO_DECISION: &str = "reason=\"closed_before_first_byte\"";

/// Decisions of a sidecar since its start, and where they are.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Balance {
    /// As its counters have them.
    decided: u64,
    /// What rows stand for.
    in_rows: u64,
    /// What never will be in a row.
    dropped: u64,
    /// What waits for the writer.
    queued: u64,
    /// What waits for a row that it shares with others.
    held: u64,
    /// Rows are missing that were written: they had no place any more, or their file is damaged, or it cannot be read now.
    is_short: bool,
}

impl Balance {
    fn is_even(&self) -> bool {
        let found = self.in_rows + self.dropped + self.queued + self.held;
        if self.is_short { found <= self.decided } else { found == self.decided }
    }

    fn of_page(page: &str) -> Self {
        let mut balance = Self::default();
        for (series, value) in page.lines().filter_map(|line| line.rsplit_once(' ')) {
            let Ok(value) = value.parse::<u64>() else { continue };
            let (family, labels) = series.split_once('{').unwrap_or((series, ""));
            match family {
                "postern_log_rows_dropped_total" | "postern_log_rows_sampled_away_total" => balance.dropped += value,
                "postern_log_queue_rows" => balance.queued += value,
                "postern_log_refusals_held" => balance.held += value,
                "postern_log_rows_pruned_total" | "postern_log_files_set_aside_total" => balance.is_short |= value > 0,
                "postern_log_up" => balance.is_short |= value == 0,
                family if DECISIONS.contains(&family) && !labels.contains(NO_DECISION) => balance.decided += value,
                _ => {}
            }
        }
        balance
    }
}

impl Sidecar {
    /// Waits until every decision since the start of the process is accounted for, and they are as many as its clients
    /// count: requests, tunnels, refused handshakes, connections passed on, and those that were cut.
    ///
    /// # Errors
    /// When it does not come to that in time.
    pub fn has_decided(&self, decisions: u64) -> Result<()> {
        let status = self.status_address()?;
        self.comes_even(status, &format!("{decisions} decisions"), |balance| {
            (balance.decided, balance.queued) == (decisions, 0)
        })
    }

    /// What [`Self::has_decided`] waits for, however many there are.
    pub(crate) fn is_even(&self, status: SocketAddr) -> Result<()> {
        self.comes_even(status, "every decision to be in a row or counted as dropped", |_| true)
    }

    /// Decisions that never will be in a row, as its counters have them.
    ///
    /// # Errors
    /// When it does not tell them.
    pub fn dropped(&self) -> Result<u64> {
        Ok(Balance::of_page(&metrics(self.status_address()?)?).dropped)
    }

    fn comes_even(&self, status: SocketAddr, what: &str, wanted: impl Fn(&Balance) -> bool) -> Result<()> {
        let mut last = Balance::default();
        let waited = eventually(what, PATIENCE, || {
            last = self.balance(status)?;
            Ok((last.is_even() && wanted(&last)).then_some(()))
        });
        waited.with_context(|| format!("the last account was {last:?}"))
    }

    fn balance(&self, status: SocketAddr) -> Result<Balance> {
        let balance = Balance::of_page(&metrics(status)?);
        if balance.decided == 0 || balance.is_short {
            return Ok(balance);
        }
        let since = self.started_at().duration_since(UNIX_EPOCH)?.as_micros();
        let sql = format!("select coalesce(sum(repeat), 0) as n from entry where at >= {since}");
        let rows = self.launch().query(&sql)?;
        let in_rows = rows.first().and_then(|row| row["n"].as_u64()).context("a sum")?;
        Ok(Balance { in_rows, ..balance })
    }
}

/// The page `/metrics`; by hand, because this is done for every sidecar of every test.
fn metrics(status: SocketAddr) -> Result<String> {
    let mut stream = TcpStream::connect_timeout(&status, PATIENCE)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.write_all(b"GET /metrics HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")?;
    let mut page = String::new();
    stream.read_to_string(&mut page)?;
    Ok(page)
}

#[cfg(test)]
mod tests {
    use super::Balance;

    #[test]
    fn what_is_missing_is_seen() {
        let page = "postern_requests_total{rule=\"a\"} 5\npostern_requests_total{rule=\"b\"} 2\n\
                    postern_handshakes_refused_total{listener=\"gate\",reason=\"closed_before_first_byte\"} 9\n\
                    postern_handshakes_refused_total{listener=\"gate\",reason=\"tls_expired\"} 1\n\
                    postern_tunnels_total{rule=\"a\"} 1\npostern_log_rows_dropped_total{reason=\"stopped\"} 2\n\
                    postern_log_queue_rows 1\npostern_log_refusals_held 1\npostern_log_up 1\n";
        let balance = Balance::of_page(page);
        let expected = Balance { decided: 9, in_rows: 0, dropped: 2, queued: 1, held: 1, is_short: false };
        assert_eq!(balance, expected);
        for (in_rows, is_even) in [(4, false), (5, true), (6, false)] {
            assert_eq!(Balance { in_rows, ..balance }.is_even(), is_even, "{in_rows}");
        }
        let short = Balance::of_page(&page.replace("postern_log_up 1", "postern_log_up 0"));
        assert!(short.is_short && short.is_even());
        assert!(!Balance { in_rows: 6, ..short }.is_even(), "there is never too much");
    }
}
