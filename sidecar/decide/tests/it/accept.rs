//! Documents to accepted parts and parts to a snapshot: revisions, hashes, and what a missing name refuses.

use std::sync::Arc;

use serde_json::{Value, json};
use sidecar_config::policy::{ClientAuth, Mode, TlsVersion};
use sidecar_config::trust::RevocationState;
use sidecar_decide::Reason::{PolicyNoCertificate, PolicyNoIdentity, RouteNoHost};
use sidecar_decide::{Backend, Caller, Decision, Files, Parts, Snapshot, Target, accept, link};

use crate::fixture::{Documents, asked, expected, facts, files, listener, read, root, told, trust_document};

#[test]
fn a_good_trust_part() {
    let states = json!([{"name": "a/b", "state": "Suspended"}, {"name": "a/c", "state": "Revoked"}]);
    let accepted = accept::trust(&read(trust_document(&states)), &files()).expect("a good document");
    let bundles: Vec<_> = accepted.bundles.iter().map(|bundle| (&*bundle.name, bundle.roots.clone())).collect();
    assert_eq!(bundles, [("ours", vec![root("ours", 0xa0)]), ("partner", vec![root("partner", 0xb0)])]);
    let vouched: Vec<_> = accepted.bundles.iter().map(|bundle| bundle.vouches_for.clone()).collect();
    assert_eq!(vouched[0].spiffe, ["demo.local"]);
    assert_eq!(vouched[1].spiffe, ["partner.example"]);
    assert_eq!((vouched[0].common_name, vouched[1].common_name), (true, false));
    let states: Vec<_> = accepted.revocations.iter().map(|(name, revoked)| (name.as_str(), revoked.state)).collect();
    assert_eq!(states, [("a/b", Some(RevocationState::Suspended)), ("a/c", Some(RevocationState::Revoked))]);
    let empty = accept::trust(&read(json!({})), &Files::default()).expect("a document without bundles");
    assert_eq!((empty.bundles.len(), empty.revocations.len()), (0, 0));
}

#[test]
fn a_good_identity_part() {
    let document = json!({"chain": "server.pem", "key": "server.key"});
    let accepted = accept::identity(&read(document), &files()).expect("a good document");
    let [certificate] = accepted.certificates.as_slice() else { panic!("one certificate") };
    let subjects: Vec<_> = certificate.chain.iter().map(|certificate| certificate.facts.subject.as_str()).collect();
    assert_eq!(subjects, ["CN=server", "CN=intermediate"]);
    assert_eq!((certificate.key_file.as_str(), certificate.is_default), ("server.key", true));
}

/// Everything that a listener and a rule can say, once said and once left out.
#[test]
fn a_good_policy_part_is_linked_as_it_is_written() {
    let full = json!({
        "name": "full", "address": "[::1]:9443", "protocol": "HTTPS",
        "tls": {"clientAuth": "Optional", "minVersion": "1.3", "trust": ["partner", "ours"]},
    });
    let bare = json!({"name": "bare", "address": "0.0.0.0:8443", "protocol": "HTTPS", "tls": {}});
    let backends = json!([{"address": "127.0.0.1:1"}, {"endpoints": "set"}, {"address": "127.0.0.1:2"}]);
    let rules = json!([
        {"name": "audited", "allow": [{"anyone": {}}], "mode": "Audit", "backends": backends},
        {"name": "idle", "allow": [{"anyone": {}}], "backends": [{"endpoints": "idle"}]},
    ]);
    let routes = json!([{"name": "a/r", "listener": "full", "rules": rules}]);
    let limits = json!({"maxConnections": 7, "maxRequestBodySize": "2Ki"});
    let policy = json!({"listeners": [full, bare], "routes": routes, "limits": limits});
    let addresses = json!([{"address": "10.0.0.1:80"}, {"address": "[::2]:81"}]);
    let endpoints = json!([{"name": "set", "addresses": addresses}, {"name": "idle"}]);
    let parts = Documents { policy, endpoints, ..Documents::default() }.accept();
    let (snapshot, problems) = link(&parts);
    assert_eq!(problems, []);
    let [full, bare] = snapshot.listeners.as_slice() else { panic!("two listeners") };
    let of = |listener: &sidecar_decide::Listener| {
        (listener.name.to_string(), listener.address.to_string(), listener.bundles.clone())
    };
    assert_eq!(of(full), ("full".to_owned(), "[::1]:9443".to_owned(), vec![1, 0]));
    assert_eq!(of(bare), ("bare".to_owned(), "0.0.0.0:8443".to_owned(), vec![]));
    assert_eq!((full.client_auth, full.min_version), (ClientAuth::Optional, TlsVersion::V1_3));
    assert_eq!((bare.client_auth, bare.min_version), (ClientAuth::Required, TlsVersion::V1_2));
    assert_eq!((snapshot.limits.max_connections, snapshot.limits.max_request_body_size.bytes()), (Some(7), 2048));
    let [audited, idle] = snapshot.rules.as_slice() else { panic!("two rules") };
    assert_eq!((&*audited.listener, &*audited.route, &*audited.name), ("full", "a/r", "audited"));
    assert_eq!((audited.mode, idle.mode), (Mode::Audit, Mode::Enforce));
    assert_eq!(
        targets(&snapshot),
        [addresses_of(&[&["127.0.0.1:1"], &["10.0.0.1:80", "[::2]:81"], &["127.0.0.1:2"]]), addresses_of(&[&[]])]
    );
    let policy = parts.policy.expect("the part");
    assert_eq!(snapshot.policy_revision, Some(policy.revision.clone()));
    assert_eq!(snapshot.routes.into_iter().collect::<Vec<_>>(), [("a/r".to_owned(), policy.routes[0].1.clone())]);
}

/// Addresses of each backend; `None` where the rule has none because one is missing.
type Addresses = Option<Vec<Vec<String>>>;

fn addresses_of(backends: &[&[&str]]) -> Addresses {
    let texts = |list: &&[&str]| list.iter().map(|address| (*address).to_owned()).collect();
    Some(backends.iter().map(texts).collect())
}

/// Documents in which every name is there, and what takes one of them away.
fn complete() -> Documents {
    let names = |bundle: &str, name: &str| json!({"bundle": bundle, "dnsName": name});
    let rule = |name: &str, path: &str, allow: Value, endpoints: &str| {
        let matches = json!([{"path": {"type": "PathPrefix", "value": path}}]);
        json!({"name": name, "matches": matches, "allow": allow, "backends": [{"endpoints": endpoints}]})
    };
    let rules = json!([
        rule("granted", "/granted", json!([{"identity": "a/x"}, {"identity": "a/y"}]), "e"),
        rule("verified", "/verified", json!([{"verified": "ours"}, {"verified": "partner"}]), "e"),
        rule("other", "/other", json!([{"anyone": {}}]), "f"),
    ]);
    Documents {
        identities: json!([
            {"name": "a/x", "recognise": [names("ours", "x")]},
            {"name": "a/y", "recognise": [names("partner", "y"), names("ours", "y")]},
        ]),
        policy: json!({
            "listeners": [listener("main", 8443)],
            "routes": [{"name": "a/r", "listener": "main", "rules": rules}],
        }),
        endpoints: json!([
            {"name": "e", "addresses": [{"address": "10.0.0.1:80"}]},
            {"name": "f", "addresses": [{"address": "10.0.0.2:80"}]},
        ]),
        ..Documents::default()
    }
}

/// What the caller of a DNS name under a bundle gets from each of the three rules.
fn decisions(snapshot: &Snapshot, name: &str, bundle: &str) -> [Decision; 3] {
    let facts = sidecar_decide::CertificateFacts { dns_names: vec![name.to_owned()], ..facts("client", 1) };
    let caller = match snapshot.bundle(bundle) {
        Some(bundle) => snapshot.directory.resolve(&facts, vec![bundle]),
        None => Caller::ANONYMOUS,
    };
    let decide = |path: &str| {
        let listener = snapshot.listener("main").expect("a listener");
        let rule = listener.table.find(&asked("h", path, &http::Method::GET)).expect("a rule");
        snapshot.decide(&snapshot.rules[rule], &caller)
    };
    ["/granted", "/verified", "/other"].map(decide)
}

fn targets(snapshot: &Snapshot) -> Vec<Addresses> {
    let address = |index: &usize| snapshot.endpoints[*index].address.to_string();
    let backend = |backend: &Backend| backend.endpoints.iter().map(address).collect();
    let target = |rule: &sidecar_decide::Rule| match &rule.target {
        Target::Backends(backends) => Some(backends.iter().map(backend).collect()),
        Target::Invalid => None,
    };
    snapshot.rules.iter().map(target).collect()
}

const ALLOWED: Decision = Decision::ALLOWED;

#[test]
fn with_every_name_there_nothing_is_refused() {
    let (snapshot, problems) = complete().link();
    assert_eq!(problems, []);
    assert_eq!(decisions(&snapshot, "x", "ours"), [ALLOWED; 3]);
    assert_eq!(decisions(&snapshot, "y", "ours"), [ALLOWED; 3]);
    assert_eq!(decisions(&snapshot, "y", "partner"), [ALLOWED; 3]);
    let nobody = Decision::refused(PolicyNoIdentity);
    assert_eq!(decisions(&snapshot, "x", "partner"), [nobody, ALLOWED, ALLOWED]);
    let (e, f) = (addresses_of(&[&["10.0.0.1:80"]]), addresses_of(&[&["10.0.0.2:80"]]));
    assert_eq!(targets(&snapshot), [e.clone(), e, f]);
    assert_eq!(snapshot.listeners[0].bundles, [0, 1]);
}

#[test]
fn missing_endpoints_refuse_the_rules_that_name_them() {
    let f = json!([{"name": "f", "addresses": [{"address": "10.0.0.2:80"}]}]);
    let (snapshot, problems) = Documents { endpoints: f, ..complete() }.link();
    let detail = "there is no set of endpoints `e`; name one of endpoints";
    let rows = [
        ("policy.routes[0].rules[0].backends[0].endpoints", detail),
        ("policy.routes[0].rules[1].backends[0].endpoints", detail),
    ];
    assert_eq!(told(&problems), expected(&rows));
    assert_eq!(targets(&snapshot), [None, None, addresses_of(&[&["10.0.0.2:80"]])]);
    assert_eq!(decisions(&snapshot, "x", "ours"), [ALLOWED; 3], "who may is another question");
}

/// One backend of several that is missing: half of the requests would go nowhere.
#[test]
fn one_missing_backend_makes_the_rule_invalid() {
    let mut documents = complete();
    documents.policy["routes"][0]["rules"][2]["backends"] =
        json!([{"address": "10.0.0.3:80"}, {"endpoints": "absent"}, {"endpoints": "f"}]);
    let (snapshot, problems) = documents.link();
    let detail = "there is no set of endpoints `absent`; name one of endpoints";
    assert_eq!(told(&problems), expected(&[("policy.routes[0].rules[2].backends[1].endpoints", detail)]));
    let e = addresses_of(&[&["10.0.0.1:80"]]);
    assert_eq!(targets(&snapshot), [e.clone(), e, None]);
}

#[test]
fn a_missing_identity_admits_nobody() {
    let y = complete().identities[1].clone();
    let (snapshot, problems) = Documents { identities: json!([y]), ..complete() }.link();
    let detail = "there is no identity `a/x`; name one of identities";
    assert_eq!(told(&problems), expected(&[("policy.routes[0].rules[0].allow[0]", detail)]));
    assert_eq!(decisions(&snapshot, "x", "ours"), [Decision::refused(PolicyNoIdentity), ALLOWED, ALLOWED]);
    assert_eq!(decisions(&snapshot, "y", "ours"), [ALLOWED; 3]);
}

#[test]
fn a_missing_bundle_refuses_what_names_it() {
    let mut trust = trust_document(&json!([]));
    trust["bundles"].as_object_mut().expect("a map").remove("partner");
    let (snapshot, problems) = Documents { trust, ..complete() }.link();
    let detail = "there is no bundle `partner`; name one of trust.bundles";
    let rows = [
        ("identities[1].recognise[0].bundle", detail),
        ("policy.listeners[0].tls.trust[1]", detail),
        ("policy.routes[0].rules[1].allow[1]", detail),
    ];
    assert_eq!(told(&problems), expected(&rows));
    assert_eq!(snapshot.listeners[0].bundles, [0], "the listener keeps its other bundle");
    assert_eq!(decisions(&snapshot, "x", "ours"), [ALLOWED; 3]);
    assert_eq!(decisions(&snapshot, "y", "ours"), [ALLOWED; 3], "by its other recogniser");
}

#[test]
fn a_missing_certificate_leaves_a_listener_the_others() {
    let mut documents = complete();
    documents.policy["listeners"][0]["tls"]["certificates"] = json!(["a/web", "a/old"]);
    let (snapshot, problems) = documents.link();
    let row = |number| {
        let name = ["a/web", "a/old"][number];
        let detail = format!("there is no certificate `{name}`; name one of identity.certificates");
        (format!("policy.listeners[0].tls.certificates[{number}]"), detail)
    };
    let rows = [row(0), row(1)];
    let rows: Vec<_> = rows.iter().map(|(place, detail)| (place.as_str(), detail.as_str())).collect();
    assert_eq!(told(&problems), expected(&rows));
    assert!(problems.iter().all(|problem| problem.missing_in == Some(sidecar_config::Part::Identity)));
    assert_eq!(snapshot.listeners[0].certificates, [].into());
    assert_eq!(decisions(&snapshot, "x", "ours"), [ALLOWED; 3]);
}

#[test]
fn a_revocation_of_somebody_else_is_no_problem() {
    let states = json!([{"name": "a/z", "state": "Revoked"}, {"name": "a/y", "state": "Revoked"}]);
    let (snapshot, problems) = Documents { trust: trust_document(&states), ..complete() }.link();
    assert_eq!(problems, []);
    assert_eq!(decisions(&snapshot, "x", "ours"), [ALLOWED; 3]);
    let revoked = Decision::refused(sidecar_decide::Reason::PolicyIdentityRevoked);
    assert_eq!(decisions(&snapshot, "y", "ours"), [revoked; 3]);
}

/// A part that was never accepted is as one whose names are all missing.
#[test]
fn parts_that_are_not_there_refuse_what_needs_them() {
    let without = |take: fn(&mut Parts)| {
        let mut parts = complete().accept();
        take(&mut parts);
        link(&parts)
    };
    let (snapshot, problems) = without(|parts| parts.trust = None);
    assert_eq!(problems.len(), 3 + 2 + 2, "recognisers, the listener's bundles and `verified`");
    let refused = Decision::refused(PolicyNoCertificate);
    assert_eq!(decisions(&snapshot, "x", "ours"), [refused, refused, ALLOWED]);
    assert_eq!(snapshot.listeners[0].bundles, Vec::<usize>::new());

    let (snapshot, problems) = without(|parts| parts.identities = None);
    assert_eq!(problems.len(), 2);
    assert_eq!(decisions(&snapshot, "x", "ours"), [Decision::refused(PolicyNoIdentity), ALLOWED, ALLOWED]);

    let (snapshot, problems) = without(|parts| parts.endpoints = None);
    assert_eq!(problems.len(), 3);
    assert_eq!(targets(&snapshot), [None, None, None]);

    let (snapshot, problems) = without(|parts| parts.policy = None);
    assert_eq!((problems, snapshot.listeners.len(), snapshot.rules.len()), (vec![], 0, 0));
    assert_eq!(snapshot.policy_revision, None);

    let (snapshot, problems) = link(&Parts::default());
    assert_eq!((problems, snapshot.bundles.len(), snapshot.server.is_none()), (vec![], 0, true));
    assert_eq!(snapshot.limits.max_connections, None, "it is for whoever knows the memory to say");
}

#[test]
fn a_listener_without_routes_serves_nothing() {
    let (snapshot, _) = Documents::default().link();
    let table = &snapshot.listener("main").expect("a listener").table;
    assert_eq!(table.find(&asked("h", "/", &http::Method::GET)), Err(RouteNoHost));
    assert_eq!(snapshot.listener("absent").map(|listener| listener.address), None);
    assert_eq!((snapshot.bundle("ours"), snapshot.bundle("partner"), snapshot.bundle("x")), (Some(0), Some(1), None));
}

#[test]
fn the_servers_own_certificate_is_handed_on() {
    let document = json!({"chain": "server.pem", "key": "server.key"});
    let identity = Arc::new(accept::identity(&read(document), &files()).expect("a good document"));
    let (snapshot, _) = link(&Parts { identity: Some(Arc::clone(&identity)), ..complete().accept() });
    assert!(snapshot.server.as_ref().is_some_and(|server| Arc::ptr_eq(server, &identity)));
}
