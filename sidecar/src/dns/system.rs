//! Whom names are asked of, and which names: what `/etc/resolv.conf` (resolv.conf(5)), `/etc/hosts` (hosts(5)) or the
//! settings say. What is not understood is passed over, as the C library does.

#[cfg(test)]
mod tests;

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::time::Duration;

use sidecar_config::settings::Dns;

/// Where DNS is spoken.
const PORT: u16 = 53;
/// Servers that the C library reads; those after it are not asked.
const SERVERS_MAX: usize = 3;
/// The largest values that the C library takes.
const NDOTS_MAX: usize = 15;
const TIMEOUT_MAX_S: u64 = 30;
const ATTEMPTS_MAX: u32 = 5;

/// How names are looked up.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Resolving {
    /// Asked in this order.
    pub servers: Vec<SocketAddr>,
    search: Vec<String>,
    ndots: usize,
    /// How long one server may take.
    pub timeout: Duration,
    /// How often all of them are asked.
    pub attempts: u32,
}

impl Default for Resolving {
    fn default() -> Self {
        Self {
            servers: Vec::new(),
            search: Vec::new(),
            ndots: 1,
            // As the C library has them.
            timeout: Duration::from_secs(5),
            attempts: 2,
        }
    }
}

impl Resolving {
    /// As the settings say; `None` where they leave it to the system.
    pub fn of_settings(settings: &Dns) -> Option<Self> {
        if settings.servers.is_empty() {
            return None;
        }
        let (servers, search) = (settings.servers.clone(), settings.search.clone());
        Some(Self { servers, search, ndots: usize::from(settings.ndots), ..Self::default() })
    }

    /// As the text of a resolv.conf says.
    pub fn of_system(text: &str) -> Self {
        let mut resolving = Self::default();
        for line in text.lines() {
            // A comment begins a line, and in practice ends one, too.
            let line = line.split(['#', ';']).next().unwrap_or_default();
            let mut words = line.split_ascii_whitespace();
            match words.next() {
                Some("nameserver") => {
                    let address = words.next().and_then(|word| word.parse::<IpAddr>().ok());
                    resolving.servers.extend(address.map(|address| SocketAddr::new(address, PORT)));
                }
                // The last of both counts.
                Some("search") => resolving.search = words.map(str::to_owned).collect(),
                Some("domain") => resolving.search = words.take(1).map(str::to_owned).collect(),
                Some("options") => words.for_each(|word| resolving.option(word)),
                _ => {}
            }
        }
        resolving.servers.truncate(SERVERS_MAX);
        if resolving.servers.is_empty() {
            resolving.servers.push(SocketAddr::from((Ipv4Addr::LOCALHOST, PORT)));
        }
        resolving
    }

    fn option(&mut self, word: &str) {
        match word.split_once(':') {
            Some(("ndots", value)) => {
                self.ndots = value.parse().map_or(self.ndots, |ndots: usize| ndots.min(NDOTS_MAX))
            }
            Some(("timeout", value)) => {
                let seconds = value.parse::<u64>().ok().map(|seconds| seconds.clamp(1, TIMEOUT_MAX_S));
                self.timeout = seconds.map_or(self.timeout, Duration::from_secs);
            }
            Some(("attempts", value)) => {
                self.attempts = value.parse().map_or(self.attempts, |attempts: u32| attempts.clamp(1, ATTEMPTS_MAX));
            }
            _ => {}
        }
    }

    /// The names that a name may stand for, in the order in which they are tried; each ends in a dot.
    pub fn candidates(&self, name: &str) -> Vec<String> {
        if name.ends_with('.') {
            return vec![name.to_owned()];
        }
        let whole = format!("{name}.");
        let below = self.search.iter().map(|domain| match domain.trim_end_matches('.') {
            "" => whole.clone(),
            domain => format!("{name}.{domain}."),
        });
        let is_first = name.matches('.').count() >= self.ndots;
        let first = is_first.then(|| whole.clone());
        let mut candidates: Vec<_> = first.into_iter().chain(below).collect();
        if !candidates.contains(&whole) {
            candidates.push(whole);
        }
        candidates
    }
}

/// The addresses that the text of a hosts file has for a name.
pub fn hosts(text: &str, name: &str) -> Vec<IpAddr> {
    let name = name.trim_end_matches('.');
    let lines = text.lines().filter_map(|line| {
        let mut words = line.split('#').next()?.split_ascii_whitespace();
        let address = words.next()?.parse().ok()?;
        words.any(|word| word.eq_ignore_ascii_case(name)).then_some(address)
    });
    lines.collect()
}
