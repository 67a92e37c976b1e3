//! Certificates of users in Secrets that listeners name. Of what was read a digest stays; whoever writes it reads it again.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use futures_util::future::join_all;
use k8s_openapi::api::core::v1::Secret;
use k8s_openapi::jiff::Timestamp;
use kube::{Api, Client};
use rustls::crypto::aws_lc_rs::sign::any_supported_type;
use rustls_pki_types::PrivateKeyDer;
use rustls_pki_types::pem::PemObject;
use sha2::{Digest, Sha256};
use sidecar_decide::Certificate;
use x509_parser::prelude::{FromDer, X509Certificate};
use zeroize::Zeroizing;

use super::follow::{CERTIFICATE_TYPE, Follower};
use super::interest::Kind;
use crate::index::ObjectName;
use crate::limits::CERTIFICATE_BYTES;
use crate::pki::blocks;
use crate::pki::key::PublicKey;
use crate::queue::Key;

/// Entries of a Secret with a certificate and its key.
const CHAIN: &str = "tls.crt";
const KEY: &str = "tls.key";

/// A chain and its key that a sidecar can show, written anew: what else was in the Secret is not.
#[derive(Clone, PartialEq, Eq)]
pub struct Pair {
    /// The chain in PEM, the leaf first.
    pub chain: String,
    /// The key in PEM.
    pub key: Zeroizing<String>,
    /// What is known of it.
    pub summary: Summary,
}

/// What is known of a pair without its bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Summary {
    /// Of chain and key.
    pub digest: [u8; 32],
    /// Seconds since the epoch from which the leaf is valid.
    pub not_before: i64,
    /// Seconds since the epoch until which it is.
    pub not_after: i64,
}

impl fmt::Debug for Pair {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Pair").field("summary", &self.summary).finish_non_exhaustive()
    }
}

impl Summary {
    /// Why it is not to be shown today, if it is not.
    #[must_use]
    pub fn out_of_time(&self, now: i64) -> Option<String> {
        let day = |seconds| Timestamp::from_second(seconds).map(|time| time.to_string()).unwrap_or_default();
        if now > self.not_after {
            return Some(format!("`{CHAIN}` has expired at {}; renew it", day(self.not_after)));
        }
        let early = now < self.not_before;
        early.then(|| format!("`{CHAIN}` is valid from {} only", day(self.not_before)))
    }

    /// When it has to be judged anew, if ever.
    #[must_use]
    pub fn next_look(&self, now: i64) -> Option<i64> {
        [self.not_before, self.not_after.saturating_add(1)].into_iter().find(|at| *at > now)
    }
}

impl Pair {
    /// Of a Secret.
    ///
    /// # Errors
    /// With why it cannot be shown, and what to do.
    pub fn of(secret: &Secret) -> Result<Self, String> {
        let kind = secret.type_.as_deref().unwrap_or_default();
        if kind != CERTIFICATE_TYPE {
            return Err(format!("is of type `{kind}`; name one of type `{CERTIFICATE_TYPE}`"));
        }
        let entry = |name| secret.data.as_ref().and_then(|data| data.get(name)).map_or(&[][..], |bytes| &bytes.0);
        Self::read(entry(CHAIN), entry(KEY))
    }

    /// Of a chain and a key in PEM. What this takes, a sidecar takes.
    ///
    /// # Errors
    /// With why it cannot be shown, and what to do.
    pub fn read(chain: &[u8], key: &[u8]) -> Result<Self, String> {
        let certificates = blocks::certificates(chain).map_err(|error| format!("`{CHAIN}` {error}"))?;
        let leaf = certificates.first().ok_or_else(|| format!("`{CHAIN}` holds no certificate"))?;
        let der = PrivateKeyDer::from_pem_slice(key).map_err(|_| {
            format!("`{KEY}` is not a private key; put one unencrypted PEM block `PRIVATE KEY` (PKCS#8) there")
        })?;
        // The sidecar's own way to read it.
        let signs = any_supported_type(&der).map_err(|error| format!("`{KEY}` cannot be used: {error}"))?;
        let public = signs.public_key().ok_or_else(|| format!("`{KEY}` is of a kind that cannot be used"))?;
        PublicKey::from_spki(&public).map_err(|error| format!("`{KEY}` {error}"))?;
        if *public != *leaf.facts.spki {
            let advice = "write the chain with its leaf first, and the key that leaf was issued for";
            return Err(format!("`{KEY}` is not the key of `{}` in `{CHAIN}`; {advice}", leaf.facts.subject));
        }
        if !is_for_servers(leaf) {
            return Err(format!("`{CHAIN}` may not be shown by servers; issue it with extended key usage serverAuth"));
        }
        let chain = blocks::write(&certificates);
        let label = match &der {
            PrivateKeyDer::Pkcs1(_) => "RSA PRIVATE KEY",
            PrivateKeyDer::Sec1(_) => "EC PRIVATE KEY",
            _ => "PRIVATE KEY",
        };
        let key = Zeroizing::new(blocks::block(label, der.secret_der()));
        if chain.len() + key.len() > CERTIFICATE_BYTES {
            let most = CERTIFICATE_BYTES >> 10;
            return Err(format!("is larger than {most} KiB; leave what is not between leaf and root out of the chain"));
        }
        let summary = Summary {
            digest: digest(chain.as_bytes(), key.as_bytes()),
            not_before: leaf.facts.not_before,
            not_after: leaf.facts.not_after,
        };
        Ok(Self { chain, key, summary })
    }
}

/// Tells a chain and key apart from others.
#[must_use]
pub fn digest(chain: &[u8], key: &[u8]) -> [u8; 32] {
    let mut hasher = Sha256::new();
    for bytes in [chain, key] {
        hasher.update(bytes.len().to_le_bytes());
        hasher.update(bytes);
    }
    hasher.finalize().into()
}

/// Whether clients let a server show it: extended key usage is absent, or names servers (RFC 5280 §4.2.1.12).
fn is_for_servers(leaf: &Certificate) -> bool {
    let Ok((_, parsed)) = X509Certificate::from_der(&leaf.der) else { return false };
    match parsed.extended_key_usage() {
        Ok(Some(usage)) => usage.value.server_auth || usage.value.any,
        Ok(None) => true,
        Err(_) => false,
    }
}

/// What became of looking for a certificate.
#[derive(Clone, Debug)]
pub struct Found {
    /// What is known of it, or why it cannot be shown.
    pub summary: Result<Summary, String>,
    /// Its bytes, where they were asked for.
    pub pair: Option<Arc<Pair>>,
}

/// What was read last, by Secret.
pub struct Certificates {
    client: Client,
    follower: Follower,
    read: Mutex<BTreeMap<ObjectName, Result<Summary, String>>>,
}

impl Certificates {
    /// Nothing read yet.
    #[must_use]
    pub fn new(client: Client, follower: Follower) -> Self {
        Self { client, follower, read: Mutex::default() }
    }

    /// Looks at all certificates that a turn names, and asks for it again when one of them changes. Those that are not
    /// `held` already come with their bytes.
    pub async fn look(
        &self,
        key: &Key,
        names: &BTreeSet<ObjectName>,
        held: impl Fn(&ObjectName, &Summary) -> bool + Sync,
    ) -> BTreeMap<ObjectName, Found> {
        self.follower.follow(key, Kind::Certificate, names);
        self.forget();
        let found = names.iter().map(|name| async {
            match self.known(name) {
                Some(summary) if summary.as_ref().map_or(true, |summary| held(name, summary)) => {
                    (name.clone(), Found { summary, pair: None })
                }
                _ => (name.clone(), self.find(name).await),
            }
        });
        join_all(found).await.into_iter().collect()
    }

    /// A turn names none any more.
    pub fn leave(&self, key: &Key) {
        self.follower.follow(key, Kind::Certificate, &BTreeSet::new());
        self.forget();
    }

    /// What was read of a Secret that has not changed since.
    fn known(&self, name: &ObjectName) -> Option<Result<Summary, String>> {
        if self.follower.is_read(Kind::Certificate, name) { self.read().get(name).cloned() } else { None }
    }

    async fn find(&self, name: &ObjectName) -> Found {
        let secrets = Api::<Secret>::namespaced(self.client.clone(), &name.namespace);
        let found = match secrets.get_opt(&name.name).await {
            Ok(found) => found,
            // As it was read last, if it was; the next turn tries again.
            Err(error) => {
                tracing::warn!(secret = %name, %error, "cannot read a certificate that a listener names");
                let known = self.read().get(name).cloned();
                let summary = known.unwrap_or_else(|| Err("cannot be read for the moment".to_owned()));
                return Found { summary, pair: None };
            }
        };
        let version = found.as_ref().and_then(|secret| secret.metadata.resource_version.as_deref());
        let pair = found.as_ref().map_or_else(|| Err("does not exist".to_owned()), Pair::of).map(Arc::new);
        let summary = pair.as_ref().map(|pair| pair.summary).map_err(Clone::clone);
        self.read().insert(name.clone(), summary.clone());
        self.follower.read(Kind::Certificate, name, version);
        Found { summary, pair: pair.ok() }
    }

    /// Forgets what nobody names any more.
    fn forget(&self) {
        let interest = self.follower.interest();
        self.read().retain(|name, _| interest.is_named(Kind::Certificate, name));
    }

    // Each change is whole.
    fn read(&self) -> MutexGuard<'_, BTreeMap<ObjectName, Result<Summary, String>>> {
        self.read.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests;
