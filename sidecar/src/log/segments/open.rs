//! Reading segments: which of them have what is asked for, each through a connection of its own that cannot write.

use std::fs;
use std::io;
use std::path::Path;

use sqlx::SqliteConnection;

use super::compress::{is_database, read};
use super::pack::unpack;
use super::{Segment, Unread, list_all, table};
use crate::log::filter::Filter;
use crate::log::query::{self, QueryError};
use crate::log::schema::{self, VERSION};
use crate::log::store::StoreError;

/// Where rows are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::log) enum Source {
    /// In the live file.
    Live,
    /// In a segment.
    Closed(Segment),
}

/// Some of a file's rows.
#[derive(Clone, Debug)]
pub(in crate::log) struct Part {
    pub(in crate::log) source: Source,
    /// The first of them that is asked for.
    pub(in crate::log) first: i64,
}

/// Number of the last row that is in a segment and not in the live file any more. To be asked before segments are listed,
/// in the transaction in which the live file is read.
pub(in crate::log) async fn cut_of(live: &mut SqliteConnection) -> sqlx::Result<i64> {
    let sql = "SELECT coalesce((SELECT value FROM meta WHERE key = 'cut'), 0)";
    sqlx::query_scalar(sql).fetch_one(live).await
}

/// Opens a segment; `None` where it was deleted meanwhile, or is damaged. What cannot be opened now is an error.
pub(in crate::log) async fn open(live: &Path, segment: &Segment) -> Result<Option<SqliteConnection>, QueryError> {
    let opened = match query::open_closed(&segment.path(live)).await {
        Err(QueryError::Missing { .. }) => match image(&segment.packed_path(live), &segment.thinned_path(live))? {
            Some(image) => query::open_image(&image).await,
            None => return Ok(None),
        },
        opened => opened,
    };
    match opened {
        Err(QueryError::Missing { .. }) => Ok(None),
        Err(error) if error.is_damage() => Ok(None),
        opened => opened.map(Some),
    }
}

/// The same, for an answer that is to say what it lacks.
pub(in crate::log) async fn open_to_read(
    live: &Path,
    segment: &Segment,
    unread: &Unread,
) -> Result<Option<SqliteConnection>, QueryError> {
    let opened = open(live, segment).await?;
    if opened.is_none() {
        unread.note(live, segment);
    }
    Ok(opened)
}

/// As [`open`], in tables of this version: where an earlier one wrote it, it is brought up to date in memory. A later
/// one's is an error.
pub(in crate::log) async fn open_current(
    live: &Path,
    segment: &Segment,
) -> Result<Option<SqliteConnection>, QueryError> {
    let Some(mut opened) = open(live, segment).await? else { return Ok(None) };
    let version: i64 = sqlx::query_scalar("PRAGMA user_version").fetch_one(&mut opened).await?;
    if version == VERSION {
        return Ok(Some(opened));
    }
    drop(opened);
    let image = match read(live, segment) {
        Ok(image) => image,
        Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::InvalidData) => return Ok(None),
        Err(error) => return Err(error.into()),
    };
    let mut changed = query::open_to_change(&image).await?;
    match schema::migrate(&mut changed).await {
        Ok(()) => Ok(Some(changed)),
        Err(StoreError::Sqlite(error)) => Err(error.into()),
        Err(StoreError::Newer { .. }) => Err(QueryError::Newer { path: segment.path(live) }),
        // Nobody's.
        Err(_) => Ok(None),
    }
}

/// The bytes of a packed segment, or of what is left of it; `None` where it is gone or damaged.
pub(super) fn image(packed: &Path, thinned: &Path) -> io::Result<Option<Vec<u8>>> {
    let file = match fs::read(packed) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => fs::read(thinned),
        read => read,
    };
    match file.and_then(|file| unpack(&file)) {
        Ok(image) => Ok(is_database(&image).then_some(image)),
        Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::InvalidData) => Ok(None),
        Err(error) => Err(error),
    }
}

/// Segments of which the live file has no rows any more, oldest first, and those that were set aside.
async fn closed(path: &Path, live: &mut SqliteConnection) -> Result<Vec<Segment>, QueryError> {
    let cut = cut_of(live).await?;
    let mut segments = list_all(path)?;
    segments.retain(|segment| segment.last <= cut);
    Ok(segments)
}

/// Where the newest `limit` rows are that match, newest first; `live` is in a transaction.
pub(in crate::log) async fn newest(
    path: &Path,
    live: &mut SqliteConnection,
    filter: &Filter,
    limit: u32,
    unread: &Unread,
) -> Result<Vec<Part>, QueryError> {
    let mut left = i64::from(limit);
    let mut parts = Vec::new();
    let sources = closed(path, live).await?.into_iter().map(Source::Closed).chain([Source::Live]);
    for source in sources.rev() {
        if left == 0 {
            break;
        }
        let (first, rows) = match &source {
            Source::Live => matches(live, filter, left).await?,
            Source::Closed(segment) if filter.since.is_some_and(|since| segment.is_before(since)) => continue,
            Source::Closed(segment) => {
                let Some(mut connection) = open_to_read(path, segment, unread).await? else { continue };
                match matches(&mut connection, filter, left).await {
                    Err(error) if error.is_damage() => {
                        unread.note(path, segment);
                        continue;
                    }
                    found => found?,
                }
            }
        };
        left -= rows;
        parts.extend(first.map(|first| Part { source, first }));
    }
    Ok(parts)
}

/// The first of the newest `limit` rows that match, and how many there are.
async fn matches(
    connection: &mut SqliteConnection,
    filter: &Filter,
    limit: i64,
) -> Result<(Option<i64>, i64), QueryError> {
    let (conditions, values) = filter.conditions();
    let sql =
        format!("SELECT min(seq), count(*) FROM (SELECT seq FROM entry WHERE {conditions} ORDER BY seq DESC LIMIT ?)");
    let row = query::bound(&sql, values).bind(limit).fetch_one(connection).await?;
    Ok((sqlx::Row::try_get(&row, 0)?, sqlx::Row::try_get(&row, 1)?))
}

/// Those columns, as a file has them: one that it does not have, because an earlier version wrote it, is NULL.
pub(in crate::log) async fn known(connection: &mut SqliteConnection, columns: &str) -> sqlx::Result<String> {
    let sql = "SELECT name FROM pragma_table_info('entry')";
    let known: Vec<String> = sqlx::query_scalar(sql).fetch_all(connection).await?;
    let column = |name: &str| match known.iter().any(|known| known == name) {
        true => name.to_owned(),
        false => format!("NULL AS {name}"),
    };
    Ok(query::names(columns).iter().map(|name| column(name)).collect::<Vec<_>>().join(", "))
}

/// From now on the views `requests` and `entry` of this connection, which is in a transaction and may write yet, have the
/// rows of all files.
pub(in crate::log) async fn as_one_table(
    path: &Path,
    live: &mut SqliteConnection,
    unread: &Unread,
) -> Result<(), QueryError> {
    let segments = closed(path, live).await?;
    if segments.is_empty() {
        return Ok(());
    }
    for (view, sql) in [
        ("requests", "CREATE VIRTUAL TABLE temp.requests USING requests"),
        ("entry", "CREATE VIRTUAL TABLE temp.entry USING entry"),
    ] {
        let names = "SELECT name FROM pragma_table_info(?)";
        let columns: Vec<String> = sqlx::query_scalar(names).bind(view).fetch_all(&mut *live).await?;
        let source =
            table::Source { view, columns, live: path.to_owned(), segments: segments.clone(), unread: unread.clone() };
        if table::register(&mut live.lock_handle().await?, source) {
            sqlx::raw_sql(sql).execute(&mut *live).await?;
        }
    }
    Ok(())
}
