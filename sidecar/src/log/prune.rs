//! Keeping the store within its size: the oldest decisions make room for new ones.

use std::fs;
use std::path::{Path, PathBuf};

use sqlx::SqliteConnection;

use super::ids::Ids;
use super::store::{StoreError, Written};

/// Decisions deleted by one statement: some 200 KB, a few milliseconds.
const SLICE_ROWS: i64 = 2000;

/// Slices before one batch. More than a batch can need, so that a store above its size (a smaller size was set) shrinks
/// while rows go on being written.
const SLICES: u32 = 8;

/// SQLite's own default; more does not make commits cheaper.
const CHECKPOINT_PAGES_MAX: u64 = 1000;
const CHECKPOINT_PAGES_MIN: u64 = 16;

/// SQLite's default, and so that of every file this program makes.
const PAGE_BYTES: u64 = 4096;

/// How much is in use, and where the oldest decision is.
#[derive(Debug)]
pub(super) struct Room {
    max_size: u64,
    wal: PathBuf,
    page_size: u64,
    /// `seq` of the oldest decision; they are contiguous, because only the oldest are deleted.
    oldest: i64,
}

impl Room {
    pub(super) fn new(path: &Path, max_size: u64, page_size: i64, oldest: i64) -> Self {
        let mut wal = path.as_os_str().to_owned();
        wal.push("-wal");
        Self { max_size, wal: wal.into(), page_size: u64::try_from(page_size).unwrap_or(PAGE_BYTES), oldest }
    }

    /// Pages of the write-ahead log at which SQLite folds it into the database: an eighth of the size at most.
    pub(super) fn checkpoint_pages(max_size: u64) -> u64 {
        (max_size / 8 / PAGE_BYTES).clamp(CHECKPOINT_PAGES_MIN, CHECKPOINT_PAGES_MAX)
    }

    /// What of the write-ahead log's file stays when it was folded.
    pub(super) fn wal_bytes(max_size: u64) -> u64 {
        Self::checkpoint_pages(max_size) * PAGE_BYTES
    }

    /// Deletes the oldest decisions up to `newest` until the store is within its size, a bounded number at a time.
    pub(super) async fn make(
        &mut self,
        connection: &mut SqliteConnection,
        ids: &mut Ids,
        newest: i64,
    ) -> Result<Written, StoreError> {
        let mut pruned = 0;
        let mut used = self.used(connection).await?;
        for _ in 0..SLICES {
            if used <= self.max_size || self.oldest >= newest {
                break;
            }
            // The newest stays, so that `seq` never starts again.
            let keep_from = newest.min(self.oldest + SLICE_ROWS);
            let deleted =
                sqlx::query("DELETE FROM decision WHERE seq < ?").bind(keep_from).execute(&mut *connection).await?;
            pruned += deleted.rows_affected();
            self.oldest = keep_from;
            used = self.used(connection).await?;
        }
        if pruned > 0 {
            ids.forget_before(connection, self.oldest).await?;
        }
        Ok(Written { pruned, database_bytes: used })
    }

    /// Bytes of pages in use and of the write-ahead log.
    async fn used(&self, connection: &mut SqliteConnection) -> Result<u64, StoreError> {
        let (pages, free): (i64, i64) =
            sqlx::query_as("SELECT page_count, freelist_count FROM pragma_page_count, pragma_freelist_count")
                .fetch_one(&mut *connection)
                .await?;
        let mut log_bytes = self.log_bytes();
        if self.is_pinned(log_bytes) {
            // SQLite folds the log long before; only a reader that does not end keeps it from that, and deleting
            // decisions would then only make the log longer. The reader may have ended since the last attempt.
            sqlx::query("PRAGMA wal_checkpoint(TRUNCATE)").execute(connection).await?;
            log_bytes = self.log_bytes();
            if self.is_pinned(log_bytes) {
                return Err(StoreError::Pinned);
            }
        }
        Ok(u64::try_from(pages - free).unwrap_or(0) * self.page_size + log_bytes)
    }

    fn log_bytes(&self) -> u64 {
        fs::metadata(&self.wal).map_or(0, |file| file.len())
    }

    fn is_pinned(&self, log_bytes: u64) -> bool {
        log_bytes > self.max_size / 2 && log_bytes > 2 * Self::wal_bytes(self.max_size)
    }
}
