//! `openssl s_server` as upstream, for what nginx does not do: to refuse a client during the handshake.

use std::io::{BufRead, BufReader};
use std::net::SocketAddr;
use std::path::Path;
use std::process::{Child, Command, Stdio};

use anyhow::{Context, Result};

/// A running server, which ends when it is dropped. It answers every request with a page about the connection.
pub struct TlsServer {
    child: Child,
    address: SocketAddr,
}

impl TlsServer {
    /// Starts one with `<stem>.pem` and `<stem>.key` of a folder, and more arguments.
    ///
    /// # Errors
    /// When it does not come up.
    pub fn start(folder: &Path, stem: &str, arguments: &[&str]) -> Result<Self> {
        let mut command = Command::new("openssl");
        command.current_dir(folder).args(["s_server", "-accept", "127.0.0.1:0", "-www"]);
        command.arg("-cert").arg(format!("{stem}.pem")).arg("-key").arg(format!("{stem}.key")).args(arguments);
        let child = command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::null()).spawn();
        let mut child = child.context("start openssl s_server")?;
        let mut lines = BufReader::new(child.stdout.take().context("its output")?).lines();
        let address = lines.find_map(|line| line.ok()?.strip_prefix("ACCEPT ")?.parse().ok());
        let server = Self { child, address: address.context("openssl s_server says where it listens")? };
        // What it goes on to say must not fill the pipe.
        std::thread::spawn(move || lines.for_each(drop));
        Ok(server)
    }

    /// Where it listens.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }
}

impl Drop for TlsServer {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
