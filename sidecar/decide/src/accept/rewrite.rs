//! Accepts redirects and rewrites: nothing may come of them that could be read in two ways.

use sidecar_config::filters::{Filter, PathModifier, PathModifierType, RequestRedirect, UrlRewrite};
use sidecar_config::policy::Rule;

use super::matches::hostname_error;
use crate::filter::common_prefix;
use crate::path;
use crate::problem::Problems;

/// What a redirect may answer with.
const STATUSES: [u16; 5] = [301, 302, 303, 307, 308];

pub(super) fn check_redirect(redirect: &RequestRedirect, rule: &Rule, place: &str, problems: &mut Problems) {
    let RequestRedirect { scheme, hostname, port, path, status_code } = redirect;
    if scheme.is_none() && hostname.is_none() && port.is_none() && path.is_none() {
        problems.add(place, "leads to where the request came to; write scheme, hostname, port or path");
    }
    check_host(hostname.as_deref(), place, problems);
    if *port == Some(0) {
        problems.add(format_args!("{place}.port"), "is 0; write a port from 1 to 65535");
    }
    if let Some(path) = path {
        check_path(path, rule, &format!("{place}.path"), problems);
    }
    if !STATUSES.contains(status_code) {
        let detail = format_args!("is {status_code}; write 301, 302, 303, 307 or 308");
        problems.add(format_args!("{place}.statusCode"), detail);
    }
}

pub(super) fn check_rewrite(rewrite: &UrlRewrite, rule: &Rule, place: &str, problems: &mut Problems) {
    if rewrite.hostname.is_none() && rewrite.path.is_none() {
        problems.add(place, "changes nothing; write hostname or path");
    }
    check_host(rewrite.hostname.as_deref(), place, problems);
    if let Some(path) = &rewrite.path {
        check_path(path, rule, &format!("{place}.path"), problems);
    }
}

/// Name of a filter that changes what nobody will see, because its rule redirects.
pub(super) fn lost_beside_a_redirect(filter: &Filter, filters: &[Filter]) -> Option<&'static str> {
    let name = match filter {
        Filter::ForwardIdentity(_) => "forwardIdentity",
        Filter::RequestHeaderModifier(_) => "requestHeaderModifier",
        Filter::UrlRewrite(_) => "urlRewrite",
        Filter::ResponseHeaderModifier(_) | Filter::RequestRedirect(_) => return None,
    };
    is_redirect(filters).then_some(name)
}

/// Whether a rule with these filters redirects.
pub(super) fn is_redirect(filters: &[Filter]) -> bool {
    filters.iter().any(|filter| matches!(filter, Filter::RequestRedirect(_)))
}

fn check_host(hostname: Option<&str>, place: &str, problems: &mut Problems) {
    let error = hostname.and_then(|hostname| match hostname_error(hostname) {
        None if hostname.contains('*') => Some(format!("`{hostname}` is many hosts; write one")),
        error => error,
    });
    if let Some(error) = error {
        problems.add(format_args!("{place}.hostname"), error);
    }
}

fn check_path(path: &PathModifier, rule: &Rule, place: &str, problems: &mut Problems) {
    let is_prefix = path.kind == PathModifierType::ReplacePrefixMatch;
    if is_prefix && common_prefix(&rule.matches).is_none() {
        let detail = "replaces a prefix that the rule does not have; write matches that all have one and the same path of type PathPrefix, or use ReplaceFullPath";
        problems.add(format_args!("{place}.type"), detail);
    }
    if !(is_prefix && path.value.is_empty())
        && let Some(error) = path_error(&path.value)
    {
        problems.add(format_args!("{place}.value"), error);
    }
}

/// Why a path cannot stand in a normalised one's place, if it cannot.
fn path_error(value: &str) -> Option<String> {
    let advice = match path::normalise(value) {
        Ok(normal) if normal == value => return None,
        Ok(normal) => format!("write `{normal}`"),
        Err(_) => "write an absolute path without query, encoded separators or dot segments above the root".to_owned(),
    };
    Some(format!("`{value}` is not spelled as paths are once they are normal; {advice}"))
}
