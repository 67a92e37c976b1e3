//! Accepts listeners, and what may be served on each kind of them.

use std::collections::{BTreeSet, HashSet};

use sidecar_config::policy::{Allow, Listener, Protocol, Route};
use sidecar_config::upstream::BackendProtocol;

use super::identity::CERTIFICATES_MAX;
use super::name_error;
use super::policy::taken;
use crate::problem::Problems;

pub(super) fn check_listeners(listeners: &[Listener], problems: &mut Problems) {
    let mut names = HashSet::new();
    let mut addresses = BTreeSet::new();
    for (index, listener) in listeners.iter().enumerate() {
        let place = format!("listeners[{index}]");
        if let Some(error) = name_error(&listener.name) {
            problems.add(format_args!("{place}.name"), error);
        }
        if !names.insert(&listener.name) {
            problems.add(format_args!("{place}.name"), taken("listener", &listener.name));
        }
        // Port 0 asks for any free port, so two of those are two listeners.
        if listener.address.port() != 0 && !addresses.insert(listener.address) {
            let detail = format_args!("{} is taken by an earlier listener; choose another port", listener.address);
            problems.add(format_args!("{place}.address"), detail);
        }
        if let Some(error) = tls_error(listener) {
            problems.add(format_args!("{place}.tls"), error);
        }
        check_certificates(listener, &place, problems);
    }
}

fn check_certificates(listener: &Listener, place: &str, problems: &mut Problems) {
    let names = listener.tls.as_ref().map_or(&[][..], |tls| &tls.certificates);
    if names.len() > CERTIFICATES_MAX {
        let detail = format_args!("are {}; at most {CERTIFICATES_MAX} are allowed", names.len());
        problems.add(format_args!("{place}.tls.certificates"), detail);
    }
    for (number, name) in names.iter().enumerate() {
        if let Some(error) = name_error(name) {
            problems.add(format_args!("{place}.tls.certificates[{number}]"), error);
        }
    }
}

fn tls_error(listener: &Listener) -> Option<&'static str> {
    match (listener.protocol, &listener.tls) {
        (Protocol::Http, Some(_)) => Some("has no meaning with protocol `HTTP`; leave it out, or write `HTTPS`"),
        (Protocol::Https | Protocol::Tls, None) => {
            Some("is missing; write `tls = { trust = [\"NAME\"] }` with the bundles whose certificates are accepted")
        }
        (Protocol::Http, None) | (Protocol::Https | Protocol::Tls, Some(_)) => None,
    }
}

/// Checks a route against the protocol of its listener.
pub(super) fn check_served(route: &Route, listener: &Listener, place: &str, problems: &mut Problems) {
    match listener.protocol {
        Protocol::Https => {}
        Protocol::Http => check_plain(route, listener, place, problems),
        Protocol::Tls => check_forwarded(route, listener, place, problems),
    }
}

/// Without TLS nobody has a certificate, so that every entry but `anyone` would allow nobody. Whoever opens a rule to
/// everyone who reaches the port has to say so.
fn check_plain(route: &Route, listener: &Listener, place: &str, problems: &mut Problems) {
    for (index, rule) in route.rules.iter().enumerate() {
        for (number, _) in rule.allow.iter().enumerate().filter(|(_, entry)| !matches!(entry, Allow::Anyone(_))) {
            let place = format_args!("{place}.rules[{index}].allow[{number}]");
            let advice = "write `allow = [{ anyone = {} }]`, or serve the route on a listener with TLS";
            let name = &listener.name;
            problems
                .add(place, format_args!("nobody has a certificate on listener `{name}`, which is `HTTP`; {advice}"));
        }
    }
}

/// A connection whose bytes are not looked into has no path, method, header or query.
fn check_forwarded(route: &Route, listener: &Listener, place: &str, problems: &mut Problems) {
    let name = &listener.name;
    if route.capture.is_some() {
        let advice = "leave it out, or serve the route on an `HTTPS` listener";
        let detail = format_args!("nothing can be captured on listener `{name}`, which is `TLS`; {advice}");
        problems.add(format_args!("{place}.capture"), detail);
    }
    for (index, rule) in route.rules.iter().enumerate() {
        let place = format!("{place}.rules[{index}]");
        if !rule.matches.is_empty() {
            let advice = "leave it out, or serve the route on an `HTTPS` listener";
            let detail = format_args!("nothing can be matched on listener `{name}`, which is `TLS`; {advice}");
            problems.add(format_args!("{place}.matches"), detail);
        }
        if !rule.filters.is_empty() {
            let advice = "leave them out, or serve the route on an `HTTPS` listener";
            let detail = format_args!("nothing can be written on listener `{name}`, which is `TLS`; {advice}");
            problems.add(format_args!("{place}.filters"), detail);
        }
        for (number, backend) in rule.backends.iter().enumerate() {
            let said = [("tls", backend.tls.is_some()), ("protocol", backend.protocol != BackendProtocol::Http)];
            for (field, _) in said.into_iter().filter(|(_, is_said)| *is_said) {
                let advice = "leave it out, or serve the route on an `HTTPS` or `HTTP` listener";
                let detail =
                    format_args!("bytes are passed on as they are on listener `{name}`, which is `TLS`; {advice}");
                problems.add(format_args!("{place}.backends[{number}].{field}"), detail);
            }
        }
        if index > 0 {
            let advice = "keep one rule, and tell routes apart by hostnames";
            let detail = format_args!(
                "is never reached: on listener `{name}`, which is `TLS`, the first rule matches everything; {advice}"
            );
            problems.add(place, detail);
        }
    }
}
