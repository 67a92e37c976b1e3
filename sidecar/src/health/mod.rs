//! Whether endpoints are used: what requests find out about them, and what checks do.

mod checker;
mod grpc;
mod outlier;
mod probe;
mod standing;

pub use checker::{Checker, Checks};
pub use outlier::{Ejection, Ejections, Failure, Outlier};
pub use probe::probe_application;
pub use standing::{Health, Sign};
