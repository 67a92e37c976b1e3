//! Accepts part `trust`.

use std::collections::{BTreeMap, HashSet};
use std::sync::Arc;

use sidecar_config::trust::{Bundle as BundleDocument, IdentityRevocation, SerialRevocation, Trust};
use sidecar_config::{Part, UtcTime};

use super::{Files, name_error, serial_error};
use crate::Revision;
use crate::certificate::{Certificate, parse_serial};
use crate::crl::{RevocationList, Revoked};
use crate::identity::Revocation;
use crate::problem::{Problems, Refusal};
use crate::snapshot::{AcceptedTrust, Bundle};

/// Intermediates of a bundle: more than an organisation has, and each may be looked at in each handshake.
const INTERMEDIATES_MAX: usize = 64;

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
    let revision = revision(document, &bundles, files);
    problems.or(revision, |revision| AcceptedTrust { revision, bundles, revocations })
}

/// By bundle: a root that moves from one bundle's file to another's changes who is trusted for what.
fn revision(document: &Trust, bundles: &[Bundle], files: &Files) -> Revision {
    let digests_of = |certificates: &[Certificate]| -> Vec<_> {
        certificates.iter().map(|certificate| certificate.facts.sha256).collect()
    };
    let roots: Vec<_> = bundles.iter().map(|bundle| digests_of(&bundle.roots)).collect();
    // As it was before there could be more, so that it stays the same for who has no more.
    if document.bundles.values().all(|bundle| bundle.intermediates.is_empty() && bundle.crls.is_empty()) {
        return Revision::of(&(document, roots));
    }
    let intermediates: Vec<_> = bundles.iter().map(|bundle| digests_of(&bundle.intermediates)).collect();
    let of_file = |file: &String| -> Vec<_> {
        files.revocation_lists(file).unwrap_or_default().iter().map(|list| list.sha256).collect()
    };
    let of_bundle = |bundle: &BundleDocument| bundle.crls.iter().map(of_file).collect::<Vec<_>>();
    let lists: Vec<_> = document.bundles.values().map(of_bundle).collect();
    Revision::of(&(document, roots, intermediates, lists))
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
    let place = format!("bundles.{name}");
    if document.roots.is_empty() {
        problems.add(format_args!("{place}.roots"), "is empty; name at least one PEM file with a root certificate");
    }
    let roots = read_authorities(&document.roots, &format!("{place}.roots"), files, problems);
    let intermediates = read_authorities(&document.intermediates, &format!("{place}.intermediates"), files, problems);
    if intermediates.len() > INTERMEDIATES_MAX {
        let detail = format_args!("are {}; at most {INTERMEDIATES_MAX} are allowed", intermediates.len());
        problems.add(format_args!("{place}.intermediates"), detail);
    }
    let mut lists = Vec::new();
    for (index, file) in document.crls.iter().enumerate() {
        let place = format!("{place}.crls[{index}]");
        match files.revocation_lists(file) {
            Ok(of_file) => {
                let errors = of_file.iter().filter_map(|list| list_error(list, file, &roots, &intermediates));
                errors.for_each(|error| problems.add(&place, error));
                lists.extend_from_slice(of_file);
            }
            Err(error) => problems.add(&place, error),
        }
    }
    for (index, domain) in document.vouches_for.spiffe.iter().enumerate() {
        if domain.is_empty() || domain.contains(['/', ':']) || *domain != domain.to_ascii_lowercase() {
            let place = format_args!("{place}.vouchesFor.spiffe[{index}]");
            let advice = "is not a trust domain; write its name alone and in lower case, such as `demo.local`";
            problems.add(place, format_args!("`{domain}` {advice}"));
        }
    }
    Bundle {
        name: name.into(),
        roots,
        intermediates,
        listed: Arc::new(Revoked::of(&lists)),
        vouches_for: document.vouches_for.clone(),
        revoked: Arc::default(),
    }
}

/// The CA certificates of some files.
fn read_authorities(names: &[String], place: &str, files: &Files, problems: &mut Problems) -> Vec<Certificate> {
    let what = if place.ends_with("roots") { "roots" } else { "intermediates" };
    let mut read = Vec::new();
    for (index, file) in names.iter().enumerate() {
        match files.certificates(file) {
            Ok(certificates) => read.extend_from_slice(certificates),
            Err(error) => problems.add(format_args!("{place}[{index}]"), error),
        }
    }
    for certificate in read.iter().filter(|certificate| !certificate.facts.is_ca) {
        let advice = "is not a CA (basicConstraints CA:TRUE is missing); only CA certificates can be";
        problems.add(place, format_args!("`{}` {advice} {what}", certificate.facts.subject));
    }
    read
}

/// A list that no authority of the bundle has signed revokes nothing here, and whoever listed it relies on it.
fn list_error(list: &RevocationList, file: &str, roots: &[Certificate], below: &[Certificate]) -> Option<String> {
    let authorities = roots.iter().chain(below);
    let mut signers = authorities.filter(|authority| list.signers.contains(&authority.facts.sha256)).peekable();
    let advice =
        "is signed by no root or intermediate of this bundle; add the certificate of its issuer to `intermediates`";
    if signers.peek().is_none() {
        return Some(format!("the list of `{}` in `{file}` {advice}", list.issuer));
    }
    let advice = "whose key usage does not include cRLSign; have its certificate issued with it";
    let is_good = signers.any(|signer| signer.facts.signs_crls);
    (!is_good).then(|| format!("the list in `{file}` is signed by `{}`, {advice}", list.issuer))
}
