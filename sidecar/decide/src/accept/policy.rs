//! Accepts part `policy`: what can be said about it without the other parts.

use std::collections::HashSet;

use sidecar_config::backend::Timeouts;
use sidecar_config::policy::{Limits, Listener, Policy, Route, Rule};
use sidecar_config::{Duration, Part};

use super::allow::check_allow;
use super::backend::{TIME_MAX, check_backend, check_backend_policy, check_range};
use super::capture::check_capture;
use super::filters::check_filters;
use super::health::check_grpc_backends;
use super::listeners::{check_listeners, check_served};
use super::matches::{check_match, check_parameters, check_pattern_count, hostname_error};
use super::name_error;
use super::rewrite::is_redirect;
use crate::Revision;
use crate::filter::GateNames;
use crate::problem::{Problems, Refusal};
use crate::route::RouteTable;
use crate::snapshot::AcceptedPolicy;

/// Most connections, requests or streams a document may ask for; the file limit is far below.
const LIMIT_MAX: u32 = 1_000_000;
/// Longest time that nothing may be accepted: clients give up before.
const PENDING_TIMEOUT_MAX: Duration = Duration::from_millis(60_000);
/// Most proxies in front of the gate: more than anybody has, and few enough to read all they said.
const TRUSTED_HOPS_MAX: u8 = 16;

/// Accepts the listeners, routes and limits of a document.
///
/// # Errors
/// Every problem of the part. What it names in other parts is looked up when the parts are linked.
pub fn policy(document: &Policy) -> Result<AcceptedPolicy, Refusal> {
    let mut problems = Problems::of(Part::Policy);
    check_listeners(&document.listeners, &mut problems);
    let gate_names = GateNames::of(&document.routes, document.forwarding.trusted_hops);
    let mut names = HashSet::new();
    for (index, route) in document.routes.iter().enumerate() {
        let place = format!("routes[{index}]");
        if !names.insert(&route.name) {
            problems.add(format_args!("{place}.name"), taken("route", &route.name));
        }
        check_route(route, &place, &document.listeners, &gate_names, &mut problems);
    }
    check_pattern_count(&document.routes, &mut problems);
    check_limits(&document.limits, &mut problems);
    let hops = document.forwarding.trusted_hops;
    if hops > TRUSTED_HOPS_MAX {
        let detail = format_args!("is {hops}; write a number from 0 to {TRUSTED_HOPS_MAX}");
        problems.add("forwarding.trustedHops", detail);
    }
    // What is broken by itself is told first: it would be told here once more, in other words.
    if problems.is_empty() {
        check_tables(document, &mut problems);
    }
    problems.or(Revision::of(document), |revision| AcceptedPolicy {
        revision,
        listeners: document.listeners.clone(),
        routes: document.routes.iter().map(|route| (route.clone(), route_hash(route, &document.listeners))).collect(),
        limits: document.limits.clone(),
        trusted_hops: hops,
    })
}

fn check_limits(limits: &Limits, problems: &mut Problems) {
    let numbers = [
        ("limits.maxConnections", limits.max_connections),
        ("limits.maxPendingRequests", limits.max_pending_requests),
        ("limits.maxStreams", limits.max_streams),
        ("limits.maxTunnels", limits.max_tunnels),
    ];
    let said = numbers.into_iter().filter_map(|(place, limit)| Some((place, limit?)));
    for (place, limit) in said.filter(|(_, limit)| !(1..=LIMIT_MAX).contains(limit)) {
        problems.add(place, format_args!("is {limit}; write a number from 1 to {LIMIT_MAX}"));
    }
    if limits.pending_timeout > PENDING_TIMEOUT_MAX {
        problems.add("limits.pendingTimeout", "is more than a minute, in which nothing would be accepted; write less");
    }
}

/// A route's hash covers its listener, because the same rules behind other TLS settings are another promise.
fn route_hash(route: &Route, listeners: &[Listener]) -> Revision {
    let listener = listeners.iter().find(|listener| listener.name == route.listener);
    Revision::of(&(listener, route))
}

pub(super) fn taken(what: &str, name: &str) -> String {
    format!("`{name}` is taken by an earlier {what}; names are unique")
}

fn check_route(route: &Route, place: &str, listeners: &[Listener], gate_names: &GateNames, problems: &mut Problems) {
    if let Some(error) = name_error(&route.name) {
        problems.add(format_args!("{place}.name"), error);
    }
    if let Some(listener) = listeners.iter().find(|listener| listener.name == route.listener) {
        check_served(route, listener, place, problems);
    } else {
        let detail = format_args!("there is no listener `{}`; name one of policy.listeners", route.listener);
        problems.add(format_args!("{place}.listener"), detail);
    }
    if route.pod_selector.as_ref().is_some_and(|selector| selector.match_labels.is_empty()) {
        problems
            .add(format_args!("{place}.podSelector.matchLabels"), "is empty; write a label, or leave podSelector out");
    }
    for (index, hostname) in route.hostnames.iter().enumerate() {
        if let Some(error) = hostname_error(hostname) {
            problems.add(format_args!("{place}.hostnames[{index}]"), error);
        }
    }
    check_backend_policy(&route.backend_policy, &format!("{place}.backendPolicy"), problems);
    check_grpc_backends(route, place, problems);
    if let Some(capture) = &route.capture {
        check_capture(capture, &format!("{place}.capture"), problems);
    }
    let mut names = HashSet::new();
    for (index, rule) in route.rules.iter().enumerate() {
        let place = format!("{place}.rules[{index}]");
        if !names.insert(&rule.name) {
            problems.add(format_args!("{place}.name"), taken("rule", &rule.name));
        }
        check_rule(rule, &place, gate_names, problems);
    }
}

/// A request's cost must not grow with the routes: what the compiled tables cannot promise is refused.
fn check_tables(document: &Policy, problems: &mut Problems) {
    for listener in &document.listeners {
        let mut table = RouteTable::default();
        for route in document.routes.iter().filter(|route| route.listener == listener.name) {
            route.rules.iter().for_each(|rule| table.enter_rule(route, rule, 0));
        }
        if let Some(excess) = table.excess() {
            problems.add("routes", format_args!("on listener `{}`, those {excess}", listener.name));
        }
    }
}

fn check_rule(rule: &Rule, place: &str, gate_names: &GateNames, problems: &mut Problems) {
    if let Some(error) = name_error(&rule.name) {
        problems.add(format_args!("{place}.name"), error);
    }
    for (index, condition) in rule.matches.iter().enumerate() {
        check_match(condition, &format!("{place}.matches[{index}]"), gate_names, problems);
    }
    check_parameters(rule, place, problems);
    if rule.allow.is_empty() {
        let advice = "is empty; name who may call, or write `[{ anyone = {} }]`: absence never means anyone";
        problems.add(format_args!("{place}.allow"), advice);
    }
    for (index, entry) in rule.allow.iter().enumerate() {
        check_allow(entry, &format!("{place}.allow[{index}]"), problems);
    }
    check_filters(rule, place, gate_names, problems);
    check_timeouts(&rule.timeouts, &format!("{place}.timeouts"), problems);
    if is_redirect(&rule.filters) {
        if !rule.backends.is_empty() {
            let detail = "are never asked beside requestRedirect; leave them out";
            problems.add(format_args!("{place}.backends"), detail);
        }
    } else if rule.backends.is_empty() {
        problems.add(format_args!("{place}.backends"), "is empty; name at least one address or set of endpoints");
    }
    for (index, backend) in rule.backends.iter().enumerate() {
        check_backend(backend, &format!("{place}.backends[{index}]"), problems);
    }
}

fn check_timeouts(timeouts: &Timeouts, place: &str, problems: &mut Problems) {
    let given = [("request", timeouts.request), ("backendRequest", timeouts.backend_request)];
    for (field, time) in given {
        check_range(time, (Duration::ZERO, TIME_MAX), "a duration", format_args!("{place}.{field}"), problems);
    }
    let [request, backend_request] = given.map(|(_, time)| time.filter(|time| *time > Duration::ZERO));
    if let (Some(request), Some(backend_request)) = (request, backend_request)
        && backend_request > request
    {
        let detail =
            format_args!("is {backend_request}, longer than request, {request}; a part takes no longer than the whole");
        problems.add(format_args!("{place}.backendRequest"), detail);
    }
}
