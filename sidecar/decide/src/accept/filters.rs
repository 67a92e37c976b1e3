//! Accepts what a rule does to requests and responses.

use std::collections::HashSet;
use std::mem::{Discriminant, discriminant};

use http::{HeaderName, HeaderValue};
use sidecar_config::filters::{Filter, ForwardIdentity, HeaderModifier, IdentityFact};
use sidecar_config::policy::Rule;

use super::rewrite::{check_redirect, check_rewrite, lost_beside_a_redirect};
use crate::filter::{GateNames, is_fixed, is_hop};
use crate::problem::Problems;
use crate::route::header_name;

/// Names that have a use in every request, and would be lost to all of them.
const OTHERS_USE: [&str; 6] = ["accept", "authorization", "content-type", "cookie", "traceparent", "user-agent"];

pub(super) fn check_filters(rule: &Rule, place: &str, names: &GateNames, problems: &mut Problems) {
    let mut kinds: HashSet<Discriminant<Filter>> = HashSet::new();
    for (index, filter) in rule.filters.iter().enumerate() {
        let place = format!("{place}.filters[{index}]");
        if !kinds.insert(discriminant(filter)) {
            problems.add(&place, "is the second of its kind in this rule; write one that says both");
        }
        match filter {
            Filter::ForwardIdentity(identity) => {
                check_identity(identity, &format!("{place}.forwardIdentity"), problems);
            }
            Filter::RequestHeaderModifier(changes) => {
                let is_owned = |name: &HeaderName| names.owns(name) || is_hop(name);
                check_changes(changes, &format!("{place}.requestHeaderModifier"), is_owned, problems);
            }
            Filter::ResponseHeaderModifier(changes) => {
                let is_owned = |name: &HeaderName| name.as_str().starts_with("postern-");
                check_changes(changes, &format!("{place}.responseHeaderModifier"), is_owned, problems);
            }
            Filter::RequestRedirect(redirect) => {
                check_redirect(redirect, rule, &format!("{place}.requestRedirect"), problems);
            }
            Filter::UrlRewrite(rewrite) => check_rewrite(rewrite, rule, &format!("{place}.urlRewrite"), problems),
        }
        if let Some(name) = lost_beside_a_redirect(filter, &rule.filters) {
            let detail = "has no effect beside requestRedirect, which asks no application; leave it out";
            problems.add(format_args!("{place}.{name}"), detail);
        }
    }
}

fn check_identity(identity: &ForwardIdentity, place: &str, problems: &mut Problems) {
    if identity.x_forwarded_client_cert.is_empty() && identity.headers.is_empty() {
        problems.add(place, "tells nothing; write xForwardedClientCert or headers");
    }
    let mut fields = HashSet::new();
    for (index, field) in identity.x_forwarded_client_cert.iter().enumerate() {
        if !fields.insert(field) {
            let detail = "is named before; name each once";
            problems.add(format_args!("{place}.xForwardedClientCert[{index}]"), detail);
        }
    }
    let mut names = HashSet::new();
    if !identity.x_forwarded_client_cert.is_empty() {
        names.insert(HeaderName::from_static("x-forwarded-client-cert"));
    }
    for (index, header) in identity.headers.iter().enumerate() {
        let place = format!("{place}.headers[{index}].name");
        match identity_name(&header.name) {
            Err(error) => problems.add(place, error),
            Ok(name) => {
                if !names.insert(name) {
                    problems.add(place, format_args!("`{}` is written before; choose another name", header.name));
                }
            }
        }
    }
    // RFC 9440 §2.3.
    let has = |fact| identity.headers.iter().any(|header| header.value == fact);
    if has(IdentityFact::Rfc9440Chain) && !has(IdentityFact::Rfc9440) {
        problems.add(format_args!("{place}.headers"), "have Rfc9440Chain without Rfc9440; add a header with Rfc9440");
    }
}

/// A name for a fact about the caller. It is dropped from the requests of all clients, so that it must be good for
/// nothing else.
fn identity_name(name: &str) -> Result<HeaderName, String> {
    let parsed = header_name(name)?;
    if is_fixed(&parsed) || is_hop(&parsed) || OTHERS_USE.contains(&parsed.as_str()) {
        return Err(format!("`{parsed}` has another use; choose a name of your own, such as `x-client-name`"));
    }
    Ok(parsed)
}

fn check_changes(
    changes: &HeaderModifier,
    place: &str,
    is_owned: impl Fn(&HeaderName) -> bool,
    problems: &mut Problems,
) {
    if changes.set.is_empty() && changes.add.is_empty() && changes.remove.is_empty() {
        problems.add(place, "changes nothing; write set, add or remove");
    }
    let error = |name: &str| match header_name(name) {
        Err(error) => Some(error),
        Ok(name) if is_fixed(&name) => Some(format!("`{name}` belongs to the connection or the message; leave it out")),
        Ok(name) if is_owned(&name) => Some(format!("`{name}` is the gate's to write; leave it out")),
        Ok(_) => None,
    };
    let mut names = HashSet::new();
    for (index, name) in changes.remove.iter().enumerate() {
        let taken = !names.insert(name.to_ascii_lowercase());
        if let Some(error) = error(name).or_else(|| taken.then(|| twice(name))) {
            problems.add(format_args!("{place}.remove[{index}]"), error);
        }
    }
    let mut names = HashSet::new();
    for (kind, fields) in [("set", &changes.set), ("add", &changes.add)] {
        for (index, field) in fields.iter().enumerate() {
            let taken = kind == "set" && !names.insert(field.name.to_ascii_lowercase());
            if let Some(error) = error(&field.name).or_else(|| taken.then(|| twice(&field.name))) {
                problems.add(format_args!("{place}.{kind}[{index}].name"), error);
            }
            if HeaderValue::from_str(&field.value).is_err() || field.value.trim() != field.value {
                let advice = "cannot be a header's value; write ASCII without control characters or spaces around it";
                problems.add(format_args!("{place}.{kind}[{index}].value"), format_args!("{:?} {advice}", field.value));
            }
        }
    }
}

fn twice(name: &str) -> String {
    format!("`{name}` is named before; name each once")
}
