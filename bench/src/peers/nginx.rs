//! The application: nginx, which answers cheaply and reliably.

use std::fs;
use std::net::SocketAddr;
use std::process::Command;

use anyhow::Result;
use postern_tests::config::ConfigFolder;

use super::child::{Child, free_address};

/// A running application.
pub struct Application {
    address: SocketAddr,
    _process: Child,
    _folder: ConfigFolder,
}

impl Application {
    /// Starts one on the core of the client.
    pub fn start() -> Result<Self> {
        let folder = ConfigFolder::new()?;
        let address = free_address()?;
        let text = include_str!("nginx.conf")
            .replace("{listen}", &address.to_string())
            .replace("{folder}", &folder.path().to_string_lossy());
        let file = folder.file("nginx.conf");
        fs::write(&file, text)?;
        let process =
            Child::listening(Command::new("nginx").arg("-p").arg(folder.path()).arg("-c").arg(file), address)?;
        Ok(Self { address, _process: process, _folder: folder })
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }
}
