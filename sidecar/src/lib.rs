//! The Postern data plane: a gate in front of one pod that terminates mTLS, decides who may call what, forwards what may
//! pass, and writes every decision down.
//!
//! Folders follow a request: `listener`, `tls`, `identity`, `protocol`, `flow`, `balance`, `pool`, `upstream`; beside
//! them `config` (what is served), `log` (what was decided), `metrics`, `telemetry` and `admin` (what is told).

mod admin;
mod alarm;
pub mod app;
mod balance;
pub mod cli;
mod client_stream;
mod dns;

pub mod config;
mod control_groups;
mod duplex;
mod ending;
mod exposure;
mod filter;
mod flow;
mod health;
mod identity;
mod limit;
mod limits;
mod listener;
pub mod log;
mod memory;
pub mod message_type;
mod metrics;
mod pool;
mod processors;
mod protocol;
pub mod settings;
mod state;
mod status;
mod telemetry;
mod tls;
mod upstream;
