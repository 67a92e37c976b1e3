//! The schema of the file: made where there is none, brought up to date where an earlier version made it.

use sidecar_decide::certificate::sfdi_of_hex;
use sqlx::{AssertSqlSafe, Connection, SqliteConnection};

use super::store::StoreError;

/// The schema this program writes; `PRAGMA user_version` of the file. 2 has `sfdi`,
/// 3 has strangers' refusals apart, 4 has tunnels, the ids of requests and traces, how long
/// requests waited, and how gRPC ended, 5 has limiters, 6 has types of messages, 7 the chain,
/// 8 what is captured, and bodies.
pub(super) const VERSION: i64 = 8;

const TABLES: &str = include_str!("tables.sql");

const REFUSALS: &str = include_str!("refusals.sql");

/// The first version that has them.
const REFUSALS_SINCE: i64 = 3;

const LINKS: &str = include_str!("links.sql");

/// The first version that has them.
const LINKS_SINCE: i64 = 7;

/// Columns of decisions and refusals, and the version they came with.
const COLUMNS: [(i64, &str); 9] = [
    (4, "request_id"),
    (4, "trace_id BLOB"),
    (4, "queue_us INTEGER"),
    (4, "grpc_status INTEGER"),
    (5, "limiter INTEGER"),
    (6, "message_type"),
    (7, "chain BLOB"),
    (8, "captured TEXT"),
    (8, "bodies BLOB"),
];

const VIEWS: &str = include_str!("views.sql");

/// Peers that are brought up to date at a time.
const STEP_ROWS: i64 = 1000;

/// Makes the schema in an empty file and brings an earlier one up to date, in one transaction; refuses a file it does
/// not know, rather than write into it.
pub(super) async fn migrate(connection: &mut SqliteConnection) -> Result<(), StoreError> {
    let found: i64 = sqlx::query_scalar("PRAGMA user_version").fetch_one(&mut *connection).await?;
    if found > VERSION {
        return Err(StoreError::Newer { found });
    }
    let is_ours = match found {
        0 => is_empty(connection).await?,
        1..=VERSION => has_decisions(connection).await?,
        _ => false,
    };
    if !is_ours {
        return Err(StoreError::Foreign);
    }
    if found == VERSION {
        return Ok(());
    }
    let mut transaction = connection.begin_with("BEGIN IMMEDIATE").await?;
    // Rows that an earlier version wrote stay where they are.
    for step in steps(found) {
        sqlx::raw_sql(AssertSqlSafe(step)).execute(&mut *transaction).await?;
    }
    if found == 1 {
        add_short_forms(&mut transaction).await?;
    }
    sqlx::raw_sql("DROP VIEW IF EXISTS requests; DROP VIEW IF EXISTS entry").execute(&mut *transaction).await?;
    sqlx::raw_sql(VIEWS).execute(&mut *transaction).await?;
    let version = format!("PRAGMA user_version = {VERSION}");
    sqlx::raw_sql(AssertSqlSafe(version)).execute(&mut *transaction).await?;
    transaction.commit().await?;
    Ok(())
}

/// What makes the tables of an earlier version, or of none, those of this one.
fn steps(found: i64) -> Vec<String> {
    let mut steps = Vec::new();
    let mut add = |table: &str| {
        let new = COLUMNS.iter().filter(|(since, _)| *since > found);
        steps.extend(new.map(|(_, column)| format!("ALTER TABLE {table} ADD COLUMN {column}")));
    };
    if found > 0 {
        add("decision");
    }
    if found >= REFUSALS_SINCE {
        add("refusal");
    }
    let missing = [(found == 0, TABLES), (found < REFUSALS_SINCE, REFUSALS), (found < LINKS_SINCE, LINKS)];
    steps.extend(missing.into_iter().filter(|(is_missing, _)| *is_missing).map(|(_, sql)| sql.to_owned()));
    steps
}

async fn is_empty(connection: &mut SqliteConnection) -> sqlx::Result<bool> {
    let tables: i64 = sqlx::query_scalar("SELECT count(*) FROM sqlite_schema").fetch_one(connection).await?;
    Ok(tables == 0)
}

/// A foreign file may carry one of our numbers: ours has the column that everything hangs on.
async fn has_decisions(connection: &mut SqliteConnection) -> sqlx::Result<bool> {
    let sql = "SELECT count(*) FROM pragma_table_info('decision') WHERE name = 'seq'";
    let columns: i64 = sqlx::query_scalar(sql).fetch_one(connection).await?;
    Ok(columns == 1)
}

/// From 1 to 2: the short form beside every long one.
async fn add_short_forms(connection: &mut SqliteConnection) -> sqlx::Result<()> {
    sqlx::raw_sql("ALTER TABLE peer ADD COLUMN sfdi TEXT").execute(&mut *connection).await?;
    let mut last = 0;
    loop {
        let sql = "SELECT id, lfdi FROM peer WHERE id > ? AND lfdi IS NOT NULL ORDER BY id LIMIT ?";
        let peers: Vec<(i64, String)> =
            sqlx::query_as(sql).bind(last).bind(STEP_ROWS).fetch_all(&mut *connection).await?;
        let Some((end, _)) = peers.last() else { return Ok(()) };
        last = *end;
        for (id, lfdi) in peers {
            let sql = "UPDATE peer SET sfdi = ? WHERE id = ?";
            sqlx::query(sql).bind(sfdi_of_hex(&lfdi)).bind(id).execute(&mut *connection).await?;
        }
    }
}
