//! What both proxies work with: certificates, a folder, the application's address.

use std::fs;
use std::net::SocketAddr;
use std::os::unix::net::UnixDatagram;
use std::path::{Path, PathBuf};
use std::thread;

use anyhow::Result;
use postern_tests::ca::{Authority, LeafOptions};
use postern_tests::config::{ConfigFolder, client_uri};

/// The files of a run.
pub struct Scene {
    /// Configurations, certificates, logs.
    pub(super) folder: ConfigFolder,
    /// Where requests end up.
    pub(super) application: SocketAddr,
    /// The binary that is measured.
    pub(super) sidecar: PathBuf,
    /// Connections of clients that a proxy has to admit.
    pub(super) connections: usize,
}

impl Scene {
    /// Writes the certificates, and listens to HAProxy's log.
    pub fn new(application: SocketAddr, sidecar: PathBuf, connections: usize) -> Result<Self> {
        let folder = ConfigFolder::new()?;
        let authority = Authority::new("Postern bench authority")?;
        folder.write("ca.pem", authority.root_pem())?;
        let server = authority.issue(&LeafOptions::server("gate"))?;
        server.write(folder.path(), "server")?;
        folder.write("haproxy.pem", &format!("{}{}", server.chain_pem, server.key_pem))?;
        authority.issue(&LeafOptions::client("billing", &client_uri("billing")))?.write(folder.path(), "billing")?;
        listen_to_log(&folder)?;
        Ok(Self { folder, application, sidecar, connections })
    }

    /// Where its files are.
    pub fn path(&self) -> &Path {
        self.folder.path()
    }

    /// Writes a file.
    pub fn write(&self, name: &str, text: &str) -> Result<()> {
        self.folder.write(name, text)
    }

    /// A file's bytes.
    pub fn read(&self, name: &str) -> Result<Vec<u8>> {
        Ok(fs::read(self.folder.file(name))?)
    }
}

/// A syslog that forgets at once. Its thread ends with the process.
fn listen_to_log(folder: &ConfigFolder) -> Result<()> {
    let socket = UnixDatagram::bind(folder.file("log.sock"))?;
    thread::Builder::new().name("syslog".to_owned()).spawn(move || {
        let mut line = [0; 4096];
        while socket.recv(&mut line).is_ok() {}
    })?;
    Ok(())
}
