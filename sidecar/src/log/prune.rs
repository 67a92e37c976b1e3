//! Keeping the live file within its size, where it cannot be cut in time: the oldest decisions make room for new ones.
//! Strangers' refusals have a part of it, and so of every segment.

use std::fs;
use std::path::{Path, PathBuf};

use sqlx::{AssertSqlSafe, Connection, SqliteConnection};

use super::chain::Links;
use super::handle::{Database, HandleError, lock};
use super::ids::Ids;
use super::links;
use super::segments::Sizes;
use super::store::{StoreError, Written};

/// Decisions deleted by one statement: some 200 KB, a few milliseconds.
const SLICE_ROWS: i64 = 2000;

/// Slices before one batch. More than a batch can need, so that a store above its size (a smaller size was set) shrinks
/// while rows go on being written.
const SLICES: u32 = 8;

/// Refusals deleted by one statement; with all a stranger can show some 4 MB, mostly a tenth of it.
const REFUSAL_SLICE_ROWS: i64 = 1000;

/// The part of a segment that is for refusals of strangers: one in so many. The others never have less than the rest.
const REFUSALS_PART: u64 = 8;

/// What the live file takes beside the rows it has when room is made: SQLite's index of the write-ahead log, of 32 KiB, and
/// the batch that is about to be written, of 500 rows.
const BESIDE: u64 = 96 << 10;

/// Half a MiB: with SQLite's own default of 1000 the thread is some milliseconds at it, which whoever shares its processor
/// waits for.
const CHECKPOINT_PAGES_MAX: u64 = 128;
const CHECKPOINT_PAGES_MIN: u64 = 16;

/// SQLite's default, and so that of every file this program makes.
pub(super) const PAGE_BYTES: u64 = 4096;

/// How much is in use, and where the oldest decision is.
#[derive(Debug)]
pub(super) struct Room {
    max_size: u64,
    /// Bytes that refusals of strangers may take.
    part: u64,
    /// Bytes of files that are not the live one.
    closed: u64,
    /// Bytes of pages in use, and of the write-ahead log, when it was last asked.
    used: (u64, u64),
    /// Pages in use after the last batch; `None` where something else was done since, or may have been.
    pages: Option<i64>,
    wal: PathBuf,
    page_size: u64,
    /// `seq` of the oldest decision; they are contiguous, because only the oldest are deleted.
    oldest: i64,
    /// Pages of refusals of strangers.
    refusal_pages: i64,
}

impl Room {
    pub(super) async fn new(
        path: &Path,
        sizes: &Sizes,
        closed: u64,
        connection: &mut SqliteConnection,
    ) -> sqlx::Result<Self> {
        let mut wal = path.as_os_str().to_owned();
        wal.push("-wal");
        let page_size: i64 = sqlx::query_scalar("PRAGMA page_size").fetch_one(&mut *connection).await?;
        let sql = "SELECT coalesce(min(seq), 1) FROM decision";
        let oldest = sqlx::query_scalar(sql).fetch_one(&mut *connection).await?;
        let sql = "SELECT value FROM meta WHERE key = 'refusal_pages'";
        let refusal_pages = sqlx::query_scalar(sql).fetch_one(connection).await?;
        let page_size = u64::try_from(page_size).unwrap_or(PAGE_BYTES);
        let (max_size, part) = (sizes.total, sizes.segment.min(sizes.total) / REFUSALS_PART);
        Ok(Self {
            max_size,
            part,
            closed,
            used: (0, 0),
            pages: None,
            wal: wal.into(),
            page_size,
            oldest,
            refusal_pages,
        })
    }

    /// All rows up to this one are gone.
    pub(super) fn start_again(&mut self, oldest: i64) {
        (self.oldest, self.refusal_pages) = (oldest, 0);
    }

    /// A batch was written, and so many pages are in use now.
    pub(super) fn takes(&mut self, pages: i64) {
        self.pages = Some(pages);
    }

    pub(super) fn set_closed(&mut self, bytes: u64) {
        self.closed = bytes;
    }

    /// Bytes of the live file's rows.
    pub(super) fn live_bytes(&self) -> u64 {
        self.used.0
    }

    /// Whether the write-ahead log is longer than it is left when nobody reads.
    pub(super) fn is_log_long(&self) -> bool {
        self.used.1 > 2 * Self::wal_bytes(self.max_size)
    }

    /// Says how many pages refusals take now that `before` pages were in use before they were written or deleted. To be
    /// told again with [`Self::refusals_take`] when the transaction is committed.
    pub(super) fn count_refusals(&self, database: Database<'_>, before: i64) -> Result<i64, HandleError> {
        let refusal_pages = self.refusal_pages + database.pages()? - before;
        let mut update = database.prepare(c"UPDATE meta SET value = ? WHERE key = 'refusal_pages'")?;
        update.bind(1, refusal_pages)?;
        update.step()?;
        Ok(refusal_pages)
    }

    pub(super) fn refusals_take(&mut self, refusal_pages: i64) {
        self.refusal_pages = refusal_pages;
    }

    /// Pages of the write-ahead log at which SQLite folds it into the database: an eighth of the size at most.
    pub(super) fn checkpoint_pages(max_size: u64) -> u64 {
        (max_size / 8 / PAGE_BYTES).clamp(CHECKPOINT_PAGES_MIN, CHECKPOINT_PAGES_MAX)
    }

    /// What of the write-ahead log's file stays when it was folded.
    pub(super) fn wal_bytes(max_size: u64) -> u64 {
        Self::checkpoint_pages(max_size) * PAGE_BYTES
    }

    /// Deletes the oldest rows until the store is within its size, decisions up to `newest`, a bounded number at a time:
    /// refusals of strangers where they have more than their part, else the others.
    pub(super) async fn make(
        &mut self,
        connection: &mut SqliteConnection,
        ids: &mut Ids,
        newest: i64,
        links: Option<&Links>,
    ) -> Result<Written, StoreError> {
        let part = self.part;
        let (mut pruned, mut pruned_refusals) = (0, 0);
        // Always as if the write-ahead log were as long as it may be: that it grows deletes nothing.
        let rest = self.max_size - part - Self::wal_bytes(self.max_size).min(self.max_size / REFUSALS_PART);
        let rest = rest.saturating_sub(self.closed + BESIDE);
        let (mut used, mut log_bytes) = self.used(connection).await?;
        for _ in 0..SLICES {
            let refusals = u64::try_from(self.refusal_pages).unwrap_or(0) * self.page_size;
            if refusals > part {
                pruned_refusals += self.delete_refusals(connection, links).await?;
            } else if used.saturating_sub(refusals) > rest && self.oldest < newest {
                // The newest stays, so that `seq` never starts again.
                let keep_from = newest.min(self.oldest + SLICE_ROWS);
                pruned += delete(connection, "decision", &format!("seq < {keep_from}"), links).await?;
                self.oldest = keep_from;
            } else {
                break;
            }
            (used, log_bytes) = self.used(connection).await?;
        }
        if pruned > 0 {
            ids.forget_before(connection, self.oldest).await?;
        }
        if pruned_refusals > 0 {
            let sql = "SELECT coalesce(min(seq), ?) FROM refusal";
            let first = sqlx::query_scalar(sql).bind(newest).fetch_one(&mut *connection).await?;
            ids.forget_refusals_before(connection, first).await?;
        }
        self.used = (used, log_bytes);
        let live_bytes = used + log_bytes;
        Ok(Written { pruned, pruned_strangers: pruned_refusals, live_bytes, ..Written::default() })
    }

    /// Deletes the oldest refusals; how many.
    async fn delete_refusals(
        &mut self,
        connection: &mut SqliteConnection,
        links: Option<&Links>,
    ) -> Result<u64, StoreError> {
        let mut transaction = connection.begin_with("BEGIN IMMEDIATE").await?;
        let before = pages(&mut transaction).await?;
        let oldest = format!("seq IN (SELECT seq FROM refusal ORDER BY seq LIMIT {REFUSAL_SLICE_ROWS})");
        let deleted = delete(&mut transaction, "refusal", &oldest, links).await?;
        let refusal_pages = self.count_refusals(Database::of(&mut lock(&mut transaction).await?), before)?;
        transaction.commit().await?;
        self.refusal_pages = refusal_pages;
        Ok(deleted)
    }

    /// Bytes of pages in use and of the write-ahead log.
    async fn used(&mut self, connection: &mut SqliteConnection) -> Result<(u64, u64), StoreError> {
        let mut log_bytes = self.log_bytes();
        if self.is_pinned(log_bytes) {
            // SQLite folds the log long before; only a reader that does not end keeps it from that, and deleting
            // decisions would then only make the log longer. The reader may have ended since the last attempt.
            sqlx::query("PRAGMA wal_checkpoint(TRUNCATE)").execute(&mut *connection).await?;
            log_bytes = self.log_bytes();
            if self.is_pinned(log_bytes) {
                return Err(StoreError::Pinned);
            }
        }
        let pages = match self.pages.take() {
            Some(pages) => pages,
            None => pages(connection).await?,
        };
        Ok((u64::try_from(pages).unwrap_or(0) * self.page_size, log_bytes))
    }

    fn log_bytes(&self) -> u64 {
        fs::metadata(&self.wal).map_or(0, |file| file.len())
    }

    fn is_pinned(&self, log_bytes: u64) -> bool {
        log_bytes > self.max_size / 2 && log_bytes > 2 * Self::wal_bytes(self.max_size)
    }
}

/// Deletes rows, and notes in the chain that the log has done it; how many.
async fn delete(
    connection: &mut SqliteConnection,
    table: &str,
    condition: &str,
    links: Option<&Links>,
) -> sqlx::Result<u64> {
    let mut transaction = connection.begin().await?;
    if let Some(links) = links {
        links::note_rows(&mut transaction, &links.chain, table, condition).await?;
    }
    let sql = format!("DELETE FROM {table} WHERE {condition}");
    let deleted = sqlx::query(AssertSqlSafe(sql)).execute(&mut *transaction).await?.rows_affected();
    transaction.commit().await?;
    Ok(deleted)
}

/// Pages in use, of all tables.
pub(super) async fn pages(connection: &mut SqliteConnection) -> Result<i64, StoreError> {
    Ok(Database::of(&mut lock(connection).await?).pages()?)
}

/// Bytes of a copy of the database, and so of its file when its write-ahead log is folded into it.
pub(super) async fn copy_bytes(connection: &mut SqliteConnection) -> Result<u64, StoreError> {
    let mut handle = lock(connection).await?;
    let database = Database::of(&mut handle);
    let bytes = database.number(c"PRAGMA page_count")? * database.number(c"PRAGMA page_size")?;
    Ok(u64::try_from(bytes).unwrap_or(0))
}
