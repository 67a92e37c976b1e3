//! `log verify`: its flags, and what it says.

use std::io::{self, Write};
use std::path::PathBuf;

use anyhow::{Result, bail};
use clap::Args;

use super::store::StoreArgs;
use crate::log::{self, Chain, Chained, Verified};

#[derive(Args, Debug)]
pub(super) struct VerifyArgs {
    /// File with the key of the chain; by default the one the configuration names, if it names one
    #[arg(long, value_name = "FILE")]
    key: Option<PathBuf>,
    /// A row has to have this hash: one that was kept elsewhere, such as what this command printed before
    #[arg(long, value_name = "HASH")]
    anchor: Option<String>,
}

/// Verifies the log, and says what was found.
pub(super) async fn verify(store: &StoreArgs, args: &VerifyArgs) -> Result<()> {
    let (database, configured) = store.chained_files()?;
    let chained = args.key.clone().map_or(configured, Chained::Keyed);
    let chain = chained.open()?.unwrap_or_else(|| Chain::new(None));
    let found = log::verify(&database, &chain, args.anchor.as_deref()).await?;
    let Verified { rows, deleted, before, newest, has_anchor } = found;
    let Some(newest) = newest else { bail!("no row of {} has a hash: settings.log.chain was Off", database.display()) };
    let mut out = io::stdout().lock();
    writeln!(out, "{rows} rows fit; {deleted} more the log has deleted itself; {before} are from before the chain")?;
    writeln!(out, "the newest is {newest}, with hash {}", newest.hash)?;
    if args.anchor.is_some() && !has_anchor {
        bail!("no row has the hash that was asked for: the rows are others, or that one was deleted");
    }
    Ok(())
}
