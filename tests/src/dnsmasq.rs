//! A real DNS server, dnsmasq: it serves zone `test` out of a hosts file that a test rewrites.

use std::fs;
use std::net::{SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::process::{Child, Command, Stdio};

use anyhow::{Context, Result, ensure};
use tempfile::TempDir;

use crate::clients::run;
use crate::wait::{PATIENCE, eventually};

/// A running dnsmasq, which ends when it is dropped.
pub struct Dnsmasq {
    child: Option<Child>,
    address: SocketAddr,
    folder: TempDir,
}

impl Dnsmasq {
    /// Starts one that answers so, in the words of hosts(5), for a second each time. `alias.test` is another name of
    /// `app.test`.
    ///
    /// # Errors
    /// When it does not come up.
    pub fn start(hosts: &str) -> Result<Self> {
        let folder = tempfile::Builder::new().prefix("postern-dns-").tempdir()?;
        let mut server = Self { child: None, address: free_port()?, folder };
        server.write(hosts)?;
        server.run()?;
        Ok(server)
    }

    /// Where it listens.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Answers so from now on.
    ///
    /// # Errors
    /// When it cannot be told.
    pub fn serve(&self, hosts: &str) -> Result<()> {
        self.write(hosts)?;
        let id = self.child.as_ref().context("it is stopped")?.id().to_string();
        let finished = run(Command::new("sh").args(["-c", "kill -HUP \"$0\"", &id]), b"", PATIENCE)?;
        ensure!(finished.code == Some(0), "send SIGHUP to dnsmasq: {}", finished.stderr);
        Ok(())
    }

    /// Answers nothing any more.
    pub fn stop(&mut self) {
        if let Some(mut child) = self.child.take() {
            let _ = child.kill();
            let _ = child.wait();
        }
    }

    /// Starts it once more, to answer so.
    ///
    /// # Errors
    /// When it does not come up.
    pub fn restart(&mut self, hosts: &str) -> Result<()> {
        self.stop();
        self.write(hosts)?;
        self.run()
    }

    fn write(&self, hosts: &str) -> Result<()> {
        fs::write(self.folder.path().join("hosts"), hosts).context("write the hosts")
    }

    fn run(&mut self) -> Result<()> {
        // Started as root it would become somebody who may not read the folder.
        let user = run(Command::new("id").arg("-un"), b"", PATIENCE)?.text();
        let child = Command::new("dnsmasq")
            .args(["--keep-in-foreground", "--conf-file=/dev/null", "--pid-file=", "--log-facility=-"])
            .args(["--no-resolv", "--no-hosts", "--bind-interfaces", "--listen-address=127.0.0.1"])
            .args(["--local=/test/", "--local-ttl=1", "--cname=alias.test,app.test"])
            .arg(format!("--user={}", user.trim()))
            .arg(format!("--port={}", self.address.port()))
            .arg(format!("--addn-hosts={}", self.folder.path().join("hosts").display()))
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .context("start dnsmasq")?;
        self.child = Some(child);
        eventually("dnsmasq", PATIENCE, || Ok(TcpStream::connect(self.address).ok()))?;
        Ok(())
    }
}

impl Drop for Dnsmasq {
    fn drop(&mut self) {
        self.stop();
    }
}

/// An address whose port was free just now, for both protocols.
fn free_port() -> Result<SocketAddr> {
    eventually("a free port", PATIENCE, || {
        let address = TcpListener::bind("127.0.0.1:0")?.local_addr()?;
        Ok(UdpSocket::bind(address).is_ok().then_some(address))
    })
}
