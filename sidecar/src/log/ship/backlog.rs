//! What is still to be sent: the next rows after a position, from segments and then from the live file, each row an object
//! of JSON that SQLite makes of the columns the file has.

use std::path::{Path, PathBuf};

use futures_util::TryStreamExt;
use sqlx::{AssertSqlSafe, Connection, SqliteConnection};

use super::super::prune::{PAGE_BYTES, pages};
use super::super::query::{self, QueryError, Reads};
use super::super::segments::{self, Segment};
use super::watermark::Position;

/// Bytes at which a batch ends, however few its rows: a client may choose texts of 2 KiB each.
const BATCH_BYTES: usize = 256 << 10;

/// A row that is to be sent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::log) struct Row {
    pub(super) seq: i64,
    /// Microseconds since the epoch.
    pub(super) at: i64,
    pub(super) json: String,
}

/// The next rows, and what is known of those behind them.
#[derive(Clone, Debug)]
pub(in crate::log) struct Batch {
    pub(super) rows: Vec<Row>,
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
        u64::try_from(self.newest - self.end.seq).unwrap_or(0) + self.rows.len() as u64
    }
}

/// The log, of which batch after batch is read.
pub(super) struct Backlog {
    log: PathBuf,
    /// The segment that was read last: a packed one is unpacked to be read, which is too much for each batch of it.
    open: Option<(Segment, SqliteConnection)>,
}

impl Backlog {
    pub(super) fn new(log: &Path) -> Self {
        Self { log: log.to_owned(), open: None }
    }

    /// Gives back what is held for the next batch.
    pub(super) fn rest(&mut self) {
        self.open = None;
    }

    /// Reads at most `limit` rows; `None` where there is no log yet.
    pub(super) async fn next(&mut self, after: Option<Position>, limit: u32) -> Result<Option<Batch>, QueryError> {
        let mut live = match query::open(&self.log, Reads::Snapshot).await {
            Err(QueryError::Missing { .. }) => return Ok(None),
            opened => opened?,
        };
        let batch = self.read(&mut live, after, limit).await?;
        live.close().await?;
        Ok(Some(batch))
    }

    async fn read(
        &mut self,
        live: &mut SqliteConnection,
        after: Option<Position>,
        limit: u32,
    ) -> Result<Batch, QueryError> {
        let sql = "SELECT value FROM meta WHERE key = 'store'";
        let store: i64 = sqlx::query_scalar(sql).fetch_one(&mut *live).await?;
        let cut = segments::cut_of(live).await?;
        let sql = "SELECT coalesce((SELECT seq FROM entry ORDER BY seq DESC LIMIT 1), ?)";
        let newest: i64 = sqlx::query_scalar(sql).bind(cut).fetch_one(&mut *live).await?;
        let mut closed = Vec::new();
        let start = match after {
            Some(position) if position.store == store && !is_forgotten(live, position, newest).await? => position,
            // What was deleted before it was looked for the first time nobody has missed.
            _ => Position { store, seq: self.oldest(live, newest).await? - 1, at: 0 },
        };
        if start.seq < cut {
            closed = segments::list(&self.log)?;
            closed.retain(|segment| segment.last > start.seq && segment.last <= cut);
        }
        let bytes = self.bytes(live, &closed, (start.seq, cut, newest)).await?;
        let (rows, end, damaged) = if start.seq >= cut {
            self.rest();
            let rows = rows_between(live, start.seq, newest, limit).await?;
            let end = end_of(&rows, newest, limit);
            (rows, end, 0)
        } else {
            self.closed(closed.into_iter().next(), (start.seq, cut), limit).await?
        };
        let at = rows.last().filter(|row| row.seq == end).map_or(0, |row| row.at);
        let missing = count(end - start.seq).saturating_sub(rows.len() as u64);
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

    /// Bytes of rows behind `after`: of each file the part that they are of its rows.
    async fn bytes(
        &self,
        live: &mut SqliteConnection,
        closed: &[Segment],
        (after, cut, newest): (i64, i64, i64),
    ) -> sqlx::Result<u64> {
        let used = u64::try_from(pages(live).await?).unwrap_or(0) * PAGE_BYTES;
        let of_segment = |segment: &Segment| {
            let rows = segment.last - segment.first.max(after + 1) + 1;
            share(segment.bytes(&self.log), count(rows), count(segment.last - segment.first + 1))
        };
        let live = share(used, count(newest - after.max(cut)), count(newest - cut));
        Ok(closed.iter().map(of_segment).sum::<u64>() + live)
    }

    /// Rows that are not in the live file any more, behind `after` and up to `cut`, of the segment that has the first of
    /// them; the number of the last that was looked at; how many of those between were in damaged files.
    async fn closed(
        &mut self,
        segment: Option<Segment>,
        (after, cut): (i64, i64),
        limit: u32,
    ) -> Result<(Vec<Row>, i64, u64), QueryError> {
        let until = segment.as_ref().map_or(cut, |segment| segment.first - 1);
        let aside = segments::aside(&self.log)?;
        let in_hole = |segment: &Segment| count(segment.last.min(until) - segment.first.max(after + 1) + 1);
        let damaged = aside.iter().map(in_hole).sum();
        // Without any they were deleted, for the log has its size.
        let Some(segment) = segment else { return Ok((Vec::new(), cut, damaged)) };
        let kept = self.open.take_if(|(open, _)| *open == segment).map(|(_, connection)| connection);
        let opened = match kept {
            Some(kept) => Some(kept),
            None => segments::open(&self.log, &segment).await?,
        };
        let lost = damaged + count(segment.last - segment.first.max(after + 1) + 1);
        let Some(mut connection) = opened else {
            // Deleted just now, or damaged.
            let is_there = segment.form(&self.log).is_some();
            return Ok((Vec::new(), segment.last, if is_there { lost } else { damaged }));
        };
        query::time(&mut connection).await?;
        let rows = match rows_between(&mut connection, after, segment.last, limit).await {
            // Damage costs the segment's own rows, and no other's turn.
            Err(error) if error.is_damage() => {
                let (first, last) = (after + 1, segment.last);
                tracing::warn!(first, last, %error, "rows of a segment cannot be read, and are not sent to Postgres");
                return Ok((Vec::new(), segment.last, lost));
            }
            read => read?,
        };
        let end = end_of(&rows, segment.last, limit);
        self.open = (end < segment.last).then_some((segment, connection));
        Ok((rows, end, damaged))
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
fn end_of(rows: &[Row], last: i64, limit: u32) -> i64 {
    let is_all = rows.len() < limit as usize && bytes(rows) < BATCH_BYTES;
    if is_all { last } else { rows.last().map_or(last, |row| row.seq) }
}

fn bytes(rows: &[Row]) -> usize {
    rows.iter().map(|row| row.json.len()).sum()
}

/// Whether the row that was sent last is not the one of its number any more: after a power cut, or in a file that was put
/// back. Then numbers are given out again, and all is sent once more.
async fn is_forgotten(live: &mut SqliteConnection, position: Position, newest: i64) -> sqlx::Result<bool> {
    if position.seq > newest {
        return Ok(true);
    }
    let sql = "SELECT at FROM entry WHERE seq = ?";
    let at: Option<i64> = sqlx::query_scalar(sql).bind(position.seq).fetch_optional(live).await?;
    Ok(position.at != 0 && at.is_some_and(|at| at != position.at))
}

async fn rows_between(
    connection: &mut SqliteConnection,
    after: i64,
    until: i64,
    limit: u32,
) -> Result<Vec<Row>, QueryError> {
    let sql = "SELECT name FROM pragma_table_info('requests')";
    let names: Vec<String> = sqlx::query_scalar(sql).fetch_all(&mut *connection).await?;
    let fields: Vec<_> = names.iter().map(|name| format!("'{name}', {name}")).collect();
    let fields = fields.join(", ");
    let sql =
        format!("SELECT seq, at, json_object({fields}) FROM entry WHERE seq > ? AND seq <= ? ORDER BY seq LIMIT ?");
    let query = sqlx::query_as::<_, (i64, i64, String)>(AssertSqlSafe(sql)).bind(after).bind(until).bind(limit);
    let mut found = query.fetch(connection);
    let (mut rows, mut bytes) = (Vec::new(), 0);
    while bytes < BATCH_BYTES {
        let Some((seq, at, json)) = found.try_next().await? else { break };
        bytes += json.len();
        rows.push(Row { seq, at, json: without_nul(json) });
    }
    Ok(rows)
}

/// Postgres has no NUL in texts: what a certificate says may have one.
fn without_nul(json: String) -> String {
    const NUL: &str = "\\u0000";
    let mut clean = String::new();
    let mut rest = json.as_str();
    while let Some((before, after)) = rest.split_once(NUL) {
        clean.push_str(before);
        // Behind an odd number of backslashes it is that many of them and five letters.
        let backslashes = before.bytes().rev().take_while(|byte| *byte == b'\\').count();
        clean.push_str(if backslashes % 2 == 0 { "\\ufffd" } else { NUL });
        rest = after;
    }
    if clean.is_empty() {
        return json;
    }
    clean.push_str(rest);
    clean
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nul_becomes_the_mark_of_what_cannot_be_shown() {
        let table = [
            (r#"{"a":"b"}"#, r#"{"a":"b"}"#),
            (r#"{"a":"\u0000b\u0000"}"#, r#"{"a":"\ufffdb\ufffd"}"#),
            (r#"{"a":"\\u0000"}"#, r#"{"a":"\\u0000"}"#),
            (r#"{"a":"\\\u0000"}"#, r#"{"a":"\\\ufffd"}"#),
        ];
        for (json, expected) in table {
            assert_eq!(without_nul(json.to_owned()), expected);
        }
    }
}
