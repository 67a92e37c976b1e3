//! The operator's decisions about certificates, with openssl and Java as witnesses.

#![expect(clippy::expect_used, reason = "clippy allows it in tests only, and not in what they share")]

mod identity_directory;
mod identity_fixture;
mod identity_validate;
mod pki_authority;
mod pki_fixture;
mod pki_issue;
mod pki_keystore;
mod pki_request;
mod pki_rotate;
