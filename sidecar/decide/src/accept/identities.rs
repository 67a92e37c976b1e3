//! Accepts part `identities`.

use std::collections::HashSet;

use sidecar_config::Part;
use sidecar_config::identities::{KnownIdentity, Recogniser};

use super::{name_error, serial_error};
use crate::Revision;
use crate::certificate::{parse_serial, parse_sfdi};
use crate::identity::Claim;
use crate::problem::{Problems, Refusal};
use crate::snapshot::{AcceptedClient, AcceptedIdentities};

/// Accepts the known identities of a document.
///
/// # Errors
/// Every problem of the part.
pub fn identities(document: &[KnownIdentity]) -> Result<AcceptedIdentities, Refusal> {
    let mut problems = Problems::of(Part::Identities);
    let mut names = HashSet::new();
    let mut identities = Vec::new();
    for (index, identity) in document.iter().enumerate() {
        if let Some(error) = name_error(&identity.name) {
            problems.add(format_args!("[{index}].name"), error);
        }
        if !names.insert(&identity.name) {
            let advice = "is taken by an earlier identity; names are unique";
            problems.add(format_args!("[{index}].name"), format_args!("`{}` {advice}", identity.name));
        }
        if identity.recognise.is_empty() {
            let advice = "is empty, so nobody would ever be this identity; add a recogniser";
            problems.add(format_args!("[{index}].recognise"), advice);
        }
        let mut claims = Vec::new();
        for (number, recogniser) in identity.recognise.iter().enumerate() {
            match claim(recogniser) {
                Ok(claim) => claims.push((recogniser.bundle.clone(), claim)),
                Err((field, error)) => {
                    let dot = if field.is_empty() { "" } else { "." };
                    problems.add(format_args!("[{index}].recognise[{number}]{dot}{field}"), error);
                }
            }
        }
        for label in identity.labels.keys() {
            if let Some(error) = name_error(label) {
                problems.add(format_args!("[{index}].labels.{label}"), format_args!("the label {error}"));
            }
        }
        identities.push(AcceptedClient { name: identity.name.clone(), labels: identity.labels.clone(), claims });
    }
    problems.or(Revision::of(&document), |revision| AcceptedIdentities { revision, identities })
}

/// The one claim of a recogniser, or the field that is wrong and why.
fn claim(recogniser: &Recogniser) -> Result<Claim, (&'static str, String)> {
    let mut claims = Vec::new();
    if let Some(uri) = &recogniser.uri {
        claims.push(Claim::Uri(uri.as_str().into()));
    }
    if let Some(name) = &recogniser.dns_name {
        claims.push(Claim::DnsName(name.to_ascii_lowercase().into()));
    }
    if let Some(name) = &recogniser.common_name {
        claims.push(Claim::CommonName(name.as_str().into()));
    }
    if let Some(text) = &recogniser.fingerprint {
        let error = || format!("`{text}` is not a fingerprint; write `sha256:` and 64 hex digits");
        claims.push(Claim::fingerprint(text).ok_or_else(|| ("fingerprint", error()))?);
    }
    if let Some(text) = &recogniser.lfdi {
        let error = || format!("`{text}` is not an LFDI; write 40 hex digits");
        claims.push(Claim::lfdi(text).ok_or_else(|| ("lfdi", error()))?);
    }
    if let Some(text) = &recogniser.sfdi {
        claims.push(parse_sfdi(text).map(Claim::Sfdi).map_err(|error| ("sfdi", format!("`{text}` {error}")))?);
    }
    if let Some(text) = &recogniser.serial {
        claims.push(parse_serial(text).map(Claim::Serial).ok_or_else(|| ("serial", serial_error(text)))?);
    }
    if let Some(text) = &recogniser.spki {
        let error = || format!("`{text}` is not the digest of a public key; write `sha256:` and 64 hex digits");
        claims.push(Claim::spki(text).ok_or_else(|| ("spki", error()))?);
    }
    match <[Claim; 1]>::try_from(claims) {
        Ok([claim]) => Ok(claim),
        Err(claims) => {
            let count = claims.len();
            let fields = "uri, dnsName, commonName, fingerprint, lfdi, sfdi, serial, spki";
            Err(("", format!("has {count} claims; write exactly one of {fields}")))
        }
    }
}
