//! The control plane: index → plan → apply → touch → ask → status, for one workload at a time.

pub mod identity;
pub mod pki;
