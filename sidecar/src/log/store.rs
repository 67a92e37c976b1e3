//! The SQLite file: opening it, its schema, one transaction a batch, and whether its last process ended cleanly.

use std::fs::{self, OpenOptions};
use std::io;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use sidecar_config::settings::Pod;
use sqlx::sqlite::{SqliteConnectOptions, SqliteJournalMode, SqliteSynchronous};
use sqlx::{ConnectOptions, Connection, SqliteConnection};

use super::encode::{INSERT_SQL, encode, micros};
use super::ids::Ids;
use super::insert::{InsertError, insert};
use super::prune::Room;
use super::record::{Kind, Record, Scope, ScopeFacts};
use super::schema::{VERSION, migrate};

/// How long one statement waits for another process's lock. Short, because the writer retries anyway and must notice
/// that it is to stop.
const BUSY_TIMEOUT: Duration = Duration::from_millis(250);

/// Why the store cannot be used. All of it may pass: the writer tries again.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// SQLite refused.
    #[error(transparent)]
    Sqlite(#[from] sqlx::Error),
    /// SQLite refused rows.
    #[error("{0}")]
    Insert(String),
    /// The file cannot be made or looked at.
    #[error("{0}")]
    File(#[from] io::Error),
    /// A newer program wrote the file.
    #[error(
        "its schema is version {found} and this program knows versions up to {VERSION}: use a newer one, or another file"
    )]
    Newer {
        /// The file's version.
        found: i64,
    },
    /// The file is some other program's.
    #[error("it is a database, but not a request log: use another file")]
    Foreign,
    /// The path names another file than the one that is open.
    #[error("the file was removed or replaced")]
    Replaced,
    /// A reader keeps the write-ahead log from being folded into the database, and it reached its bound.
    #[error("another process has been reading it for too long, and its write-ahead log is full")]
    Pinned,
}

impl From<InsertError> for StoreError {
    fn from(error: InsertError) -> Self {
        Self::Insert(error.to_string())
    }
}

/// What a batch did to the store.
#[derive(Clone, Copy, Debug)]
pub(super) struct Written {
    pub(super) pruned: u64,
    pub(super) database_bytes: u64,
}

/// Where the store is and how large it may be.
#[derive(Clone, Debug)]
pub(super) struct StoreOptions {
    pub(super) path: PathBuf,
    pub(super) max_size: u64,
    pub(super) pod: Pod,
}

/// The open store. After an error of [`Store::write`] it is to be closed and opened again.
#[derive(Debug)]
pub(super) struct Store {
    connection: SqliteConnection,
    path: PathBuf,
    file: FileId,
    ids: Ids,
    room: Room,
    /// `seq` of the newest decision.
    last: i64,
}

impl Store {
    /// Opens the file, making it if it is not there. The process's first opening looks for the traces of a kill.
    pub(super) async fn open(options: &StoreOptions, first: bool) -> Result<Self, StoreError> {
        create(&options.path)?;
        let mut connection = SqliteConnectOptions::new()
            .filename(&options.path)
            .journal_mode(SqliteJournalMode::Wal)
            // A power cut may lose the last moments, never the file (https://www.sqlite.org/wal.html).
            .synchronous(SqliteSynchronous::Normal)
            .busy_timeout(BUSY_TIMEOUT)
            .pragma("wal_autocheckpoint", Room::checkpoint_pages(options.max_size).to_string())
            .pragma("journal_size_limit", Room::wal_bytes(options.max_size).to_string())
            .disable_statement_logging()
            .connect()
            .await?;
        migrate(&mut connection).await?;
        let file = FileId::of(&options.path)?;
        let was_clean: i64 =
            sqlx::query_scalar("SELECT value FROM meta WHERE key = 'clean'").fetch_one(&mut connection).await?;
        let (oldest, last): (i64, i64) =
            sqlx::query_as("SELECT coalesce(min(seq), 1), coalesce(max(seq), 0) FROM decision")
                .fetch_one(&mut connection)
                .await?;
        let page_size: i64 = sqlx::query_scalar("PRAGMA page_size").fetch_one(&mut connection).await?;
        let ids = Ids::load(&mut connection, options.pod.clone()).await?;
        let room = Room::new(&options.path, options.max_size, page_size, oldest);
        let mut store = Self { connection, path: options.path.clone(), file, ids, room, last };
        store.set_clean(false).await?;
        if first && was_clean == 0 {
            store.write_gap(SystemTime::now()).await?;
        }
        Ok(store)
    }

    /// Writes `batch` in one transaction, after making room for it.
    pub(super) async fn write(&mut self, batch: &[Box<Record>]) -> Result<Written, StoreError> {
        // SQLite would go on writing into a file that nobody can find.
        if FileId::of(&self.path).ok() != Some(self.file) {
            return Err(StoreError::Replaced);
        }
        let written = self.room.make(&mut self.connection, &mut self.ids, self.last).await?;
        self.append(batch).await?;
        Ok(written)
    }

    /// Marks that nothing is missing, folds the write-ahead log and closes.
    pub(super) async fn close_clean(mut self) -> Result<(), StoreError> {
        self.set_clean(true).await?;
        // A reader may keep it from being complete; the next opening completes it.
        sqlx::query("PRAGMA wal_checkpoint(TRUNCATE)").execute(&mut self.connection).await?;
        self.connection.close().await?;
        Ok(())
    }

    /// Closes without a mark: after an error, and as a kill would leave it.
    pub(super) async fn close(self) -> Result<(), StoreError> {
        self.connection.close().await?;
        Ok(())
    }

    async fn append(&mut self, batch: &[Box<Record>]) -> Result<(), StoreError> {
        let end = self.last + i64::try_from(batch.len()).unwrap_or(i64::MAX);
        let mut transaction = self.connection.begin_with("BEGIN IMMEDIATE").await?;
        let ids = self.ids.resolve(&mut transaction, batch, end).await?;
        {
            let mut handle = transaction.lock_handle().await?;
            let rows = batch.iter().zip(&ids).map(|(record, ids)| encode(record, ids));
            insert(&mut handle, INSERT_SQL, rows)?;
        }
        transaction.commit().await?;
        self.last = end;
        Ok(())
    }

    async fn set_clean(&mut self, clean: bool) -> sqlx::Result<()> {
        sqlx::query("UPDATE meta SET value = ? WHERE key = 'clean'").bind(clean).execute(&mut self.connection).await?;
        Ok(())
    }

    /// The row that says: between the last row and this one rows may be missing.
    async fn write_gap(&mut self, now: SystemTime) -> Result<(), StoreError> {
        let last_time: Option<i64> = sqlx::query_scalar("SELECT time FROM decision ORDER BY seq DESC LIMIT 1")
            .fetch_optional(&mut self.connection)
            .await?;
        let silence = last_time.map_or(0, |last| micros(now) - last);
        self.append(&[Box::new(gap(now, u64::try_from(silence).unwrap_or(0)))]).await
    }
}

/// Which file a path names; a removed and a replaced one differ from the one that is open.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct FileId {
    device: u64,
    inode: u64,
}

impl FileId {
    fn of(path: &Path) -> io::Result<Self> {
        let metadata = fs::metadata(path)?;
        Ok(Self { device: metadata.dev(), inode: metadata.ino() })
    }
}

/// Makes the file where there is none, for its owner only: rows tell who asked for what. SQLite gives the files beside it
/// the same mode. A file that is there is not opened here: closing it would end every lock this process has on it.
fn create(path: &Path) -> io::Result<()> {
    match OpenOptions::new().write(true).create_new(true).mode(0o600).open(path) {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => Err(error),
        _ => Ok(()),
    }
}

fn gap(now: SystemTime, silence_us: u64) -> Record {
    Record {
        // For the columns that name the pod.
        scope: Some(Arc::new(Scope::new(ScopeFacts::default()))),
        duration_us: silence_us,
        ..Record::new(Kind::Gap, now)
    }
}
