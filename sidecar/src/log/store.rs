//! The SQLite file: opening it, its schema, one transaction a batch, and whether its last process ended cleanly.

use std::fs::{self, OpenOptions};
use std::io;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use sidecar_config::settings::{ClientAddress, Pod};
use sqlx::sqlite::{SqliteConnectOptions, SqliteJournalMode, SqliteSynchronous};
use sqlx::{ConnectOptions, Connection, SqliteConnection};

use super::bodies::Missed;
use super::chain::Links;
use super::encode::{INSERT_REFUSAL_SQL, INSERT_SQL, Row, encode, encode_refusal, micros, row_id};
use super::handle::{Database, HandleError, lock};
use super::ids::Ids;
use super::insert::insert;
use super::links::{self, Chained};
use super::prune::{Room, copy_bytes, pages};
use super::record::{Kind, Record, Scope, ScopeFacts};
use super::schema::{VERSION, migrate};
use super::sealed::BodyKey;
use super::segments::{self, Cutter, Gone, LOOK_EVERY, Retention, Segment, Sizes};
use super::stats::Stats;

/// How long one statement waits for another process's lock. Short, because the writer retries anyway and must notice
/// that it is to stop.
const BUSY_TIMEOUT: Duration = Duration::from_millis(250);

/// What the name of a damaged file that was set aside ends in.
pub(super) const ASIDE: &str = ".damaged";

/// Why the store cannot be used. All of it may pass: the writer tries again.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// SQLite refused.
    #[error(transparent)]
    Sqlite(#[from] sqlx::Error),
    /// SQLite refused rows.
    #[error(transparent)]
    Insert(#[from] HandleError),
    /// The file cannot be made or looked at.
    #[error("{0}")]
    File(#[from] io::Error),
    /// The key of the chain cannot be had.
    #[error("the chain's key {}: {why}", path.display())]
    Key {
        /// Where it should be.
        path: PathBuf,
        /// Why it is not there.
        why: String,
    },
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

impl StoreError {
    /// Whether the file is damaged, or no database at all: trying again will not help.
    pub(super) fn is_damage(&self) -> bool {
        let code = match self {
            Self::Sqlite(error) => error.as_database_error().and_then(|error| error.code()?.parse::<i32>().ok()),
            Self::Insert(error) => Some(error.code()),
            _ => None,
        };
        code.is_some_and(is_damage)
    }
}

/// Whether an error of SQLite is that a file is damaged, or no database at all.
pub(super) fn is_damage(code: i32) -> bool {
    // https://www.sqlite.org/rescode.html; the lowest byte is the kind of error.
    matches!(code & 0xff, libsqlite3_sys::SQLITE_CORRUPT | libsqlite3_sys::SQLITE_NOTADB)
}

/// What a batch did to the store.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Written {
    /// Rows deleted for want of room.
    pub(super) pruned: u64,
    /// Of strangers, whose part was full.
    pub(super) pruned_strangers: u64,
    /// Segments deleted.
    pub(super) gone: Gone,
    /// Bytes of the live file and its write-ahead log.
    pub(super) live_bytes: u64,
    /// Whether there is a new segment.
    pub(super) has_cut: bool,
    /// Whether there is none, for it would cost what was refused and is still to be sent.
    pub(super) is_short: bool,
}

/// Where the store is and how large it may be.
#[derive(Clone, Debug)]
pub(super) struct StoreOptions {
    pub(super) path: PathBuf,
    pub(super) sizes: Sizes,
    pub(super) pod: Pod,
    pub(super) client_address: ClientAddress,
    pub(super) chain: Chained,
    /// What bodies are sealed with; without it rows have none.
    pub(super) body_key: Option<Arc<BodyKey>>,
    /// What knows how far rows were sent.
    pub(super) stats: Arc<Stats>,
}

/// Whether rows may be missing before those that will come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Opening {
    /// The process's first: where the process before was killed.
    First,
    /// After an error: what was not written waits in memory.
    Again,
    /// After the file was set aside: the rows are there.
    Anew,
}

/// The newest row's number, and its time: each table is asked for its end.
const LAST_SEQ: &str =
    "SELECT max((SELECT coalesce(max(seq), 0) FROM decision), (SELECT coalesce(max(seq), 0) FROM refusal))";
const LAST_TIME: &str = "SELECT max(time) FROM (SELECT * FROM (SELECT time FROM decision ORDER BY seq DESC LIMIT 1) \
     UNION ALL SELECT * FROM (SELECT time FROM refusal ORDER BY seq DESC LIMIT 1))";

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
    /// `seq` of the newest one that is in a segment.
    cut: i64,
    cutter: Cutter,
    retention: Retention,
    client_address: ClientAddress,
    /// The end of the chain, where there is one.
    links: Option<Links>,
    /// The store's number.
    number: i64,
    body_key: Option<Arc<BodyKey>>,
    /// When segments were last looked at; `None` since it was opened.
    looked: Option<Instant>,
    /// Whether the next cut deletes what was refused and is still to be sent, too.
    is_forced: bool,
}

impl Store {
    /// Opens the file, making it if it is not there.
    pub(super) async fn open(options: &StoreOptions, opening: Opening) -> Result<Self, StoreError> {
        let (path, sizes) = (&options.path, options.sizes);
        let is_new = create(path)?;
        segments::tidy(path);
        let mut connection = connect(options).await?;
        migrate(&mut connection).await?;
        if segments::is_large(pages(&mut connection).await?, &sizes) {
            connection = make_segment(connection, options).await?;
        }
        let newest_segment = segments::list(path)?.pop();
        let mut cut = segments::cut_of(&mut connection).await?;
        let last: i64 = sqlx::query_scalar(LAST_SEQ).fetch_one(&mut connection).await?;
        let in_segments = newest_segment.as_ref().map_or(0, |segment| segment.last);
        if in_segments > cut && in_segments >= last {
            // A kill came between the copy and the deletion; or there is another live file than there was, which goes on.
            let is_copied = in_segments == last;
            segments::set_cut(&mut connection, in_segments, is_copied).await?;
            cut = in_segments;
        }
        let mut last = last.max(cut);
        let mut links = None;
        if let Some(chain) = options.chain.open()? {
            let (open, behind) = links::open(&mut connection, &chain, last, options.pod.clone()).await?;
            (links, last) = (Some(open), behind);
        }
        let number = links::store(&mut connection).await?;
        let file = FileId::of(path)?;
        let was_clean: i64 =
            sqlx::query_scalar("SELECT value FROM meta WHERE key = 'clean'").fetch_one(&mut connection).await?;
        let ids = Ids::load(&mut connection, options.pod.clone()).await?;
        let room = Room::new(path, &sizes, segments::closed_bytes(path)?, &mut connection).await?;
        let cutter = Cutter::open(sizes, &mut connection).await?;
        let retention = Retention::new(sizes, &options.stats);
        let mut store = Self {
            connection,
            path: path.clone(),
            file,
            ids,
            room,
            last,
            cut,
            cutter,
            retention,
            client_address: options.client_address,
            links,
            number,
            body_key: options.body_key.clone(),
            looked: None,
            is_forced: false,
        };
        store.set_clean(false).await?;
        let is_short = was_clean == 0 || (is_new && newest_segment.is_some());
        if opening == Opening::Anew || (opening == Opening::First && is_short) {
            store.write_gap(SystemTime::now(), newest_segment.map(|segment| segment.newest)).await?;
        }
        Ok(store)
    }

    /// Writes `batch` in one transaction, after making room for it.
    pub(super) async fn write(&mut self, batch: &[Box<Record>]) -> Result<Written, StoreError> {
        // SQLite would go on writing into a file that nobody can find.
        if FileId::of(&self.path).ok() != Some(self.file) {
            return Err(StoreError::Replaced);
        }
        let mut written = self.room.make(&mut self.connection, &mut self.ids, self.last, self.links.as_ref()).await?;
        let is_due = self.cutter.is_due(self.room.live_bytes());
        if is_due && !self.is_forced && self.retention.next_unsent(&self.path, SystemTime::now())?.is_some() {
            written.is_short = true;
        } else if is_due {
            let cut = self.cut;
            self.is_forced = false;
            written.gone = self.cut().await?;
            written.has_cut = self.cut > cut;
        } else if self.room.is_log_long() {
            // A reader keeps it so long: the others make room for it.
            written.gone = self.make_room(self.retention.sizes.segment).await?;
        } else if self.looked.is_none_or(|looked| looked.elapsed() >= LOOK_EVERY) {
            // Segments become too old without a row; and the last process may have had room for more.
            self.looked = Some(Instant::now());
            written.gone = self.make_room(self.retention.ahead()).await?;
        }
        if !batch.is_empty() {
            self.append(batch).await?;
        }
        Ok(written)
    }

    /// Has the next cut delete what it has to: it could not be made smaller.
    pub(super) fn force(&mut self) {
        self.is_forced = true;
    }

    /// Numbers of the newest row that is in a segment, and of the newest of all.
    pub(super) fn newest(&self) -> (i64, i64) {
        (self.cut, self.last)
    }

    /// When there is something to do although no row comes.
    pub(super) fn due(&self) -> Option<Instant> {
        self.cutter.due()
    }

    /// Makes what is in the live file a segment, and deletes what is too much then.
    async fn cut(&mut self) -> Result<Gone, StoreError> {
        let mut gone = Gone::default();
        if self.last > self.cut {
            let segment = Segment { first: self.cut + 1, last: self.last, newest: self.cutter.newest };
            let bytes = copy_bytes(&mut self.connection).await?;
            gone = self.make_room(bytes + self.retention.sizes.segment).await?;
            match segments::write(&mut self.connection, &self.path, &segment).await {
                Err(error) if error.is_damage() => return Err(error),
                Err(error) => {
                    // It stays in the live file, and that within its size as ever.
                    self.cutter.failed();
                    tracing::warn!(path = %self.path.display(), %error, "the request log cannot be cut; it is tried again");
                    return Ok(gone);
                }
                Ok(()) => {}
            }
            segments::set_cut(&mut self.connection, self.last, true).await?;
            self.cut = self.last;
            self.ids.forget_all();
            self.room.start_again(self.last + 1);
        }
        self.cutter = Cutter::open(self.retention.sizes, &mut self.connection).await?;
        gone += self.make_room(self.retention.ahead()).await?;
        self.room.set_closed(segments::closed_bytes(&self.path)?);
        Ok(gone)
    }

    async fn make_room(&mut self, more: u64) -> Result<Gone, StoreError> {
        let to_go = self.retention.to_go(&self.path, more, SystemTime::now())?;
        if let Some(links) = &self.links {
            // Before it is done: a kill between leaves a note of what is still there, and no hole that nobody explains.
            for segments in [&to_go.for_age, &to_go.for_size] {
                links::note_segments(&mut self.connection, &links.chain, segments).await?;
            }
        }
        Ok(self.retention.delete(&self.path, &to_go)?)
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
        let sealed = self.seal(batch);
        let mut handle = lock(&mut self.connection).await?;
        let database = Database::of(&mut handle);
        // Where something of it fails, the store is closed, by which SQLite undoes it.
        database.execute(c"BEGIN IMMEDIATE")?;
        let ids = self.ids.resolve(database, batch, end)?;
        let (mut strangers, mut known) = (Vec::new(), Vec::new());
        for (place, ((seq, record), ids)) in (self.last + 1..).zip(batch).zip(&ids).enumerate() {
            let client = record.client_addr.and_then(|client| client.told(self.client_address));
            let bodies = sealed.get(place).and_then(Option::as_deref);
            let mut row = Row { record, ids, seq, client, bodies, hash: None };
            row.hash = self.links.as_mut().map(|links| links.add(&row));
            if record.is_strangers() {
                strangers.push(encode_refusal(&row));
            } else {
                known.push(row);
            }
        }
        insert(database, INSERT_SQL, known.iter().map(encode))?;
        let mut refusal_pages = None;
        if !strangers.is_empty() {
            let before = database.pages()?;
            insert(database, INSERT_REFUSAL_SQL, strangers.into_iter())?;
            refusal_pages = Some(self.room.count_refusals(database, before)?);
        }
        if let Some(links) = &self.links {
            links::set_end(database, links, end)?;
        }
        let pages = database.pages()?;
        database.execute(c"COMMIT")?;
        self.room.takes(pages);
        self.last = end;
        if let Some(newest) = batch.iter().map(|record| micros(record.time)).max() {
            self.cutter.add(newest);
        }
        if let Some(refusal_pages) = refusal_pages {
            self.room.refusals_take(refusal_pages);
        }
        Ok(())
    }

    /// From now on bodies are sealed with this key.
    pub(super) fn seal_with(&mut self, key: &Arc<BodyKey>) {
        self.body_key = Some(Arc::clone(key));
    }

    /// Bodies of rows that are about to be written, each for the row it will be in; none where there is no key.
    fn seal(&self, batch: &[Box<Record>]) -> Vec<Option<Vec<u8>>> {
        let Some(key) = &self.body_key else { return Vec::new() };
        let seal = |seq: i64, record: &Record| {
            let bodies = record.bodies.as_ref()?;
            let sealed = key.seal(&row_id(self.number, seq, record.time).to_string(), bodies);
            if sealed.is_none() {
                self.retention.stats.bodies.miss(Missed::NoKey);
            }
            sealed
        };
        (self.last + 1..).zip(batch).map(|(seq, record)| seal(seq, record)).collect()
    }

    async fn set_clean(&mut self, clean: bool) -> sqlx::Result<()> {
        sqlx::query("UPDATE meta SET value = ? WHERE key = 'clean'").bind(clean).execute(&mut self.connection).await?;
        Ok(())
    }

    /// The row that says: between the last row and this one rows may be missing.
    async fn write_gap(&mut self, now: SystemTime, newest_segment: Option<i64>) -> Result<(), StoreError> {
        let last_time: Option<i64> = sqlx::query_scalar(LAST_TIME).fetch_one(&mut self.connection).await?;
        let silence = last_time.or(newest_segment).map_or(0, |last| micros(now) - last);
        self.append(&[Box::new(gap(now, u64::try_from(silence).unwrap_or(0)))]).await
    }
}

async fn connect(options: &StoreOptions) -> Result<SqliteConnection, StoreError> {
    let options = SqliteConnectOptions::new()
        .filename(&options.path)
        .journal_mode(SqliteJournalMode::Wal)
        // A power cut may lose the last moments, never the file (https://www.sqlite.org/wal.html).
        .synchronous(SqliteSynchronous::Normal)
        .busy_timeout(BUSY_TIMEOUT)
        .pragma("wal_autocheckpoint", Room::checkpoint_pages(options.sizes.total).to_string())
        .pragma("journal_size_limit", Room::wal_bytes(options.sizes.total).to_string())
        .disable_statement_logging();
    Ok(options.connect().await?)
}

/// A file that an earlier version left is one segment, too large to be copied: it gets that name, and a new one goes on
/// with its numbers. Where somebody else has it open it stays as it is until the next start.
async fn make_segment(
    mut connection: SqliteConnection,
    options: &StoreOptions,
) -> Result<SqliteConnection, StoreError> {
    let sql = "SELECT value FROM meta WHERE key = ?";
    let store: i64 = sqlx::query_scalar(sql).bind("store").fetch_one(&mut connection).await?;
    let clean: i64 = sqlx::query_scalar(sql).bind("clean").fetch_one(&mut connection).await?;
    let first = segments::cut_of(&mut connection).await? + 1;
    let last: i64 = sqlx::query_scalar(LAST_SEQ).fetch_one(&mut connection).await?;
    let newest = segments::times(&mut connection).await?.map_or(0, |(_, newest)| newest);
    sqlx::query("PRAGMA wal_checkpoint(TRUNCATE)").execute(&mut connection).await?;
    connection.close().await?;
    let is_segment = segments::move_away(&options.path, &Segment { first, last, newest })?;
    create(&options.path)?;
    let mut connection = connect(options).await?;
    migrate(&mut connection).await?;
    if is_segment {
        let sql = "INSERT INTO meta VALUES (?, ?) ON CONFLICT (key) DO UPDATE SET value = excluded.value";
        for (key, value) in [("store", store), ("clean", clean)] {
            sqlx::query(sql).bind(key).bind(value).execute(&mut connection).await?;
        }
        tracing::info!(path = %options.path.display(), rows_to = last, "the request log of an earlier version is a segment now");
    }
    Ok(connection)
}

/// Renames a damaged file and its write-ahead log, so that a new one can be begun and the old one be looked at. An earlier
/// one makes place, so that damage does not fill the disk.
pub(super) fn set_aside(path: &Path) -> io::Result<PathBuf> {
    let beside = |end: &str| {
        let mut name = path.as_os_str().to_owned();
        name.push(end);
        PathBuf::from(name)
    };
    let aside = beside(ASIDE);
    fs::rename(path, &aside)?;
    // Names that SQLite looks for beside the renamed file, and must not find beside the new one.
    for (end, new_end) in [("-wal", Some("-wal")), ("-shm", None)] {
        let moved = match new_end {
            Some(new_end) => fs::rename(beside(end), beside(&format!("{ASIDE}{new_end}"))),
            None => fs::remove_file(beside(end)),
        };
        match moved {
            Err(error) if error.kind() == io::ErrorKind::NotFound && new_end.is_some() => {
                // The earlier one's does not belong to this one.
                let _not_there = fs::remove_file(beside(&format!("{ASIDE}{end}")));
            }
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
    }
    Ok(aside)
}

/// Which file a path names; a removed and a replaced one differ from the one that is open.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct FileId {
    device: u64,
    inode: u64,
}

impl FileId {
    pub(super) fn of(path: &Path) -> io::Result<Self> {
        let metadata = fs::metadata(path)?;
        Ok(Self { device: metadata.dev(), inode: metadata.ino() })
    }
}

/// Makes the file where there is none, for its owner only: rows tell who asked for what. SQLite gives the files beside it
/// the same mode. A file that is there is not opened here: closing it would end every lock this process has on it. Whether
/// there was none.
fn create(path: &Path) -> io::Result<bool> {
    match OpenOptions::new().write(true).create_new(true).mode(0o600).open(path) {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(false),
        made => made.map(|_| true),
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
