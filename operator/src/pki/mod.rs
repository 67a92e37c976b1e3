//! Certificates: who signs, what is signed, when anew, and what must not be forgotten of it.
//!
//! Pure: no Kubernetes and no clock. Keys, serial numbers and passwords come from [`fresh`] and are handed in.

pub mod authority;
pub(crate) mod blocks;
pub mod fresh;
pub mod issue;
pub mod key;
pub mod keystore;
pub mod ledger;
pub mod names;
pub mod request;
pub mod rotate;
