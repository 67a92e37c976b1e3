//! A gRPC server by Google's Go library, with its health service and nothing else. Built from `tests/peers/grpc` when first
//! needed.

use std::io::{BufRead, BufReader, Write};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::OnceLock;
use std::time::Duration;

use anyhow::{Context, Result, anyhow, ensure};

use crate::clients::run;

/// Far above what building takes on a loaded machine.
const PATIENCE: Duration = Duration::from_secs(300);

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
        let mut process = Command::new(program()?).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn()?;
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

/// The program, built once.
fn program() -> Result<&'static Path> {
    static BUILT: OnceLock<Result<PathBuf, String>> = OnceLock::new();
    let built = BUILT.get_or_init(|| build().map_err(|error| format!("{error:#}")));
    built.as_deref().map_err(|error| anyhow!("{error}"))
}

fn build() -> Result<PathBuf> {
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("peers/grpc");
    let program = std::env::current_exe()?.with_file_name("postern-grpc");
    let mut go = Command::new("go");
    // Debuggers are not needed, and the linker is faster without.
    go.args(["build", "-ldflags=-s -w", "-o"]).arg(&program).arg(".").current_dir(source);
    let finished = run(&mut go, b"", PATIENCE)?;
    ensure!(finished.code == Some(0), "go build: {}", finished.stderr);
    Ok(program)
}
