//! A connection to the database of the request log, as whoever looks after it.

use std::fs;
use std::future::Future;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use clap::Args;
use postern_postgres::{Error, Session, Target};
use tokio::runtime::Builder;

/// For connecting and for each statement: an index of a large table takes its time.
const TIMEOUT: Duration = Duration::from_secs(120);

/// How to be believed, and whom to believe.
#[derive(Args, Clone, Debug)]
pub(crate) struct Access {
    /// File with the password, where the URL has none
    #[arg(long, value_name = "FILE", requires = "url")]
    password_file: Option<PathBuf>,
    /// File with the authorities that may vouch for the server, in PEM; `sslrootcert` of the URL goes before it
    #[arg(long, value_name = "FILE", requires = "url")]
    ca_file: Option<PathBuf>,
}

impl Access {
    /// Does what `work` says over one connection.
    ///
    /// # Errors
    /// Why there is no connection, or what the server said.
    pub(crate) fn with<T, F>(&self, url: &str, work: impl FnOnce(Session) -> F) -> Result<T>
    where
        F: Future<Output = Result<T, Error>>,
    {
        let mut target = Target::parse(url).with_context(|| "the URL")?;
        let read = |path: &PathBuf| fs::read(path).with_context(|| format!("cannot read {}", path.display()));
        if let Some(path) = &self.password_file {
            let password = read(path)?;
            target = target.with_password(password.trim_ascii_end());
        }
        let authorities = match target.authorities().or(self.ca_file.as_ref()) {
            Some(path) if target.is_verified() => Some(read(path)?),
            None if target.is_verified() => {
                bail!("nobody vouches for the server: give --ca-file, or sslmode=disable in the URL")
            }
            _ => None,
        };
        let runtime = Builder::new_current_thread().enable_all().build()?;
        let done = runtime.block_on(async {
            let session = Session::connect(&target, authorities.as_deref(), TIMEOUT).await?;
            work(session).await
        });
        Ok(done?)
    }
}
