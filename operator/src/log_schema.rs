//! `log-schema`: the schema of the request log in Postgres, printed or applied. It asks no cluster.

use std::io::Write;

use anyhow::Result;
use clap::Args;
use postern_postgres::schema;

use crate::log_database::Access;

/// Flags of `log-schema`.
#[derive(Args, Clone, Debug)]
pub struct Flags {
    /// Apply it to this database, as somebody who may make schemas and roles in it: `postgres://USER@HOST/DATABASE`.
    /// Without it the SQL is printed
    #[arg(id = "url", long = "apply", value_name = "URL")]
    apply: Option<String>,
    #[command(flatten)]
    access: Access,
}

/// Prints or applies it.
///
/// # Errors
/// Why it was not applied; a step that failed has changed nothing.
pub fn run(flags: &Flags, output: &mut dyn Write) -> Result<()> {
    let Some(url) = &flags.apply else { return Ok(output.write_all(schema::text().as_bytes())?) };
    let applied = flags.access.with(url, async |mut session| {
        let applied = schema::apply(&mut session).await?;
        session.close().await;
        Ok(applied)
    })?;
    if applied.from == applied.to {
        writeln!(output, "the request log's schema is there already, version {}", applied.to)?;
    } else {
        writeln!(output, "the request log's schema was brought from version {} to {}", applied.from, applied.to)?;
    }
    Ok(())
}
