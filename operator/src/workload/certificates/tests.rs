//! Tables: what listeners name, what is known of it, and what a workload's Secret carries.

use std::collections::BTreeSet;
use std::sync::Arc;

use postern_crds::ProxyRoute;
use rcgen::{CertificateParams, KeyPair, date_time_ymd};
use serde_json::json;
use sidecar_config::policy::Policy;

use super::{Carried, Certificates, carried, files, missing, next_look};
use crate::index::{Entries, ObjectName};
use crate::references::certificate::{Found, Pair};

const NOW: i64 = 1_800_000_000;

fn pair(year: i32) -> Arc<Pair> {
    let key = KeyPair::generate().expect("a key");
    let mut params = CertificateParams::new(["web.example".to_owned()]).expect("a name");
    params.not_before = date_time_ymd(2020, 1, 1);
    params.not_after = date_time_ymd(year, 1, 1);
    let chain = params.self_signed(&key).expect("a certificate").pem();
    Arc::new(Pair::read(chain.as_bytes(), key.serialize_pem().as_bytes()).expect("a pair"))
}

fn name(name: &str) -> ObjectName {
    ObjectName::read(name).expect("a name")
}

fn policy(certificates: &[&str]) -> Policy {
    let listener = json!({
        "name": "port-8443", "address": "0.0.0.0:8443", "protocol": "HTTPS", "tls": {"certificates": certificates},
    });
    let route = |name: &str| json!({"name": name, "listener": "port-8443", "rules": []});
    let routes = json!([route("shop/orders"), route("shop/joins")]);
    serde_json::from_value(json!({"listeners": [listener], "routes": routes})).expect("a policy")
}

fn holding(held: &[(&str, &Pair)]) -> Entries {
    held.iter().fold(Entries::default(), |entries, (of, pair)| {
        let [chain, key] = files(&name(of));
        entries.with(chain, pair.chain.as_bytes()).with(key, pair.key.as_bytes())
    })
}

fn found(summary: Result<&Arc<Pair>, &str>, with_bytes: bool) -> Option<Found> {
    let pair = summary.ok().filter(|_| with_bytes).cloned();
    Some(Found { summary: summary.map(|pair| pair.summary).map_err(str::to_owned), pair })
}

/// Names of what is carried, and whose bytes they are.
fn shows(carried: &Carried) -> Vec<(String, Vec<u8>)> {
    let pairs = carried.pairs.iter();
    pairs
        .map(|one| {
            assert!(carried.entries.bytes(&one.key).is_some());
            (one.name.clone().unwrap_or_default(), carried.entries.bytes(&one.chain).unwrap_or_default().to_vec())
        })
        .collect()
}

#[test]
fn what_cannot_be_shown_is_shown_as_it_was_and_what_is_not_permitted_not_at_all() {
    let (old, new, expired) = (pair(2040), pair(2041), pair(2021));
    let of = |pair: &Arc<Pair>| Some(pair.chain.clone().into_bytes());
    let torn = Arc::new(Pair { chain: "torn".to_owned(), ..(*old).clone() });
    let rows = [
        ("new", found(Ok(&new), true), None, of(&new)),
        ("changed", found(Ok(&new), true), Some(&old), of(&new)),
        ("as it is there", found(Ok(&old), false), Some(&old), of(&old)),
        ("gone", found(Err("does not exist"), false), Some(&old), of(&old)),
        ("never there", found(Err("does not exist"), false), None, None),
        ("expired, and another before", found(Ok(&expired), true), Some(&old), of(&old)),
        ("expired as it was", found(Ok(&expired), false), Some(&expired), of(&expired)),
        ("expired from the start", found(Ok(&expired), true), None, None),
        ("gone, and damaged", found(Err("does not exist"), false), Some(&torn), None),
        ("not permitted any more", None, Some(&old), None),
    ];
    for (case, found, held, expected) in rows {
        let policy = policy(&["shop/web"]);
        let certificates = Certificates::from([(name("shop/web"), found)]);
        let held = held.map(|held| holding(&[("shop/web", held)]));
        let shown = shows(&carried(&policy, &certificates, held.as_ref(), NOW));
        let expected: Vec<_> = expected.into_iter().map(|chain| ("shop/web".to_owned(), chain)).collect();
        assert_eq!(shown, expected, "{case}");
    }
}

#[test]
fn certificates_are_carried_once_and_in_order_and_those_nobody_names_are_not() {
    let (web, old) = (pair(2040), pair(2041));
    let policy = policy(&["shop/web", "shop/device", "shop/web"]);
    let certificates = [("shop/device", &old), ("shop/web", &web)];
    let certificates = certificates.map(|(of, pair)| (name(of), found(Ok(pair), true))).into();
    let held = holding(&[("shop/other", &web)]);
    let shown = shows(&carried(&policy, &certificates, Some(&held), NOW));
    let expected = [("shop/web", &web), ("shop/device", &old)];
    assert_eq!(shown, expected.map(|(of, pair)| (of.to_owned(), pair.chain.clone().into_bytes())));
    assert_eq!(next_look(&certificates, NOW), Some(web.summary.not_after + 1));
}

#[test]
fn for_what_there_is_no_room_is_told() {
    let many: Vec<_> = (0..70).map(|number| format!("shop/web-{number}")).collect();
    let policy = policy(&many.iter().map(String::as_str).collect::<Vec<_>>());
    let web = pair(2040);
    let certificates = many.iter().map(|one| (name(one), found(Ok(&web), true))).collect();
    let carried = carried(&policy, &certificates, None, NOW);
    assert_eq!(carried.pairs.len(), 64);
    let expected: BTreeSet<_> = many[64..].iter().map(|one| name(one)).collect();
    assert_eq!(carried.left_out, expected);
    let told = missing(&policy, &[], &certificates, &carried.left_out, NOW);
    assert_eq!(told.len(), 2 * 6);
    let why = "listener `port-8443`.certificateRefs[64]: Secret shop/web-64 finds no room: the listeners of a workload show at most 64 certificates, of 768 KiB together; name fewer";
    assert_eq!(told[0].1.message, why);
}

#[test]
fn everybody_on_a_listener_is_told_of_its_certificates() {
    let policy = policy(&["shop/web", "shop/gone", "certificates/far"]);
    let web = pair(2040);
    let certificates = Certificates::from([
        (name("shop/web"), found(Ok(&web), true)),
        (name("shop/gone"), found(Err("does not exist"), false)),
        (name("certificates/far"), None),
    ]);
    let route = |name: &str, listener: serde_json::Value| -> Arc<ProxyRoute> {
        let spec = json!({"podSelector": {"matchLabels": {"app": "orders"}}, "listener": listener, "rules": []});
        let metadata = json!({"name": name, "namespace": "shop"});
        let object =
            json!({"apiVersion": "postern.dev/v1alpha1", "kind": "ProxyRoute", "metadata": metadata, "spec": spec});
        Arc::new(serde_json::from_value(object).expect("a route"))
    };
    let routes = [route("orders", json!({"port": 8443, "tls": {}})), route("joins", json!({"port": 8443}))];
    let told = missing(&policy, &routes, &certificates, &BTreeSet::new(), NOW);
    let told: Vec<_> =
        told.iter().map(|(route, told)| (route.name.as_str(), told.reason.as_str(), told.message.as_str())).collect();
    let gone = "certificateRefs[1]: Secret shop/gone does not exist; what was shown last is shown on, or else the workload's own";
    let far = "certificateRefs[2]: Secret certificates/far is of another namespace, and no ReferenceGrant there permits ProxyRoutes of shop to name it";
    let (own, joined) = ("spec.listener.tls", "listener `port-8443`");
    let message = |place: &str, why: &str| format!("{place}.{why}");
    let messages = [message(own, gone), message(joined, gone), message(own, far), message(joined, far)];
    let expected = [
        ("orders", "InvalidCertificateRef", messages[0].as_str()),
        ("joins", "InvalidCertificateRef", messages[1].as_str()),
        ("orders", "RefNotPermitted", messages[2].as_str()),
        ("joins", "RefNotPermitted", messages[3].as_str()),
    ];
    assert_eq!(told, expected);
}
