//! Documents to accepted parts, each on its own, telling every problem at once.

mod allow;
mod backend;
mod capture;
mod endpoints;
mod filters;
mod health;
mod identities;
mod identity;
mod listeners;
mod matches;
mod policy;
mod rewrite;
mod trust;

use std::collections::BTreeMap;

use crate::certificate::Certificate;
use crate::crl::RevocationList;

pub use endpoints::{endpoints, usable};
pub use identities::identities;
pub use identity::identity;
pub use policy::policy;
pub use trust::trust;

/// Longest name of anything in a document, in bytes: a Kubernetes namespace, a slash and a name.
const NAME_MAX_BYTES: usize = 63 + 1 + 253;

/// The files that documents refer to, as facts, by the names the documents use. Errors say why one could not be read.
#[derive(Debug, Default)]
pub struct Files {
    /// Certificates of PEM files, in the files' order.
    pub certificates: BTreeMap<String, Result<Vec<Certificate>, String>>,
    /// Revocation lists of PEM and DER files, in the files' order, with those certificates of part `trust` that have
    /// signed them.
    pub revocation_lists: BTreeMap<String, Result<Vec<RevocationList>, String>>,
    /// DER subjectPublicKeyInfo that belongs to the private key of a PEM file. Never the key.
    pub public_keys: BTreeMap<String, Result<Vec<u8>, String>>,
}

impl Files {
    fn certificates(&self, name: &str) -> Result<&[Certificate], String> {
        match self.certificates.get(name) {
            Some(Ok(certificates)) if certificates.is_empty() => {
                Err(format!("`{name}` holds no certificate; put PEM blocks `BEGIN CERTIFICATE` into it"))
            }
            Some(Ok(certificates)) => Ok(certificates),
            Some(Err(why)) => Err(why.clone()),
            None => Err(format!("`{name}` was not read")),
        }
    }

    fn revocation_lists(&self, name: &str) -> Result<&[RevocationList], String> {
        match self.revocation_lists.get(name) {
            Some(Ok(lists)) if lists.is_empty() => Err(format!(
                "`{name}` holds no revocation list; put PEM blocks `BEGIN X509 CRL` or one DER list into it"
            )),
            Some(Ok(lists)) => Ok(lists),
            Some(Err(why)) => Err(why.clone()),
            None => Err(format!("`{name}` was not read")),
        }
    }
}

/// What is told where a serial number cannot be read.
fn serial_error(text: &str) -> String {
    format!("`{text}` is not a serial number; write pairs of hex digits, such as `5a:01` or `5A01`")
}

/// Why a name cannot be one, if it cannot.
fn name_error(name: &str) -> Option<String> {
    if name.is_empty() {
        return Some("is empty; give it a name".to_owned());
    }
    if name.len() > NAME_MAX_BYTES {
        return Some(format!("is {} bytes long; at most {NAME_MAX_BYTES} are allowed", name.len()));
    }
    let bad = name.chars().find(|letter| letter.is_control() || letter.is_whitespace())?;
    Some(format!("has {bad:?} in it; leave out white space and control characters"))
}
