//! Tests across parts: the real binary, real sockets, real clients; and the rules of this repository.
#![expect(
    clippy::unwrap_used,
    clippy::panic,
    reason = "a test says what it expects by unwrapping; the panic is its failure"
)]

mod admin;
mod bodies;
mod capture;
mod chain;
mod control_plane;
mod crds;
mod deployed;
mod dns;
mod docs;
mod drain;
mod ejection;
mod exchange;
mod faults;
mod forward;
mod grpc;
mod handshakes;
mod health;
mod hop;
mod hostile;
mod http;
mod identities;
mod identity;
mod ids;
mod images;
mod injection;
mod keep;
mod kills;
mod lifecycle;
mod listeners;
mod live;
mod log;
mod memory_limit;
mod message_types;
mod metrics;
mod monitoring;
mod observed;
mod offers;
mod operator;
mod outages;
mod plans;
mod postgres;
mod pressure;
mod probes;
mod reload;
mod reports;
mod resume;
mod retries;
mod revocation_lists;
mod rewrites;
mod routes;
mod rustls_client;
mod server_certificates;
mod settings;
mod shipping;
mod soak;
mod standalone;
mod status;
mod sums;
mod tidy;
mod tls;
mod traces;
mod tunnels;
mod tunnels_http2;
mod tunnels_tls;
mod upstream_http2;
mod upstream_shared;
mod upstream_tls;
mod upstreams;
mod validate;
mod volume;
mod watch;
