//! Tables: what is observed of a workload, and what is planned for it.

use std::collections::BTreeMap;
use std::sync::{Arc, LazyLock};

use postern_crds::{ProxyRoute, Reason};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use sidecar_config::identities::KnownIdentity;
use sidecar_config::{CONTRACT_MAX, Document};

use super::{Common, Plan, Write, plan};
use crate::identity::directory::Directory;
use crate::identity::trust::{TrustInput, document};
use crate::index::{Cluster, Held, HeldKind, ObjectName, Pod};
use crate::pki::authority::{AuthoritySettings, Issuer, Root};
use crate::pki::fresh;
use crate::pki::issue::POD_SECONDS;
use crate::pki::key::Algorithm;
use crate::pki::names::Names;
use crate::pki::rotate;
use crate::workload::content::{Content, Deed};
use crate::workload::observe::Observed;
use crate::workload::{backends, leaf, trust, validate};

const NOW: i64 = 1_800_000_000;
const DAY: i64 = 86_400;

/// Bytes of identities that an object takes here.
const CHUNK_BYTES: usize = 1 << 10;

/// Who signs in all of these tests.
static ISSUER: LazyLock<Issuer> = LazyLock::new(|| {
    let settings = AuthoritySettings {
        algorithm: Algorithm::EcdsaP256,
        root_seconds: 100 * DAY,
        intermediate_seconds: 50 * DAY,
        organisation: "demo.local".to_owned(),
    };
    let key = || fresh::key(Algorithm::EcdsaP256).expect("a key");
    let serial = || fresh::serial().expect("a number");
    let root = Root::make(&settings, key(), serial(), NOW - DAY).expect("a root");
    let root = Root::read(&root, NOW).expect("a good root");
    let files = root.make_intermediate(&settings, &key(), serial(), NOW - DAY).expect("an intermediate");
    Issuer::read(&files, &root, NOW).expect("a good intermediate")
});

fn names() -> Names {
    Names { trust_domain: "demo.local".to_owned(), cluster_domain: "cluster.local".to_owned(), extra: BTreeMap::new() }
}

fn route(hostnames: &[&str], allow: &Value) -> Arc<ProxyRoute> {
    let spec = json!({
        "podSelector": {"matchLabels": {"app": "orders"}},
        "listener": {"port": 8443},
        "hostnames": hostnames,
        "rules": [{"name": "all", "allow": [allow], "backendRefs": [{"localPort": 8080}]}],
    });
    let metadata = json!({"name": "orders", "namespace": "shop"});
    let object =
        json!({"apiVersion": "postern.dev/v1alpha1", "kind": "ProxyRoute", "metadata": metadata, "spec": spec});
    Arc::new(serde_json::from_value(object).expect("a route"))
}

fn pod(name: &str, account: &str) -> Arc<Pod> {
    Arc::new(Pod {
        name: ObjectName::new("shop", name),
        uid: format!("uid-of-{name}"),
        workload: "orders".to_owned(),
        service_account: account.to_owned(),
        labels: [("app".to_owned(), "orders".to_owned())].into(),
        ports: [].into(),
        address: None,
        is_started: true,
        is_ending: false,
        gate: crate::inject::gate::Gate::There,
        touched: None,
    })
}

fn observed(routes: Vec<Arc<ProxyRoute>>, pods: Vec<Arc<Pod>>, secrets: Vec<Arc<Held>>) -> Observed {
    let services = vec!["orders".to_owned()];
    Observed { workload: ObjectName::new("shop", "orders"), pods, routes, secrets, services, is_ending: false }
}

fn planned(observed: &Observed, now: i64) -> Plan {
    planned_for(observed, &[], now)
}

fn planned_for(observed: &Observed, known: &[KnownIdentity], now: i64) -> Plan {
    planned_after(observed, known, [0; 32], now)
}

/// The same where these identities are written.
fn planned_after(observed: &Observed, known: &[KnownIdentity], written: [u8; 32], now: i64) -> Plan {
    let names = names();
    let (directory, bundles, unreadable) = (Directory::default(), BTreeMap::new(), BTreeMap::new());
    let input = TrustInput { issuer: &ISSUER, names: &names, directory: &directory, ledgers: &[], bundles: &bundles };
    let trust = Arc::new(trust::accepted(&document(&input)).expect("good trust"));
    let (routes, pods) = (&observed.routes, &observed.pods);
    let input = validate::Input { routes, pods, last: None, trust_domain: "demo.local", newest: CONTRACT_MAX };
    let validated = validate::validate(&input);
    let backends = backends::look(&Cluster::default(), &validated.policy);
    let common = Common {
        issuer: &ISSUER,
        names: &names,
        trust: &trust,
        unreadable: &unreadable,
        known,
        written_identities: Some(written),
        certificate_seconds: POD_SECONDS,
        chunk_bytes: CHUNK_BYTES,
        backends: &backends,
        certificates: &BTreeMap::new(),
        newest: CONTRACT_MAX,
        now,
    };
    plan(observed, &validated, common)
}

fn content(write: &Write) -> &Content {
    match write {
        Write::Set(content) => content,
        other => panic!("something is to be written: {other:?}"),
    }
}

fn held(content: &Content) -> Arc<Held> {
    Arc::new(Held {
        kind: content.kind,
        name: content.name.clone(),
        uid: "u".to_owned(),
        version: 1,
        labels: content.labels.clone().into(),
        annotations: content.annotations.clone().into(),
        secret_type: content.secret_type.to_owned(),
        digest: content.digest(),
        names: content.entries.names(),
        entries: Some(Arc::new(content.entries.clone())),
        is_ending: false,
    })
}

#[test]
fn documents_are_written_under_their_names_and_say_which_workload_they_are_for() {
    let plan = planned(&observed(vec![route(&[], &json!({"verified": {}}))], vec![pod("a", "default")], vec![]), NOW);
    let written = [content(&plan.identities[0]), content(&plan.endpoints), content(&plan.policy), &plan.good];
    let names: Vec<_> = written.iter().map(|one| one.name.to_string()).collect();
    let expected = ["identities-orders-0", "endpoints-orders", "policy-orders", "policy-orders-good"];
    assert_eq!(names, expected.map(|name| format!("shop/postern-{name}")));
    for content in written {
        assert_eq!(content.labels["postern.dev/workload"], "orders");
        assert_eq!(content.labels["app.kubernetes.io/managed-by"], "postern");
    }
    let text = content(&plan.policy).entries.text("policy.json").expect("text");
    Document::from_value(serde_json::from_str(text).expect("JSON")).expect("a document");
    assert_eq!(plan.good.entries.text("policy.good"), Some(text), "the same bytes");
    let removed: Vec<_> = plan.identities[1..].iter().collect();
    let gone = |chunk| {
        Write::Remove(HeldKind::ConfigMap, ObjectName::new("shop", format!("postern-identities-orders-{chunk}")))
    };
    assert_eq!(removed, [&gone(1), &gone(2), &gone(3)]);
}

#[test]
fn the_same_is_planned_again() {
    let observed = observed(vec![route(&["a.example"], &json!({"verified": {}}))], vec![pod("a", "default")], vec![]);
    let (first, second) = (planned(&observed, NOW), planned(&observed, NOW + 60));
    for (first, second) in [(&first.policy, &second.policy), (&first.endpoints, &second.endpoints)] {
        assert_eq!(content(second).deed(Some(&held(content(first)))), Deed::Nothing);
    }
    assert_eq!(first.identities, second.identities);
    // What is there as it was packed is not packed again; of another document all is.
    let [known, other] =
        [first.identities_document, [0; 32]].map(|written| planned_after(&observed, &[], written, NOW));
    assert_eq!((known.identities, known.expected), (Vec::new(), first.expected.clone()));
    assert_eq!(other.identities, first.identities);
    assert_eq!((first.expected, first.routes), (second.expected, second.routes));
}

#[test]
fn each_service_account_has_a_certificate_of_its_own() {
    let ending = Arc::new(Pod { is_ending: true, ..(*pod("c", "old")).clone() });
    let pods = vec![pod("a", "default"), pod("b", "other"), pod("d", "default"), ending];
    let routes = vec![route(&["api.shop.svc", "www.example.com", "*.shop.svc"], &json!({"verified": {}}))];
    let plan = planned(&observed(routes, pods, vec![]), NOW);
    let due: Vec<_> =
        plan.leaves.iter().map(|leaf| (leaf.name.to_string(), leaf.due.clone().expect("it is due"))).collect();
    let names: Vec<_> = due.iter().map(|(name, _)| name.as_str()).collect();
    assert_eq!(names, ["shop/postern-id-orders-default", "shop/postern-id-orders-other"]);
    for ((_, (reason, request)), account) in due.iter().zip(["default", "other"]) {
        assert_eq!(*reason, rotate::Reason::Missing);
        assert_eq!(request.spiffe_id, format!("spiffe://demo.local/ns/shop/sa/{account}"));
        let expected = ["api.shop.svc", "orders.shop.svc", "orders.shop.svc.cluster.local"];
        assert_eq!(request.names.dns_names, expected, "its Services, and what is its namespace's to have");
    }
}

#[test]
fn a_certificate_is_made_anew_when_it_is_due_or_damaged_or_its_names_change() {
    let routes = || vec![route(&["api.shop.svc"], &json!({"verified": {}}))];
    let pods = || vec![pod("a", "default")];
    let first = planned(&observed(routes(), pods(), vec![]), NOW);
    let leaf = &first.leaves[0];
    let (_, request) = leaf.due.as_ref().expect("it is due");
    let secret = leaf::make(&ISSUER, &leaf.name, "orders", request, &leaf.carried, NOW).expect("a certificate");
    let good = held(&secret);
    let why = |routes, secret: &Arc<Held>, now| {
        let plan = planned(&observed(routes, pods(), vec![Arc::clone(secret)]), now);
        (plan.leaves[0].due.as_ref().map(|(reason, _)| *reason), plan.next_look)
    };
    let (kept, look) = why(routes(), &good, NOW + 60);
    let look = look.expect("a time to look again");
    assert_eq!(kept, None);
    assert!((NOW + 12 * 3600..=NOW + 16 * 3600).contains(&look), "two thirds of a day, a little less: {}", look - NOW);
    assert_eq!(why(routes(), &good, look - 1).0, None);
    assert_eq!(why(routes(), &good, look).0, Some(rotate::Reason::Due));
    let other = vec![route(&["other.shop.svc"], &json!({"verified": {}}))];
    assert_eq!(why(other, &good, NOW).0, Some(rotate::Reason::Names));
    let broken = Content { entries: secret.entries.clone().with("tls.key", "no key"), ..secret.clone() };
    assert_eq!(why(routes(), &held(&broken), NOW).0, Some(rotate::Reason::Damaged));
    // What is right but for something beside it is mended, and nothing is issued.
    let stray = Content { entries: secret.entries.clone().with("stray", "x"), ..secret.clone() };
    let mended = leaf::mended(&stray.entries, &leaf.name, "orders", &leaf.carried);
    assert_eq!((mended.deed(Some(&good)), mended.entries), (Deed::Nothing, secret.entries));
}

#[test]
fn what_a_route_refers_to_in_vain_is_told() {
    let identity = json!({"identity": {"name": "nobody"}});
    let mut asking = (*route(&[], &json!({"verified": {}}))).clone();
    asking.spec.rules[0].backend_refs =
        serde_json::from_value(json!([{"name": "stock", "port": 80}])).expect("a Service");
    let rows = [
        (route(&[], &json!({"verified": {}})), None, Reason::RefNotFound),
        (route(&[], &identity), Some("spec.rules[0].allow[0]"), Reason::RefNotFound),
        (Arc::new(asking), Some("spec.rules[0].backendRefs[0]"), Reason::BackendNotFound),
    ];
    for (route, expected, reason) in rows {
        let plan = planned(&observed(vec![route], vec![pod("a", "default")], vec![]), NOW);
        let verdict = &plan.routes[&ObjectName::new("shop", "orders")];
        assert!(verdict.accepted.is_ok(), "{verdict:?}");
        match (expected, &verdict.missing[..]) {
            (None, []) => {}
            (Some(place), [told]) => {
                assert!(told.message.starts_with(place), "{told:?}");
                assert_eq!(told.reason, reason, "{told:?}");
            }
            (expected, found) => panic!("{expected:?} and not {found:?}"),
        }
    }
}

/// As long as the API lets a route be.
fn large() -> Arc<ProxyRoute> {
    let rules = (0..64).map(|rule| {
        let paths = (0..16).map(|number| {
            let start = format!("/{rule}/{number}/");
            json!({"path": {"type": "Exact", "value": format!("{start}{}", "x".repeat(1024 - start.len()))}})
        });
        let paths: Vec<_> = paths.collect();
        let backends = json!([{"localPort": 8080}]);
        json!({"name": format!("r{rule}"), "matches": paths, "allow": [{"verified": {}}], "backendRefs": backends})
    });
    let mut large = (*route(&[], &json!({"verified": {}}))).clone();
    large.spec.rules = rules.map(|rule| serde_json::from_value(rule).expect("a rule")).collect();
    large.metadata.name = Some("large".to_owned());
    Arc::new(large)
}

#[test]
fn a_route_that_does_not_fit_takes_no_other_down() {
    let routes = vec![route(&[], &json!({"verified": {}})), large()];
    let plan = planned(&observed(routes, vec![pod("a", "default")], vec![]), NOW);
    let accepted = |name: &str| plan.routes[&ObjectName::new("shop", name)].accepted.clone();
    assert_eq!(accepted("large").expect_err("it is told").reason, Reason::TooLarge);
    assert!(accepted("orders").is_ok());
    let text = content(&plan.policy).entries.text("policy.json").expect("text");
    assert!(text.contains("shop/orders") && !text.contains("shop/large"));
}

#[test]
fn what_does_not_fit_is_kept_as_it_was() {
    // Digests cannot be made much smaller.
    let digest = |number: usize| -> String {
        Sha256::digest(number.to_le_bytes()).iter().map(|byte| format!("{byte:02x}")).collect()
    };
    let known = (0..200).map(|number| {
        let recognise = json!([{"bundle": "postern", "fingerprint": format!("sha256:{}", digest(number))}]);
        serde_json::from_value(json!({"name": format!("shop/c{number}"), "recognise": recognise})).expect("an identity")
    });
    let known: Vec<KnownIdentity> = known.collect();
    let routes = vec![route(&[], &json!({"verified": {}}))];
    let plan = planned_for(&observed(routes, vec![pod("a", "default")], vec![]), &known, NOW);
    assert_eq!((&plan.identities[..], &plan.policy, &plan.endpoints), (&[][..], &Write::Keep, &Write::Keep));
    let refused = plan.routes[&ObjectName::new("shop", "orders")].accepted.clone().expect_err("it is told");
    assert_eq!(refused.reason, Reason::TooLarge);
    assert_eq!(plan.leaves.len(), 1, "certificates do not wait for it");
}
