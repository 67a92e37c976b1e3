//! A real nginx as upstream: a process with a configuration of its own, which ends when it is dropped.

use std::fs;
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::process::{Child, Command, Stdio};

use anyhow::{Context, Result};
use tempfile::TempDir;

use crate::wait::{PATIENCE, eventually};

/// A running nginx. It answers every request with 200 and `ok`.
pub struct Nginx {
    child: Child,
    address: SocketAddr,
    _folder: TempDir,
}

impl Nginx {
    /// Starts one with these directives in its server, such as `keepalive_requests 50;`.
    ///
    /// # Errors
    /// When it does not come up.
    pub fn start(directives: &str) -> Result<Self> {
        Self::listening("", directives)
    }

    /// Starts one that listens in this way too, such as `ssl`.
    ///
    /// # Errors
    /// When it does not come up.
    pub fn listening(how: &str, directives: &str) -> Result<Self> {
        let folder = tempfile::Builder::new().prefix("postern-nginx-").tempdir()?;
        // nginx cannot say which free port it got; this one was free just now.
        let address = TcpListener::bind("127.0.0.1:0")?.local_addr()?;
        let configuration = format!(
            "daemon off; master_process off; pid nginx.pid; error_log stderr;\n\
             events {{ worker_connections 256; }}\n\
             http {{\n  access_log off;\n  client_body_temp_path body; proxy_temp_path proxy; fastcgi_temp_path fastcgi;\n  \
             uwsgi_temp_path uwsgi; scgi_temp_path scgi;\n  \
             server {{ listen {address} {how}; {directives} location / {{ return 200 ok; }} }}\n}}\n"
        );
        fs::write(folder.path().join("nginx.conf"), configuration)?;
        let mut command = Command::new("nginx");
        command.arg("-p").arg(folder.path()).args(["-c", "nginx.conf", "-e", "stderr"]);
        let child = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).spawn();
        let nginx = Self { child: child.context("start nginx")?, address, _folder: folder };
        eventually("nginx", PATIENCE, || Ok(TcpStream::connect(address).ok()))?;
        Ok(nginx)
    }

    /// Where it listens.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }
}

impl Drop for Nginx {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
