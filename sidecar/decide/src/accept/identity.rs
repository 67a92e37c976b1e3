//! Accepts part `identity`: each key and chain as a pair, all pairs or none.

use std::collections::HashSet;
use std::sync::Arc;

use sidecar_config::Part;
use sidecar_config::identity::Identity;

use super::policy::taken;
use super::{Files, name_error};
use crate::Revision;
use crate::problem::{Problems, Refusal};
use crate::server::{ServerCertificate, ServerNames};
use crate::snapshot::AcceptedIdentity;

/// Certificates beside the first: more names than a workload's listeners have; a handshake looks through all of them.
pub(super) const CERTIFICATES_MAX: usize = 64;

/// Accepts the server's certificates with their keys.
///
/// # Errors
/// Every problem of the part; a key that is not its leaf's among them.
pub fn identity(document: &Identity, files: &Files) -> Result<AcceptedIdentity, Refusal> {
    let mut problems = Problems::of(Part::Identity);
    let default =
        Pair { place: String::new(), name: None, chain: &document.chain, key: &document.key, is_default: true };
    check_names(document, &mut problems);
    let more = document.certificates.iter().enumerate().map(|(index, pair)| Pair {
        place: format!("certificates[{index}]."),
        name: pair.name.as_deref(),
        chain: &pair.chain,
        key: &pair.key,
        is_default: false,
    });
    if document.certificates.len() > CERTIFICATES_MAX {
        let count = document.certificates.len();
        let advice = "put several names into one certificate";
        problems.add("certificates", format_args!("are {count}; at most {CERTIFICATES_MAX} are allowed: {advice}"));
    }
    let default = default.read(files, &mut problems);
    let more: Vec<_> = more.map(|pair| pair.read(files, &mut problems)).collect();
    let revision = match more.as_slice() {
        // As it was before there could be more, so that it stays the same for who has no more.
        [] => Revision::of(&(document, digests(&default))),
        more => Revision::of(&(document, digests(&default), more.iter().map(digests).collect::<Vec<_>>())),
    };
    problems.or(revision, |revision| {
        let certificates = [default].into_iter().chain(more).map(Arc::new).collect();
        AcceptedIdentity { revision, certificates }
    })
}

/// Names are what listeners refer to: one stands for one certificate.
fn check_names(document: &Identity, problems: &mut Problems) {
    let mut names = HashSet::new();
    for (index, name) in
        document.certificates.iter().enumerate().filter_map(|(index, pair)| Some((index, pair.name.as_ref()?)))
    {
        let place = format_args!("certificates[{index}].name");
        if let Some(error) = name_error(name) {
            problems.add(place, error);
        } else if !names.insert(name) {
            problems.add(place, taken("certificate", name));
        }
    }
}

/// A chain and its key, as they are written.
struct Pair<'a> {
    /// In front of the names of its fields.
    place: String,
    name: Option<&'a str>,
    chain: &'a str,
    key: &'a str,
    is_default: bool,
}

impl Pair<'_> {
    fn read(&self, files: &Files, problems: &mut Problems) -> ServerCertificate {
        let place = &self.place;
        let chain = files.certificates(self.chain).map(<[_]>::to_vec).unwrap_or_else(|error| {
            problems.add(format_args!("{place}chain"), error);
            Vec::new()
        });
        match (files.public_keys.get(self.key), chain.first()) {
            (Some(Err(error)), _) => problems.add(format_args!("{place}key"), error),
            (None, _) => problems.add(format_args!("{place}key"), format_args!("`{}` was not read", self.key)),
            (Some(Ok(public_key)), Some(leaf)) if *public_key != leaf.facts.spki => {
                let advice = "write the chain with its leaf first, and the key that leaf was issued for";
                let subject = &leaf.facts.subject;
                let detail = format_args!("is not the key of `{subject}` in `{}`; {advice}", self.chain);
                problems.add(format_args!("{place}key"), detail);
            }
            (Some(Ok(_)), _) => {}
        }
        let names = chain.first().map(|leaf| ServerNames::of(&leaf.facts)).unwrap_or_default();
        // A listener that names it shows it to those who ask for none.
        if !self.is_default && self.name.is_none() && !chain.is_empty() && names.is_empty() {
            let detail = "has neither DNS nor IP subject alternative names, so no client could ask for it; issue it with \
                          the names it is for";
            problems.add(format_args!("{place}chain"), detail);
        }
        let name = self.name.map(Into::into);
        ServerCertificate { name, chain, key_file: self.key.to_owned(), names, is_default: self.is_default }
    }
}

fn digests(certificate: &ServerCertificate) -> Vec<[u8; 32]> {
    certificate.chain.iter().map(|certificate| certificate.facts.sha256).collect()
}
