//! Whether endpoints are used: what requests find out about them.

mod outlier;

pub use outlier::{Ejection, Ejections, Failure, Outlier};
