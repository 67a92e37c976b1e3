//! What the gate decides, as pure functions: no IO, no clock, no async. Files and certificates arrive as parsed facts.

pub mod reason;
