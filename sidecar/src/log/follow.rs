//! Printing rows as they are written. Between two looks nothing is held open that keeps the writer from folding its
//! write-ahead log.

use std::io::Write;
use std::path::Path;
use std::time::Duration;

use sqlx::{AssertSqlSafe, SqliteConnection};
use tokio::time::sleep;

use super::filter::{Bound, Filter};
use super::print::{Output, Printer};
use super::query::{self, QueryError, SEQ};
use super::store::FileId;

/// How often it is looked for new rows: a person sees them at once, and the gate's CPU does not.
const LOOK_EVERY: Duration = Duration::from_millis(250);

/// Rows of one query: it is bounded in time, and is not to hold the write-ahead log for long.
const LOOK_ROWS: i64 = 1000;

/// Prints the newest rows that match and then every new one, without end. A file that was removed or replaced is read to
/// its end, and then the one that takes its place; until there is one it is waited for.
///
/// # Errors
/// When there is no log at first, a row cannot be read, or `out` cannot be written.
pub async fn follow(path: &Path, filter: &Filter, output: Output, out: &mut impl Write) -> Result<(), QueryError> {
    let (conditions, values) = filter.conditions();
    let mut file = Followed::open(path).await?;
    file.skip(&conditions, &values, filter.limit).await?;
    let columns = query::columns(&mut file.connection, output).await?;
    let mut printer = Printer::new(output, out, query::names(&columns))?;
    let sql =
        format!("SELECT seq, {columns} FROM entry WHERE {conditions} AND seq > ? AND seq <= ? ORDER BY seq LIMIT ?");
    loop {
        // Asked before the rows are: what a replaced file still got is printed before the new one is opened.
        let is_replaced = FileId::of(path).is_ok_and(|id| id != file.id);
        let read = file.print_new(&sql, &values, &mut printer).await;
        printer.show()?;
        if is_replaced {
            // It may be there without its tables yet; and what was wrong with the old one does not matter any more.
            if let Ok(next) = Followed::open(path).await {
                file = next;
                continue;
            }
        } else if read? == LOOK_ROWS {
            continue;
        }
        sleep(LOOK_EVERY).await;
    }
}

/// The file that is read, and how far.
struct Followed {
    connection: SqliteConnection,
    id: FileId,
    /// `seq` of the last row that was looked at.
    last: i64,
}

impl Followed {
    async fn open(path: &Path) -> Result<Self, QueryError> {
        // Before it is opened: a file that is replaced in between is found to be another.
        let id = FileId::of(path).map_err(|_| QueryError::Missing { path: path.to_owned() })?;
        let mut file = Self { connection: query::open(path).await?, id, last: 0 };
        file.newest().await?;
        Ok(file)
    }

    /// Leaves out all but the newest `limit` rows that match.
    async fn skip(&mut self, conditions: &str, values: &[Bound], limit: u32) -> Result<(), QueryError> {
        let newest = self.newest().await?;
        let sql = format!(
            "SELECT min(seq) AS first FROM (SELECT seq FROM entry WHERE {conditions} ORDER BY seq DESC LIMIT ?)"
        );
        let query = query::bound(&sql, values.to_vec()).bind(i64::from(limit));
        let first: Option<i64> = sqlx::Row::try_get(&query.fetch_one(&mut self.connection).await?, 0)?;
        self.last = first.map_or(newest, |first| first - 1);
        Ok(())
    }

    /// Prints rows that came since the last look; how many.
    async fn print_new<W: Write>(
        &mut self,
        sql: &str,
        values: &[Bound],
        printer: &mut Printer<'_, W>,
    ) -> Result<i64, QueryError> {
        query::time(&mut self.connection).await?;
        let newest = self.newest().await?;
        let query = query::bound(sql, values.to_vec()).bind(self.last).bind(newest).bind(LOOK_ROWS);
        let (printed, last) = query::print(query.fetch(&mut self.connection), printer, SEQ).await?;
        let rows = i64::from(printed.rows);
        self.last = last.filter(|_| rows == LOOK_ROWS).unwrap_or(newest);
        Ok(rows)
    }

    async fn newest(&mut self) -> sqlx::Result<i64> {
        let sql = "SELECT coalesce((SELECT seq FROM entry ORDER BY seq DESC LIMIT 1), 0)";
        sqlx::query_scalar(AssertSqlSafe(sql)).fetch_one(&mut self.connection).await
    }
}
