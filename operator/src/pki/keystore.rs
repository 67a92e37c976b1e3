//! Key, chain and root in one file with a password (PKCS#12), for programs that read nothing else.

use std::fmt;

use p12_keystore::{Certificate, KeyStore, KeyStoreEntry, Pkcs12ImportPolicy, PrivateKeyChain};
use thiserror::Error;

use super::blocks;

/// By what name Java knows the key.
const KEY_ALIAS: &str = "client";
/// By what names Java knows the roots: `ca`, `ca-2`, …
const ROOT_ALIAS: &str = "ca";

/// Why a keystore cannot be made.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
#[error("the keystore cannot be written: {0}")]
pub struct KeystoreError(String);

/// Makes a keystore of a PKCS#8 key, its chain and the roots. Each call gives other bytes: salts are drawn anew.
///
/// # Errors
/// When one of them cannot be read.
pub fn write(key_der: &[u8], chain_pem: &str, roots_pem: &str, password: &str) -> Result<Vec<u8>, KeystoreError> {
    let key = p12_keystore::PrivateKey::from_der(key_der).map_err(error)?;
    let chain = certificates(chain_pem)?;
    let roots = certificates(roots_pem)?;
    let mut store = KeyStore::new();
    let leaf = chain.first().ok_or_else(|| KeystoreError("there is no certificate".to_owned()))?;
    let id = leaf.as_der().iter().rev().take(20).copied().collect::<Vec<u8>>();
    // The chain is whole only with the root that it ends in.
    let ends_in = |root: &&Certificate| chain.last().is_some_and(|last| last.issuer() == root.subject());
    let anchor = roots.iter().find(ends_in).cloned();
    let whole = chain.into_iter().chain(anchor);
    let entry = KeyStoreEntry::PrivateKeyChain(PrivateKeyChain::new(id, key, whole));
    store.add_entry(KEY_ALIAS, entry);
    for (index, root) in roots.into_iter().enumerate() {
        let alias = if index == 0 { ROOT_ALIAS.to_owned() } else { format!("{ROOT_ALIAS}-{}", index + 1) };
        store.add_entry(&alias, KeyStoreEntry::Certificate(root));
    }
    store.writer(password).write().map_err(error)
}

/// Whether a keystore opens with a password and holds a chain that begins with this certificate.
#[must_use]
pub fn holds(keystore: &[u8], password: &str, leaf_der: &[u8]) -> bool {
    let Ok(store) = KeyStore::from_pkcs12(keystore, password, Pkcs12ImportPolicy::Strict) else { return false };
    let first = store.private_key_chain().and_then(|(_, chain)| chain.certs().first());
    first.is_some_and(|first| first.as_der() == leaf_der)
}

fn certificates(text: &str) -> Result<Vec<Certificate>, KeystoreError> {
    let read = blocks::certificates(text.as_bytes()).map_err(|found| KeystoreError(found.to_string()))?;
    read.iter().map(|certificate| Certificate::from_der(&certificate.der).map_err(error)).collect()
}

fn error(found: impl fmt::Display) -> KeystoreError {
    KeystoreError(found.to_string())
}
