//! What checks have found out about one endpoint: a pure state machine, and the one atomic that workers read.

#[cfg(test)]
mod tests;

use std::sync::atomic::{AtomicU8, Ordering};

use sidecar_config::health::HealthCheck;

/// Whether an endpoint is well, as its checks have it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Health {
    /// Nobody has asked yet, or nobody ever does. It is used: a gate that has just started, or learnt of an address, knows
    /// nothing against it, and what cannot be connected to is tried elsewhere. The first check decides.
    #[default]
    Unknown,
    /// It is.
    Healthy,
    /// It is not, and gets nothing.
    Unhealthy,
}

/// Results of checks up to now.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Standing {
    /// What they say.
    pub health: Health,
    /// Results in a row that say otherwise.
    otherwise: u32,
}

impl Standing {
    /// After one more result.
    pub fn after(self, is_passed: bool, check: &HealthCheck) -> Self {
        let (says, needed) = match is_passed {
            true => (Health::Healthy, check.healthy_threshold),
            false => (Health::Unhealthy, check.unhealthy_threshold),
        };
        let needed = if self.health == Health::Unknown { 1 } else { needed };
        let otherwise = if self.health == says { 0 } else { self.otherwise + 1 };
        if otherwise >= needed { Self { health: says, otherwise: 0 } } else { Self { otherwise, ..self } }
    }
}

/// The health of an endpoint, written by whoever checks it and read by all workers.
#[derive(Debug, Default)]
pub struct Sign(AtomicU8);

impl Sign {
    /// Says something else from now on.
    pub fn set(&self, health: Health) {
        self.0.store(health as u8, Ordering::Relaxed);
    }

    /// What it says.
    pub fn health(&self) -> Health {
        match self.0.load(Ordering::Relaxed) {
            0 => Health::Unknown,
            1 => Health::Healthy,
            _ => Health::Unhealthy,
        }
    }
}
