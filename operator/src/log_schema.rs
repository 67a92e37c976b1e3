//! `log-schema`: the schema of the request log in Postgres, printed or applied. It asks no cluster.

use std::fs;
use std::io::Write;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use clap::Args;
use postern_postgres::{Session, Target, schema};
use tokio::runtime::Builder;

/// For connecting and for each statement: an index of a large table takes its time.
const TIMEOUT: Duration = Duration::from_secs(120);

/// Flags of `log-schema`.
#[derive(Args, Clone, Debug)]
pub struct Flags {
    /// Apply it to this database, as somebody who may make schemas and roles in it: `postgres://USER@HOST/DATABASE`.
    /// Without it the SQL is printed
    #[arg(long, value_name = "URL")]
    apply: Option<String>,
    /// File with the password, where the URL has none
    #[arg(long, value_name = "FILE", requires = "apply")]
    password_file: Option<PathBuf>,
    /// File with the authorities that may vouch for the server, in PEM; `sslrootcert` of the URL goes before it
    #[arg(long, value_name = "FILE", requires = "apply")]
    ca_file: Option<PathBuf>,
}

/// Prints or applies it.
///
/// # Errors
/// Why it was not applied; a step that failed has changed nothing.
pub fn run(flags: &Flags, output: &mut dyn Write) -> Result<()> {
    let Some(url) = &flags.apply else { return Ok(output.write_all(schema::text().as_bytes())?) };
    let mut target = Target::parse(url).context("--apply")?;
    let read = |path: &PathBuf| fs::read(path).with_context(|| format!("cannot read {}", path.display()));
    if let Some(path) = &flags.password_file {
        let password = read(path)?;
        target = target.with_password(password.trim_ascii_end());
    }
    let authorities = match target.authorities().or(flags.ca_file.as_ref()) {
        Some(path) if target.is_verified() => Some(read(path)?),
        None if target.is_verified() => {
            bail!("nobody vouches for the server: give --ca-file, or sslmode=disable in the URL")
        }
        _ => None,
    };
    let runtime = Builder::new_current_thread().enable_all().build()?;
    let applied = runtime.block_on(async {
        let mut session = Session::connect(&target, authorities.as_deref(), TIMEOUT).await?;
        let applied = schema::apply(&mut session).await?;
        session.close().await;
        Ok::<_, postern_postgres::Error>(applied)
    })?;
    if applied.from == applied.to {
        writeln!(output, "the request log's schema is there already, version {}", applied.to)?;
    } else {
        writeln!(output, "the request log's schema was brought from version {} to {}", applied.from, applied.to)?;
    }
    Ok(())
}
