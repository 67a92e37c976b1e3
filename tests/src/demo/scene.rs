//! What the demo sets up: a scratch directory with certificates and a configuration, an upstream, and the sidecar.

use std::fs;
use std::net::SocketAddr;
use std::os::unix::fs::symlink;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use postern_tests::ca::{Authority, LeafOptions};
use postern_tests::clients::{Curl, run, shell_word};
use postern_tests::config::client_uri;
use postern_tests::process::{Launch, Sidecar};
use postern_tests::upstream::Upstream;
use postern_tests::wait::PATIENCE;
use tempfile::TempDir;

/// The configuration's file in the scratch directory.
pub(crate) const CONFIG: &str = "postern.toml";

/// The clients with a certificate.
const CLIENTS: [&str; 3] = ["billing", "reports", "mallory"];

/// Everything that is running. Fields are dropped in order: the sidecar first, its files last.
pub(crate) struct Scene {
    /// The gate.
    pub(crate) sidecar: Sidecar,
    /// From the sidecar's start until it was ready.
    pub(crate) ready_after: Duration,
    /// Where the gate listens.
    pub(crate) gate: SocketAddr,
    /// Where the sidecar tells its state.
    pub(crate) status: SocketAddr,
    /// What the gate guards.
    pub(crate) upstream: Upstream,
    scratch: TempDir,
}

impl Scene {
    /// Sets everything up and waits until the gate is ready.
    pub(crate) fn set_up(binary: &Path) -> Result<Self> {
        let binary = fs::canonicalize(binary).with_context(|| format!("no sidecar at {}", binary.display()))?;
        let scratch = tempfile::Builder::new().prefix("postern-demo-").tempdir().context("make a scratch directory")?;
        let upstream = Upstream::start()?;
        write_certificates(scratch.path())?;
        let config = scratch.path().join(CONFIG);
        fs::write(&config, configuration(upstream.address())).context("write the configuration")?;
        // The commands that are printed stay short.
        symlink(&binary, scratch.path().join("postern-sidecar"))?;
        let sidecar = Launch::of(binary, &config).own_process_group().start()?;
        // What is tried out here is nobody's test.
        sidecar.leave_unaudited();
        let ready_after = sidecar.wait_ready()?;
        let (gate, status) = (sidecar.listener("gate")?, sidecar.status_address()?);
        Ok(Self { sidecar, ready_after, gate, status, upstream, scratch })
    }

    /// The scratch directory.
    pub(crate) fn folder(&self) -> &Path {
        self.scratch.path()
    }

    /// A call for an order, with the certificate of that name or none.
    pub(crate) fn curl(&self, certificate: Option<&str>) -> Curl {
        let url = format!("https://localhost:{}/orders/7", self.gate.port());
        let curl = Curl::new(url).authority("ca.pem").folder(self.folder()).own_process_group();
        match certificate {
            Some(stem) => curl.certificate(stem),
            None => curl,
        }
    }

    /// Runs `postern-sidecar log` the way [`Self::log_command`] shows it.
    pub(crate) fn log(&self, arguments: &[&str]) -> Result<String> {
        let mut command = Command::new("./postern-sidecar");
        command.current_dir(self.folder()).args(["log", "--config", CONFIG]).args(arguments);
        command.process_group(0);
        let finished = run(&mut command, b"", PATIENCE)?;
        ensure!(finished.code == Some(0), "postern-sidecar log failed: {}", finished.stderr.trim_end());
        Ok(finished.text())
    }

    /// `postern-sidecar log` as one would type it in the scratch directory.
    pub(crate) fn log_command(arguments: &[&str]) -> String {
        let start = format!("./postern-sidecar log --config {CONFIG}");
        arguments.iter().fold(start, |line, word| format!("{line} {}", shell_word(word)))
    }
}

fn write_certificates(folder: &Path) -> Result<()> {
    let authority = Authority::new("Postern demo authority")?;
    fs::write(folder.join("ca.pem"), authority.root_pem()).context("write ca.pem")?;
    authority.issue(&LeafOptions::server("gate"))?.write(folder, "server")?;
    for client in CLIENTS {
        authority.issue(&LeafOptions::client(client, &client_uri(client)))?.write(folder, client)?;
    }
    Ok(())
}

fn configuration(upstream: SocketAddr) -> String {
    include_str!("postern.toml").replace("127.0.0.1:8080", &upstream.to_string())
}
