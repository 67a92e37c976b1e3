//! Upstreams that are processes of their own, so that they can be killed and stopped.

use std::io::{BufRead, BufReader};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread;

use anyhow::{Context, Result, ensure};

use crate::upstream::Upstream;
use crate::wait::{PATIENCE, eventually};

/// The argument by which the soak's own binary becomes an upstream.
pub const UPSTREAM: &str = "upstream";

/// Serves on an address until it is killed, and says on which.
///
/// # Errors
/// When nothing can listen there.
pub fn serve(address: SocketAddr, mut tell: impl FnMut(SocketAddr)) -> Result<()> {
    let upstream = Upstream::start_on(address)?;
    tell(upstream.address());
    loop {
        thread::park();
    }
}

/// A running one.
pub(super) struct UpstreamProcess {
    binary: PathBuf,
    child: Child,
    address: SocketAddr,
}

impl UpstreamProcess {
    /// Starts one from the soak's own binary.
    pub(super) fn start(binary: &Path) -> Result<Self> {
        Self::start_on(binary, SocketAddr::from(([127, 0, 0, 1], 0)))
    }

    fn start_on(binary: &Path, address: SocketAddr) -> Result<Self> {
        let mut command = Command::new(binary);
        command.args([UPSTREAM, &address.to_string()]).stdin(Stdio::null()).stdout(Stdio::piped());
        let mut child = command.spawn().context("start an upstream")?;
        let mut line = String::new();
        BufReader::new(child.stdout.take().context("its output")?).read_line(&mut line)?;
        let address = line.trim().parse().context("the address of an upstream")?;
        Ok(Self { binary: binary.to_owned(), child, address })
    }

    pub(super) fn address(&self) -> SocketAddr {
        self.address
    }

    /// Ends it with all its connections (SIGKILL).
    pub(super) fn kill(&mut self) -> Result<()> {
        self.child.kill()?;
        self.child.wait()?;
        Ok(())
    }

    /// Starts it again where it was.
    pub(super) fn restart(&mut self) -> Result<()> {
        *self = eventually("the upstream's port", PATIENCE, || Ok(Self::start_on(&self.binary, self.address).ok()))?;
        Ok(())
    }

    /// Stops it: the kernel goes on accepting and taking bytes for it, and nothing is answered.
    pub(super) fn pause(&self) -> Result<()> {
        self.signal("-STOP")
    }

    /// Lets it go on.
    pub(super) fn resume(&self) -> Result<()> {
        self.signal("-CONT")
    }

    fn signal(&self, signal: &str) -> Result<()> {
        let id = self.child.id().to_string();
        let status = Command::new("sh").args(["-c", "kill \"$0\" \"$1\"", signal, &id]).status()?;
        ensure!(status.success(), "kill {signal}: {status}");
        Ok(())
    }
}

impl Drop for UpstreamProcess {
    fn drop(&mut self) {
        // It may be gone already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
