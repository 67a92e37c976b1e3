//! Accepts what a rule matches, and the hosts of its route.

use std::collections::HashSet;

use http::{HeaderValue, Method};
use sidecar_config::policy::{Match, PathMatch, PathMatchType, Route, Rule, ValueMatch, ValueMatchType};

use crate::filter::GateNames;
use crate::message_type::MessageType;
use crate::path;
use crate::pattern::{PATTERNS_MAX, Pattern};
use crate::problem::Problems;
use crate::route::{RouteTable, Template, canonical_host, header_name};

/// Fields that end at the gate, so that a rule on them would match what the application never sees; and `Host`, which
/// HTTP/2 does not have.
const NOT_MATCHED: [&str; 8] =
    ["connection", "expect", "host", "keep-alive", "proxy-connection", "te", "transfer-encoding", "upgrade"];

pub(super) fn check_match(condition: &Match, place: &str, gate_names: &GateNames, problems: &mut Problems) {
    if let Some(path) = &condition.path
        && let Some(error) = path_error(path)
    {
        problems.add(format_args!("{place}.path.value"), error);
    }
    if let Some(method) = &condition.method {
        let is_upper = !method.bytes().any(|byte| byte.is_ascii_lowercase());
        if !is_upper || Method::from_bytes(method.as_bytes()).is_err() {
            let detail = format_args!("`{method}` is not a method; write it in upper case, such as `GET`");
            problems.add(format_args!("{place}.method"), detail);
        }
    }
    let mut names = HashSet::new();
    for (index, header) in condition.headers.iter().enumerate() {
        let place = format!("{place}.headers[{index}]");
        let taken = !names.insert(header.name.to_ascii_lowercase());
        if let Some(error) = header_error(&header.name, gate_names).or_else(|| taken.then(|| twice(&header.name))) {
            problems.add(format_args!("{place}.name"), error);
        }
        if let Some(error) = value_error(header, is_header_value) {
            problems.add(format_args!("{place}.value"), error);
        }
    }
    if let Some(error) = condition.message_type.as_deref().and_then(message_error) {
        problems.add(format_args!("{place}.messageType"), error);
    }
    let mut names = HashSet::new();
    for (index, parameter) in condition.query_params.iter().enumerate() {
        let place = format!("{place}.queryParams[{index}]");
        if parameter.name.is_empty() {
            problems.add(format_args!("{place}.name"), "is empty; give the name of a parameter, decoded");
        } else if !names.insert(&parameter.name) {
            problems.add(format_args!("{place}.name"), twice(&parameter.name));
        }
        if let Some(error) = value_error(parameter, |_| true) {
            problems.add(format_args!("{place}.value"), error);
        }
    }
}

/// A request whose path has parameters must fall under the same rule without them; see [`path::without_parameters`]. A
/// condition that asks for some is met by nothing unless its rule has the path without them, too.
pub(super) fn check_parameters(rule: &Rule, place: &str, problems: &mut Problems) {
    let mut table = None;
    for (index, condition) in rule.matches.iter().enumerate() {
        let Some(path) = &condition.path else { continue };
        let Some(bare) = example(path).and_then(|example| path::without_parameters(&example)) else { continue };
        if !table.get_or_insert_with(|| RouteTable::of_paths(&rule.matches)).has_path(&bare) {
            let detail = format_args!(
                "`{}` would never match: a path with parameters behind `;` must fall under the same rule without them; \
                 add a match that has `{bare}`, too, or leave this one out",
                path.value
            );
            problems.add(format_args!("{place}.matches[{index}].path.value"), detail);
        }
    }
}

/// A path that meets a condition, where one can be told and the condition is a good one.
fn example(condition: &PathMatch) -> Option<String> {
    if path_error(condition).is_some() {
        return None;
    }
    let segment = |segment: &str| match segment.strip_prefix('{') {
        Some(parameter) => (if parameter.ends_with("...}") { "" } else { "x" }).to_owned(),
        None => segment.to_owned(),
    };
    match condition.kind {
        PathMatchType::Exact | PathMatchType::PathPrefix => Some(condition.value.clone()),
        PathMatchType::Template => Some(condition.value.split('/').map(segment).collect::<Vec<_>>().join("/")),
        PathMatchType::RegularExpression => None,
    }
}

/// Every request may have to try every expression, so that they are bounded together.
pub(super) fn check_pattern_count(routes: &[Route], problems: &mut Problems) {
    let is_pattern = |condition: &&ValueMatch| condition.kind == ValueMatchType::RegularExpression;
    let patterns_of = |condition: &Match| {
        let path = condition.path.as_ref().filter(|path| path.kind == PathMatchType::RegularExpression);
        let values = condition.headers.iter().chain(&condition.query_params).filter(is_pattern);
        usize::from(path.is_some()) + values.count()
    };
    let rules = routes.iter().flat_map(|route| &route.rules);
    let count: usize = rules.flat_map(|rule| &rule.matches).map(patterns_of).sum();
    if count > PATTERNS_MAX {
        let detail = format_args!(
            "have {count} conditions of type RegularExpression; at most {PATTERNS_MAX} are allowed: use Template, PathPrefix or Exact"
        );
        problems.add("routes", detail);
    }
}

fn message_error(name: &str) -> Option<String> {
    let advice = "write a root element of IEEE 2030.5 such as `DERControlResponse`, or `exi` or `json`";
    match MessageType::named(name) {
        Some(MessageType::OTHER) => {
            Some(format!("`{name}` is no type to ask for: what has none may be anything; {advice}"))
        }
        Some(_) => None,
        None => Some(format!("`{name}` is no known type of message; {advice}; a method of gRPC is a path")),
    }
}

fn twice(name: &str) -> String {
    format!("`{name}` is named before in this match; write one condition for each name")
}

fn path_error(path: &PathMatch) -> Option<String> {
    match path.kind {
        PathMatchType::Exact | PathMatchType::PathPrefix => literal_path_error(&path.value),
        PathMatchType::Template => Template::parse(&path.value).err(),
        PathMatchType::RegularExpression => Pattern::new(&path.value).err(),
    }
}

/// Why no normalised request can have a document's path, if none can.
fn literal_path_error(value: &str) -> Option<String> {
    let advice = match path::normalise(value) {
        Ok(normal) if normal == value => return None,
        Ok(normal) => format!("write it as requests are normalised, `{normal}`"),
        Err(_) => "write an absolute path without query, encoded separators or dot segments above the root".to_owned(),
    };
    Some(format!("`{value}` would never match; {advice}"))
}

fn header_error(name: &str, gate_names: &GateNames) -> Option<String> {
    match header_name(name) {
        Err(error) => Some(error),
        Ok(name) if name == http::header::HOST => Some("`host` is no condition; use the route's hostnames".to_owned()),
        Ok(name) if NOT_MATCHED.contains(&name.as_str()) => Some(format!(
            "`{name}` is between the client and the gate, and the application never sees it; leave it out"
        )),
        Ok(name) if gate_names.owns(&name) => Some(format!(
            "`{name}` is the gate's to write, and a client's is dropped before rules are asked; leave it out"
        )),
        Ok(_) => None,
    }
}

fn value_error(condition: &ValueMatch, is_possible: impl FnOnce(&str) -> bool) -> Option<String> {
    match condition.kind {
        ValueMatchType::RegularExpression => Pattern::new(&condition.value).err(),
        ValueMatchType::Exact if is_possible(&condition.value) => None,
        ValueMatchType::Exact => {
            let advice = "write a value without control characters and without spaces around it";
            Some(format!("{:?} would never match; {advice}", condition.value))
        }
    }
}

fn is_header_value(value: &str) -> bool {
    HeaderValue::from_str(value).is_ok() && value.trim_matches([' ', '\t']) == value
}

pub(super) fn hostname_error(hostname: &str) -> Option<String> {
    let not_a_name = || Some(format!("`{hostname}` is not a host name; write it without scheme, port and path"));
    let name = hostname.strip_prefix("*.").unwrap_or(hostname);
    if name.contains('*') {
        let advice = "write `*.example.com` for all names below one, or leave hostnames empty for any host";
        return Some(format!("`{hostname}` has a wildcard that is not its whole first label; {advice}"));
    }
    let valid = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_' | b':' | b'[' | b']');
    let is_literal = name.starts_with('[') && name.ends_with(']');
    let canonical = canonical_host(name);
    // A dot alone would be the name of a request without a host.
    if canonical.is_empty() || !name.bytes().all(valid) || (name.contains(':') && !is_literal) {
        return not_a_name();
    }
    if name.len() == hostname.len() {
        return None;
    }
    if is_literal || canonical.split('.').any(str::is_empty) {
        return not_a_name();
    }
    // No name ends in a number (RFC 3696 §2), but every IPv4 address does.
    let last = canonical.rsplit('.').next().unwrap_or_default();
    let is_address = last.bytes().all(|byte| byte.is_ascii_digit());
    is_address.then(|| format!("`{hostname}` has a wildcard in an address; list each address"))
}
