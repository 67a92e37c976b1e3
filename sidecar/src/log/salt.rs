//! The salt by which captured values are hashed: looked for when one is wanted, because its file may come later.

use std::fmt;
use std::fs;
use std::path::PathBuf;
use std::sync::{Mutex, OnceLock, PoisonError};
use std::time::{Duration, Instant};

use aws_lc_rs::hmac;

/// Bytes of a salt at least: what nobody can try out.
const SALT_MIN: usize = 16;

/// How often a file is looked for that is not there. Reading one takes some microseconds.
const AGAIN: Duration = Duration::from_secs(5);

/// Where the salt is, and the salt once it is there: to the end of the process, so that equal values stay equal.
pub(super) struct Salt {
    path: Option<PathBuf>,
    key: OnceLock<hmac::Key>,
    /// When it was looked for last, and why there is none; `None` before the first time.
    looked: Mutex<Option<(Instant, String)>>,
}

impl fmt::Debug for Salt {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Salt").field("path", &self.path).finish_non_exhaustive()
    }
}

impl Salt {
    pub(super) fn new(path: Option<PathBuf>) -> Self {
        Self { path, key: OnceLock::new(), looked: Mutex::default() }
    }

    /// HMAC with SHA-256 of a value, half of it; `None` without a salt.
    pub(super) fn hash(&self, value: &[u8]) -> Option<[u8; 16]> {
        let hash = hmac::sign(self.key()?, value);
        hash.as_ref().first_chunk().copied()
    }

    fn key(&self) -> Option<&hmac::Key> {
        if self.key.get().is_none()
            && let Some(why) = self.look(Instant::now())
        {
            tracing::warn!(%why, "captured values that are to be hashed are masked, for want of a salt");
        }
        self.key.get()
    }

    /// Looks for the salt, if it is time; why there is none, if that is new: it is counted each time.
    pub(super) fn look(&self, now: Instant) -> Option<String> {
        let mut looked = self.looked.lock().unwrap_or_else(PoisonError::into_inner);
        let is_soon = |(at, _): &(Instant, String)| now.saturating_duration_since(*at) < AGAIN;
        if self.key.get().is_some() || looked.as_ref().is_some_and(is_soon) {
            return None;
        }
        let why = self.read().map(|key| drop(self.key.set(key))).err()?;
        let last = looked.replace((now, why.clone()));
        last.is_none_or(|(_, last)| last != why).then_some(why)
    }

    fn read(&self) -> Result<hmac::Key, String> {
        let path = self.path.as_ref().ok_or("there is no file for it")?;
        let bytes = fs::read(path).map_err(|error| format!("{}: {error}", path.display()))?;
        let salt = bytes.trim_ascii_end();
        if salt.len() < SALT_MIN {
            return Err(format!("{} has {} bytes; write at least {SALT_MIN}", path.display(), salt.len()));
        }
        Ok(hmac::Key::new(hmac::HMAC_SHA256, salt))
    }
}
