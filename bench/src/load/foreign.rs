//! A client that is not ours, to check it: h2load, which gets its certificate through a shim.

use std::fs;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use postern_tests::clients::run;

use crate::peers::Scene;

/// Longest time for one call of it.
const LIMIT: Duration = Duration::from_secs(60);

/// h2load with a certificate.
pub struct Foreign {
    shim: PathBuf,
    chain: PathBuf,
    key: PathBuf,
}

impl Foreign {
    /// Compiles the shim.
    pub fn new(scene: &Scene) -> Result<Self> {
        let (source, shim) = (scene.path().join("client_certificate.c"), scene.path().join("client_certificate.so"));
        fs::write(&source, include_str!("client_certificate.c"))?;
        let mut compiler = Command::new("cc");
        // What it calls is in the program it is loaded into.
        compiler.args(["-shared", "-fPIC", "-O1", "-o"]).arg(&shim).arg(&source);
        let compiled = run(&mut compiler, b"", LIMIT)?;
        ensure!(compiled.code == Some(0), "cc: {}", compiled.stderr);
        Ok(Self { shim, chain: scene.path().join("billing.pem"), key: scene.path().join("billing.key") })
    }

    /// Sends this many requests over HTTP/1.1 connections; all must succeed.
    pub fn ask(&self, address: SocketAddr, connections: usize, requests: u64) -> Result<()> {
        let mut command = Command::new("h2load");
        command.env("LD_PRELOAD", &self.shim).env("BENCH_CHAIN", &self.chain).env("BENCH_KEY", &self.key);
        command.args(["--h1", "--clients", &connections.to_string(), "--requests", &requests.to_string()]);
        command.arg(format!("--connect-to={address}")).arg(format!("https://localhost:{}/orders/17", address.port()));
        let finished = run(&mut command, b"", LIMIT)?;
        let succeeded = succeeded(&finished.text()).with_context(|| format!("h2load says {}", finished.text()))?;
        ensure!(succeeded == requests, "h2load: {succeeded} of {requests} requests succeeded");
        Ok(())
    }
}

/// From the line `status codes: 100 2xx, 0 3xx, …`.
fn succeeded(text: &str) -> Option<u64> {
    let line = text.lines().find_map(|line| line.strip_prefix("status codes: "))?;
    line.split(' ').next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::succeeded;

    #[test]
    fn answers_are_counted_by_their_status() {
        let text = "requests: 5 total, 5 started\nstatus codes: 4 2xx, 0 3xx, 1 4xx, 0 5xx\n";
        assert_eq!(succeeded(text), Some(4));
        assert_eq!(succeeded("nothing"), None);
    }
}
