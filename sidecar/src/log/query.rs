//! Reading the log: what `postern-sidecar log` prints. Opens the file itself, read-only, beside a running writer.

use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::pin::pin;
use std::time::{Duration, Instant, SystemTime};

use futures_util::{Stream, TryStreamExt};
use sqlx::sqlite::{SqliteConnectOptions, SqliteRow};
use sqlx::{
    AssertSqlSafe, Column, ConnectOptions, Connection, Decode, Executor, Row, SqlSafeStr, Sqlite, SqliteConnection,
    Statement, TypeInfo, ValueRef,
};

use super::encode::micros;
use super::print::{Cell, Output, Printer};
use sidecar_decide::Verdict;

/// Rows one query prints. Evidence that is larger is a copy of the file.
pub const ROWS_MAX: u32 = 100_000;

/// How long one query may compute: it shares the pod's CPU with traffic, and while it reads the log cannot be folded.
pub const TIME_MAX: Duration = Duration::from_secs(10);

/// Instructions of SQLite's machine between two looks at the clock; about a millisecond.
const CLOCK_EVERY: i32 = 10_000;

/// How long a query waits for the writer's lock, which it needs only while the file is being opened.
const BUSY_TIMEOUT: Duration = Duration::from_secs(1);

/// What of the view a person reads in a line.
const TABLE_COLUMNS: &str = "time, kind, verdict, reason, identity, method, host, path, status, duration_us";

/// Which rows; what is absent restricts nothing.
#[derive(Clone, Debug)]
pub struct Filter {
    /// Not before.
    pub since: Option<SystemTime>,
    /// With this decision.
    pub verdict: Option<Verdict>,
    /// With this reason's code.
    pub reason: Option<String>,
    /// Of this identity.
    pub identity: Option<String>,
    /// The newest so many; at most [`ROWS_MAX`].
    pub limit: u32,
}

/// What was printed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Printed {
    /// Rows.
    pub rows: u32,
    /// Whether there were more than [`ROWS_MAX`].
    pub cut: bool,
}

/// Why nothing, or not all, was printed.
#[derive(Debug, thiserror::Error)]
pub enum QueryError {
    /// There is no log.
    #[error(
        "there is no request log at {}: name the file with the setting log.path, or start the sidecar that writes it",
        path.display()
    )]
    Missing {
        /// Where it was looked for.
        path: PathBuf,
    },
    /// It is not a query.
    #[error("only one SELECT (or WITH … SELECT, or VALUES) is answered; the log cannot be changed here")]
    NotAQuery,
    /// It took too long.
    #[error("the query took more than {} s: ask for fewer rows, or copy the file and query the copy", TIME_MAX.as_secs())]
    TooLong,
    /// SQLite refused.
    #[error("{0}")]
    Sqlite(sqlx::Error),
    /// The output could not be written.
    #[error(transparent)]
    Output(#[from] io::Error),
}

impl From<sqlx::Error> for QueryError {
    fn from(error: sqlx::Error) -> Self {
        /// <https://www.sqlite.org/rescode.html#interrupt>: what a progress handler that says stop ends in.
        const INTERRUPT: &str = "9";
        let code = error.as_database_error().and_then(sqlx::error::DatabaseError::code);
        if code.as_deref() == Some(INTERRUPT) { Self::TooLong } else { Self::Sqlite(error) }
    }
}

/// Prints the newest rows that match, the oldest of them first.
///
/// # Errors
/// When there is no log, it cannot be read in time, or `out` cannot be written.
pub async fn rows(path: &Path, filter: &Filter, output: Output, out: &mut impl Write) -> Result<Printed, QueryError> {
    let mut connection = open(path).await?;
    let columns = match output {
        Output::Table => TABLE_COLUMNS.to_owned(),
        Output::Json | Output::Csv => all_columns(&mut connection).await?,
    };
    // `entry` is `requests` with its order. The inner query finds rows by number alone, newest first, and stops at the
    // limit, so that neither the whole log is read nor its rows are held in memory.
    let sql = format!(
        "SELECT {columns} FROM entry WHERE seq IN (SELECT seq FROM entry WHERE (?1 IS NULL OR at >= ?1) \
         AND (?2 IS NULL OR verdict = ?2) AND (?3 IS NULL OR reason = ?3) AND (?4 IS NULL OR identity = ?4) \
         ORDER BY seq DESC LIMIT ?5) ORDER BY seq"
    );
    let names = columns.split(", ").map(str::to_owned).collect();
    let query = sqlx::query(AssertSqlSafe(sql))
        .bind(filter.since.map(micros))
        .bind(filter.verdict.map(Verdict::name))
        .bind(filter.reason.clone())
        .bind(filter.identity.clone())
        .bind(i64::from(filter.limit.min(ROWS_MAX)));
    let printed = print(query.fetch(&mut connection), names, output, out).await?;
    connection.close().await?;
    Ok(printed)
}

/// The columns that the file's own view has: a copy may be an earlier version's, and is not written to.
async fn all_columns(connection: &mut SqliteConnection) -> sqlx::Result<String> {
    let sql = "SELECT name FROM pragma_table_info('requests')";
    let names: Vec<String> = sqlx::query_scalar(sql).fetch_all(connection).await?;
    // Where there is no view, the query says so.
    Ok(if names.is_empty() { "*".to_owned() } else { names.join(", ") })
}

/// Prints what `query`, one SELECT, answers.
///
/// # Errors
/// As [`rows`], and when `query` is anything else or SQLite does not understand it.
pub async fn sql(path: &Path, query: &str, output: Output, out: &mut impl Write) -> Result<Printed, QueryError> {
    if !is_one_select(query) {
        return Err(QueryError::NotAQuery);
    }
    let mut connection = open(path).await?;
    let statement = connection.prepare(AssertSqlSafe(query.to_owned()).into_sql_str()).await?;
    let names = statement.columns().iter().map(|column| column.name().to_owned()).collect();
    let printed = print(statement.query().fetch(&mut connection), names, output, out).await?;
    connection.close().await?;
    Ok(printed)
}

/// Read-only twice: the file is opened so, and the connection refuses what would write.
async fn open(path: &Path) -> Result<SqliteConnection, QueryError> {
    if !path.exists() {
        return Err(QueryError::Missing { path: path.to_owned() });
    }
    let mut connection = SqliteConnectOptions::new()
        .filename(path)
        .read_only(true)
        .busy_timeout(BUSY_TIMEOUT)
        .pragma("query_only", "ON")
        .disable_statement_logging()
        .connect()
        .await?;
    let end = Instant::now() + TIME_MAX;
    connection.lock_handle().await?.set_progress_handler(CLOCK_EVERY, move || Instant::now() < end);
    Ok(connection)
}

async fn print(
    rows: impl Stream<Item = sqlx::Result<SqliteRow>>,
    names: Vec<String>,
    output: Output,
    out: &mut impl Write,
) -> Result<Printed, QueryError> {
    let mut rows = pin!(rows);
    let mut printer = Printer::new(output, out, names)?;
    let mut printed = Printed { rows: 0, cut: false };
    while let Some(row) = rows.try_next().await? {
        if printed.rows == ROWS_MAX {
            printed.cut = true;
            break;
        }
        let cells = (0..row.len()).map(|column| cell(&row, column)).collect::<sqlx::Result<Vec<_>>>()?;
        printer.row(&cells)?;
        printed.rows += 1;
    }
    printer.finish()?;
    Ok(printed)
}

fn cell(row: &SqliteRow, column: usize) -> sqlx::Result<Cell<'_>> {
    let value = row.try_get_raw(column)?;
    if value.is_null() {
        return Ok(Cell::Null);
    }
    let kind = value.type_info().name().to_owned();
    match kind.as_str() {
        "INTEGER" => <i64 as Decode<Sqlite>>::decode(value).map(Cell::Integer),
        "REAL" => <f64 as Decode<Sqlite>>::decode(value).map(Cell::Real),
        "BLOB" => <&[u8] as Decode<Sqlite>>::decode(value).map(Cell::Blob),
        _ => <&str as Decode<Sqlite>>::decode(value).map(Cell::Text),
    }
    .map_err(sqlx::Error::Decode)
}

/// Whether `sql` is one statement that only reads. SQLite would run several one after the other, and some statements
/// (`ATTACH`, `VACUUM INTO`) touch other files than the one that is opened read-only.
fn is_one_select(sql: &str) -> bool {
    let code = blank_quoted(sql);
    let mut statements = code.split(';').map(str::trim).filter(|statement| !statement.is_empty());
    let first_word = statements.next().and_then(|statement| {
        statement.split(|character: char| !character.is_ascii_alphabetic()).next().map(str::to_ascii_uppercase)
    });
    statements.next().is_none() && matches!(first_word.as_deref(), Some("SELECT" | "WITH" | "VALUES"))
}

/// `sql` without comments, and with every quoted text or name as one underscore.
fn blank_quoted(sql: &str) -> String {
    let mut code = String::with_capacity(sql.len());
    let mut rest = sql;
    while let Some(first) = rest.chars().next() {
        let (open, end, shown) = match first {
            '\'' | '"' | '`' => (1, first.to_string(), "_"),
            '[' => (1, "]".to_owned(), "_"),
            '-' if rest.starts_with("--") => (2, "\n".to_owned(), " "),
            '/' if rest.starts_with("/*") => (2, "*/".to_owned(), " "),
            other => {
                code.push(other);
                rest = &rest[other.len_utf8()..];
                continue;
            }
        };
        // A quote doubled inside quotes reads as two quoted texts side by side, which is the same here. What never ends,
        // ends with the text, as SQLite has it for comments; for quotes it is an error there.
        code.push_str(shown);
        rest = rest[open..].split_once(end.as_str()).map_or("", |(_, after)| after);
    }
    code
}
