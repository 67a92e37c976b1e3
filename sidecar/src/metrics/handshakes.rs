//! Counts of handshakes and open connections. Shared by the workers: a handshake costs far more than an addition.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

/// Counts of handshakes that were completed, and of open connections.
#[derive(Debug, Default)]
pub struct Handshakes {
    completed: AtomicU64,
    resumed: AtomicU64,
    /// Chains of clients that were verified, and that were known.
    chains: [AtomicU64; 2],
    open: AtomicUsize,
}

impl Handshakes {
    /// Counts a handshake that led to a connection.
    pub fn complete(&self, is_resumed: bool, is_known: Option<bool>) {
        self.completed.fetch_add(1, Ordering::Relaxed);
        self.resumed.fetch_add(u64::from(is_resumed), Ordering::Relaxed);
        if let Some(is_known) = is_known {
            self.chains[usize::from(is_known)].fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Handshakes that led to a connection.
    pub fn completed(&self) -> u64 {
        self.completed.load(Ordering::Relaxed)
    }

    /// Chains of clients that were verified, and that were known from an earlier handshake.
    pub fn chains(&self) -> [u64; 2] {
        self.chains.each_ref().map(|count| count.load(Ordering::Relaxed))
    }

    /// Handshakes that resumed a session.
    pub fn resumed(&self) -> u64 {
        self.resumed.load(Ordering::Relaxed)
    }

    /// Client connections open now.
    pub fn open(&self) -> usize {
        self.open.load(Ordering::Relaxed)
    }

    /// Counts a connection as open for as long as the gauge lives; `None` at the limit.
    pub fn open_one(self: &Arc<Self>, limit: usize) -> Option<ConnectionGauge> {
        if self.open.fetch_add(1, Ordering::Relaxed) < limit {
            return Some(ConnectionGauge(Arc::clone(self)));
        }
        self.open.fetch_sub(1, Ordering::Relaxed);
        None
    }
}

/// One open connection.
#[derive(Debug)]
pub struct ConnectionGauge(Arc<Handshakes>);

impl Drop for ConnectionGauge {
    fn drop(&mut self) {
        self.0.open.fetch_sub(1, Ordering::Relaxed);
    }
}
