//! The contract as its readers meet it: words, versions, documents in three notations, schemas.
#![expect(
    clippy::unwrap_used,
    clippy::panic,
    reason = "a test says what it expects by unwrapping; the panic is its failure"
)]

mod documents;
mod schema;
mod settings;
mod status;
mod strictness;
mod version;
mod words;
