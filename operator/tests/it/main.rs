//! The operator's decisions about certificates, with openssl and Java as witnesses.

#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a test says what it expects by unwrapping; the panic is its failure"
)]

mod certificate_of_users;
mod identity_directory;
mod identity_fixture;
mod identity_validate;
mod kept_bytes;
mod pki_authority;
mod pki_fixture;
mod pki_issue;
mod pki_keystore;
mod pki_request;
mod pki_rotate;
