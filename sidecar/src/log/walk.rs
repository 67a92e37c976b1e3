//! Every row that matches, however many: file by file in pages, so that nothing is held open that keeps the writer from
//! folding its write-ahead log, and no more than a page is in memory.

use std::io;
use std::path::Path;

use sqlx::{Connection, SqliteConnection};

use super::filter::{Bound, Filter};
use super::print::Cell;
use super::query::{self, QueryError, Reads, SEQ};
use super::segments::{self, Segment, Unread};
use crate::processors;

/// Rows of one page: few enough to be held, enough that opening the live file for each costs little.
pub(super) const PAGE_ROWS: u32 = 2000;

/// Which rows come first.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Order {
    /// The oldest.
    #[default]
    OldestFirst,
    /// The newest.
    NewestFirst,
}

/// From now on this thread, and those it makes, work when nobody else wants to: a long walk shares the pod's CPU with the
/// gate.
pub fn yield_to_the_gate() {
    let _as_it_was = rustix::process::setpriority_process(None, processors::LOWEST);
}

/// How far a walk has come.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Progress {
    /// Rows that matched.
    pub rows: u64,
    /// Rows that were looked at or passed over, and how many there are; `None` where nobody knows.
    pub walked: Option<(u64, u64)>,
}

/// Who takes the rows.
pub(super) trait Sink {
    /// The next row.
    fn row(&mut self, cells: &[Cell<'_>]) -> io::Result<()>;

    /// After a page: nothing of the log is held, and this may take its time.
    fn page(&mut self, progress: Progress) -> io::Result<()>;
}

/// Gives `sink` the `columns` of every row that matches and is there now, but for those in `unread`.
pub(super) async fn walk(
    path: &Path,
    filter: &Filter,
    columns: &str,
    order: Order,
    sink: &mut dyn Sink,
    unread: &Unread,
) -> Result<u64, QueryError> {
    let mut live = query::open(path, Reads::Snapshot).await?;
    let cut = segments::cut_of(&mut live).await?;
    let sql = "SELECT coalesce((SELECT seq FROM entry ORDER BY seq DESC LIMIT 1), ?)";
    let newest: i64 = sqlx::query_scalar(sql).bind(cut).fetch_one(&mut live).await?;
    live.close().await?;
    let first = segments::list_all(path)?.first().map_or(cut + 1, |segment| segment.first.min(cut + 1));
    let (conditions, values) = filter.conditions();
    let mut walk = Walk {
        path,
        filter,
        columns,
        conditions,
        values,
        order,
        unread,
        after: first - 1,
        before: newest + 1,
        rows: 0,
    };
    let total = u64::try_from(walk.before - walk.after - 1).unwrap_or(0);
    while walk.before - walk.after > 1 {
        walk.next(total, sink).await?;
    }
    Ok(walk.rows)
}

struct Walk<'w> {
    path: &'w Path,
    filter: &'w Filter,
    columns: &'w str,
    conditions: String,
    values: Vec<Bound>,
    order: Order,
    unread: &'w Unread,
    /// What is still to be read is between these.
    after: i64,
    before: i64,
    rows: u64,
}

impl Walk<'_> {
    /// A page of the live file, or a segment.
    async fn next(&mut self, total: u64, sink: &mut dyn Sink) -> Result<(), QueryError> {
        // Anew for each page, and before segments are listed: what was cut off meanwhile is a segment by now.
        let mut live = query::open(self.path, Reads::Snapshot).await?;
        let cut = segments::cut_of(&mut live).await?;
        let is_live = match self.order {
            Order::OldestFirst => self.after >= cut,
            Order::NewestFirst => self.before - 1 > cut,
        };
        if is_live {
            let after = self.after.max(cut);
            let is_last = self.page(&mut live, after, self.before, sink).await?;
            live.close().await?;
            match self.order {
                Order::OldestFirst if is_last => self.after = self.before - 1,
                Order::NewestFirst if is_last => self.before = cut + 1,
                _ => {}
            }
            return Ok(sink.page(self.progress(total))?);
        }
        live.close().await?;
        self.segment(cut, total, sink).await
    }

    async fn segment(&mut self, cut: i64, total: u64, sink: &mut dyn Sink) -> Result<(), QueryError> {
        let mut segments = segments::list_all(self.path)?;
        segments.retain(|one| one.last <= cut && one.last > self.after && one.first < self.before);
        let next = match self.order {
            Order::OldestFirst => segments.first(),
            Order::NewestFirst => segments.last(),
        };
        let Some(segment) = next else {
            // There is none, or they were deleted, for the log has its size.
            match self.order {
                Order::OldestFirst => self.after = cut.min(self.before - 1),
                Order::NewestFirst => self.before = self.after + 1,
            }
            return Ok(());
        };
        if !self.filter.since.is_some_and(|since| segment.is_before(since)) {
            self.read(segment, total, sink).await?;
        }
        match self.order {
            Order::OldestFirst => self.after = segment.last,
            Order::NewestFirst => self.before = segment.first,
        }
        Ok(sink.page(self.progress(total))?)
    }

    async fn read(&mut self, segment: &Segment, total: u64, sink: &mut dyn Sink) -> Result<(), QueryError> {
        let opened = segments::open_to_read(self.path, segment, self.unread).await?;
        let Some(mut connection) = opened else { return Ok(()) };
        loop {
            query::time(&mut connection).await?;
            let (after, before) = (self.after.max(segment.first - 1), self.before.min(segment.last + 1));
            match self.page(&mut connection, after, before, sink).await {
                Ok(true) => break,
                Ok(false) => sink.page(self.progress(total))?,
                // Damage costs what is in it, and not the others.
                Err(error) if error.is_damage() => {
                    self.unread.note(self.path, segment);
                    break;
                }
                Err(error) => return Err(error),
            }
        }
        Ok(connection.close().await?)
    }

    /// The next rows of a file between two; whether there are no more.
    async fn page(
        &mut self,
        connection: &mut SqliteConnection,
        after: i64,
        before: i64,
        sink: &mut dyn Sink,
    ) -> Result<bool, QueryError> {
        let columns = segments::known(connection, self.columns).await?;
        let (conditions, direction) = (&self.conditions, self.direction());
        let sql = format!(
            "SELECT seq, {columns} FROM entry WHERE {conditions} AND seq > ? AND seq < ? ORDER BY seq {direction} LIMIT ?"
        );
        let query = query::bound(&sql, self.values.clone()).bind(after).bind(before).bind(PAGE_ROWS);
        let (printed, last) = query::print(query.fetch(connection), &mut |cells| sink.row(cells), SEQ).await?;
        self.rows += u64::from(printed.rows);
        match (self.order, last) {
            (Order::OldestFirst, Some(last)) => self.after = last,
            (Order::NewestFirst, Some(last)) => self.before = last,
            (_, None) => {}
        }
        Ok(printed.rows < PAGE_ROWS)
    }

    fn direction(&self) -> &'static str {
        match self.order {
            Order::OldestFirst => "ASC",
            Order::NewestFirst => "DESC",
        }
    }

    fn progress(&self, total: u64) -> Progress {
        let left = u64::try_from(self.before - self.after - 1).unwrap_or(0);
        Progress { rows: self.rows, walked: Some((total.saturating_sub(left), total)) }
    }
}
