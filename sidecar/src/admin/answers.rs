//! What the admin socket tells of endpoints, identities and the drain.

use std::collections::BTreeSet;

use sidecar_config::trust::RevocationState;
use sidecar_decide::Target;
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

use super::documents::{DrainState, EndpointLine, Identities, IdentityLine, LastFailure, Upstreams};
use crate::limits::{ADMIN_IDENTITIES, ADMIN_ROUTES};
use crate::state::State;
use crate::upstream::{Condition, EndpointReport};

/// Every endpoint as it is now.
pub(super) fn upstreams(state: &State) -> Upstreams {
    let generation = state.generation();
    let mut routes = vec![BTreeSet::new(); generation.endpoints.len()];
    let (mut without_endpoint, mut invalid) = (Vec::new(), Vec::new());
    for rule in &generation.snapshot.rules {
        let Target::Backends(backends) = &rule.target else {
            invalid.push(format!("{} {}", rule.route, rule.name));
            continue;
        };
        let endpoints: Vec<_> = backends.iter().flat_map(|backend| &backend.endpoints).collect();
        if endpoints.is_empty() {
            without_endpoint.push(format!("{} {}", rule.route, rule.name));
        }
        for endpoint in endpoints {
            if let Some(routes) = routes.get_mut(*endpoint) {
                routes.insert(&*rule.route);
            }
        }
    }
    let endpoints =
        generation.endpoints.iter().zip(routes).map(|(endpoint, routes)| line(&endpoint.report(), &routes)).collect();
    Upstreams { endpoints, without_endpoint, invalid }
}

fn line(report: &EndpointReport, routes: &BTreeSet<&str>) -> EndpointLine {
    let (condition, ejected_ms) = match report.condition {
        Condition::Usable => ("usable", None),
        Condition::Unchecked => ("unchecked", None),
        Condition::Unhealthy => ("unhealthy", None),
        Condition::Ejected(time) => ("ejected", Some(u64::try_from(time.as_millis()).unwrap_or(u64::MAX))),
    };
    EndpointLine {
        address: report.address.to_string(),
        condition: condition.to_owned(),
        ejected_ms,
        connections: report.connections,
        max_connections: report.policy.pool.max_connections,
        in_flight: report.in_flight,
        pending: report.pending,
        max_pending: report.policy.pool.max_pending,
        last_failure: report.last_failure.map(|(reason, seconds)| LastFailure {
            reason: reason.code().to_owned(),
            time: i64::try_from(seconds).ok().and_then(rfc3339).unwrap_or_default(),
        }),
        routes: routes.iter().take(ADMIN_ROUTES).map(|name| (*name).to_owned()).collect(),
        more_routes: routes.len().saturating_sub(ADMIN_ROUTES),
    }
}

/// Which identities are asked for.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Asked {
    /// What their names contain.
    name: String,
    /// Where the page begins.
    from: usize,
}

impl Asked {
    /// Reads `name=…&from=…`.
    pub(super) fn of(query: &str) -> Result<Self, String> {
        let mut asked = Self::default();
        for pair in query.split('&').filter(|pair| !pair.is_empty()) {
            match pair.split_once('=') {
                Some(("name", name)) => asked.name = unescape(name).ok_or("name: is not percent-encoded UTF-8")?,
                Some(("from", from)) => asked.from = from.parse().map_err(|_| "from: is not a number")?,
                _ => return Err(format!("{pair}: is not known; write name=… or from=…")),
            }
        }
        Ok(asked)
    }
}

/// Percent-encoding undone (RFC 3986 §2.1).
fn unescape(text: &str) -> Option<String> {
    let mut bytes = text.bytes();
    let mut plain = Vec::with_capacity(text.len());
    while let Some(byte) = bytes.next() {
        if byte == b'%' {
            let (high, low) = (char::from(bytes.next()?).to_digit(16)?, char::from(bytes.next()?).to_digit(16)?);
            plain.push(u8::try_from(high * 16 + low).ok()?);
        } else {
            plain.push(byte);
        }
    }
    String::from_utf8(plain).ok()
}

/// One page of the known identities, in the order of their document.
pub(super) fn identities(state: &State, asked: &Asked) -> Identities {
    let (generation, parts) = state.served();
    let Some(part) = &parts.identities else {
        return Identities { revision: "none".to_owned(), known: 0, identities: Vec::new(), next: None };
    };
    let wanted = part.identities.iter().enumerate().skip(asked.from);
    let mut wanted = wanted.filter(|(_, client)| client.name.contains(&asked.name));
    let directory = &generation.snapshot.directory;
    let page = wanted.by_ref().take(ADMIN_IDENTITIES).map(|(index, client)| {
        let revocation = directory.revocation(index);
        let state = match revocation.state {
            None => "Active",
            Some(RevocationState::Suspended) => "Suspended",
            Some(RevocationState::Revoked) => "Revoked",
        };
        IdentityLine {
            name: client.name.clone(),
            state: state.to_owned(),
            accept_issued_after: revocation.accept_issued_after.and_then(rfc3339),
            recognisers: client.claims.len(),
        }
    });
    let page = page.collect();
    let next = wanted.next().map(|(index, _)| index);
    Identities { revision: part.revision.to_string(), known: part.identities.len(), identities: page, next }
}

/// How the drain fares.
pub(super) fn drain(state: &State) -> DrainState {
    DrainState { draining: state.is_draining(), drained: state.is_drained(), connections: state.handshakes.open() }
}

/// A second since the epoch for people.
pub(super) fn rfc3339(seconds: i64) -> Option<String> {
    OffsetDateTime::from_unix_timestamp(seconds).ok()?.format(&Rfc3339).ok()
}

#[cfg(test)]
mod tests {
    use super::Asked;

    #[test]
    fn what_is_asked_for() {
        let asked = |name: &str, from| Ok(Asked { name: name.to_owned(), from });
        let table = [
            ("", asked("", 0)),
            ("name=shop/b&from=2000", asked("shop/b", 2000)),
            ("name=a%2Fb%C3%BC", asked("a/bü", 0)),
            ("name=%2", Err("name: is not percent-encoded UTF-8".to_owned())),
            ("name=%FF", Err("name: is not percent-encoded UTF-8".to_owned())),
            ("from=-1", Err("from: is not a number".to_owned())),
            ("limit=5", Err("limit=5: is not known; write name=… or from=…".to_owned())),
        ];
        for (query, expected) in table {
            assert_eq!(Asked::of(query), expected, "{query}");
        }
    }
}
