//! Clients: who is known, how they are recognised, what is revoked of them, and the certificates they are given.

pub mod directory;
pub mod enforced;
pub mod trust;
pub mod validate;
