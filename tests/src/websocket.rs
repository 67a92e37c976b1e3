//! WebSockets by a Go library: a server that echoes, and clients. `tests/peers/websocket`.

use std::io::{BufRead, BufReader};
use std::net::SocketAddr;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use anyhow::{Context, Result};

use crate::clients::{Finished, run};
use crate::peers::built;

/// Far above what building or talking needs on a loaded machine.
const PATIENCE: Duration = Duration::from_secs(300);

/// A server that sends back every message, on `127.0.0.1`. It ends when it is dropped.
pub struct WebSocketServer {
    process: Child,
    address: SocketAddr,
}

impl WebSocketServer {
    /// Starts one.
    ///
    /// # Errors
    /// When it cannot be built or started.
    pub fn start() -> Result<Self> {
        let mut process = Command::new(built("websocket")?).arg("serve").stdout(Stdio::piped()).spawn()?;
        let mut line = String::new();
        let told = process.stdout.take().context("its output")?;
        BufReader::new(told).read_line(&mut line)?;
        let mut server = Self { process, address: SocketAddr::from(([127, 0, 0, 1], 0)) };
        server.address = line.trim().parse().with_context(|| format!("no address: {line:?}"))?;
        Ok(server)
    }

    /// Where it listens.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Ends it at once.
    ///
    /// # Errors
    /// When it cannot be ended.
    pub fn kill(&mut self) -> Result<()> {
        self.process.kill()?;
        self.process.wait()?;
        Ok(())
    }
}

impl Drop for WebSocketServer {
    fn drop(&mut self) {
        // It may have ended already, which is no error here.
        let _ = self.kill();
    }
}

/// A client that does what `how` says, with the authority and the certificates of a folder.
///
/// # Errors
/// When it cannot be built.
pub fn client(folder: &Path, how: &str, gate: SocketAddr, certificate: &str) -> Result<Command> {
    let mut command = Command::new(built("websocket")?);
    command.args([how, &format!("wss://localhost:{}/chat", gate.port()), certificate]).current_dir(folder);
    Ok(command)
}

/// Runs a client to its end.
///
/// # Errors
/// When it cannot be built or started, or does not end in time.
pub fn talk(folder: &Path, how: &str, gate: SocketAddr, certificate: &str) -> Result<Finished> {
    run(&mut client(folder, how, gate, certificate)?, b"", PATIENCE)
}
