//! The bytes of a file that may hold a private key: wiped when they are dropped, and never printed.

use std::fmt;
use std::fs::File;
use std::io::{self, Read};
use std::ops::Deref;

use zeroize::Zeroizing;

/// Bytes of a file.
#[derive(Clone, Default)]
pub struct FileBytes(Zeroizing<Vec<u8>>);

impl FileBytes {
    /// Reads a file of at most so many bytes; `None` where it is larger.
    pub fn read(file: File, expected: u64, most: u64) -> io::Result<Option<Self>> {
        // In one piece: a buffer that grows leaves copies behind that nobody wipes.
        let room = usize::try_from(expected.min(most)).unwrap_or(0) + 1;
        let mut bytes = Zeroizing::new(Vec::with_capacity(room));
        file.take(most + 1).read_to_end(&mut bytes)?;
        Ok((bytes.len() as u64 <= most).then_some(Self(bytes)))
    }
}

impl From<&[u8]> for FileBytes {
    fn from(bytes: &[u8]) -> Self {
        Self(Zeroizing::new(bytes.to_vec()))
    }
}

impl Deref for FileBytes {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.0
    }
}

impl fmt::Debug for FileBytes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} bytes", self.0.len())
    }
}
