//! Makes a certificate that is due: key and chain together, in one Secret.

use sidecar_config::Part;
use sidecar_config::identity::Identity;
use thiserror::Error;

use super::certificates::Carried;
use super::content::Content;
use super::document::document;
use super::names::IDENTITY_TYPE;
use crate::index::{Entries, ObjectName};
use crate::pki::authority::Issuer;
use crate::pki::fresh;
use crate::pki::issue::{self, IssueError, Request};
use crate::pki::key::{Algorithm, KeyError};

/// Entry of the Secret with the chain.
pub const CHAIN: &str = "tls.crt";
/// Entry of the Secret with the key.
pub const KEY: &str = "tls.key";

/// Why a certificate could not be made.
#[derive(Debug, Error)]
pub enum LeafError {
    /// No key.
    #[error("cannot make a key: {0}")]
    Key(#[from] KeyError),
    /// No signature.
    #[error("cannot issue a certificate: {0}")]
    Issue(#[from] IssueError),
}

/// Makes key and certificate, as the Secret that carries them.
///
/// # Errors
/// When there is no randomness, or the issuer cannot sign.
pub fn make(
    issuer: &Issuer,
    name: &ObjectName,
    workload: &str,
    request: &Request,
    carried: &Carried,
    now: i64,
) -> Result<Content, LeafError> {
    let key = fresh::key(Algorithm::EcdsaP256)?;
    let leaf = issue::leaf(issuer, request, &key.public(), fresh::serial()?, now)?;
    let entries = beside(carried).with(CHAIN, leaf.chain_pem).with(KEY, key.pem().as_bytes());
    Ok(Content::secret(name.clone(), IDENTITY_TYPE, "identity", workload, entries))
}

/// All but the workload's own key and chain.
fn beside(carried: &Carried) -> Entries {
    let identity = Identity { chain: CHAIN.to_owned(), key: KEY.to_owned(), certificates: carried.pairs.clone() };
    let entries = Entries::default().with("identity.json", document(Part::Identity, &identity));
    carried.entries.iter().fold(entries, |entries, (name, bytes)| entries.with(name, bytes))
}

/// The Secret as it is to be with the key and chain that are in it, so that what else was changed is mended.
#[must_use]
pub fn mended(held: &Entries, name: &ObjectName, workload: &str, carried: &Carried) -> Content {
    let copied = [CHAIN, KEY].into_iter().filter_map(|entry| Some((entry, held.bytes(entry)?)));
    let entries = copied.fold(beside(carried), |entries, (name, bytes)| entries.with(name, bytes));
    Content::secret(name.clone(), IDENTITY_TYPE, "identity", workload, entries)
}
