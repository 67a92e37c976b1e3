//! Accepts part `trust`.

use std::collections::BTreeMap;

use sidecar_config::Part;
use sidecar_config::trust::{Bundle as BundleDocument, Trust};

use super::{Files, name_error};
use crate::Revision;
use crate::problem::{Problems, Refusal};
use crate::snapshot::{AcceptedTrust, Bundle};

/// Accepts the bundles and revocations of a document.
///
/// # Errors
/// Every problem of the part.
pub fn trust(document: &Trust, files: &Files) -> Result<AcceptedTrust, Refusal> {
    let mut problems = Problems::of(Part::Trust);
    let mut bundles = Vec::new();
    for (name, bundle) in &document.bundles {
        if let Some(error) = name_error(name) {
            problems.add(format_args!("bundles.{name}"), format_args!("the name {error}"));
        }
        bundles.push(read_bundle(name, bundle, files, &mut problems));
    }
    let mut states = BTreeMap::new();
    for (index, revocation) in document.revocations.identities.iter().enumerate() {
        if states.insert(revocation.name.clone(), revocation.state).is_some() {
            let place = format_args!("revocations.identities[{index}].name");
            problems.add(place, format_args!("`{}` is listed twice; keep one state", revocation.name));
        }
    }
    // By bundle: a root that moves from one bundle's file to another's changes who is trusted for what.
    let digests_of = |bundle: &Bundle| bundle.roots.iter().map(|root| root.facts.sha256).collect::<Vec<_>>();
    let digests: Vec<_> = bundles.iter().map(digests_of).collect();
    let revision = Revision::of(&(document, digests));
    problems.or(revision, |revision| AcceptedTrust { revision, bundles, states })
}

fn read_bundle(name: &str, document: &BundleDocument, files: &Files, problems: &mut Problems) -> Bundle {
    let place = format!("bundles.{name}.roots");
    if document.roots.is_empty() {
        problems.add(&place, "is empty; name at least one PEM file with a root certificate");
    }
    let mut roots = Vec::new();
    for (index, file) in document.roots.iter().enumerate() {
        match files.certificates(file) {
            Ok(certificates) => roots.extend_from_slice(certificates),
            Err(error) => problems.add(format_args!("{place}[{index}]"), error),
        }
    }
    for root in roots.iter().filter(|root| !root.facts.is_ca) {
        let advice = "is not a CA (basicConstraints CA:TRUE is missing); only CA certificates can be roots";
        problems.add(&place, format_args!("`{}` {advice}", root.facts.subject));
    }
    for (index, domain) in document.vouches_for.spiffe.iter().enumerate() {
        if domain.is_empty() || domain.contains(['/', ':']) || *domain != domain.to_ascii_lowercase() {
            let place = format_args!("bundles.{name}.vouchesFor.spiffe[{index}]");
            let advice = "is not a trust domain; write its name alone and in lower case, such as `demo.local`";
            problems.add(place, format_args!("`{domain}` {advice}"));
        }
    }
    Bundle { name: name.into(), roots, vouches_for: document.vouches_for.clone() }
}
