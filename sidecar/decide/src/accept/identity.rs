//! Accepts part `identity`: key and chain as a pair or not at all.

use sidecar_config::Part;
use sidecar_config::identity::Identity;

use super::Files;
use crate::Revision;
use crate::problem::{Problems, Refusal};
use crate::snapshot::AcceptedIdentity;

/// Accepts a server certificate with its key.
///
/// # Errors
/// Every problem of the part; a key that is not the leaf's among them.
pub fn identity(document: &Identity, files: &Files) -> Result<AcceptedIdentity, Refusal> {
    let mut problems = Problems::of(Part::Identity);
    let chain = files.certificates(&document.chain).map(<[_]>::to_vec).unwrap_or_else(|error| {
        problems.add("chain", error);
        Vec::new()
    });
    match (files.public_keys.get(&document.key), chain.first()) {
        (Some(Err(error)), _) => problems.add("key", error),
        (None, _) => problems.add("key", format_args!("`{}` was not read", document.key)),
        (Some(Ok(public_key)), Some(leaf)) if *public_key != leaf.facts.spki => {
            let advice = "write the chain with its leaf first, and the key that leaf was issued for";
            problems.add(
                "key",
                format_args!("is not the key of `{}` in `{}`; {advice}", leaf.facts.subject, document.chain),
            );
        }
        (Some(Ok(_)), _) => {}
    }
    let digests: Vec<_> = chain.iter().map(|certificate| certificate.facts.sha256).collect();
    let revision = Revision::of(&(document, digests));
    problems.or(revision, |revision| AcceptedIdentity { revision, chain, key_file: document.key.clone() })
}
