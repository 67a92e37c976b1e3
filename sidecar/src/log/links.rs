//! What the store keeps of the chain: where it begins, where a file ends, and what the log has deleted itself (links.sql).

use std::fs;
use std::path::PathBuf;

use serde_json::{Value, json};
use sidecar_config::settings::Pod;
use sqlx::{AssertSqlSafe, SqliteConnection};

use super::chain::{Chain, Hash, Links};
use super::handle::{Database, HandleError};
use super::segments::Segment;
use super::store::StoreError;

/// Bytes of a chain's key at least: what nobody can guess.
const KEY_MIN: usize = 16;

/// Whether rows are chained, and by which key.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Chained {
    /// They are not.
    #[default]
    Off,
    /// Without a key.
    Unkeyed,
    /// With the key in this file.
    Keyed(PathBuf),
}

impl Chained {
    /// How hashes are made, if they are.
    ///
    /// # Errors
    /// When the key cannot be read, or is none.
    pub fn open(&self) -> Result<Option<Chain>, StoreError> {
        let path = match self {
            Self::Off => return Ok(None),
            Self::Unkeyed => return Ok(Some(Chain::new(None))),
            Self::Keyed(path) => path,
        };
        let wrong = |why: String| StoreError::Key { path: path.clone(), why };
        let bytes = fs::read(path).map_err(|error| wrong(error.to_string()))?;
        let key = bytes.trim_ascii_end();
        if key.len() < KEY_MIN {
            return Err(wrong(format!("it has {} bytes; write at least {KEY_MIN}", key.len())));
        }
        Ok(Some(Chain::new(Some(key))))
    }
}

/// Notes that rows up to `?` are a file of their own, and forgets what was deleted of them, which that file knows.
pub(super) const AT_A_CUT: [&str; 2] = [
    "INSERT OR IGNORE INTO link SELECT seq, seq + 1, chain, NULL FROM (SELECT seq, chain FROM decision UNION ALL \
     SELECT seq, chain FROM refusal) WHERE seq = ?1 AND chain IS NOT NULL",
    "DELETE FROM link WHERE last < ?1 AND last > coalesce((SELECT value FROM meta WHERE key = 'cut'), 0)",
];

/// Goes on with the chain of a store whose newest row is `last`, or begins one; also the number of the row that the next
/// one is to follow, which may have been deleted by somebody else.
pub(super) async fn open(
    connection: &mut SqliteConnection,
    chain: &Chain,
    last: i64,
    pod: Pod,
) -> sqlx::Result<(Links, i64)> {
    let store = store(connection).await?;
    let sql = "SELECT last, proof FROM chain_end";
    let end: Option<(i64, Vec<u8>)> = sqlx::query_as(sql).fetch_optional(&mut *connection).await?;
    let sql = "SELECT chain FROM (SELECT seq, chain FROM decision UNION ALL SELECT seq, chain FROM refusal UNION ALL \
               SELECT last, hash FROM link) WHERE seq = ? AND chain IS NOT NULL";
    let hash: Option<Vec<u8>> = sqlx::query_scalar(sql).bind(last).fetch_optional(&mut *connection).await?;
    let hash = hash.and_then(|hash| Hash::try_from(hash).ok());
    let is_end = |hash: &Hash| match &end {
        Some((end, proof)) => *end == last && chain.end(store, last, hash)[..] == proof[..],
        None => false,
    };
    if let Some(hash) = hash.filter(is_end) {
        return Ok((Links::new(chain.clone(), store, hash, pod), last));
    }
    let behind = end.as_ref().map_or(last, |(end, _)| last.max(*end));
    if end.is_some() {
        tracing::warn!(
            row = behind,
            "the chain of the request log begins anew: its end was made with another key, or is not what was written"
        );
    }
    let begin = if end.is_some() { chain.anew(store, behind) } else { chain.begin(store, behind) };
    let sql = "INSERT OR REPLACE INTO link VALUES (?, ?, ?, NULL)";
    sqlx::query(sql).bind(behind).bind(behind + 1).bind(&begin[..]).execute(connection).await?;
    Ok((Links::new(chain.clone(), store, begin, pod), behind))
}

/// Which store the file is of.
pub(super) async fn store(connection: &mut SqliteConnection) -> sqlx::Result<i64> {
    sqlx::query_scalar("SELECT value FROM meta WHERE key = 'store'").fetch_one(connection).await
}

/// Whether rows of the file are chained. One of an earlier version has no place for that.
pub(super) async fn is_chained(connection: &mut SqliteConnection) -> sqlx::Result<bool> {
    let sql = "SELECT count(*) FROM sqlite_schema WHERE name = 'chain_end'";
    let has_place: i64 = sqlx::query_scalar(sql).fetch_one(&mut *connection).await?;
    if has_place == 0 {
        return Ok(false);
    }
    let rows: i64 = sqlx::query_scalar("SELECT count(*) FROM chain_end").fetch_one(connection).await?;
    Ok(rows > 0)
}

/// Notes that `last` is the newest row.
pub(super) fn set_end(database: Database<'_>, links: &Links, last: i64) -> Result<(), HandleError> {
    let proof = links.chain.end(links.store, last, &links.last);
    let mut set = database.prepare(c"INSERT OR REPLACE INTO chain_end VALUES (1, ?, ?)")?;
    set.bind(1, last)?;
    set.bind_bytes(2, &proof)?;
    set.step().map(drop)
}

/// Notes rows of a table that are about to be deleted: those of which `condition` is true.
pub(super) async fn note_rows(
    connection: &mut SqliteConnection,
    chain: &Chain,
    table: &str,
    condition: &str,
) -> sqlx::Result<()> {
    let sql = format!(
        "SELECT max(seq) - count(*) + 1, max(seq), chain FROM (SELECT seq, chain, seq - row_number() OVER (ORDER BY seq) \
         AS island FROM {table} WHERE {condition}) WHERE chain IS NOT NULL GROUP BY island"
    );
    let runs: Vec<(i64, i64, Vec<u8>)> = sqlx::query_as(AssertSqlSafe(sql)).fetch_all(&mut *connection).await?;
    insert(connection, chain, &runs).await
}

/// Notes segments that are about to be deleted. What is deleted already before one goes into one note with it.
pub(super) async fn note_segments(
    connection: &mut SqliteConnection,
    chain: &Chain,
    segments: &[Segment],
) -> sqlx::Result<()> {
    for Segment { first, last, .. } in segments {
        let sql = "SELECT hash FROM link WHERE last = ?";
        let hash: Option<Vec<u8>> = sqlx::query_scalar(sql).bind(last).fetch_optional(&mut *connection).await?;
        let Some(hash) = hash else { continue };
        let sql = "DELETE FROM link WHERE last = ? AND first <= last RETURNING first";
        let before: Option<i64> = sqlx::query_scalar(sql).bind(first - 1).fetch_optional(&mut *connection).await?;
        insert(connection, chain, &[(before.unwrap_or(*first), *last, hash)]).await?;
    }
    Ok(())
}

async fn insert(connection: &mut SqliteConnection, chain: &Chain, runs: &[(i64, i64, Vec<u8>)]) -> sqlx::Result<()> {
    if runs.is_empty() {
        return Ok(());
    }
    let store = store(connection).await?;
    let rows = runs.iter().filter_map(|(first, last, hash)| {
        let hash = Hash::try_from(&hash[..]).ok()?;
        let proof = chain.removed(store, *first, *last, &hash);
        Some(json!([last, first, hex(&hash), hex(&proof)]))
    });
    let rows = Value::Array(rows.collect()).to_string();
    let sql = "INSERT OR REPLACE INTO link SELECT value ->> 0, value ->> 1, unhex(value ->> 2), unhex(value ->> 3) FROM json_each(?)";
    sqlx::query(sql).bind(rows).execute(connection).await?;
    Ok(())
}

/// As a hash is written.
pub(super) fn hex(hash: &Hash) -> String {
    format!("{:032x}", u128::from_be_bytes(*hash))
}
