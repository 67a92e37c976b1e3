//! What is left of a segment when there is no room for all of it: what was refused, or would have been.
//!
//! Whoever looks into what happened long ago looks for refusals, and most rows are of what was allowed.

use sqlx::{AssertSqlSafe, Connection, SqliteConnection};

use super::Segment;
use crate::log::chain::Chain;
use crate::log::query::{self, QueryError};
use crate::log::{links, verify};

/// What was allowed. A gap has no verdict, and stays.
const ALLOWED: &str = "verdict = 0";

/// Deletes what only that refers to.
const THIN: [&str; 2] = [
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
pub(super) async fn thin(
    image: &[u8],
    segment: &Segment,
    chain: Option<&Chain>,
) -> Result<Thinned<impl AsRef<[u8]> + use<>>, QueryError> {
    let mut thinned = query::open_to_change(image).await?;
    if let Some(chain) = chain {
        note(&mut thinned, segment, chain).await?;
    }
    let sql = format!("DELETE FROM decision WHERE {ALLOWED}");
    let gone = sqlx::query(AssertSqlSafe(sql)).execute(&mut thinned).await?.rows_affected();
    for sql in THIN {
        sqlx::query(sql).execute(&mut thinned).await?;
    }
    let left = count(&mut thinned).await?;
    sqlx::query("VACUUM").execute(&mut thinned).await?;
    let image = thinned.serialize(None).await?;
    thinned.close().await?;
    Ok(Thinned { image, gone, left })
}

/// Notes what will be gone, if it is what was written: else the note would hide what somebody else has done.
async fn note(connection: &mut SqliteConnection, segment: &Segment, chain: &Chain) -> Result<(), QueryError> {
    if !links::is_chained(connection).await? {
        return Ok(());
    }
    if verify::fits(connection, chain, segment).await? {
        links::note_rows(connection, chain, "decision", ALLOWED).await?;
    } else {
        let (first, last) = (segment.first, segment.last);
        tracing::error!(
            first,
            last,
            "rows of the request log are not what was written; `postern-sidecar log verify` tells more"
        );
    }
    Ok(())
}

async fn count(segment: &mut SqliteConnection) -> sqlx::Result<i64> {
    let sql = "SELECT (SELECT count(*) FROM decision) + (SELECT count(*) FROM refusal)";
    sqlx::query_scalar(sql).fetch_one(segment).await
}
