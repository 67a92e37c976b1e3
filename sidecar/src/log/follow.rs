//! Printing rows as they are written. Between two looks nothing is held open that keeps the writer from folding its
//! write-ahead log.

use std::io::Write;
use std::path::Path;
use std::time::Duration;

use sqlx::{Connection, SqliteConnection};
use tokio::time::sleep;

use super::filter::{Bound, Filter};
use super::print::{Output, Printer};
use super::query::{self, QueryError, Reads, SEQ};
use super::segments::{self, Unread};
use super::store::FileId;

/// How often it is looked for new rows: a person sees them at once, and the gate's CPU does not.
const LOOK_EVERY: Duration = Duration::from_millis(250);

/// Rows of one query: it is bounded in time, and is not to hold the write-ahead log for long.
const LOOK_ROWS: i64 = 1000;

/// Prints the newest rows that match and then every new one, without end. A file that was removed or replaced is read to
/// its end, and then the one that takes its place; until there is one it is waited for. `told` is told of each segment
/// that cannot be read.
///
/// # Errors
/// When there is no log at first, a row cannot be read, or `out` cannot be written.
pub async fn follow(
    path: &Path,
    filter: &Filter,
    output: Output,
    out: &mut dyn Write,
    told: &mut dyn FnMut(&str),
) -> Result<(), QueryError> {
    let unread = Unread::default();
    let mut file = Followed::begin(path, filter, &unread).await?;
    let columns = query::columns(&mut file.connection, output).await?;
    let mut printer = Printer::new(output, out, query::names(&columns))?;
    let look = Look::new(path, filter, columns, &unread);
    loop {
        // Asked before the rows are: what a replaced file still got is printed before the new one is opened.
        let is_replaced = FileId::of(path).is_ok_and(|id| id != file.id);
        let read = file.print_new(&look, &mut printer).await;
        printer.show()?;
        if let Some(news) = unread.news() {
            told(&news);
        }
        if is_replaced {
            // It may be there without its tables yet; and what was wrong with the old one does not matter any more.
            if let Ok(next) = Followed::open(path).await {
                file = next;
                continue;
            }
        } else if read? {
            continue;
        }
        sleep(LOOK_EVERY).await;
    }
}

/// What is asked for, again and again.
pub(super) struct Look<'p> {
    path: &'p Path,
    columns: String,
    conditions: String,
    values: Vec<Bound>,
    unread: &'p Unread,
}

/// Where the live file was cut last, and the number of its newest row: of one moment.
#[derive(Clone, Copy, Debug)]
pub(super) struct Seen {
    cut: i64,
    newest: i64,
}

/// The live file, and how far the log was read.
pub(super) struct Followed {
    connection: SqliteConnection,
    id: FileId,
    /// `seq` of the last row that was looked at.
    last: i64,
}

impl Followed {
    /// The file as it is now, from its first row on.
    async fn open(path: &Path) -> Result<Self, QueryError> {
        // Before it is opened: a file that is replaced in between is found to be another.
        let id = FileId::of(path).map_err(|_| QueryError::Missing { path: path.to_owned() })?;
        let mut connection = query::open(path, Reads::Now).await?;
        let last = seen(&mut connection).await?.cut;
        Ok(Self { connection, id, last })
    }

    /// The same, from the newest rows that match on, as many as are asked for.
    pub(super) async fn begin(path: &Path, filter: &Filter, unread: &Unread) -> Result<Self, QueryError> {
        let mut file = Self::open(path).await?;
        let mut live = query::open(path, Reads::Snapshot).await?;
        let parts = segments::newest(path, &mut live, filter, filter.limit, unread).await?;
        file.last = match parts.last() {
            Some(oldest) => oldest.first - 1,
            None => seen(&mut live).await?.newest,
        };
        live.close().await?;
        Ok(file)
    }

    /// Prints rows that came since the last look, a bounded number; whether there may be more.
    pub(super) async fn print_new(&mut self, look: &Look<'_>, printer: &mut Printer<'_>) -> Result<bool, QueryError> {
        query::time(&mut self.connection).await?;
        let seen = self.see().await?;
        self.print_seen(seen, look, printer).await
    }

    pub(super) async fn see(&mut self) -> Result<Seen, QueryError> {
        Ok(seen(&mut self.connection).await?)
    }

    /// The same of rows that were seen. The file may have been cut since, and then has none of them.
    pub(super) async fn print_seen(
        &mut self,
        Seen { cut, newest }: Seen,
        look: &Look<'_>,
        printer: &mut Printer<'_>,
    ) -> Result<bool, QueryError> {
        if cut > self.last {
            return self.print_closed(look, printer, cut).await;
        }
        let (rows, last) = look.print(&mut self.connection, self.last, newest, printer).await?;
        let is_cut = segments::cut_of(&mut self.connection).await? != cut;
        if rows == LOOK_ROWS {
            self.last = last.unwrap_or(newest);
        } else if rows > 0 || !is_cut {
            self.last = newest;
        }
        // Cut meanwhile, and nothing found: what was not found here may be in the new segment.
        Ok(rows == LOOK_ROWS || is_cut)
    }

    /// The same of rows that were cut off since.
    async fn print_closed(&mut self, look: &Look<'_>, printer: &mut Printer<'_>, cut: i64) -> Result<bool, QueryError> {
        let segments = segments::list_all(look.path)?;
        let next = segments.into_iter().find(|segment| segment.last > self.last && segment.last <= cut);
        let Some(segment) = next else {
            // They were deleted, for the log has its size.
            self.last = cut;
            return Ok(true);
        };
        let mut last = segment.last;
        if let Some(mut connection) = segments::open_to_read(look.path, &segment, look.unread).await? {
            match look.print(&mut connection, self.last, segment.last, printer).await {
                Ok((rows, printed)) => last = printed.filter(|_| rows == LOOK_ROWS).unwrap_or(last),
                Err(error) if error.is_damage() => look.unread.note(look.path, &segment),
                Err(error) => return Err(error),
            }
            connection.close().await?;
        }
        self.last = last;
        Ok(true)
    }
}

impl<'p> Look<'p> {
    pub(super) fn new(path: &'p Path, filter: &Filter, columns: String, unread: &'p Unread) -> Self {
        let (conditions, values) = filter.conditions();
        Self { path, columns, conditions, values, unread }
    }

    /// Prints rows between two, at most [`LOOK_ROWS`]; how many, and which was the last.
    async fn print(
        &self,
        connection: &mut SqliteConnection,
        from: i64,
        to: i64,
        printer: &mut Printer<'_>,
    ) -> Result<(i64, Option<i64>), QueryError> {
        let columns = segments::known(connection, &self.columns).await?;
        let conditions = &self.conditions;
        let sql = format!(
            "SELECT seq, {columns} FROM entry WHERE {conditions} AND seq > ? AND seq <= ? ORDER BY seq LIMIT ?"
        );
        let query = query::bound(&sql, self.values.clone()).bind(from).bind(to).bind(LOOK_ROWS);
        let (printed, last) = query::print(query.fetch(connection), &mut |cells| printer.row(cells), SEQ).await?;
        Ok((i64::from(printed.rows), last))
    }
}

async fn seen(live: &mut SqliteConnection) -> sqlx::Result<Seen> {
    let sql = "SELECT cut, coalesce((SELECT seq FROM entry ORDER BY seq DESC LIMIT 1), cut) \
         FROM (SELECT coalesce((SELECT value FROM meta WHERE key = 'cut'), 0) AS cut)";
    let (cut, newest) = sqlx::query_as(sql).fetch_one(live).await?;
    Ok(Seen { cut, newest })
}
