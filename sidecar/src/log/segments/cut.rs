//! Cutting the live file: its rows become a segment, and it goes on without them.
//!
//! The file is copied and emptied, never renamed: a process that has an SQLite file open under a name deletes, when it
//! closes it, the write-ahead log that then has that name, and that would be the next file's. Copied first, its rows are in
//! both for a moment; whoever reads leaves out segments beyond the `cut` that the live file names.

use std::fs::{self, File};
use std::io;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::time::{Duration, Instant, SystemTime};

use sqlx::{Connection, SqliteConnection};

use super::{PIECE, SIZE_MAX, Segment, Sizes, UNFINISHED, beside, bytes, sync_folder, write_piece, write_whole};
use crate::log::encode::micros;
use crate::log::handle::{Database, HandleError, Stored, lock};
use crate::log::links::AT_A_CUT;
use crate::log::prune::PAGE_BYTES;
use crate::log::store::StoreError;

/// How long after a cut that failed the next one is tried.
const AGAIN: Duration = Duration::from_secs(5);

/// Where the header of a file says how it is written (https://www.sqlite.org/fileformat2.html#file_format_version_numbers),
/// and that it is without a write-ahead log: a segment is one file, and only so it can be opened in memory.
const FORMAT_VERSIONS: u64 = 18;
const WITHOUT_LOG: u8 = 1;

/// What empties the live file but for its words, which the next rows have, too.
const EMPTY: [&str; 6] = [
    "DELETE FROM decision",
    "DELETE FROM refusal",
    "DELETE FROM scope",
    "DELETE FROM refusal_scope",
    "DELETE FROM peer",
    "UPDATE meta SET value = 0 WHERE key = 'refusal_pages'",
];

/// What tables take that are empty: a page each, and for each index.
const EMPTY_BYTES: u64 = 19 * PAGE_BYTES;

/// Knows when the live file is to be cut.
#[derive(Debug)]
pub(in crate::log) struct Cutter {
    sizes: Sizes,
    /// Bytes in use when the file had no rows.
    base: u64,
    /// When its first row came; `None` while it has none.
    began: Option<Instant>,
    /// Time of its newest row, in microseconds.
    pub(in crate::log) newest: i64,
    not_before: Option<Instant>,
}

impl Cutter {
    /// Of the file as it is.
    pub(in crate::log) async fn open(sizes: Sizes, live: &mut SqliteConnection) -> sqlx::Result<Self> {
        let sql = "SELECT coalesce(sum(length(text) + 16), 0) FROM word";
        let words: i64 = sqlx::query_scalar(sql).fetch_one(&mut *live).await?;
        let base = EMPTY_BYTES + u64::try_from(words).unwrap_or(0);
        let times = times(live).await?;
        // A clock that went wrong makes it too early or too late, by its period at most.
        let age = times.map(|(oldest, _)| u64::try_from(micros(SystemTime::now()) - oldest).unwrap_or(0));
        let now = Instant::now();
        let began = age.map(|age| now.checked_sub(Duration::from_micros(age).min(sizes.age)).unwrap_or(now));
        Ok(Self { sizes, base, began, newest: times.map_or(0, |(_, newest)| newest), not_before: None })
    }

    /// Notes rows, the newest from then.
    pub(in crate::log) fn add(&mut self, newest: i64) {
        self.newest = self.newest.max(newest);
        self.began.get_or_insert_with(Instant::now);
    }

    /// Whether it is time to cut a file of which so many bytes are in use.
    pub(in crate::log) fn is_due(&self, used: u64) -> bool {
        let Some(began) = self.began else { return false };
        let is_full = used >= self.base + self.sizes.segment || began.elapsed() >= self.sizes.age;
        is_full && self.not_before.is_none_or(|not_before| Instant::now() >= not_before)
    }

    /// When rows that are there now are to be cut, if no others come.
    pub(in crate::log) fn due(&self) -> Option<Instant> {
        let due = self.began? + self.sizes.age;
        Some(self.not_before.map_or(due, |not_before| due.max(not_before)))
    }

    /// It could not be cut.
    pub(in crate::log) fn failed(&mut self) {
        self.not_before = Some(Instant::now() + AGAIN);
    }
}

/// Time of the oldest row in the live file and of the newest.
pub(in crate::log) async fn times(live: &mut SqliteConnection) -> sqlx::Result<Option<(i64, i64)>> {
    let sql = "SELECT min(time), max(time) FROM (SELECT time FROM decision UNION ALL SELECT time FROM refusal)";
    let (oldest, newest): (Option<i64>, Option<i64>) = sqlx::query_as(sql).fetch_one(live).await?;
    Ok(oldest.zip(newest))
}

/// Whether a file of so many pages is too large to be copied: an earlier version did not cut it.
pub(in crate::log) fn is_large(pages: i64, sizes: &Sizes) -> bool {
    u64::try_from(pages).unwrap_or(0) * PAGE_BYTES > 2 * sizes.segment.max(SIZE_MAX / 2)
}

/// Makes what is in the live file a segment: whole and on the disk under its name, or not at all.
pub(in crate::log) async fn write(
    live: &mut SqliteConnection,
    path: &Path,
    segment: &Segment,
) -> Result<(), StoreError> {
    let mut handle = lock(live).await?;
    write_whole(&beside(path, UNFINISHED), &segment.path(path), |file| copy(Database::of(&mut handle), file))?;
    Ok(sync_folder(path)?)
}

/// Writes all pages of a database, which nobody else may write meanwhile. Read by SQLite: whoever else opens and closes the
/// file in this process ends every lock that the process has on it. What SQLite has for it, `serialize`, copies all at once:
/// for milliseconds nobody else has the processor, and there has to be memory for all of it.
fn copy(from: Database<'_>, to: &mut File) -> Result<(), StoreError> {
    let mut pages = from.prepare(c"SELECT data FROM sqlite_dbpage")?;
    let mut piece = Vec::with_capacity(PIECE);
    while pages.step()? {
        let Stored::Blob(page) = pages.value(0) else { return Err(HandleError::ours("a page is missing").into()) };
        piece.extend_from_slice(page);
        if piece.len() >= PIECE {
            write_piece(to, &piece)?;
            piece.clear();
        }
    }
    write_piece(to, &piece)?;
    Ok(to.write_all_at(&[WITHOUT_LOG; 2], FORMAT_VERSIONS)?)
}

/// Notes in the live file that all rows up to `cut` are in segments; if they are copies, its own and what they refer to
/// are deleted.
pub(in crate::log) async fn set_cut(
    connection: &mut SqliteConnection,
    cut: i64,
    are_copies: bool,
) -> Result<(), StoreError> {
    let mut transaction = connection.begin_with("BEGIN IMMEDIATE").await?;
    for sql in AT_A_CUT {
        sqlx::query(sql).bind(cut).execute(&mut *transaction).await?;
    }
    for sql in if are_copies { &EMPTY[..] } else { &[] } {
        sqlx::query(*sql).execute(&mut *transaction).await?;
    }
    let sql = "INSERT INTO meta VALUES ('cut', ?) ON CONFLICT (key) DO UPDATE SET value = excluded.value";
    sqlx::query(sql).bind(cut).execute(&mut *transaction).await?;
    transaction.commit().await?;
    if !are_copies {
        return Ok(());
    }
    // Small now: nothing of what was deleted stays in it, nor in the next segment.
    sqlx::query("VACUUM").execute(&mut *connection).await?;
    sqlx::query("PRAGMA wal_checkpoint(TRUNCATE)").execute(connection).await?;
    Ok(())
}

/// Makes the live file itself a segment. Only where no process has it open; whether it was.
pub(in crate::log) fn move_away(live: &Path, segment: &Segment) -> io::Result<bool> {
    // Who closes a file as the last deletes these.
    if ["-wal", "-shm"].iter().any(|end| bytes(&beside(live, end)) > 0) {
        return Ok(false);
    }
    fs::rename(live, segment.path(live))?;
    sync_folder(live)?;
    Ok(true)
}
