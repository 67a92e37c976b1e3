//! `version`: of this program, of what it writes, and of the cluster.

use std::io::Write;

use anyhow::{Context, Result};
use clap::Args;
use sidecar_config::{CONTRACT_MAX, CONTRACT_MIN};

use super::Ended;
use super::cluster::{Connection, run as wait};

/// What `version` is told.
#[derive(Args, Clone, Debug)]
pub struct Arguments {
    #[command(flatten)]
    connection: Connection,
    /// Ask no cluster
    #[arg(long)]
    client: bool,
}

/// Tells versions.
///
/// # Errors
/// When the cluster does not answer.
pub fn run(arguments: &Arguments, output: &mut dyn Write) -> Result<Ended> {
    writeln!(output, "postern    {}", env!("CARGO_PKG_VERSION"))?;
    writeln!(output, "contract   {CONTRACT_MIN} to {CONTRACT_MAX}")?;
    if !arguments.client {
        let version = wait(async {
            let cluster = arguments.connection.open().await?;
            cluster.client.apiserver_version().await.context("the API server does not answer; --client asks none")
        })?;
        writeln!(output, "kubernetes {}", version.git_version)?;
    }
    Ok(Ended::Well)
}
