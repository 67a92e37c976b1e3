//! The proxies that are compared, set up for the same work, and the application behind them.

mod child;
mod haproxy;
mod nginx;
mod postern;
mod scene;

use std::net::SocketAddr;

use anyhow::Result;
use postern_tests::config::ConfigFolder;
use postern_tests::process::Sidecar;

use self::child::Child;
pub use self::haproxy::version as haproxy_version;
pub use self::nginx::Application;
pub use self::postern::start_postern;
pub use self::scene::Scene;
use crate::measure::{Core, on_core};

/// One of the two.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Peer {
    /// What Postern is compared with.
    Haproxy,
    /// This gate.
    Postern,
}

/// A proxy that serves.
pub struct Running {
    /// Where.
    pub address: SocketAddr,
    process: Process,
    /// Where that is its own. After the process that has it open.
    _folder: Option<ConfigFolder>,
}

/// Ends what it holds when it is dropped.
enum Process {
    Haproxy(Child),
    Postern(Sidecar),
}

impl Peer {
    /// Its name in the report.
    pub fn name(self) -> &'static str {
        match self {
            Self::Haproxy => "HAProxy",
            Self::Postern => "Postern",
        }
    }

    /// Starts it on the core that is its alone, and waits until it accepts connections.
    pub fn start(self, scene: &Scene) -> Result<Running> {
        on_core(Core::Proxy, || match self {
            Self::Haproxy => haproxy::start(scene),
            Self::Postern => postern::start(scene),
        })
    }
}

impl Running {
    /// The process that serves.
    pub fn process(&self) -> u32 {
        match &self.process {
            Process::Haproxy(child) => child.id(),
            Process::Postern(sidecar) => sidecar.id(),
        }
    }

    /// Decisions of Postern that never will be in a row.
    pub fn dropped(&self) -> Result<u64> {
        match &self.process {
            Process::Haproxy(_) => Ok(0),
            Process::Postern(sidecar) => sidecar.dropped(),
        }
    }
}
