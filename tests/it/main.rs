//! Tests across parts: the real binary, real sockets, real clients; and the rules of this repository.
#![expect(
    clippy::unwrap_used,
    clippy::panic,
    reason = "a test says what it expects by unwrapping; the panic is its failure"
)]

mod docs;
mod drain;
mod exchange;
mod hostile;
mod http;
mod identity;
mod live;
mod log;
mod observed;
mod reload;
mod resume;
mod retries;
mod routes;
mod settings;
mod status;
mod tidy;
mod tls;
mod upstreams;
mod validate;
