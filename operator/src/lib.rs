//! The control plane: index → plan → apply → touch → ask → status, for one workload at a time.

pub mod api;
pub mod app;
pub mod authority;
pub mod check;
pub mod events;
pub mod heap;
pub mod identity;
pub mod index;
pub mod inject;
pub mod lease;
pub mod limits;
mod log_database;
pub mod log_keep;
pub mod log_schema;
pub mod metrics;
pub mod monitor;
pub mod pki;
pub mod plugin;
pub mod queue;
pub mod references;
pub mod render;
pub mod settings;
pub mod telemetry;
pub mod workload;

/// Who the API server says has written.
pub const FIELD_MANAGER: &str = "postern-operator";
