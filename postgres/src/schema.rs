//! The schema of the request log in Postgres: one step for each version, applied in order and each in one transaction.
//! The sidecar applies it where it is told to.

use crate::session::{Error, Failure, Session};

/// The version that this program makes.
pub const VERSION: i64 = 4;

/// The version that brought the last of [`COLUMNS`]: what this program writes into is at least that.
const NEEDED: i64 = 4;

/// What leads from each version to the next.
const STEPS: [&str; 4] = [
    include_str!("schema/1.sql"),
    include_str!("schema/2.sql"),
    include_str!("schema/3.sql"),
    include_str!("schema/4.sql"),
];

/// Held while the schema is changed, so that two who apply it at once do it one after the other.
const LOCK: &str = "SELECT pg_advisory_xact_lock(7095770200)";

/// All of it, for whoever wants to read or apply it himself.
#[must_use]
pub fn text() -> String {
    STEPS.iter().zip(1..).map(|(step, version)| transaction(step, version)).collect()
}

fn transaction(step: &str, version: i64) -> String {
    let guard = format!(
        "DO $$ BEGIN\n  IF coalesce((SELECT max(value) FROM postern.meta WHERE key = 'version'), 0) <> {version} THEN\n    \
         RAISE EXCEPTION 'version {version} of the request log was not made';\n  END IF;\nEND $$;"
    );
    format!("BEGIN;\n{LOCK};\n{step}\n{guard}\nCOMMIT;\n")
}

/// From which version to which the schema was brought.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Applied {
    /// 0 where there was none.
    pub from: i64,
    /// Now.
    pub to: i64,
}

/// Makes the schema where there is none and brings an earlier one up to date. A newer one stays as it is.
///
/// # Errors
/// What the server said; the step that failed has left nothing.
pub async fn apply(session: &mut Session) -> Result<Applied, Error> {
    let from = version(session).await?.unwrap_or(0);
    let mut at = from;
    while let Some(step) = usize::try_from(at).ok().and_then(|at| STEPS.get(at)) {
        session.query(&format!("BEGIN; {LOCK}")).await?;
        // Somebody else may have done it while this one waited.
        let result = match version(session).await {
            Ok(found) if found.unwrap_or(0) == at => session.query(step).await.map(drop),
            Ok(_) => Ok(()),
            Err(error) => Err(error),
        };
        let end = if result.is_ok() { "COMMIT" } else { "ROLLBACK" };
        let ended = session.query(end).await;
        result.and(ended)?;
        at = version(session).await?.unwrap_or(0).max(at + 1);
    }
    Ok(Applied { from, to: at })
}

/// The schema's version, `None` where there is none.
///
/// # Errors
/// What the server said.
pub async fn version(session: &mut Session) -> Result<Option<i64>, Error> {
    if asked(session, "SELECT EXISTS (SELECT FROM pg_tables WHERE schemaname = 'postern' AND tablename = 'meta')")
        .await?
        != "t"
    {
        return Ok(None);
    }
    number(session, "SELECT value FROM postern.meta WHERE key = 'version'").await.map(Some)
}

/// Looks whether this program can write into what is there.
///
/// # Errors
/// Where it cannot, with the remedy; and what the server said.
pub async fn check(session: &mut Session) -> Result<(), Error> {
    let wrong = |message: String| Err(Error::new(Failure::Schema, message));
    let Some(found) = version(session).await? else {
        return wrong("there is no schema `postern`: make it with `postern-operator log-schema --apply`, or set `settings.log.postgres.applySchema`".to_owned());
    };
    if found < NEEDED {
        return wrong(format!(
            "its schema has version {found}, and this program needs {NEEDED}: apply `postern-operator log-schema`"
        ));
    }
    let from = number(session, "SELECT value FROM postern.meta WHERE key = 'writers_from'").await?;
    if from > VERSION {
        return wrong(format!("its schema takes rows from version {from} on, and this program writes {VERSION}"));
    }
    Ok(())
}

async fn number(session: &mut Session, sql: &str) -> Result<i64, Error> {
    let text = asked(session, sql).await?;
    text.parse().map_err(|_| Error::new(Failure::Schema, "schema `postern` is not the request log's".to_owned()))
}

async fn asked(session: &mut Session, sql: &str) -> Result<String, Error> {
    Ok(session.query(sql).await?.unwrap_or_default())
}
