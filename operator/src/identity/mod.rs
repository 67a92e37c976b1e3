//! Clients: who is known, how they are recognised, what is revoked of them, and the certificates they are given.
//!
//! [`directory`], [`trust`] and [`enforced`] are about all of them at once, for sidecars' documents; [`Reconciler`] is
//! about one: observe → validate → plan → apply → status.

mod apply;
pub mod directory;
pub mod enforced;
mod error;
mod ledgers;
pub mod objects;
pub mod observe;
pub mod plan;
mod reconcile;
pub mod status;
pub mod trust;
pub mod validate;

pub use error::ReconcileError;
pub use reconcile::{Done, Reconciler, Surroundings};
