//! One decision in words, from its row alone: what was asked, by whom, what was decided by which rule, why, and what would
//! have let it pass. The last two are the table's of reasons. Pure, but for finding the row.

use std::fmt::Write as _;
use std::io;
use std::time::{Duration, UNIX_EPOCH};

use postern_postgres::columns::NAMES;
use sidecar_decide::Reason;

use super::Store;
use super::filter::Filter;
use super::print::{Cell, plain, safe};
use super::query::{self, QueryError};
use super::sealed::{self, BodyKey, OpenError, Opened};
use super::segments::Unread;
use super::walk::{Progress, Sink};

/// A row, every column by its name.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Found(Vec<(String, String)>);

/// Finds the row with an id, or the newest of the request with that id, of those that match. Where it may be in what cannot
/// be read, that is noted in `unread`.
///
/// # Errors
/// When the log cannot be read.
pub async fn find(store: &mut Store, filter: &Filter, id: &str, unread: &Unread) -> Result<Option<Found>, QueryError> {
    let filter = Filter { limit: 1, ..filter.clone() };
    if let Some((since, until)) = milliseconds(id) {
        let since = filter.since.max(Some(UNIX_EPOCH + since));
        let until = Some(filter.until.map_or(UNIX_EPOCH + until, |before| before.min(UNIX_EPOCH + until)));
        let by_id = Filter { id: Some(id.to_ascii_lowercase()), since, until, ..filter.clone() };
        // Where it is found, there is no other; else all is looked through once more.
        let found = newest(store, &by_id, &Unread::default()).await?;
        if found.is_some() {
            return Ok(found);
        }
    }
    newest(store, &Filter { request_id: Some(id.to_owned()), ..filter }, unread).await
}

async fn newest(store: &mut Store, filter: &Filter, unread: &Unread) -> Result<Option<Found>, QueryError> {
    let mut taken = Taken(None);
    match store {
        Store::Files(path) => query::newest(path, filter, NAMES, &mut |cells| taken.row(cells), unread).await?,
        Store::Server(remote) => remote.newest(filter, NAMES, &mut taken).await.map(drop)?,
    }
    Ok(taken.0)
}

/// The millisecond that a UUIDv7 begins with (RFC 9562 §5.7), and the next one.
fn milliseconds(id: &str) -> Option<(Duration, Duration)> {
    let digits: String = id.split('-').collect();
    let is_one = id.len() == 36 && digits.len() == 32 && digits.bytes().all(|digit| digit.is_ascii_hexdigit());
    let since = u64::from_str_radix(digits.get(..12).filter(|_| is_one)?, 16).ok()?;
    Some((Duration::from_millis(since), Duration::from_millis(since + 1)))
}

struct Taken(Option<Found>);

impl Sink for Taken {
    fn row(&mut self, cells: &[Cell<'_>]) -> io::Result<()> {
        let values = query::names(NAMES).into_iter().zip(cells).filter(|(_, cell)| **cell != Cell::Null);
        self.0 = Some(Found(values.map(|(name, cell)| (name, plain(*cell))).collect()));
        Ok(())
    }

    fn page(&mut self, _progress: Progress) -> io::Result<()> {
        Ok(())
    }
}

impl Found {
    pub(super) fn text(&self, column: &str) -> Option<&str> {
        self.0.iter().find(|(name, _)| name == column).map(|(_, value)| value.as_str())
    }

    /// The row's bodies, opened with one of `keys`; none where it has none.
    ///
    /// # Errors
    /// Why they cannot be opened.
    pub fn bodies(&self, keys: &[BodyKey]) -> Result<Vec<Opened>, OpenError> {
        let (Some(id), Some(bodies)) = (self.text("id"), self.text("bodies")) else { return Ok(Vec::new()) };
        let sealed = bodies.strip_prefix("\\x").and_then(|digits| sealed::unhex(digits.as_bytes()));
        sealed::open(keys, id, &sealed.ok_or(OpenError::Layout)?)
    }

    /// One of these columns' names and values, as far as they are there: `name value, …`.
    fn listed(&self, columns: &[(&str, &str)]) -> String {
        let there = columns.iter().filter_map(|(column, word)| Some((word, self.text(column)?)));
        let there: Vec<_> =
            there.map(|(word, value)| format!("{word}{}{value}", if word.is_empty() { "" } else { " " })).collect();
        there.join(", ")
    }

    fn reason(&self) -> Option<Reason> {
        let code = self.text("reason")?;
        Reason::ALL.into_iter().find(|reason| reason.code() == code)
    }

    /// The decision in words, some lines.
    #[must_use]
    pub fn explanation(&self) -> String {
        let mut text = format!("{}\n", self.decision());
        let mut line = |name: &str, value: String| {
            if !value.is_empty() {
                // Writing to a string cannot fail.
                let _ = writeln!(text, "  {name}: {}", safe(&value));
            }
        };
        line("what", self.what());
        line(
            "where",
            self.listed(&[
                ("listener", "listener"),
                ("pod", "pod"),
                ("namespace", "namespace"),
                ("workload", "workload"),
                ("policy_revision", "policy revision"),
            ]),
        );
        if self.text("kind") != Some("gap") {
            line("who", self.who());
            line(
                "certificate",
                self.listed(&[
                    ("subject", ""),
                    ("san", ""),
                    ("issuer", "issued by"),
                    ("serial", "serial"),
                    ("fingerprint", ""),
                ]),
            );
        }
        if let Some(reason) = self.reason() {
            let words = reason.explanation();
            line("why", words.cause.to_owned());
            line("limit", self.text("limiter").unwrap_or_default().to_owned());
            line("what to do", words.remedy.to_owned());
        } else if let Some(code) = self.text("reason") {
            line("why", format!("{code}, which this version does not know"));
        }
        line("captured", self.text("captured").unwrap_or_default().to_owned());
        line("answer", self.answer());
        if let Some(bodies) = self.text("bodies") {
            line(
                "bodies",
                format!("{} bytes, sealed: `postern-sidecar log body` opens them", bodies.len().saturating_sub(2) / 2),
            );
        }
        line("ids", self.listed(&[("id", "row"), ("request_id", "request"), ("trace_id", "trace")]));
        text
    }

    /// The first line: the verdict, its reason, and which rule said so.
    fn decision(&self) -> String {
        let by = match (self.text("rule"), self.text("route")) {
            (Some(rule), Some(route)) => format!(" by rule {rule} of {route}"),
            _ => String::new(),
        };
        let reason = self.text("reason").unwrap_or("no reason");
        match (self.text("verdict"), self.text("reason")) {
            (None, _) => {
                "no decision: before this row the process ended without closing the log, or its file was damaged; rows \
                          may be missing"
                    .to_owned()
            }
            (Some("allowed"), None) => format!("allowed{by}"),
            (Some("allowed"), Some(reason)) => format!("allowed{by}, but ended with {reason}"),
            (Some("would_refuse"), _) => {
                format!("allowed, because the rule only watches; else refused ({reason}){by}")
            }
            (Some(_), _) if by.is_empty() => format!("refused: {reason}"),
            (Some(_), _) => format!("refused ({reason}){by}"),
        }
    }

    fn what(&self) -> String {
        let at = self.text("time").unwrap_or_default();
        let what = match self.text("kind").unwrap_or_default() {
            "handshake" => "a TLS handshake".to_owned(),
            "connection" => "a connection".to_owned(),
            "cut" => "an open connection, which the gate ended".to_owned(),
            "gap" => "a gap".to_owned(),
            kind => {
                let asked =
                    self.listed(&[("method", ""), ("path", ""), ("host", "for host"), ("message_type", "about")]);
                let asked = asked.replacen(", ", " ", 1);
                format!("{}{asked}", if kind == "tunnel" { "a tunnel, " } else { "" })
            }
        };
        let rest = self.listed(&[("sni", "server name"), ("protocol", "by"), ("tls_version", "")]);
        let repeat = self.text("repeat").filter(|repeat| !matches!(*repeat, "0" | "1"));
        let repeat = repeat.map(|repeat| format!("{repeat} such decisions, the first at")).unwrap_or_default();
        let parts = [what, rest, format!("{repeat} {at}").trim().to_owned()];
        parts.into_iter().filter(|part| !part.is_empty()).collect::<Vec<_>>().join(", ")
    }

    /// Whom the gate took it for, and by what.
    fn who(&self) -> String {
        let bundle = self.text("bundle");
        let who = match (self.text("identity"), bundle, self.text("fingerprint")) {
            (Some(identity), Some(bundle), _) => format!("{identity}, by its certificate, verified by bundle {bundle}"),
            (Some(identity), None, _) => identity.to_owned(),
            (None, Some(bundle), _) => format!("no known identity; the certificate is verified by bundle {bundle}"),
            (None, None, Some(_)) => "nobody: what the certificate says was not verified".to_owned(),
            (None, None, None) => "nobody: no certificate".to_owned(),
        };
        let from = self.text("client_addr").map(|client| format!(", from {client}")).unwrap_or_default();
        format!("{who}{from}")
    }

    fn answer(&self) -> String {
        let mut parts = vec![self.listed(&[("status", "status"), ("grpc_status", "gRPC status")])];
        for (column, word) in [
            ("duration_us", "took"),
            ("queue_us", "of it waiting"),
            ("connect_us", "connecting"),
            ("upstream_us", "for the application"),
        ] {
            parts.extend(self.text(column).map(|time| format!("{word} {time} µs")));
        }
        parts.push(self.listed(&[("upstream", "upstream")]));
        parts.retain(|part| !part.is_empty());
        parts.join(", ")
    }
}
