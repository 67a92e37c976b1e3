//! Accepts part `trust`.

use std::collections::{BTreeMap, HashSet};
use std::sync::Arc;

use sidecar_config::trust::{Bundle as BundleDocument, IdentityRevocation, SerialRevocation, Trust};
use sidecar_config::{Part, UtcTime};

use super::{Files, name_error, serial_error};
use crate::Revision;
use crate::certificate::parse_serial;
use crate::identity::Revocation;
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
    let revocations = read_revocations(&document.revocations.identities, &mut problems);
    read_serials(&document.revocations.serials, &mut bundles, &mut problems);
    // By bundle: a root that moves from one bundle's file to another's changes who is trusted for what.
    let digests_of = |bundle: &Bundle| bundle.roots.iter().map(|root| root.facts.sha256).collect::<Vec<_>>();
    let digests: Vec<_> = bundles.iter().map(digests_of).collect();
    let revision = Revision::of(&(document, digests));
    problems.or(revision, |revision| AcceptedTrust { revision, bundles, revocations })
}

/// An identity that is not known is no mistake: the revocations of a namespace concern all its workloads, and each
/// knows its own clients only.
fn read_revocations(documents: &[IdentityRevocation], problems: &mut Problems) -> BTreeMap<String, Revocation> {
    let mut revocations = BTreeMap::new();
    for (index, document) in documents.iter().enumerate() {
        let place = format!("revocations.identities[{index}]");
        let accept_issued_after = document.accept_issued_after.map(UtcTime::seconds);
        let revocation = Revocation { state: document.state, accept_issued_after };
        if revocation == Revocation::default() {
            let advice = "has neither state nor acceptIssuedAfter, so nothing is revoked; write at least one";
            problems.add(&place, advice);
        }
        if revocations.insert(document.name.clone(), revocation).is_some() {
            let detail = format_args!("`{}` is listed twice; keep one entry", document.name);
            problems.add(format_args!("{place}.name"), detail);
        }
    }
    revocations
}

/// A bundle that is not there is a mistake in this very part: the entry would revoke nothing, and nobody would know.
fn read_serials(documents: &[SerialRevocation], bundles: &mut [Bundle], problems: &mut Problems) {
    let mut serials: BTreeMap<&str, HashSet<Box<str>>> = BTreeMap::new();
    for (index, document) in documents.iter().enumerate() {
        let place = format!("revocations.serials[{index}]");
        if !bundles.iter().any(|bundle| *bundle.name == *document.bundle) {
            let detail = format_args!("there is no bundle `{}`; name one of trust.bundles", document.bundle);
            problems.add(format_args!("{place}.bundle"), detail);
        }
        match parse_serial(&document.serial) {
            Some(serial) => _ = serials.entry(&document.bundle).or_default().insert(serial),
            None => problems.add(format_args!("{place}.serial"), serial_error(&document.serial)),
        }
    }
    for bundle in bundles {
        bundle.revoked = Arc::new(serials.remove(&*bundle.name).unwrap_or_default());
    }
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
    Bundle { name: name.into(), roots, vouches_for: document.vouches_for.clone(), revoked: Arc::default() }
}
