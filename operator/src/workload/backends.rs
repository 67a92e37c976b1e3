//! Services that the routes of a workload send requests to, as part `endpoints`. Pure, but for looking them up.
//!
//! What is asked for is read from the policy itself, so that it is what is served, wherever a route's form comes from.

use std::collections::BTreeMap;

use postern_crds::Reason;
use sidecar_config::endpoints::{Endpoint, EndpointSet};
use sidecar_config::policy::Policy;
use sidecar_config::{ContractVersion, Part};
use sidecar_decide::accept::usable;

use super::document::{document, smallest_version};
use super::plan::Missing;
use crate::index::{Cluster, ObjectName, ServicePort, Unresolved};
use crate::limits::DOCUMENT_BYTES;

/// The sets that a policy names, and what is known of each.
pub type Backends = BTreeMap<String, Result<Vec<Endpoint>, Unresolved>>;

/// Looks up what a policy names.
#[must_use]
pub fn look(cluster: &Cluster, policy: &Policy) -> Backends {
    let named = places(policy).map(|(_, _, set)| set);
    let found = named.filter_map(|set| Some((set.to_owned(), cluster.endpoints(&ServicePort::of(set)?))));
    found.collect()
}

/// Part `endpoints`. What a sidecar cannot read it is not told: then the choice among addresses is made here.
#[must_use]
pub fn sets(backends: &Backends, newest: ContractVersion) -> Vec<EndpointSet> {
    let found = backends.iter().filter_map(|(name, found)| Some((name, found.as_ref().ok()?)));
    let sets: Vec<_> =
        found.map(|(name, found)| EndpointSet { name: name.clone(), addresses: found.clone() }).collect();
    let value = serde_json::to_value(&sets).unwrap_or_default();
    if smallest_version(Part::Endpoints, &value) <= newest {
        return sets;
    }
    let chosen = |addresses: &[Endpoint]| usable(addresses).into_iter().map(Endpoint::ready).collect();
    sets.into_iter().map(|set| EndpointSet { addresses: chosen(&set.addresses), ..set }).collect()
}

/// The document of the part; `None` where it is larger than an object may be.
#[must_use]
pub fn text(sets: &[EndpointSet]) -> Option<String> {
    Some(document(Part::Endpoints, &sets)).filter(|text| text.len() <= DOCUMENT_BYTES)
}

/// What routes ask for in vain.
pub fn missing(
    policy: &Policy,
    backends: &Backends,
    is_too_large: bool,
) -> impl Iterator<Item = (ObjectName, Missing)> {
    let too_large = "the addresses of the workload's Services are more than an object takes; those that were written last stay. Write a Service with few addresses, or the Service's name as `host`";
    places(policy).filter_map(move |(route, place, set)| {
        let (reason, why) = match backends.get(set)? {
            Ok(_) if is_too_large => (Reason::TooLarge, too_large.to_owned()),
            Ok(_) => return None,
            Err(why @ (Unresolved::NoService(_) | Unresolved::NoPort(..))) => {
                (Reason::BackendNotFound, why.to_string())
            }
            Err(why @ Unresolved::External(_)) => (Reason::InvalidKind, why.to_string()),
        };
        let (namespace, name) = route.split_once('/')?;
        Some((ObjectName::new(namespace, name), Missing { reason, message: format!("{place}: {why}") }))
    })
}

/// Every place of a policy that names a set: the route, the place in it, the name.
fn places(policy: &Policy) -> impl Iterator<Item = (&str, String, &str)> {
    policy.routes.iter().flat_map(|route| {
        route.rules.iter().enumerate().flat_map(move |(rule_number, rule)| {
            rule.backends.iter().enumerate().filter_map(move |(number, backend)| {
                let set = backend.endpoints.as_deref()?;
                Some((route.name.as_str(), format!("spec.rules[{rule_number}].backendRefs[{number}]"), set))
            })
        })
    })
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};
    use sidecar_config::CONTRACT_MAX;
    use sidecar_config::endpoints::Endpoint;
    use sidecar_config::policy::Policy;

    use super::{Backends, Missing, Reason, Unresolved, missing, sets, text};
    use crate::index::ObjectName;

    fn policy(backends: &[&str]) -> Policy {
        let backends: Vec<_> = backends.iter().map(|set| json!({"endpoints": set})).collect();
        let rule =
            |name: &str, backends: &Value| json!({"name": name, "allow": [{"verified": "ours"}], "backends": backends});
        let rules = [rule("own", &json!([{"address": "127.0.0.1:80"}])), rule("asks", &json!(backends))];
        let route = json!({"name": "shop/orders", "listener": "port-8443", "rules": rules});
        serde_json::from_value(json!({"routes": [route]})).expect("a policy")
    }

    fn address(number: u32) -> Endpoint {
        Endpoint::ready((std::net::Ipv4Addr::from(0x0a00_0000 + number), 8080).into())
    }

    #[test]
    fn what_is_asked_for_in_vain_is_told_by_its_reason() {
        let name = |name: &str| ObjectName::new("shop", name);
        let found = Backends::from([
            ("shop/stock:80".to_owned(), Ok(vec![])),
            ("shop/gone:80".to_owned(), Err(Unresolved::NoService(name("gone")))),
            ("shop/other:80".to_owned(), Err(Unresolved::NoPort(name("other"), 80, "81".to_owned()))),
            ("shop/far:80".to_owned(), Err(Unresolved::External(name("far")))),
        ]);
        let policy = policy(&["shop/stock:80", "shop/gone:80", "shop/other:80", "shop/far:80"]);
        let told: Vec<_> = missing(&policy, &found, false).collect();
        let at = |number: usize, reason: Reason, why: &str| {
            let message = format!("spec.rules[1].backendRefs[{number}]: {why}");
            (name("orders"), Missing { reason, message })
        };
        let expected = [
            at(1, Reason::BackendNotFound, "there is no Service shop/gone"),
            at(2, Reason::BackendNotFound, "Service shop/other has no port 80 for TCP; it has 81"),
            at(
                3,
                Reason::InvalidKind,
                "Service shop/far is of type ExternalName, which has no addresses; write the name that it stands for as `host`",
            ),
        ];
        assert_eq!(told, expected);
        let names: Vec<_> = sets(&found, CONTRACT_MAX).into_iter().map(|set| set.name).collect();
        assert_eq!(
            names,
            ["shop/stock:80"],
            "what is missing has no set, so that its rules are answered route_invalid"
        );
    }

    #[test]
    fn a_sidecar_is_told_no_more_than_it_reads() {
        let leaving = Endpoint { ready: false, terminating: true, ..address(2) };
        let found = Backends::from([("shop/stock:80".to_owned(), Ok(vec![address(1), leaving.clone()]))]);
        let old = "1.3".parse().expect("a version");
        assert_eq!(sets(&found, CONTRACT_MAX)[0].addresses, [address(1), leaving.clone()]);
        assert_eq!(sets(&found, old)[0].addresses, [address(1)]);
        let last = Backends::from([("shop/stock:80".to_owned(), Ok(vec![leaving]))]);
        assert_eq!(sets(&last, old)[0].addresses, [address(2)], "better than nobody");
        assert!(text(&sets(&found, old)).expect("it fits").contains(r#""version":"1.0""#));
    }

    #[test]
    fn more_than_an_object_takes_is_told_and_not_cut() {
        let found = |count: u32| Backends::from([("shop/stock:80".to_owned(), Ok((0..count).map(address).collect()))]);
        assert!(text(&sets(&found(20_000), CONTRACT_MAX)).is_some());
        let too_many = found(40_000);
        assert_eq!(text(&sets(&too_many, CONTRACT_MAX)), None);
        let told: Vec<_> = missing(&policy(&["shop/stock:80"]), &too_many, true).collect();
        assert_eq!(told.iter().map(|(_, missing)| missing.reason).collect::<Vec<_>>(), [Reason::TooLarge]);
    }
}
