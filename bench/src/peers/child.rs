//! A program that runs as long as it is held, and that is known to listen.

use std::net::{SocketAddr, TcpListener, TcpStream};
use std::process::{Command, Stdio};

use anyhow::{Context, Result};
use postern_tests::wait::{PATIENCE, eventually};

/// A running program; dropping it kills it.
pub(super) struct Child(std::process::Child);

impl Child {
    /// Starts it and waits until something accepts at `address`.
    pub(super) fn listening(command: &mut Command, address: SocketAddr) -> Result<Self> {
        let program = command.get_program().to_string_lossy().into_owned();
        command.stdin(Stdio::null()).stdout(Stdio::null());
        let mut child = Self(command.spawn().with_context(|| format!("start {program}; is it installed?"))?);
        eventually(&format!("{program} at {address}"), PATIENCE, || {
            if let Some(status) = child.0.try_wait()? {
                anyhow::bail!("{program} ended: {status}");
            }
            Ok(TcpStream::connect(address).ok())
        })?;
        Ok(child)
    }

    pub(super) fn id(&self) -> u32 {
        self.0.id()
    }
}

impl Drop for Child {
    fn drop(&mut self) {
        // It may have ended already, which is no error here.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// An address that was free a moment ago: neither program can be told to choose a port and to say which.
pub(super) fn free_address() -> Result<SocketAddr> {
    Ok(TcpListener::bind("127.0.0.1:0")?.local_addr()?)
}
