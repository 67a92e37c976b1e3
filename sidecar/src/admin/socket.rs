//! The admin socket's file: its owner's only, of one process at a time, and gone when that ends well.

use std::fs::{self, File, OpenOptions, Permissions, TryLockError};
use std::io::{self, ErrorKind};
use std::os::fd::OwnedFd;
use std::os::unix::fs::{FileTypeExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

use socket2::{Domain, SockAddr, Socket, Type};
use thiserror::Error;
use tokio::net::UnixListener;

use crate::limits::ADMIN_SOCKET_CONNECTIONS;

/// Readable and writable for the owner: whoever may write to a socket may connect.
const OWNERS_ONLY: u32 = 0o600;

/// Why there is no admin socket.
#[derive(Debug, Error)]
pub enum SocketError {
    /// Another process has it.
    #[error("another process serves it; give each its own")]
    Taken,
    /// Something else has its name.
    #[error("it is there and is no socket; remove it, or name another file")]
    NoSocket,
    /// The system says no.
    #[error(transparent)]
    Io(#[from] io::Error),
}

/// The right to the file, for as long as it lives; then the file is gone. The lock beside it stays: removed, it could be
/// one that somebody has just locked.
#[derive(Debug)]
pub struct Held {
    path: PathBuf,
    _lock: File,
}

/// Listens on a file. One that a process left behind that is no more is removed.
///
/// # Errors
/// When it is in use, or cannot be made.
pub fn bind(path: &Path) -> Result<(UnixListener, Held), SocketError> {
    // A lock goes with its process, however that ends; two that start at once cannot both think the file is stale.
    let lock = lock(path)?;
    match fs::symlink_metadata(path) {
        Ok(found) if !found.file_type().is_socket() => return Err(SocketError::NoSocket),
        Ok(_) => remove_stale(path)?,
        Err(error) if error.kind() == ErrorKind::NotFound => {}
        Err(error) => return Err(error.into()),
    }
    let socket = Socket::new(Domain::UNIX, Type::STREAM, None)?;
    // The file gets the socket's mode as it is made (unix(7)): there is no moment in which others could connect.
    let socket = File::from(OwnedFd::from(socket));
    socket.set_permissions(Permissions::from_mode(OWNERS_ONLY))?;
    let socket = Socket::from(OwnedFd::from(socket));
    socket.bind(&SockAddr::unix(path)?)?;
    let held = Held { path: path.to_owned(), _lock: lock };
    socket.listen(i32::try_from(ADMIN_SOCKET_CONNECTIONS).unwrap_or(i32::MAX))?;
    socket.set_nonblocking(true)?;
    let listener = UnixListener::from_std(std::os::unix::net::UnixListener::from(OwnedFd::from(socket)))?;
    Ok((listener, held))
}

/// Removes a socket that nobody listens on any more, and no other.
fn remove_stale(path: &Path) -> Result<(), SocketError> {
    let socket = Socket::new(Domain::UNIX, Type::STREAM, None)?;
    // Where somebody listens and does not accept, this would wait for it.
    socket.set_nonblocking(true)?;
    match socket.connect(&SockAddr::unix(path)?) {
        Err(error) if error.kind() == ErrorKind::ConnectionRefused => Ok(fs::remove_file(path)?),
        Ok(()) => Err(SocketError::Taken),
        Err(error) if error.kind() == ErrorKind::WouldBlock => Err(SocketError::Taken),
        Err(error) => Err(error.into()),
    }
}

fn lock(path: &Path) -> Result<File, SocketError> {
    let mut name = path.as_os_str().to_owned();
    name.push(".lock");
    let lock = OpenOptions::new().create(true).write(true).truncate(false).mode(OWNERS_ONLY).open(name)?;
    match lock.try_lock() {
        Ok(()) => Ok(lock),
        Err(TryLockError::WouldBlock) => Err(SocketError::Taken),
        Err(TryLockError::Error(error)) => Err(error.into()),
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        // Whoever removed it before has done it already.
        let _gone = fs::remove_file(&self.path);
    }
}
