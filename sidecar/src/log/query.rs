//! Reading the log: what `postern-sidecar log` prints. Opens the file itself, read-only, beside a running writer.

use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::pin::pin;
use std::time::{Duration, Instant};

use futures_util::{Stream, TryStreamExt};
use libsqlite3_sys::{SQLITE_ERROR, SQLITE_INTERRUPT, SQLITE_NOMEM};
use sqlx::query::Query;
use sqlx::sqlite::{SqliteArguments, SqliteConnectOptions, SqliteRow};
use sqlx::{
    AssertSqlSafe, Column, ConnectOptions, Connection, Decode, Executor, Row, SqlSafeStr, Sqlite, SqliteConnection,
    Statement, TypeInfo, ValueRef,
};

use super::filter::{Bound, Filter};
use super::guard;
use super::handle::HandleError;
use super::print::{Cell, Each, Output, Printer};
use super::segments::{self, Part, Source, Unread};
use super::store::is_damage;

/// Rows one query prints. Evidence that is larger is a copy of the file.
pub const ROWS_MAX: u32 = 100_000;

/// How long one query may compute: it shares the pod's CPU with traffic, and while it reads the log cannot be folded.
pub const TIME_MAX: Duration = Duration::from_secs(10);

/// Instructions of SQLite's machine between two looks at the clock; about a millisecond.
const CLOCK_EVERY: i32 = 10_000;

/// How long a query waits for the writer's lock, which it needs only while the file is being opened.
const BUSY_TIMEOUT: Duration = Duration::from_secs(1);

/// What of the view a person reads in a line.
pub(super) const TABLE_COLUMNS: &str = "time, kind, verdict, reason, identity, method, host, path, status, duration_us";

/// What was printed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Printed {
    /// Rows.
    pub rows: u32,
    /// Whether there may have been more than [`ROWS_MAX`].
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
    /// It cannot be opened, or is something else.
    #[error("{} cannot be read as a request log: {error}", path.display())]
    Unreadable {
        /// Where it is.
        path: PathBuf,
        /// What SQLite says.
        error: sqlx::Error,
    },
    /// A segment is a later version's.
    #[error("{} is of a newer version: a newer postern-sidecar reads it", path.display())]
    Newer {
        /// Where it is, or would be if it were not compressed.
        path: PathBuf,
    },
    /// It is not a query.
    #[error("only one SELECT (or WITH … SELECT, or VALUES) is answered; the log cannot be changed here")]
    NotAQuery,
    /// It took too long.
    #[error("the query took more than {} s: ask for fewer rows, or copy the file and query the copy", TIME_MAX.as_secs())]
    TooLong,
    /// It took too much memory.
    #[error("the query takes more memory than it may: ask for fewer rows, or copy the file and query the copy")]
    TooLarge,
    /// SQLite refused.
    #[error("{0}")]
    Sqlite(sqlx::Error),
    /// The same, of a statement on its handle.
    #[error(transparent)]
    Handle(HandleError),
    /// PostgreSQL refused, or is not there.
    #[error("PostgreSQL: {0}")]
    Postgres(postern_postgres::Error),
    /// The output could not be written.
    #[error(transparent)]
    Output(#[from] io::Error),
}

impl QueryError {
    /// Whether a segment's file is damaged, or no database: it costs its own rows, and not the others'. A torn schema may
    /// read as one without some column. Where there is no memory, or no descriptor, it is another time's.
    pub(super) fn is_damage(&self) -> bool {
        let code = match self {
            Self::Sqlite(error) => error.as_database_error().and_then(|error| error.code()?.parse::<i32>().ok()),
            Self::Handle(error) => Some(error.code()),
            _ => None,
        };
        code.is_some_and(|code| is_damage(code) || code == SQLITE_ERROR)
    }
}

// By hand: as its source it would be told twice.
impl From<postern_postgres::Error> for QueryError {
    fn from(error: postern_postgres::Error) -> Self {
        Self::Postgres(error)
    }
}

impl From<sqlx::Error> for QueryError {
    fn from(error: sqlx::Error) -> Self {
        // https://www.sqlite.org/rescode.html: what a progress handler that says stop ends in, what the authorizer
        // refuses, and what takes more than the memory's bound.
        let code = error.as_database_error().and_then(sqlx::error::DatabaseError::code);
        match code.as_deref() {
            Some("9") => Self::TooLong,
            Some("23") => Self::NotAQuery,
            Some("7") => Self::TooLarge,
            _ => Self::Sqlite(error),
        }
    }
}

impl From<HandleError> for QueryError {
    fn from(error: HandleError) -> Self {
        match error.code() {
            SQLITE_INTERRUPT => Self::TooLong,
            SQLITE_NOMEM => Self::TooLarge,
            _ => Self::Handle(error),
        }
    }
}

/// Prints the newest rows that match, the oldest of them first. What cannot be read is noted in `unread`.
///
/// # Errors
/// When there is no log, it cannot be read in time, or `out` cannot be written.
pub async fn rows(
    path: &Path,
    filter: &Filter,
    output: Output,
    out: &mut dyn Write,
    unread: &Unread,
) -> Result<Printed, QueryError> {
    let mut live = open(path, Reads::Now).await?;
    let columns = columns(&mut live, output).await?;
    live.close().await?;
    let mut printer = Printer::new(output, out, names(&columns))?;
    let mut rows = 0;
    let mut each = |cells: &[Cell<'_>]| {
        rows += 1;
        printer.row(cells)
    };
    newest(path, filter, &columns, &mut each, unread).await?;
    printer.finish()?;
    Ok(Printed { rows, cut: is_cut(rows, filter) })
}

/// Whether more were asked for than are printed.
pub(super) fn is_cut(rows: u32, filter: &Filter) -> bool {
    rows == ROWS_MAX && filter.limit > ROWS_MAX
}

/// Gives away the `columns` of the newest rows that match, the oldest of them first.
pub(super) async fn newest(
    path: &Path,
    filter: &Filter,
    columns: &str,
    each: &mut Each<'_>,
    unread: &Unread,
) -> Result<(), QueryError> {
    let mut live = open(path, Reads::Snapshot).await?;
    let parts = segments::newest(path, &mut live, filter, filter.limit.min(ROWS_MAX), unread).await?;
    let (conditions, values) = filter.conditions();
    for Part { source, first } in parts.iter().rev() {
        let mut closed = match source {
            Source::Live => None,
            // One that was deleted meanwhile would have been the next to go.
            Source::Closed(segment) => match segments::open_to_read(path, segment, unread).await? {
                None => continue,
                opened => opened,
            },
        };
        let connection = closed.as_mut().unwrap_or(&mut live);
        // `entry` is `requests` with its order. What was found is told by number alone, so that neither the whole log is
        // read nor its rows are held in memory. Without `seq` among its columns the query would sort.
        let columns = segments::known(connection, columns).await?;
        let sql = format!("SELECT seq, {columns} FROM entry WHERE {conditions} AND seq >= ? ORDER BY seq");
        let query = bound(&sql, values.clone()).bind(first);
        match (source, print(query.fetch(&mut *connection), each, SEQ).await) {
            (Source::Closed(segment), Err(error)) if error.is_damage() => unread.note(path, segment),
            (_, done) => done.map(drop)?,
        }
        if let Some(closed) = closed {
            closed.close().await?;
        }
    }
    live.close().await?;
    Ok(())
}

/// The columns a query of rows has before those that are printed.
pub(super) const SEQ: usize = 1;

/// A query with its values.
pub(super) fn bound(sql: &str, values: Vec<Bound>) -> Query<'static, Sqlite, SqliteArguments> {
    values.into_iter().fold(sqlx::query(AssertSqlSafe(sql.to_owned())), |query, value| match value {
        Bound::Integer(number) => query.bind(number),
        Bound::Text(text) => query.bind(text),
    })
}

/// What is printed, for a query.
pub(super) async fn columns(connection: &mut SqliteConnection, output: Output) -> sqlx::Result<String> {
    match output {
        Output::Table | Output::Painted => Ok(TABLE_COLUMNS.to_owned()),
        Output::Json | Output::Csv | Output::CsvShown => all_columns(connection).await,
    }
}

pub(super) fn names(columns: &str) -> Vec<String> {
    columns.split(", ").map(str::to_owned).collect()
}

/// The columns that the file's own view has: a copy may be an earlier version's, and is not written to.
async fn all_columns(connection: &mut SqliteConnection) -> sqlx::Result<String> {
    let sql = "SELECT name FROM pragma_table_info('requests')";
    let names: Vec<String> = sqlx::query_scalar(sql).fetch_all(connection).await?;
    // Where there is no view, the query says so.
    Ok(if names.is_empty() { "*".to_owned() } else { names.join(", ") })
}

/// Prints what `query`, one SELECT, answers. What cannot be read is noted in `unread`.
///
/// # Errors
/// As [`rows`], and when `query` is anything else or SQLite does not understand it.
pub async fn sql(
    path: &Path,
    query: &str,
    output: Output,
    out: &mut dyn Write,
    unread: &Unread,
) -> Result<Printed, QueryError> {
    if !is_one_select(query) {
        return Err(QueryError::NotAQuery);
    }
    let mut connection = open(path, Reads::All(unread)).await?;
    let statement = connection.prepare(AssertSqlSafe(query.to_owned()).into_sql_str()).await?;
    let names = statement.columns().iter().map(|column| column.name().to_owned()).collect();
    let mut printer = Printer::new(output, out, names)?;
    let rows = statement.query().fetch(&mut connection);
    let printed = print(rows, &mut |cells| printer.row(cells), 0).await?;
    printer.finish()?;
    connection.close().await?;
    Ok(printed.0)
}

/// What is seen of a file that is written meanwhile.
#[derive(Clone, Copy, Debug)]
pub(super) enum Reads<'u> {
    /// By each query, what is there then.
    Now,
    /// By all, what is there at the first; not for long, because the log cannot be folded meanwhile.
    Snapshot,
    /// The same, of all files in one table, but for those that cannot be read.
    All(&'u Unread),
}

/// The live file.
pub(super) async fn open(path: &Path, reads: Reads<'_>) -> Result<SqliteConnection, QueryError> {
    let opened = match open_with(path, options(path), reads).await {
        Ok(mut connection) => segments::cut_of(&mut connection).await.map(|_| connection).map_err(QueryError::from),
        Err(error) => Err(error),
    };
    opened.map_err(|error| match error {
        QueryError::Sqlite(error) => QueryError::Unreadable { path: path.to_owned(), error },
        error => error,
    })
}

/// A file that nobody writes any more: nothing beside it is looked for, and nothing is locked.
pub(super) async fn open_closed(path: &Path) -> Result<SqliteConnection, QueryError> {
    open_with(path, options(path).immutable(true), Reads::Now).await
}

/// The same of a file's bytes: in memory alone.
pub(super) async fn open_image(image: &[u8]) -> Result<SqliteConnection, QueryError> {
    let mut connection = options(Path::new(":memory:")).read_only(false).connect().await?;
    connection.deserialize(None, image.try_into()?, true).await?;
    guarded(connection).await
}

/// A copy of a file's bytes, in memory alone, which the caller changes.
pub(super) async fn open_to_change(image: &[u8]) -> Result<SqliteConnection, QueryError> {
    let options = options(Path::new(":memory:")).read_only(false).pragma("query_only", "OFF");
    let mut connection = options.connect().await?;
    connection.deserialize(None, image.try_into()?, false).await?;
    Ok(connection)
}

fn options(path: &Path) -> SqliteConnectOptions {
    SqliteConnectOptions::new()
        .filename(path)
        .read_only(true)
        .busy_timeout(BUSY_TIMEOUT)
        .pragma("query_only", "ON")
        // What a query has to sort, too: there may be no place for files.
        .pragma("temp_store", "MEMORY")
        .pragma("trusted_schema", "OFF")
        .disable_statement_logging()
}

/// Read-only three times: the file is opened so, the connection refuses what would write, and prepares nothing that does
/// more than read.
async fn open_with(
    path: &Path,
    options: SqliteConnectOptions,
    reads: Reads<'_>,
) -> Result<SqliteConnection, QueryError> {
    if !path.exists() {
        return Err(QueryError::Missing { path: path.to_owned() });
    }
    let mut connection = options.connect().await?;
    if !matches!(reads, Reads::Now) {
        sqlx::raw_sql("BEGIN").execute(&mut connection).await?;
    }
    if let Reads::All(unread) = reads {
        // Only the temporary schema, which is this connection's own, is written to.
        sqlx::raw_sql("PRAGMA query_only = OFF").execute(&mut connection).await?;
        segments::as_one_table(path, &mut connection, unread).await?;
        sqlx::raw_sql("PRAGMA query_only = ON").execute(&mut connection).await?;
    }
    guarded(connection).await
}

async fn guarded(mut connection: SqliteConnection) -> Result<SqliteConnection, QueryError> {
    let is_guarded = guard::read_only(&mut connection.lock_handle().await?);
    if !is_guarded {
        return Err(QueryError::NotAQuery);
    }
    time(&mut connection).await?;
    Ok(connection)
}

/// From now on [`TIME_MAX`] is left.
pub(super) async fn time(connection: &mut SqliteConnection) -> sqlx::Result<()> {
    let end = Instant::now() + TIME_MAX;
    connection.lock_handle().await?.set_progress_handler(CLOCK_EVERY, move || Instant::now() < end);
    Ok(())
}

/// Gives rows away without their first columns, and gives back the very first of the last row.
pub(super) async fn print(
    rows: impl Stream<Item = sqlx::Result<SqliteRow>>,
    each: &mut Each<'_>,
    hidden: usize,
) -> Result<(Printed, Option<i64>), QueryError> {
    let mut rows = pin!(rows);
    let (mut printed, mut last) = (Printed { rows: 0, cut: false }, None);
    while let Some(row) = rows.try_next().await? {
        if printed.rows == ROWS_MAX {
            printed.cut = true;
            break;
        }
        if hidden > 0 {
            last = Some(row.try_get(0)?);
        }
        let cells = (hidden..row.len()).map(|column| cell(&row, column)).collect::<sqlx::Result<Vec<_>>>()?;
        each(&cells)?;
        printed.rows += 1;
    }
    Ok((printed, last))
}

pub(super) fn cell(row: &SqliteRow, column: usize) -> sqlx::Result<Cell<'_>> {
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
pub(super) fn is_one_select(sql: &str) -> bool {
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
