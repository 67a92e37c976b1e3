//! What is left of a segment when there is no room for all of it: what was refused, or would have been.
//!
//! Whoever looks into what happened long ago looks for refusals, and most rows are of what was allowed.

use sqlx::{Connection, SqliteConnection};

use crate::log::query::{self, QueryError};

/// Deletes what was allowed, and what only that refers to. A gap has no verdict, and stays.
const THIN: [&str; 3] = [
    "DELETE FROM decision WHERE verdict = 0",
    "DELETE FROM scope WHERE id NOT IN (SELECT scope FROM decision WHERE scope IS NOT NULL)",
    "DELETE FROM peer WHERE id NOT IN (SELECT peer FROM decision WHERE peer IS NOT NULL)",
];

/// A thinned one's bytes.
pub(super) struct Thinned<B> {
    pub(super) image: B,
    /// Rows that were deleted.
    pub(super) gone: u64,
    /// Rows that are left.
    pub(super) left: i64,
}

/// Thins a segment, in memory.
pub(super) async fn thin(image: &[u8]) -> Result<Thinned<impl AsRef<[u8]> + use<>>, QueryError> {
    let mut segment = query::open_to_change(image).await?;
    let mut gone = 0;
    for (index, sql) in THIN.into_iter().enumerate() {
        let rows = sqlx::query(sql).execute(&mut segment).await?.rows_affected();
        gone += if index == 0 { rows } else { 0 };
    }
    let left = count(&mut segment).await?;
    sqlx::query("VACUUM").execute(&mut segment).await?;
    let image = segment.serialize(None).await?;
    segment.close().await?;
    Ok(Thinned { image, gone, left })
}

async fn count(segment: &mut SqliteConnection) -> sqlx::Result<i64> {
    let sql = "SELECT (SELECT count(*) FROM decision) + (SELECT count(*) FROM refusal)";
    sqlx::query_scalar(sql).fetch_one(segment).await
}
