//! The same rows in PostgreSQL: what filters choose there, by the same names and in the same words.

use std::io::{self, Write};
use std::time::Duration;

use postern_postgres::columns::{COLUMNS, NAMES};
use postern_postgres::{Error, Failure, Session, Target};

use super::filter::Filter;
use super::print::{Cell, Output, Printer};
use super::query::{self, QueryError, ROWS_MAX};
use super::tally::By;
use super::walk::{Order, PAGE_ROWS, Progress, Sink};

/// For connecting and for each page: the first one of many days takes its time.
const TIMEOUT: Duration = Duration::from_secs(60);

/// RFC 3339 with microseconds.
const MOMENT: &str = "'YYYY-MM-DD\"T\"HH24:MI:SS.US\"Z\"'";

/// A log in PostgreSQL.
#[derive(Debug)]
pub struct Remote {
    session: Session,
    /// The columns that it has: another version may have made it.
    known: Vec<String>,
}

impl Remote {
    /// Connects. `authorities` is PEM of whoever may vouch for the server.
    ///
    /// # Errors
    /// Why it cannot be had, or has no log.
    pub async fn open(target: &Target, authorities: Option<&[u8]>) -> Result<Self, Error> {
        let mut session = Session::connect(target, authorities, TIMEOUT).await?;
        let mut known = Vec::new();
        let sql = "SELECT attname::text FROM pg_attribute WHERE attrelid = to_regclass('postern.requests') \
             AND attnum > 0 AND NOT attisdropped";
        session.select(sql, &[]).await?;
        session
            .page(PAGE_ROWS, &mut |texts| known.extend(texts.iter().flatten().map(|name| (*name).to_owned())))
            .await?;
        if known.is_empty() {
            let message = "there is no request log in this database: `postern-operator log-schema` makes one";
            return Err(Error::new(Failure::Schema, message));
        }
        Ok(Self { session, known })
    }

    /// Prints the newest rows that match, the oldest of them first.
    ///
    /// # Errors
    /// When it cannot be read in time, or `out` cannot be written.
    pub async fn rows(&mut self, filter: &Filter, output: Output, out: &mut dyn Write) -> Result<(), QueryError> {
        let columns = match output {
            Output::Table | Output::Painted => query::TABLE_COLUMNS,
            Output::Json | Output::Csv => NAMES,
        };
        let mut printed = Printed { printer: Printer::new(output, out, query::names(columns))? };
        self.newest(filter, columns, &mut printed).await?;
        Ok(printed.printer.finish()?)
    }

    /// Gives `sink` the newest rows that match, the oldest of them first.
    pub(super) async fn newest(
        &mut self,
        filter: &Filter,
        columns: &str,
        sink: &mut dyn Sink,
    ) -> Result<u64, QueryError> {
        let (conditions, values) = filter.remote_conditions();
        let (shown, limit) = (self.shown(columns), filter.limit.min(ROWS_MAX));
        let sql = format!(
            "SELECT {shown} FROM (SELECT * FROM postern.requests WHERE {conditions} ORDER BY time DESC, id DESC \
             LIMIT {limit}) r ORDER BY r.time, r.id"
        );
        self.read(&sql, &values, &numbers(columns), sink).await
    }

    /// Gives `sink` the `columns` of every row that matches.
    pub(super) async fn walk(
        &mut self,
        filter: &Filter,
        columns: &str,
        order: Order,
        sink: &mut dyn Sink,
    ) -> Result<u64, QueryError> {
        let (conditions, values) = filter.remote_conditions();
        let shown = self.shown(columns);
        let direction = match order {
            Order::OldestFirst => "ASC",
            Order::NewestFirst => "DESC",
        };
        let sql = format!(
            "SELECT {shown} FROM postern.requests r WHERE {conditions} ORDER BY r.time {direction}, r.id {direction}"
        );
        self.read(&sql, &values, &numbers(columns), sink).await
    }

    /// Gives `sink` what [`super::Tally`] counts, added up by the server as far as its figures allow.
    pub(super) async fn groups(&mut self, filter: &Filter, by: By, sink: &mut dyn Sink) -> Result<u64, QueryError> {
        let (conditions, values) = filter.remote_conditions();
        let key = match by {
            By::Clients => "regexp_replace(client_addr, ':[0-9]+$', '')".to_owned(),
            _ if self.known.iter().any(|known| known == by.column()) => by.column().to_owned(),
            _ => "NULL::text".to_owned(),
        };
        // The first three binary digits of a latency are what is told apart.
        let sql = format!(
            "SELECT key, verdict, kind, (took >> shift) << shift, sum(repeat), \
             to_char(max(time) AT TIME ZONE 'UTC', {MOMENT}), count(*), max(took) \
             FROM (SELECT {key} AS key, verdict, CASE WHEN kind = 'request' THEN kind END AS kind, \
             CASE WHEN kind = 'request' THEN duration_us END AS took, repeat, time \
             FROM postern.requests WHERE {conditions}) r, \
             LATERAL (SELECT greatest(length(ltrim(took::bit(64)::text, '0')) - 3, 0) AS shift) s GROUP BY 1, 2, 3, 4"
        );
        self.read(&sql, &values, &[false, false, false, true, true, false, true, true], sink).await
    }

    async fn read(
        &mut self,
        sql: &str,
        values: &[String],
        numbers: &[bool],
        sink: &mut dyn Sink,
    ) -> Result<u64, QueryError> {
        let values: Vec<&str> = values.iter().map(String::as_str).collect();
        self.session.select(sql, &values).await?;
        let mut rows = 0;
        loop {
            let mut taken = Ok(());
            let mut take = |texts: &[Option<&str>]| {
                let cells = texts.iter().zip(numbers).map(|(text, is_number)| cell(*text, *is_number));
                if taken.is_ok() {
                    taken = sink.row(&cells.collect::<Vec<_>>());
                }
            };
            let page = self.session.page(PAGE_ROWS, &mut take).await?;
            taken?;
            rows += u64::from(page);
            sink.page(Progress { rows, walked: None })?;
            if page < PAGE_ROWS {
                return Ok(rows);
            }
        }
    }

    /// Those columns as SQL, in the words in which SQLite has them.
    fn shown(&self, columns: &str) -> String {
        let shown = query::names(columns).into_iter().map(|name| match name.as_str() {
            _ if !self.known.contains(&name) => format!("NULL AS {name}"),
            "id" => "id::text AS id".to_owned(),
            "time" => format!("to_char(time AT TIME ZONE 'UTC', {MOMENT}) AS time"),
            "resumed" => "resumed::int AS resumed".to_owned(),
            _ => name,
        });
        shown.collect::<Vec<_>>().join(", ")
    }
}

/// What is printed as it comes.
struct Printed<'o> {
    printer: Printer<'o>,
}

impl Sink for Printed<'_> {
    fn row(&mut self, cells: &[Cell<'_>]) -> io::Result<()> {
        self.printer.row(cells)
    }

    fn page(&mut self, _progress: Progress) -> io::Result<()> {
        Ok(())
    }
}

fn numbers(columns: &str) -> Vec<bool> {
    let is_number = |name: &String| COLUMNS.iter().any(|(known, values)| known == name && values.is_number());
    query::names(columns).iter().map(is_number).collect()
}

fn cell(text: Option<&str>, is_number: bool) -> Cell<'_> {
    match (text, text.filter(|_| is_number).and_then(|text| text.parse().ok())) {
        (None, _) => Cell::Null,
        (_, Some(number)) => Cell::Integer(number),
        (Some(text), None) => Cell::Text(text),
    }
}
