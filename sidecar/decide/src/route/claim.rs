//! What a route asks for, in one spelling: two that ask for the same can be told, though either would be accepted alone.

use std::fmt;

use sidecar_config::policy::{Match, PathMatchType, Route, ValueMatch, ValueMatchType};

use super::host::HostCondition;
use crate::path::match_key;

/// One host and one match of a route. Requests that fit both of two equal ones exist, and no rank tells these apart but
/// the order of the document.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RouteClaim {
    /// The match, in one spelling.
    condition: String,
    /// The host, in one spelling.
    host: String,
}

impl fmt::Display for RouteClaim {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} of {}", self.condition, self.host)
    }
}

/// All that a route asks for, each with the number of its rule.
pub fn claims(route: &Route) -> impl Iterator<Item = (usize, RouteClaim)> {
    let hosts: Vec<_> = match route.hostnames.as_slice() {
        [] => vec!["any host".to_owned()],
        names => names.iter().map(|name| host(name)).collect(),
    };
    let rules = route.rules.iter().enumerate();
    let conditions = rules.flat_map(|(rule, one)| {
        let all = one.matches.is_empty().then(|| condition(&Match::default()));
        all.into_iter().chain(one.matches.iter().map(condition)).map(move |condition| (rule, condition))
    });
    conditions.flat_map(move |(rule, condition)| {
        let claim = move |host: &String| (rule, RouteClaim { condition: condition.clone(), host: host.clone() });
        hosts.iter().map(claim).collect::<Vec<_>>()
    })
}

fn host(name: &str) -> String {
    match HostCondition::of(name) {
        HostCondition::Any => "any host".to_owned(),
        HostCondition::Exact(host) => format!("`{host}`"),
        HostCondition::Below(parent) => format!("`*.{parent}`"),
    }
}

fn condition(condition: &Match) -> String {
    let Match { path, method, headers, query_params, message_type } = condition;
    let method = method.as_deref().unwrap_or("any method");
    let path = match path {
        None => "PathPrefix `/`".to_owned(),
        Some(path) => match path.kind {
            PathMatchType::Exact => format!("Exact `{}`", match_key(&path.value)),
            PathMatchType::PathPrefix => {
                let prefix = path.value.strip_suffix('/').unwrap_or(&path.value);
                format!("PathPrefix `{}`", if prefix.is_empty() { "/".into() } else { match_key(prefix) })
            }
            PathMatchType::Template => format!("Template `{}`", nameless(&path.value)),
            PathMatchType::RegularExpression => format!("RegularExpression `{}`", path.value),
        },
    };
    let values = [("header", headers, true), ("query parameter", query_params, false)];
    let values = values.into_iter().flat_map(|(what, values, any_case)| {
        let mut said: Vec<_> = values.iter().map(|one| value(what, one, any_case)).collect();
        said.sort();
        said
    });
    let message = message_type.iter().map(|name| format!("message `{name}`"));
    [format!("{method} {path}")].into_iter().chain(values).chain(message).collect::<Vec<_>>().join(", ")
}

fn value(what: &str, condition: &ValueMatch, any_case: bool) -> String {
    let name = if any_case { condition.name.to_ascii_lowercase() } else { condition.name.clone() };
    let equals = match condition.kind {
        ValueMatchType::Exact => "=",
        ValueMatchType::RegularExpression => "~",
    };
    format!("{what} `{name}`{equals}`{}`", condition.value)
}

/// A template without the names of its parameters, which match whatever they are called.
fn nameless(template: &str) -> String {
    let segment = |segment: &str| match segment.strip_prefix('{').and_then(|inner| inner.strip_suffix('}')) {
        Some(name) if name.ends_with("...") => "{...}".to_owned(),
        Some(_) => "{}".to_owned(),
        None => match_key(segment).into_owned(),
    };
    template.split('/').map(segment).collect::<Vec<_>>().join("/")
}
