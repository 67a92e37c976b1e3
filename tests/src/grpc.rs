//! gRPC by the library of others: a small program in Go, `tests/grpc`, built once for all tests.

use std::env;
use std::io::{BufRead, BufReader};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::OnceLock;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use serde_json::Value;

use crate::clients::run;

/// A first build compiles the library, on a busy machine.
const BUILD_PATIENCE: Duration = Duration::from_secs(600);
/// Far above what a call needs.
const PATIENCE: Duration = Duration::from_secs(60);

/// The program, built if nobody has yet.
///
/// # Errors
/// When Go is missing or cannot build it.
fn program() -> Result<&'static Path> {
    static BUILT: OnceLock<Result<PathBuf, String>> = OnceLock::new();
    let built = BUILT.get_or_init(|| build().map_err(|error| format!("{error:#}")));
    built.as_deref().map_err(|error| anyhow::anyhow!("{error}"))
}

fn build() -> Result<PathBuf> {
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("grpc");
    // Beside the tests, so that it goes with the build folder.
    let folder = env::current_exe()?.parent().context("a folder of tests")?.to_owned();
    let program = folder.join("postern-grpc");
    let mut command = Command::new("go");
    command.current_dir(source).args(["build", "-trimpath", "-o"]).arg(&program).arg(".");
    let built = run(&mut command, b"", BUILD_PATIENCE)?;
    ensure!(built.code == Some(0), "go build: {}", built.stderr);
    Ok(program)
}

/// A running gRPC server, which ends when it is dropped.
pub struct GrpcServer {
    child: Child,
    address: SocketAddr,
}

impl GrpcServer {
    /// Starts one, with a certificate (chain and key) or without TLS.
    ///
    /// # Errors
    /// When it does not come up.
    pub fn start(certificate: Option<(&Path, &Path)>) -> Result<Self> {
        let mut command = Command::new(program()?);
        command.arg("server");
        if let Some((chain, key)) = certificate {
            command.arg(chain).arg(key);
        }
        let child = command.stdin(Stdio::null()).stdout(Stdio::piped()).spawn();
        let mut child = child.context("start the gRPC server")?;
        let mut line = String::new();
        BufReader::new(child.stdout.take().context("its output")?).read_line(&mut line)?;
        Ok(Self { child, address: line.trim().parse().context("the gRPC server says where it listens")? })
    }

    /// Where it listens.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }
}

impl Drop for GrpcServer {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Makes a call with these messages and tells what came of it. `folder` has the client's certificate; empty is without TLS.
///
/// # Errors
/// When the client does not end, or says nothing.
pub fn call(address: SocketAddr, folder: &Path, method: &str, messages: &[&str]) -> Result<Value> {
    let mut command = Command::new(program()?);
    command.arg("client").arg(address.to_string()).arg(folder).arg(method).args(messages);
    let told = run(&mut command, b"", PATIENCE)?;
    serde_json::from_slice(&told.stdout).with_context(|| format!("the gRPC client says {}", told.stderr))
}
