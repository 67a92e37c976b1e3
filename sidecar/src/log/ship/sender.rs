//! The one connection to Postgres: made when there is something to send, by what the files say then.

use std::collections::BTreeSet;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use postern_postgres::{Error, Failure, Session, Target, schema};
use thiserror::Error;

use super::super::query::QueryError;
use super::ShipOptions;
use super::backlog::Batch;
use super::rows::{self, Rows};

/// For connecting, and for each statement.
const PATIENCE: Duration = Duration::from_secs(10);

/// The server gives up before we do, so that it does not go on with what nobody waits for.
const SERVER_PATIENCE: &str = "SET statement_timeout = 9000; SET lock_timeout = 5000";

/// A day in microseconds.
const DAY: i64 = 86_400_000_000;

/// Days whose partitions are made ahead, from that of the newest row on.
const DAYS_AHEAD: i64 = 1;

/// Why a turn was not done.
#[derive(Debug, Error)]
pub(super) enum Trouble {
    #[error(transparent)]
    Postgres(#[from] Error),
    #[error("the log cannot be read: {0}")]
    Log(#[from] QueryError),
    #[error("how far rows were sent cannot be noted: {0}")]
    Watermark(#[from] io::Error),
}

impl Trouble {
    pub(super) fn failure(&self) -> Failure {
        match self {
            Self::Postgres(error) => error.failure,
            Self::Log(_) | Self::Watermark(_) => Failure::Local,
        }
    }
}

/// Rows of one statement with a value for each field: it may have 65,535.
const INSERT_ROWS: usize = 500;

/// What became of a batch.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Sent {
    /// Rows that Postgres had not had.
    pub(super) added: u64,
    /// Rows that it had.
    pub(super) known: u64,
    /// Rows that it does not take.
    pub(super) rejected: u64,
}

pub(super) struct Sender {
    url: Option<String>,
    url_file: Option<PathBuf>,
    password_file: Option<PathBuf>,
    ca_file: Option<PathBuf>,
    applies_schema: bool,
    copy: String,
    session: Option<Session>,
    /// Days whose partitions this connection has seen to.
    days: BTreeSet<i64>,
}

impl Sender {
    pub(super) fn new(options: &ShipOptions) -> Self {
        let columns = columns();
        Self {
            url: options.url.clone(),
            url_file: options.url_file.clone(),
            password_file: options.password_file.clone(),
            ca_file: options.ca_file.clone(),
            applies_schema: options.applies_schema,
            copy: format!("COPY postern.requests ({columns}) FROM STDIN (FORMAT binary)"),
            session: None,
            days: BTreeSet::new(),
        }
    }

    /// Whether there is a server to send to: an optional file may come later.
    pub(super) fn is_wanted(&self) -> Result<bool, Error> {
        match (&self.url, &self.url_file) {
            (Some(_), _) => Ok(true),
            (None, Some(file)) => file.try_exists().map_err(|error| unreadable(file, &error)),
            (None, None) => Ok(false),
        }
    }

    pub(super) async fn close(&mut self) {
        if let Some(session) = self.session.take() {
            session.close().await;
        }
    }

    /// Sends all of a batch, or nothing is to be counted as sent.
    pub(super) async fn send(&mut self, batch: &Batch) -> Result<Sent, Error> {
        let sent = self.try_send(&batch.rows).await;
        if sent.is_err() && self.session.as_ref().is_some_and(|session| !session.is_usable()) {
            self.session = None;
        }
        // A server that takes no writes may be a standby by now, and another one the first.
        if sent.as_ref().is_err_and(|error| error.failure == Failure::ReadOnly) {
            self.close().await;
        }
        sent
    }

    async fn try_send(&mut self, rows: &Rows) -> Result<Sent, Error> {
        if self.session.is_none() {
            self.session = Some(self.connect().await?);
            self.days.clear();
        }
        let Some(session) = self.session.as_mut() else { return Ok(Sent::default()) };
        let newest = rows.each.iter().map(|row| row.at / DAY).max().unwrap_or_default();
        let days: BTreeSet<_> = rows.each.iter().map(|row| row.at / DAY).chain(newest..=newest + DAYS_AHEAD).collect();
        for day in days {
            if !self.days.contains(&day) {
                session.query(&format!("SELECT postern.prepare(DATE '1970-01-01' + {day})")).await?;
                self.days.insert(day);
            }
        }
        match session.copy(&self.copy, rows.copy.clone()).await {
            Ok(added) => Ok(Sent { added, ..Sent::default() }),
            // It has some of them, from a time whose end was not heard of; or does not take one.
            Err(error) if error.failure == Failure::Rejected && session.is_usable() => insert(session, rows).await,
            Err(error) => Err(error),
        }
    }

    async fn connect(&self) -> Result<Session, Error> {
        let read = |path: &Path| fs::read(path).map_err(|error| unreadable(path, &error));
        let url = match (&self.url, &self.url_file) {
            (Some(url), _) => url.clone(),
            (None, Some(file)) => String::from_utf8_lossy(&read(file)?).into_owned(),
            (None, None) => String::new(),
        };
        let target = Target::parse(&url).map_err(|error| Error::new(Failure::Local, format!("the URL: {error}")))?;
        let target = match &self.password_file {
            // The Secret may have the password in its URL instead.
            Some(file) if file.exists() => target.with_password(read(file)?.trim_ascii_end()),
            _ => target,
        };
        let authorities = match target.authorities().or(self.ca_file.as_ref()) {
            Some(file) if target.is_verified() => Some(read(file)?),
            _ => None,
        };
        let mut session = Session::connect(&target, authorities.as_deref(), PATIENCE).await?;
        session.query(SERVER_PATIENCE).await?;
        if self.applies_schema {
            let schema::Applied { from, to } = schema::apply(&mut session).await?;
            if from < to {
                tracing::info!(from, to, "the schema of the request log in Postgres was brought up to date");
            }
        }
        schema::check(&mut session).await?;
        Ok(session)
    }
}

fn unreadable(path: &Path, error: &io::Error) -> Error {
    Error::new(Failure::Local, format!("{} cannot be read: {error}", path.display()))
}

fn columns() -> String {
    rows::columns().collect::<Vec<_>>().join(", ")
}

/// Inserts so many rows but for those that are there.
fn insert_sql(count: usize) -> String {
    let fields = rows::columns().count();
    let row = |row: usize| {
        let values: Vec<_> = (1..=fields).map(|field| format!("${}", row * fields + field)).collect();
        format!("({})", values.join(", "))
    };
    let all: Vec<_> = (0..count).map(row).collect();
    format!("INSERT INTO postern.requests ({}) VALUES {} ON CONFLICT DO NOTHING", columns(), all.join(", "))
}

/// Inserts rows in few statements, each of which is done or not; where a row is not taken, each half by itself, so that the
/// others are. What one half has sent is known by its ids when it is sent again.
async fn insert(session: &mut Session, rows: &Rows) -> Result<Sent, Error> {
    let values: Vec<_> = rows::values().collect();
    let (mut sent, mut parts) = (Sent::default(), rows.each.chunks(INSERT_ROWS).rev().collect::<Vec<_>>());
    while let Some(part) = parts.pop() {
        let fields: Vec<_> = part.iter().flat_map(|row| values.iter().copied().zip(rows.fields(row))).collect();
        match session.execute_binary(&insert_sql(part.len()), &fields).await {
            Ok(added) => {
                sent.added += added;
                sent.known += (part.len() as u64).saturating_sub(added);
            }
            Err(error) if error.failure == Failure::Rejected && session.is_usable() => match part {
                [row] => {
                    tracing::warn!(seq = row.seq, %error, "a row is not taken by Postgres, and stays in the log alone");
                    sent.rejected += 1;
                }
                _ => {
                    let (first, second) = part.split_at(part.len() / 2);
                    parts.extend([second, first]);
                }
            },
            Err(error) => return Err(error),
        }
    }
    Ok(sent)
}
