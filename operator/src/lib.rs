//! The control plane: index → plan → apply → touch → ask → status, for one workload at a time.

pub mod app;
pub mod authority;
pub mod identity;
pub mod index;
pub mod inject;
pub mod limits;
pub mod pki;
pub mod plugin;
pub mod queue;
pub mod render;
pub mod settings;
pub mod workload;

/// Who the API server says has written.
pub const FIELD_MANAGER: &str = "postern-operator";
