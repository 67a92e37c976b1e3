//! One workload's turn: observe → validate → plan → apply → touch → ask → status.

pub mod apply;
pub mod ask;
pub mod authorities;
pub mod backends;
pub mod board;
pub mod certificates;
mod client_turn;
pub mod content;
pub mod document;
pub mod enclosed;
mod kept;
pub mod last_good;
pub mod leaf;
pub mod memory;
mod merge;
pub mod names;
pub mod observe;
pub mod pack;
pub mod plan;
pub mod status;
pub mod touch;
pub mod trust;
mod trust_turn;
pub mod turn;
pub mod unused;
pub mod validate;
