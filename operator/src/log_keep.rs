//! `log-keep`: what is to be done to the request log in Postgres by the clock. It asks no cluster.

use std::io::Write;

use anyhow::Result;
use clap::Args;

use crate::log_database::Access;

/// Flags of `log-keep`.
#[derive(Args, Clone, Debug)]
pub struct Flags {
    /// The database, as somebody who has role `postern_keeper`: `postgres://USER@HOST/DATABASE`
    #[arg(value_name = "URL")]
    url: String,
    /// Delete rows, and sums by the minute, of more than so many days before this one; without it only sums are moved
    #[arg(long, value_name = "DAYS", value_parser = clap::value_parser!(u16).range(1..))]
    days: Option<u16>,
    /// With --days: delete the other sums of more than so many days before this one
    #[arg(long, value_name = "DAYS", default_value_t = 400, requires = "days", value_parser = clap::value_parser!(u16).range(1..))]
    summed_days: u16,
    #[command(flatten)]
    access: Access,
}

/// Moves sums, and deletes what is too old.
///
/// # Errors
/// What the server said. What was done until then stays.
pub fn run(flags: &Flags, output: &mut dyn Write) -> Result<()> {
    let (moved, dropped) = flags.access.with(&flags.url, async |mut session| {
        let moved = session.query("SELECT postern.refresh()").await?;
        let dropped = match flags.days {
            Some(days) => session.query(&format!("SELECT postern.keep({days}, {})", flags.summed_days)).await?,
            None => None,
        };
        session.close().await;
        Ok((moved, dropped))
    })?;
    writeln!(output, "sums moved: {}", moved.unwrap_or_default())?;
    if let Some(dropped) = dropped {
        writeln!(output, "days dropped: {dropped}")?;
    }
    Ok(())
}
