//! gRPC by the library that most of the world uses: `tests/peers/grpc`.

use std::io::{BufRead, BufReader};
use std::net::SocketAddr;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use anyhow::{Context, Result};
use serde_json::Value;

use crate::clients::run;
use crate::peers::built;

/// Far above what a call needs.
const PATIENCE: Duration = Duration::from_secs(60);

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
        let mut command = Command::new(built("grpc")?);
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
    let mut command = Command::new(built("grpc")?);
    command.arg("client").arg(address.to_string()).arg(folder).arg(method).args(messages);
    let told = run(&mut command, b"", PATIENCE)?;
    serde_json::from_slice(&told.stdout).with_context(|| format!("the gRPC client says {}", told.stderr))
}

/// A client that has one stream after the other with listener `gate`, until its input ends.
///
/// # Errors
/// When it cannot be built.
pub fn soak(gate: SocketAddr, folder: &Path) -> Result<Command> {
    let mut command = Command::new(built("grpc")?);
    command.arg("soak").arg(gate.to_string()).arg(folder);
    Ok(command)
}
