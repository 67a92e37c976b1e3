//! What is still to be sent: the next rows after a position, from segments and then from the live file.

use std::io;
use std::path::{Path, PathBuf};

use sqlx::{Connection, SqliteConnection};

use super::super::handle::lock;
use super::super::prune::PAGE_BYTES;
use super::super::query::{self, QueryError, Reads};
use super::super::segments::{self, Segment};
use super::super::store::FileId;
use super::rows::{self, BATCH_BYTES, Rows};
use super::watermark::Position;

/// The next rows, and what is known of those behind them.
#[derive(Clone, Debug)]
pub(in crate::log) struct Batch {
    pub(super) rows: Rows,
    /// Where it begins: behind this row.
    pub(super) start: Position,
    /// Where the next one begins, once these are sent.
    pub(super) end: Position,
    /// Rows that are not there any more, and were not sent.
    pub(super) missing: u64,
    /// So many of them at most were in files that are damaged.
    pub(super) damaged: u64,
    /// Number of the newest row there is.
    pub(super) newest: i64,
    /// Bytes that all rows take that are still to be sent, these and those behind them.
    pub(super) bytes: u64,
}

impl Batch {
    /// Whether there is nothing behind it.
    pub(super) fn is_last(&self) -> bool {
        self.end.seq >= self.newest
    }

    /// Rows there are from its first one on, at most.
    pub(super) fn backlog(&self) -> u64 {
        u64::try_from(self.newest - self.end.seq).unwrap_or(0) + self.rows.each.len() as u64
    }
}

/// The log, of which batch after batch is read.
pub(super) struct Backlog {
    log: PathBuf,
    /// The live file, between two batches, and which it is: opening it costs more than reading a batch of few rows.
    live: Option<(FileId, SqliteConnection)>,
    /// The segment that was read last: a packed one is unpacked to be read, which is too much for each batch of it.
    open: Option<(Segment, SqliteConnection)>,
}

impl Backlog {
    pub(super) fn new(log: &Path) -> Self {
        Self { log: log.to_owned(), live: None, open: None }
    }

    /// Gives back what is held for the next batch.
    pub(super) fn rest(&mut self) {
        self.live = None;
        self.open = None;
    }

    /// Reads at most `limit` rows; `None` where there is no log yet.
    pub(super) async fn next(&mut self, after: Option<Position>, limit: u32) -> Result<Option<Batch>, QueryError> {
        // It may have been set aside, or removed, and another one begun.
        let file = match FileId::of(&self.log) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            file => file?,
        };
        let mut live = match self.live.take() {
            Some((kept, live)) if kept == file => live,
            _ => match query::open(&self.log, Reads::Now).await {
                Err(QueryError::Missing { .. }) => return Ok(None),
                opened => opened?,
            },
        };
        query::time(&mut live).await?;
        let mut snapshot = live.begin().await?;
        let batch = self.read(&mut snapshot, after, limit).await?;
        snapshot.rollback().await?;
        self.live = Some((file, live));
        Ok(Some(batch))
    }

    async fn read(
        &mut self,
        live: &mut SqliteConnection,
        after: Option<Position>,
        limit: u32,
    ) -> Result<Batch, QueryError> {
        let look = Look::at(live, after.map_or(0, |position| position.seq)).await?;
        let Look { store, cut, newest, .. } = look;
        let mut closed = Vec::new();
        let start = match after {
            Some(position) if position.store == store && !look.is_forgotten(position) => position,
            // What was deleted before it was looked for the first time nobody has missed.
            _ => Position { store, seq: self.oldest(live, newest).await? - 1, at: 0 },
        };
        if start.seq < cut {
            closed = segments::list(&self.log)?;
            closed.retain(|segment| segment.last > start.seq && segment.last <= cut);
        }
        let bytes = look.bytes(&self.log, &closed, start.seq);
        let (rows, end, damaged) = if start.seq >= cut {
            self.open = None;
            let rows = rows_between(live, start.seq, newest, limit).await?;
            let end = end_of(&rows, newest, limit);
            (rows, end, 0)
        } else {
            self.closed(closed.into_iter().next(), (start.seq, cut), limit).await?
        };
        let at = rows.each.last().filter(|row| row.seq == end).map_or(0, |row| row.at);
        let missing = count(end - start.seq).saturating_sub(rows.each.len() as u64);
        Ok(Batch { start, end: Position { store, seq: end, at }, missing, damaged, rows, newest, bytes })
    }

    /// Number of the oldest row there is.
    async fn oldest(&self, live: &mut SqliteConnection, newest: i64) -> Result<i64, QueryError> {
        if let Some(segment) = segments::list(&self.log)?.first() {
            return Ok(segment.first);
        }
        let sql = "SELECT coalesce((SELECT seq FROM entry ORDER BY seq LIMIT 1), ?)";
        Ok(sqlx::query_scalar(sql).bind(newest + 1).fetch_one(live).await?)
    }

    /// Rows that are not in the live file any more, behind `after` and up to `cut`, of the segment that has the first of
    /// them; the number of the last that was looked at; how many of those between were in damaged files.
    async fn closed(
        &mut self,
        segment: Option<Segment>,
        (after, cut): (i64, i64),
        limit: u32,
    ) -> Result<(Rows, i64, u64), QueryError> {
        let until = segment.as_ref().map_or(cut, |segment| segment.first - 1);
        let aside = segments::aside(&self.log)?;
        let in_hole = |segment: &Segment| count(segment.last.min(until) - segment.first.max(after + 1) + 1);
        let damaged = aside.iter().map(in_hole).sum();
        // Without any they were deleted, for the log has its size.
        let Some(segment) = segment else { return Ok((Rows::default(), cut, damaged)) };
        let kept = self.open.take_if(|(open, _)| *open == segment).map(|(_, connection)| connection);
        let opened = match kept {
            Some(kept) => Some(kept),
            None => segments::open_current(&self.log, &segment).await?,
        };
        let lost = damaged + count(segment.last - segment.first.max(after + 1) + 1);
        let Some(mut connection) = opened else {
            // Deleted just now, or damaged.
            let is_there = segment.form(&self.log).is_some();
            return Ok((Rows::default(), segment.last, if is_there { lost } else { damaged }));
        };
        query::time(&mut connection).await?;
        let rows = match rows_between(&mut connection, after, segment.last, limit).await {
            // Damage costs the segment's own rows, and no other's turn.
            Err(error) if error.is_damage() => {
                let (first, last) = (after + 1, segment.last);
                tracing::warn!(first, last, %error, "rows of a segment cannot be read, and are not sent to Postgres");
                return Ok((Rows::default(), segment.last, lost));
            }
            read => read?,
        };
        let end = end_of(&rows, segment.last, limit);
        self.open = (end < segment.last).then_some((segment, connection));
        Ok((rows, end, damaged))
    }
}

/// What is asked of the live file for each batch.
#[derive(Clone, Copy, Debug)]
struct Look {
    /// Which store it is.
    store: i64,
    /// The last row that is in a segment and not here any more.
    cut: i64,
    /// The last row there is.
    newest: i64,
    /// Pages in use.
    pages: i64,
    /// Time of the row that was sent last, where that is here.
    at: Option<i64>,
}

impl Look {
    async fn at(live: &mut SqliteConnection, seq: i64) -> sqlx::Result<Self> {
        let sql = "WITH cut(seq) AS (SELECT coalesce((SELECT value FROM meta WHERE key = 'cut'), 0))
            SELECT (SELECT value FROM meta WHERE key = 'store'), cut.seq,
                max(cut.seq, coalesce((SELECT max(seq) FROM decision), 0), coalesce((SELECT max(seq) FROM refusal), 0)),
                (SELECT page_count - freelist_count FROM pragma_page_count, pragma_freelist_count),
                coalesce((SELECT time FROM decision WHERE seq = ?1), (SELECT time FROM refusal WHERE seq = ?1))
            FROM cut";
        let (store, cut, newest, pages, at) = sqlx::query_as(sql).bind(seq).fetch_one(live).await?;
        Ok(Self { store, cut, newest, pages, at })
    }

    /// Whether the row that was sent last is not the one of its number any more: after a power cut, or in a file that was
    /// put back. Then numbers are given out again, and all is sent once more.
    fn is_forgotten(&self, position: Position) -> bool {
        position.seq > self.newest || position.at != 0 && self.at.is_some_and(|at| at != position.at)
    }

    /// Bytes of rows behind `after`: of each file the part that they are of its rows.
    fn bytes(&self, log: &Path, closed: &[Segment], after: i64) -> u64 {
        let used = u64::try_from(self.pages).unwrap_or(0) * PAGE_BYTES;
        let of_segment = |segment: &Segment| {
            let rows = segment.last - segment.first.max(after + 1) + 1;
            share(segment.bytes(log), count(rows), count(segment.last - segment.first + 1))
        };
        let live = share(used, count(self.newest - after.max(self.cut)), count(self.newest - self.cut));
        closed.iter().map(of_segment).sum::<u64>() + live
    }
}

/// How many numbers a difference is; none where it is negative.
fn count(numbers: i64) -> u64 {
    u64::try_from(numbers).unwrap_or(0)
}

/// The part of `bytes` that so many of `all` rows take.
pub(super) fn share(bytes: u64, rows: u64, all: u64) -> u64 {
    let part = u128::from(bytes) * u128::from(rows.min(all)) / u128::from(all.max(1));
    u64::try_from(part).unwrap_or(bytes)
}

/// The last row that was looked at, of rows that end with `last` if there was room for all of them.
fn end_of(rows: &Rows, last: i64, limit: u32) -> i64 {
    let is_all = rows.each.len() < limit as usize && rows.copy.len() < BATCH_BYTES;
    if is_all { last } else { rows.each.last().map_or(last, |row| row.seq) }
}

async fn rows_between(
    connection: &mut SqliteConnection,
    after: i64,
    until: i64,
    limit: u32,
) -> Result<Rows, QueryError> {
    Ok(rows::read(&mut lock(connection).await?, (after, until), limit)?)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::log::schema::VERSION;
    use crate::log::segments::Sizes;
    use crate::log::tests::segments::open;
    use crate::log::tests::{block_on, execute, folder, request};

    #[test]
    fn a_later_versions_segment_is_waited_for() {
        let (_folder, path) = folder();
        // Each row in a segment of its own, but for the last.
        let mut store = open(&path, Sizes::new(0, Duration::ZERO, 64 << 20, None));
        for number in 0..3 {
            block_on(store.write(&[Box::new(request(number))])).unwrap();
        }
        block_on(store.close_clean()).unwrap();
        let second = segments::list(&path).unwrap().remove(1).path(&path);
        let mut backlog = Backlog::new(&path);
        let mut next = |after| block_on(backlog.next(after, 500)).map(|batch| batch.unwrap());
        let numbers = |batch: &Batch| batch.rows.each.iter().map(|row| row.seq).collect::<Vec<_>>();
        let first = next(None).unwrap();
        execute(&second, "PRAGMA user_version = 1000");
        for _ in 0..2 {
            let waits = next(Some(first.end)).map(|batch| numbers(&batch));
            assert!(matches!(&waits, Err(QueryError::Newer { path }) if *path == second), "{waits:?}");
        }
        execute(&second, &format!("PRAGMA user_version = {VERSION}"));
        let then = next(Some(first.end)).unwrap();
        let last = next(Some(then.end)).unwrap();
        assert_eq!([&first, &then, &last].map(numbers), [[1], [2], [3]]);
        assert_eq!([&first, &then, &last].map(|batch| (batch.damaged, batch.missing)), [(0, 0); 3]);
    }
}
