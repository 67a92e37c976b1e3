//! The same rows in PostgreSQL: what filters choose there, by the same names and in the same words.

use std::io::{self, Write};
use std::time::Duration;

use postern_postgres::columns::{COLUMNS, NAMES};
use postern_postgres::{Error, Failure, Session, Target};

use super::encode::micros;
use super::filter::Filter;
use super::print::{Cell, Output, Printer};
use super::query::{self, Printed, QueryError, ROWS_MAX};
use super::tally::By;
use super::walk::{Order, PAGE_ROWS, Progress, Sink};

/// For connecting and for each page: the first one of many days takes its time.
const TIMEOUT: Duration = Duration::from_secs(60);

/// RFC 3339 with microseconds.
pub(super) const MOMENT: &str = "'YYYY-MM-DD\"T\"HH24:MI:SS.US\"Z\"'";

/// What sums by the hour are of.
const SUMMED: &[&str] = &["namespace", "workload", "kind", "route", "rule", "identity", "verdict", "reason"];

/// A column that no schema has without sums.
const BESIDE_SUMS: &str = "chain";

/// An hour in microseconds.
const HOUR: i64 = 3_600_000_000;

/// A log in PostgreSQL.
#[derive(Debug)]
pub struct Remote {
    target: Target,
    authorities: Option<Vec<u8>>,
    pub(super) session: Session,
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
        Ok(Self { target: target.clone(), authorities: authorities.map(<[u8]>::to_vec), session, known })
    }

    /// The same in a new connection.
    pub(super) async fn again(&self) -> Result<Self, Error> {
        Self::open(&self.target, self.authorities.as_deref()).await
    }

    /// Prints the newest rows that match, the oldest of them first.
    ///
    /// # Errors
    /// When it cannot be read in time, or `out` cannot be written.
    pub async fn rows(&mut self, filter: &Filter, output: Output, out: &mut dyn Write) -> Result<Printed, QueryError> {
        let columns = columns(output);
        let mut taken = Taken::new(Printer::new(output, out, query::names(columns))?);
        self.newest(filter, columns, &mut taken).await?;
        taken.printer.finish()?;
        Ok(Printed { cut: query::is_cut(taken.printed.rows, filter), ..taken.printed })
    }

    /// Prints what `sql`, one SELECT, answers.
    ///
    /// # Errors
    /// As [`Self::rows`], and when `sql` is anything else or the server does not understand it.
    pub async fn sql(&mut self, sql: &str, output: Output, out: &mut dyn Write) -> Result<Printed, QueryError> {
        if !query::is_one_select(sql) {
            return Err(QueryError::NotAQuery);
        }
        let sql = sql.trim_end_matches(|end: char| end == ';' || end.is_whitespace());
        let is_json = output == Output::Json;
        self.session.ask(sql, is_json).await?;
        let names = self.session.names().await?;
        let mut taken = Taken { is_json, ..Taken::new(Printer::new(output, out, names)?) };
        // One more tells that there are more.
        self.pages(&[], u64::from(ROWS_MAX) + 1, &mut taken).await?;
        taken.printer.finish()?;
        Ok(taken.printed)
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

    /// Gives `sink` what [`super::Tally`] counts, added up by the server as far as its figures allow; from sums by the hour
    /// where `counts` alone are wanted and sums have what is asked about.
    pub(super) async fn groups(
        &mut self,
        filter: &Filter,
        by: By,
        counts: bool,
        sink: &mut dyn Sink,
    ) -> Result<u64, QueryError> {
        let key = match by {
            By::Clients => "regexp_replace(client_addr, ':[0-9]+$', '')".to_owned(),
            _ if self.known.iter().any(|known| known == by.column()) => by.column().to_owned(),
            _ => "NULL::text".to_owned(),
        };
        let whole = Filter { since: None, until: None, ..filter.clone() };
        let has_sums = self.known.iter().any(|known| known == BESIDE_SUMS);
        let may_sum = counts && has_sums && SUMMED.contains(&by.column()) && whole.is_of(SUMMED);
        let (conditions, values) = whole.remote_conditions();
        let from_sums = if may_sum { summed(filter, &key, &conditions) } else { None };
        let (rows, values) = from_sums.map(|rows| (rows, values)).unwrap_or_else(|| {
            let (conditions, values) = filter.remote_conditions();
            let rows = format!(
                "SELECT {key} AS key, verdict, CASE WHEN kind = 'request' THEN kind END AS kind, \
                 CASE WHEN kind = 'request' THEN duration_us END AS took, repeat, time \
                 FROM postern.requests WHERE {conditions}"
            );
            (rows, values)
        });
        // The first three binary digits of a latency are what is told apart.
        let sql = format!(
            "SELECT key, verdict, kind, (took >> shift) << shift, sum(repeat), \
             to_char(max(time) AT TIME ZONE 'UTC', {MOMENT}), count(*), max(took) FROM ({rows}) r, \
             LATERAL (SELECT greatest(length(ltrim(took::bit(64)::text, '0')) - 3, 0) AS shift) s GROUP BY 1, 2, 3, 4"
        );
        self.read(&sql, &values, &[false, false, false, true, true, false, true, true], sink).await
    }

    pub(super) async fn read(
        &mut self,
        sql: &str,
        values: &[String],
        numbers: &[bool],
        sink: &mut dyn Sink,
    ) -> Result<u64, QueryError> {
        let values: Vec<&str> = values.iter().map(String::as_str).collect();
        self.session.select(sql, &values).await?;
        self.pages(numbers, u64::MAX, sink).await
    }

    /// Gives `sink` what was selected, at most so many rows. Columns that `numbers` does not say so of are texts.
    async fn pages(&mut self, numbers: &[bool], most: u64, sink: &mut dyn Sink) -> Result<u64, QueryError> {
        let mut rows = 0;
        loop {
            let mut taken = Ok(());
            let mut take = |texts: &[Option<&str>]| {
                let numbers = numbers.iter().copied().chain(std::iter::repeat(false));
                if taken.is_ok() {
                    let cells = texts.iter().zip(numbers).map(|(text, is_number)| cell(*text, is_number));
                    taken = sink.row(&cells.collect::<Vec<_>>());
                }
            };
            let limit = u32::try_from(most - rows).unwrap_or(PAGE_ROWS).min(PAGE_ROWS);
            let page = self.session.page(limit, &mut take).await?;
            taken?;
            rows += u64::from(page);
            sink.page(Progress { rows, walked: None })?;
            if page < PAGE_ROWS || rows >= most {
                return Ok(rows);
            }
        }
    }

    /// Those columns as SQL, in the words in which SQLite has them.
    pub(super) fn shown(&self, columns: &str) -> String {
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

/// Rows and sums as one table, for the hours that are whole and what is before and behind them; `None` where no hour is whole.
fn summed(filter: &Filter, key: &str, conditions: &str) -> Option<String> {
    let (since, until) = (filter.since.map(micros), filter.until.map(micros));
    let first = since.map(|since| since.saturating_add((-since).rem_euclid(HOUR)));
    let last = until.map(|until| until - until.rem_euclid(HOUR));
    if first.zip(last).is_some_and(|(first, last)| first >= last) {
        return None;
    }
    let between = |column: &str, from: Option<i64>, to: Option<i64>| {
        let at = |sign: &str, moment: i64| {
            format!(" AND {column} {sign} timestamptz 'epoch' + {moment} * interval '1 microsecond'")
        };
        format!(
            "{}{}",
            from.map(|from| at(">=", from)).unwrap_or_default(),
            to.map(|to| at("<", to)).unwrap_or_default()
        )
    };
    let part = |table: &str, count: &str, time: &str, when: String| {
        format!(
            "SELECT {key} AS key, verdict, NULL::text AS kind, NULL::bigint AS took, {count} AS repeat, {time} AS time \
             FROM postern.{table} WHERE {conditions}{when}"
        )
    };
    let mut parts = vec![part("requests_per_hour", "decisions", "last", between("hour", first, last))];
    for (from, to) in [since.zip(first), last.zip(until)].into_iter().flatten().filter(|(from, to)| from < to) {
        parts.push(part("requests", "repeat", "time", between("time", Some(from), Some(to))));
    }
    Some(parts.join(" UNION ALL "))
}

/// What is printed as it comes.
struct Taken<'o> {
    printer: Printer<'o>,
    printed: Printed,
    /// Whether rows are objects already.
    is_json: bool,
}

impl<'o> Taken<'o> {
    fn new(printer: Printer<'o>) -> Self {
        Self { printer, printed: Printed { rows: 0, cut: false }, is_json: false }
    }
}

impl Sink for Taken<'_> {
    fn row(&mut self, cells: &[Cell<'_>]) -> io::Result<()> {
        if self.printed.rows == ROWS_MAX {
            self.printed.cut = true;
            return Ok(());
        }
        self.printed.rows += 1;
        match cells {
            [Cell::Text(object)] if self.is_json => self.printer.json(object),
            _ => self.printer.row(cells),
        }
    }

    fn page(&mut self, _progress: Progress) -> io::Result<()> {
        Ok(())
    }
}

/// What is printed of rows.
pub(super) fn columns(output: Output) -> &'static str {
    match output {
        Output::Table | Output::Painted => query::TABLE_COLUMNS,
        Output::Json | Output::Csv | Output::CsvShown => NAMES,
    }
}

pub(super) fn numbers(columns: &str) -> Vec<bool> {
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
