//! A gRPC server by Google's Go library, with its health service and nothing else: `tests/peers/grpc-health`.

use std::io::{BufRead, BufReader, Write};
use std::net::SocketAddr;
use std::process::{Child, ChildStdin, Command, Stdio};

use anyhow::{Context, Result};

use crate::peers::built;

/// A server on `127.0.0.1`; it ends when it is dropped.
pub struct GrpcServer {
    process: Child,
    words: ChildStdin,
    address: SocketAddr,
}

impl GrpcServer {
    /// Starts one. It serves as a whole, and knows no service `orders` yet.
    ///
    /// # Errors
    /// When it cannot be built or started.
    pub fn start() -> Result<Self> {
        let mut process = Command::new(built("grpc-health")?).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn()?;
        let words = process.stdin.take().context("its input")?;
        let told = process.stdout.take().context("its output")?;
        let mut server = Self { process, words, address: SocketAddr::from(([127, 0, 0, 1], 0)) };
        let mut line = String::new();
        BufReader::new(told).read_line(&mut line)?;
        server.address = line.trim().parse().with_context(|| format!("no address: {line:?}"))?;
        Ok(server)
    }

    /// Where it listens.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Says so of service `orders` from now on, such as `SERVING`.
    ///
    /// # Errors
    /// When it has ended.
    pub fn say(&mut self, status: &str) -> Result<()> {
        writeln!(self.words, "{status}").context("tell the server")
    }
}

impl Drop for GrpcServer {
    fn drop(&mut self) {
        // It may have ended already, which is no error here.
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}
