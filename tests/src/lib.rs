//! The harness of the cross-part tests and of the demo: a throwaway authority, an upstream that echoes, real clients, and
//! the real sidecar as a child process. Everything binds port 0, waits for conditions and ends when it is dropped.

pub mod apiserver;
pub mod audit;
mod balance;
pub mod ca;
pub mod clients;
pub mod clock;
pub mod collector;
pub mod config;
pub mod control_group;
pub mod disk;
pub mod dnsmasq;
pub mod gate;
pub mod grpc;
pub mod grpc_health;
pub mod injector;
pub mod large;
#[cfg(feature = "cluster")]
pub mod minikubelet;
pub mod nginx;
pub mod node;
pub mod operator;
pub mod peers;
pub mod postgres;
pub mod process;
pub mod python;
pub mod rationed;
pub mod rights;
#[cfg(feature = "cluster")]
pub mod scale;
pub mod soak;
pub mod tls_server;
pub mod together;
pub mod upstream;
pub mod wait;
pub mod websocket;
