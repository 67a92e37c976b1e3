//! Where the log is: the files of a gate, or PostgreSQL.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, anyhow, bail};
use clap::Args;
use postern_postgres::Target;
use sidecar_config::settings::Settings;
use sidecar_decide::Parts;

use crate::config::{self, Publisher};
use crate::log::{Chained, Remote, Store};
use crate::settings::{self, Flags};

#[derive(Args, Debug)]
pub(super) struct StoreArgs {
    /// Configuration file (TOML, YAML or JSON), or a folder of them
    #[arg(global = true, long, value_name = "PATH", default_value = "/etc/postern")]
    config: PathBuf,
    /// The database file; by default the one the configuration names
    #[arg(global = true, long, value_name = "FILE")]
    database: Option<PathBuf>,
    /// Rows of all gates in PostgreSQL instead: postgres://USER@HOST/DATABASE. Its password is asked of PGPASSWORD where
    /// neither the URL nor a file has it
    #[arg(global = true, long, value_name = "URL", conflicts_with_all = ["config", "database"])]
    postgres: Option<String>,
    /// File with the password for PostgreSQL
    #[arg(global = true, long, value_name = "FILE", requires = "postgres")]
    password_file: Option<PathBuf>,
    /// File with the authorities that may vouch for PostgreSQL, in PEM; `sslrootcert` of the URL goes before it
    #[arg(global = true, long, value_name = "FILE", requires = "postgres")]
    ca_file: Option<PathBuf>,
}

impl StoreArgs {
    pub(super) async fn open(&self) -> Result<Store> {
        match &self.postgres {
            Some(url) => Ok(Store::Server(Box::new(self.connect(url).await?))),
            None => self.chained_files().map(|(files, _)| Store::Files(files)),
        }
    }

    /// The configuration, as far as it is there and can be accepted.
    pub(super) fn parts(&self) -> Option<Parts> {
        let mut reading =
            config::read(&self.config).ok().filter(|_| self.postgres.is_none() && self.database.is_none())?;
        let mut publisher = Publisher::new(&self.config);
        publisher.offer(&mut reading);
        Some(publisher.parts().clone())
    }

    /// The files of one gate, and how their rows are chained as far as its configuration says so.
    pub(super) fn chained_files(&self) -> Result<(PathBuf, Chained)> {
        if self.postgres.is_some() {
            bail!("rows in PostgreSQL are not verified: this is of the files of a gate");
        }
        if let Some(database) = &self.database {
            return Ok((database.clone(), Chained::Off));
        }
        let settings = self.settings()?;
        Ok((settings::log_path(&settings, &self.config), settings::log_chain(&settings, &self.config)))
    }

    /// The key for bodies that the configuration names, or that is where one usually is.
    pub(super) fn body_key(&self) -> Option<PathBuf> {
        let settings = self.settings().ok()?;
        let file = settings::log_body_key(&settings, &self.config);
        (settings.log.body_key_file.is_some() || file.exists()).then_some(file)
    }

    fn settings(&self) -> Result<Settings> {
        let reading = config::read(&self.config).context("which log? give --config or --database")?;
        settings::load(&reading, &Flags::default()).map_err(|errors| anyhow!(errors.join("\n")))
    }

    async fn connect(&self, url: &str) -> Result<Remote> {
        let target = Target::parse(url).context("--postgres")?.to_read();
        let password = match &self.password_file {
            Some(path) => Some(read(path)?),
            None if target.has_password() => None,
            None => settings::postgres_password(),
        };
        let authorities = match target.authorities().or(self.ca_file.as_ref()) {
            Some(path) if target.is_verified() => Some(read(path)?),
            None if target.is_verified() => {
                bail!("nobody vouches for the server: give --ca-file, or sslmode=disable in the URL")
            }
            _ => None,
        };
        let target = match password {
            Some(password) => target.with_password(password.trim_ascii_end()),
            None => target,
        };
        Ok(Remote::open(&target, authorities.as_deref()).await?)
    }
}

fn read(path: &Path) -> Result<Vec<u8>> {
    fs::read(path).with_context(|| format!("cannot read {}", path.display()))
}
