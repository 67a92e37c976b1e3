//! Tables: routes of one workload, and which of them are served.

use std::collections::BTreeMap;
use std::sync::Arc;

use postern_crds::{ProxyRoute, Reason};
use serde_json::{Value, json};
use sidecar_config::{CONTRACT_MAX, ContractVersion, Part};

use super::{Input, Validated, validate};
use crate::index::{ObjectName, Pod};
use crate::render::Bundle;
use crate::workload::document::document;
use crate::workload::last_good::{LastGood, write_bundles};

fn route(name: &str, listener: &Value, more: &Value) -> Arc<ProxyRoute> {
    let mut spec = json!({
        "podSelector": {"matchLabels": {"app": "orders"}},
        "listener": listener,
        "hostnames": [format!("{name}.shop.svc")],
        "rules": [{"name": "all", "allow": [{"verified": {}}], "backendRefs": [{"localPort": 8080}]}],
    });
    for (name, value) in more.as_object().expect("an object") {
        spec[name] = value.clone();
    }
    let metadata = json!({"name": name, "namespace": "shop"});
    let object =
        json!({"apiVersion": "postern.dev/v1alpha1", "kind": "ProxyRoute", "metadata": metadata, "spec": spec});
    Arc::new(serde_json::from_value(object).expect("a route"))
}

fn pod(name: &str, labels: &[(&str, &str)]) -> Arc<Pod> {
    Arc::new(Pod {
        name: ObjectName::new("shop", name),
        uid: String::new(),
        workload: "orders".to_owned(),
        service_account: "default".to_owned(),
        labels: labels.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect(),
        address: None,
        is_started: true,
        is_ending: false,
        ports: BTreeMap::new(),
        gate: crate::inject::gate::Gate::There,
        touched: None,
    })
}

fn judged_by(routes: &[Arc<ProxyRoute>], last: Option<&LastGood>, newest: ContractVersion) -> Validated {
    let pods = [pod("a", &[("app", "orders")])];
    validate(&Input { routes, pods: &pods, last, trust_domain: "demo.local", newest })
}

fn judged(routes: &[Arc<ProxyRoute>]) -> Validated {
    judged_by(routes, None, CONTRACT_MAX)
}

/// What was written of this.
fn written(validated: &Validated) -> LastGood {
    let bundles: BTreeMap<String, Bundle> = validated.needs.values().flat_map(|needs| needs.bundles.clone()).collect();
    LastGood::read(&document(Part::Policy, &validated.policy), &write_bundles(&bundles)).expect("a policy")
}

/// Judges routes where others were written last.
fn judged_after(before: &[Arc<ProxyRoute>], now: &[Arc<ProxyRoute>]) -> Validated {
    let last = written(&judged(before));
    let found = judged_by(now, Some(&last), CONTRACT_MAX);
    let again = judged_by(now, Some(&written(&found)), CONTRACT_MAX);
    assert_eq!((&again.policy, &again.routes, &again.needs), (&found.policy, &found.routes, &found.needs), "it stays");
    found
}

/// Names of the routes that are served, in their order.
fn served(validated: &Validated) -> Vec<&str> {
    let names = validated.policy.routes.iter().map(|route| route.name.strip_prefix("shop/").expect("a namespace"));
    names.collect()
}

/// Whether a route is served as it was.
fn is_kept(validated: &Validated, name: &str) -> bool {
    validated.routes[&ObjectName::new("shop", name)].kept.is_some()
}

/// Why a route is not served.
fn why(validated: &Validated, name: &str) -> Option<(Reason, String)> {
    let verdict = &validated.routes[&ObjectName::new("shop", name)];
    verdict.accepted.as_ref().err().map(|refused| (refused.reason, refused.message.clone()))
}

fn plain() -> Value {
    json!({"port": 8443})
}

#[test]
fn a_route_that_is_served_has_its_hash() {
    let found = judged(&[route("a", &plain(), &json!({})), route("b", &plain(), &json!({}))]);
    assert_eq!(found.policy.listeners.len(), 1, "they share the port");
    for (document, hash) in &found.accepted.routes {
        let (_, name) = document.name.split_once('/').expect("namespace and name");
        assert_eq!(found.routes[&ObjectName::new("shop", name)].accepted, Ok(hash.to_string()));
    }
    assert_eq!(found.accepted.routes.len(), 2);
}

#[test]
fn one_bad_route_takes_no_other_down() {
    let bad = json!({"rules": [{
        "name": "all",
        "matches": [{"path": {"type": "Exact", "value": "/a//b"}}],
        "allow": [{"verified": {}}],
        "backendRefs": [{"localPort": 8080}],
    }]});
    let unspeakable = json!({"limits": {"maxRequestBodySize": "99999999999Gi"}});
    let routes = [
        route("a", &plain(), &json!({})),
        route("bad", &json!({"port": 9443}), &bad),
        route("unspeakable", &plain(), &unspeakable),
        route("z", &plain(), &json!({})),
    ];
    let found = judged(&routes);
    assert_eq!(served(&found), ["a", "z"]);
    assert_eq!(found.policy.listeners.len(), 1, "nobody is served on the other port");
    let (reason, message) = why(&found, "bad").expect("it is refused");
    assert_eq!(reason, Reason::Invalid);
    assert!(message.starts_with("spec.rules[0].matches[0].path.value: "), "{message}");
    let (reason, message) = why(&found, "unspeakable").expect("it is refused");
    assert_eq!(reason, Reason::Invalid);
    assert!(message.starts_with("spec.limits.maxRequestBodySize: "), "{message}");
    assert_eq!((why(&found, "a"), why(&found, "z")), (None, None));
}

#[test]
fn a_port_is_as_the_oldest_route_defines_it() {
    let newer = json!({"port": 8443, "tls": {"minVersion": "1.3"}});
    let older = json!({"port": 8443, "address": "All", "tls": {}});
    let joins = route("joins", &plain(), &json!({}));
    let found = judged(&[joins, route("older", &older, &json!({})), route("newer", &newer, &json!({}))]);
    let expected = "spec.listener: port 8443 is defined in another way by shop/older; make both the same, write only the port, or choose another one";
    assert_eq!(why(&found, "newer"), Some((Reason::Conflicted, expected.to_owned())));
    assert_eq!((why(&found, "joins"), why(&found, "older")), (None, None));
    let same = judged(&[route("older", &older, &json!({})), route("newer", &older, &json!({}))]);
    assert_eq!(why(&same, "newer"), None);
}

#[test]
fn of_what_is_set_for_all_the_oldest_is_heard() {
    let limits = |count: u32| json!({"limits": {"maxConnections": count}, "forwarding": {"trustedHops": count}});
    let routes = [route("a", &plain(), &json!({})), route("b", &plain(), &limits(1)), route("c", &plain(), &limits(2))];
    let found = judged(&routes);
    assert_eq!((found.policy.limits.max_connections, found.policy.forwarding.trusted_hops), (Some(1), 1));
}

#[test]
fn nothing_is_written_that_a_sidecar_cannot_read() {
    let old = "1.0".parse().expect("a version");
    let found = judged_by(&[route("a", &plain(), &json!({}))], None, old);
    let (reason, message) = why(&found, "a").expect("it is refused");
    assert_eq!(reason, Reason::NeedsNewerSidecar);
    assert!(message.contains("1.0"), "{message}");
    assert!(found.policy.routes.is_empty() && found.policy.listeners.is_empty());
}

#[test]
fn without_routes_there_is_a_policy_that_serves_nobody() {
    let found = judged(&[]);
    assert_eq!(found.policy, sidecar_config::policy::Policy::default());
    assert!(found.accepted.routes.is_empty());
}

/// Rules that are refused, whoever else there is.
fn bad_rules() -> Value {
    json!({"rules": [{
        "name": "all",
        "matches": [{"path": {"type": "Exact", "value": "/a//b"}}],
        "allow": [{"verified": {}}],
        "backendRefs": [{"localPort": 8080}],
    }]})
}

/// Rules for one path of a host.
fn path(host: &str, path: &str) -> Value {
    json!({
        "hostnames": [host],
        "rules": [{
            "name": "all",
            "matches": [{"path": {"type": "PathPrefix", "value": path}}],
            "allow": [{"verified": {}}],
            "backendRefs": [{"localPort": 8080}],
        }],
    })
}

#[test]
fn what_is_refused_is_served_as_it_was() {
    let good = route("a", &plain(), &json!({}));
    let unspeakable = json!({"limits": {"maxRequestBodySize": "99999999999Gi"}});
    for (case, change) in [("not accepted", bad_rules()), ("cannot be rendered", unspeakable)] {
        let bad = route("a", &plain(), &change);
        let found = judged_after(std::slice::from_ref(&good), std::slice::from_ref(&bad));
        assert_eq!(found.policy, judged(std::slice::from_ref(&good)).policy, "{case}");
        assert_eq!(why(&found, "a").map(|(reason, _)| reason), Some(Reason::Invalid), "{case}");
        assert!(is_kept(&found, "a"), "{case}");
        assert_eq!(served(&judged_after(&[], &[bad])), [""; 0], "{case}: it was never good");
        assert_eq!(served(&judged_after(std::slice::from_ref(&good), &[])), [""; 0], "{case}: it is gone");
        let mended = judged_after(std::slice::from_ref(&good), &[route("a", &plain(), &path("h", "/other"))]);
        assert!(!is_kept(&mended, "a") && why(&mended, "a").is_none(), "{case}");
    }
    let old = "1.0".parse().expect("a version");
    let last = written(&judged(std::slice::from_ref(&good)));
    assert_eq!(served(&judged_by(&[good], Some(&last), old)), [""; 0], "a sidecar cannot read what was good before");
}

#[test]
fn what_a_kept_form_refers_to_is_still_needed() {
    let partner =
        json!({"name": "partner", "caCertificateRefs": [{"name": "partner-ca"}], "vouchesFor": {"commonName": true}});
    let listener = json!({"port": 8443, "tls": {"minVersion": "1.3", "trust": [partner]}});
    let allow = json!([
        {"identity": {"name": "billing"}},
        {"identity": {"namespace": "web", "name": "front"}},
        {"identitySelector": {"matchLabels": {"tier": "partner"}}},
        {"verified": {"trust": "partner"}},
        {"serviceAccount": {"name": "stock"}},
    ]);
    let tls = json!({"mode": "Simple", "serverName": "x.example", "caCertificateRefs": [{"name": "upstream-ca"}]});
    let backends = json!([{"host": "x.example", "port": 443, "tls": tls}]);
    let rules = json!({"rules": [{"name": "all", "allow": allow, "backendRefs": backends}]});
    let good = route("a", &listener, &rules);
    let found = judged_after(std::slice::from_ref(&good), &[route("a", &plain(), &bad_rules())]);
    assert_eq!(found.needs, judged(std::slice::from_ref(&good)).needs);
    assert_eq!(found.needs[&ObjectName::new("shop", "a")].bundles.len(), 2);
    assert_eq!(found.policy, judged(&[good]).policy, "its listener, too");
}

#[test]
fn bounds_stay_where_the_route_still_asks_for_some() {
    let limits = |count: &str| json!({"limits": {"maxConnections": 7, "maxRequestBodySize": count}});
    let good = route("a", &plain(), &limits("1Mi"));
    let found = judged_after(std::slice::from_ref(&good), &[route("a", &plain(), &limits("99999999999Gi"))]);
    assert_eq!(found.policy, judged(&[good]).policy);
}

#[test]
fn a_bundle_is_believed_under_its_own_name_only() {
    let bundle = Bundle { namespace: "shop".to_owned(), refs: Vec::new(), vouches_for: Default::default() };
    let text = write_bundles(&[("shop/other".to_owned(), bundle)].into());
    assert_eq!(crate::workload::last_good::read_bundles(&text), BTreeMap::new());
    assert_eq!(crate::workload::last_good::read_bundles("{"), BTreeMap::new());
}

#[test]
fn of_one_match_on_one_host_the_older_route_keeps_it() {
    let older = route("older", &plain(), &path("H.example", "/a/"));
    let newer = route("newer", &plain(), &path("h.example", "/a"));
    let found = judged(&[older.clone(), newer.clone()]);
    let expected = "spec.rules[0]: any method PathPrefix `/a` of `h.example` is what older shop/older matches, too; match something else there, or leave it to one of the two";
    assert_eq!(why(&found, "newer"), Some((Reason::Conflicted, expected.to_owned())));
    assert_eq!(served(&found), ["older"]);
    for other in [
        route("newer", &plain(), &path("h.example", "/b")),
        route("newer", &plain(), &path("other.example", "/a")),
        route("newer", &json!({"port": 9443}), &path("h.example", "/a")),
    ] {
        assert_eq!(served(&judged(&[older.clone(), other])), ["older", "newer"]);
    }
    // Whoever is not served keeps nobody from anything.
    let mut never = (*older).clone();
    never.spec.hostnames.push("*.*".parse().expect("text"));
    let found = judged(&[Arc::new(never), newer]);
    assert_eq!((served(&found), why(&found, "older").is_some()), (vec!["newer"], true));
}

#[test]
fn routes_meet_where_they_select_the_same_pod() {
    let of = |name: &str, track: &str| {
        let mut route = (*route(name, &plain(), &path("h.example", "/a"))).clone();
        route.spec.pod_selector.match_labels.insert("track".to_owned(), track.to_owned());
        Arc::new(route)
    };
    let routes = [of("blue", "blue"), of("green", "green"), route("both", &plain(), &path("h.example", "/a"))];
    let pods = [pod("a", &[("app", "orders"), ("track", "blue")]), pod("b", &[("app", "orders"), ("track", "green")])];
    let input = Input { routes: &routes, pods: &pods, last: None, trust_domain: "demo.local", newest: CONTRACT_MAX };
    let found = validate(&input);
    assert_eq!(served(&found), ["blue", "green"]);
    assert_eq!(why(&found, "both").map(|(reason, _)| reason), Some(Reason::Conflicted));
}

#[test]
fn an_older_route_takes_from_a_newer_only_what_it_asks_for() {
    let hosts = |hosts: &[&str]| {
        let mut spec = path("", "/a");
        spec["hostnames"] = json!(hosts);
        spec
    };
    let newer = route("newer", &plain(), &hosts(&["h.example", "own.example"]));
    let before = [route("older", &plain(), &hosts(&["x.example"])), newer.clone()];
    let now = [route("older", &plain(), &hosts(&["h.example"])), newer];
    let found = judged_after(&before, &now);
    assert_eq!(why(&found, "newer").map(|(reason, _)| reason), Some(Reason::Conflicted));
    assert!(is_kept(&found, "newer"));
    assert_eq!(served(&found), ["older", "newer"], "what both match reaches the first");
}

#[test]
fn what_is_served_in_the_place_of_a_refused_change_goes_before_newer_routes() {
    let older = route("older", &plain(), &path("h.example", "/a"));
    let newer = |more: &Value| route("newer", &plain(), more);
    let before = [older, newer(&path("h.example", "/b"))];
    let now = [route("older", &plain(), &bad_rules()), newer(&path("h.example", "/a"))];
    let found = judged_after(&before, &now);
    assert_eq!(why(&found, "newer").map(|(reason, _)| reason), Some(Reason::Conflicted));
    assert_eq!((is_kept(&found, "older"), is_kept(&found, "newer")), (true, true));
}

#[test]
fn a_listener_is_kept_with_its_route_unless_it_is_defined_anew() {
    let strict = json!({"port": 8443, "tls": {"minVersion": "1.3"}});
    let other = json!({"port": 8443, "tls": {"minVersion": "1.2"}});
    let definer = route("definer", &strict, &path("h.example", "/a"));
    let joiner = route("joiner", &plain(), &path("h.example", "/b"));
    let before = [joiner.clone(), definer.clone()];
    let version = |found: &Validated| found.policy.listeners[0].tls.as_ref().map(|tls| tls.min_version);
    let strictly = version(&judged(&before));
    // The one who defines it is refused, with another definition.
    let mut bad = path("h.example", "/a//b");
    bad["limits"] = json!(null);
    let found = judged_after(&before, &[joiner.clone(), route("definer", &other, &bad)]);
    assert_eq!((version(&found), served(&found)), (strictly, vec!["joiner", "definer"]));
    // And where it can be told only beside others that it is.
    let found = judged_after(&before, &[joiner.clone(), route("definer", &other, &path("h.example", "/b"))]);
    assert_eq!((version(&found), served(&found)), (strictly, vec!["joiner", "definer"]));
    assert_eq!(why(&found, "definer").map(|(reason, _)| reason), Some(Reason::Conflicted));
    // One that joined is refused: the listener is as it is defined now.
    let found = judged_after(
        &before,
        &[route("joiner", &plain(), &bad_rules()), route("definer", &other, &path("h.example", "/a"))],
    );
    assert_ne!(version(&found), strictly);
    assert_eq!(served(&found), ["joiner", "definer"]);
    // A definition that an older one contradicts now is not served, whole or in part.
    let first = route("first", &other, &path("h.example", "/c"));
    let found = judged_after(&before, &[first, joiner, definer]);
    assert_eq!((served(&found), is_kept(&found, "definer")), (vec!["first", "joiner"], false));
    assert_eq!(why(&found, "definer").map(|(reason, _)| reason), Some(Reason::Conflicted));
}

/// What is refused only together with others: more expressions than there may be.
fn expressions(name: &str, count: usize) -> Arc<ProxyRoute> {
    let each = |number| json!({"path": {"type": "RegularExpression", "value": format!("/{name}/{number}/[a-z]+")}});
    let rules = json!([{
        "name": "all",
        "matches": (0..count).map(each).collect::<Vec<_>>(),
        "allow": [{"verified": {}}],
        "backendRefs": [{"localPort": 8080}],
    }]);
    route(name, &plain(), &json!({"rules": rules}))
}

#[test]
fn of_what_is_too_much_together_the_newest_is_left_out() {
    let routes: Vec<_> = ["a", "b", "c", "d", "e", "f"].iter().map(|name| expressions(name, 15)).collect();
    let found = judged(&routes);
    assert_eq!(served(&found), ["a", "b", "c", "d"]);
    for name in ["e", "f"] {
        assert_eq!(why(&found, name).map(|(reason, _)| reason), Some(Reason::Invalid), "{name}");
    }
    // What it had before may still fit.
    let before: Vec<_> = ["a", "b", "c", "d", "e"].iter().map(|name| expressions(name, 12)).collect();
    let mut now = before.clone();
    now[4] = expressions("e", 20);
    now.push(route("z", &plain(), &json!({})));
    let found = judged_after(&before, &now);
    assert_eq!((served(&found), is_kept(&found, "e")), (vec!["a", "b", "c", "d", "e", "z"], true));
}

#[test]
fn two_hundred_routes_cost_as_much_as_two_hundred_routes() {
    let routes = |bad: &[usize]| -> Vec<_> {
        let one = |number: usize| match bad.contains(&number) {
            true => expressions(&format!("r{number:03}"), 16),
            false => route(&format!("r{number:03}"), &plain(), &path("h.example", &format!("/{number}"))),
        };
        (0..200).map(one).collect()
    };
    // Each by itself, and all together.
    assert_eq!(judged(&routes(&[])).effort, 400);
    // The fifth that asks for 16 of 64 expressions is found by halves.
    let found = judged(&routes(&[20, 60, 100, 140, 180]));
    assert_eq!(found.policy.routes.len(), 199);
    assert!(found.effort < 400 + 200 * 20, "{}", found.effort);
}
