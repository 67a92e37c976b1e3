//! Who is known, and what every sidecar is told of them; with the sidecar's own code as judge.

use std::collections::{BTreeMap, BTreeSet};

use postern_operator::identity::directory::{Directory, Problem};
use postern_operator::identity::enforced::{SidecarSeen, ToKnow, TrustView, WrittenTrust, enforced};
use postern_operator::identity::trust::{ExternalBundle, OUR_BUNDLE, TrustInput, bundle_name, document};
use postern_operator::pki::key::Algorithm;
use postern_operator::pki::ledger::{Entry, Ledger};
use serde_json::{Value, json};
use sidecar_config::trust::{IdentityRevocation, RevocationState, Revocations, Trust};
use sidecar_decide::{Certificate, Files, accept};

use crate::identity_fixture::{external, identity, in_namespace, issue};
use crate::pki_fixture::{NOW, issued, made, names, request};

fn directory(identities: &[postern_crds::ClientIdentity]) -> Directory {
    Directory::of(identities, &names())
}

#[test]
fn each_kind_is_recognised_by_what_it_shows() {
    let digest = format!("sha256:{}", "0a".repeat(32));
    let directory = directory(&[
        identity("billing", 1, &issue()),
        identity("device", 2, &json!({"csr": {"request": "AAAA"}})),
        identity("front", 3, &json!({"serviceAccount": {"name": "front"}})),
        identity("partner", 4, &external(&json!({"dnsNames": ["a.example"], "fingerprints": [digest]}))),
    ]);
    let said = |name: &str| {
        let entry = directory.entry(name).unwrap();
        assert_eq!(entry.problem, None);
        let recognise = serde_json::to_value(&entry.known.recognise).unwrap();
        (entry.bundle.name().to_owned(), recognise)
    };
    let uri = |uri: &str| (OUR_BUNDLE.to_owned(), json!([{"bundle": "postern", "uri": uri}]));
    assert_eq!(said("shop/billing"), uri("spiffe://demo.local/ns/shop/client/billing"));
    assert_eq!(said("shop/device"), uri("spiffe://demo.local/ns/shop/client/device"));
    assert_eq!(said("shop/front"), uri("spiffe://demo.local/ns/shop/sa/front"));
    let bundle = "shop/partner-ca";
    let claims = json!([{"bundle": bundle, "dnsName": "a.example"}, {"bundle": bundle, "fingerprint": digest}]);
    assert_eq!(said("shop/partner"), (bundle.to_owned(), claims));
    assert_eq!(directory.entry("shop/front").unwrap().known.labels, [("tier".into(), "front".into())].into());
}

#[test]
fn of_two_the_older_keeps_what_both_are_recognised_by() {
    let claim = |names: &[&str]| external(&json!({"dnsNames": names}));
    let serial = |serial: &str| external(&json!({"serials": [serial]}));
    let account = json!({"serviceAccount": {"name": "front"}});
    let rows: [(Value, Value, Option<&str>, usize); 7] = [
        (
            claim(&["a.example"]),
            claim(&["a.example"]),
            Some("dnsName `a.example` is how older `shop/older` is recognised"),
            0,
        ),
        (
            claim(&["a.example"]),
            claim(&["A.example", "b.example"]),
            Some("dnsName `A.example` is how older `shop/older` is recognised"),
            1,
        ),
        (serial("0A:01"), serial("0a01"), Some("serial `0a01` is how older `shop/older` is recognised"), 0),
        (serial("000a01"), serial("0a01"), Some("serial `0a01` is how older `shop/older` is recognised"), 0),
        (
            account.clone(),
            account,
            Some("uri `spiffe://demo.local/ns/shop/sa/front` is how older `shop/older` is recognised"),
            0,
        ),
        (claim(&["a.example"]), claim(&["b.example", "B.example"]), None, 1),
        // Another claim, whatever it looks like.
        (claim(&["a.example"]), external(&json!({"uris": ["a.example:x"]})), None, 1),
    ];
    for (older, newer, conflict, left) in rows {
        // In either order of names.
        let directory = directory(&[identity("newer", 2, &newer), identity("older", 1, &older)]);
        assert_eq!(directory.entry("shop/older").unwrap().problem, None);
        let newer = directory.entry("shop/newer").unwrap();
        assert_eq!(newer.problem, conflict.map(|text| Problem::Conflicted(text.to_owned())));
        assert_eq!(newer.known.recognise.len(), left);
    }
}

#[test]
fn what_no_sidecar_would_read_is_kept_from_all_of_them() {
    let vouched = |domain: &str, uri: &str| {
        let refs = json!([{"kind": "ConfigMap", "name": "partner-ca"}]);
        json!({"external": {"trust": {"caCertificateRefs": refs, "vouchesFor": {"spiffe": [domain]}}, "uris": [uri]}})
    };
    let ours = "external.uris: SPIFFE IDs of `demo.local` count under Postern's own authorities only; use issue, csr or serviceAccount";
    let rows = [
        (
            external(&json!({"sfdi": ["000000000001"]})),
            Some(
                "`000000000001` is not an SFDI: its last digit does not make the sum of its digits a multiple of ten; compare them",
            ),
        ),
        (
            external(&json!({"uris": ["spiffe://p.example/a"]})),
            Some(
                "external.uris: a SPIFFE ID of `p.example` counts only if trust.vouchesFor.spiffe has `p.example`; add it",
            ),
        ),
        (vouched("p.example", "spiffe://p.example/a"), None),
        (vouched("demo.local", "spiffe://demo.local/ns/shop/client/billing"), Some(ours)),
    ];
    for (spec, problem) in rows {
        let directory = directory(&[identity("partner", 1, &spec)]);
        let entry = directory.entry("shop/partner").unwrap();
        assert_eq!(entry.problem, problem.map(|text| Problem::Invalid(text.to_owned())));
        let known = directory.known(&BTreeSet::from(["shop/partner".to_owned()]), &BTreeSet::new());
        assert_eq!(known.len(), usize::from(problem.is_none()));
        assert!(accept::identities(&known).is_ok());
    }
}

#[test]
fn a_workload_is_told_of_whom_it_names_and_of_all_it_must_refuse() {
    let with = |spec: Value, field: &str, value: &str| {
        let mut spec = spec;
        spec[field] = json!(value);
        spec
    };
    let going = {
        let mut going = in_namespace("web", "going", 9, &issue());
        going.metadata.deletion_timestamp = going.metadata.creation_timestamp.clone();
        going
    };
    let partner = || external(&json!({"dnsNames": ["a.example"]}));
    let directory = directory(&[
        identity("named", 1, &issue()),
        identity("other", 2, &json!({"issue": {"secretName": "other"}})),
        in_namespace("web", "suspended", 3, &with(issue(), "state", "Suspended")),
        in_namespace("web", "revoked", 4, &with(issue(), "state", "Revoked")),
        in_namespace("web", "early", 5, &with(issue(), "acceptIssuedAfter", "2026-09-21T00:00:00Z")),
        in_namespace("web", "partner", 6, &with(partner(), "state", "Suspended")),
        identity("partner", 7, &with(partner(), "state", "Suspended")),
        going,
    ]);
    let bundles = BTreeSet::from([OUR_BUNDLE.to_owned(), "shop/partner-ca".to_owned()]);
    let known = directory.known(&BTreeSet::from(["shop/named".to_owned(), "shop/nobody".to_owned()]), &bundles);
    let known: Vec<_> = known.iter().map(|one| one.name.as_str()).collect();
    assert_eq!(known, ["shop/named", "shop/partner", "web/early", "web/going", "web/revoked", "web/suspended"]);
    let state = |name: &str, state, after: Option<&str>| IdentityRevocation {
        name: name.to_owned(),
        state,
        accept_issued_after: after.map(|text| text.parse().unwrap()),
    };
    let (suspended, revoked) = (Some(RevocationState::Suspended), Some(RevocationState::Revoked));
    let expected = [
        state("shop/partner", suspended, None),
        state("web/early", None, Some("2026-09-21T00:00:00Z")),
        state("web/going", revoked, None),
        state("web/partner", suspended, None),
        state("web/revoked", revoked, None),
        state("web/suspended", suspended, None),
    ];
    assert_eq!(directory.revocations().cloned().collect::<Vec<_>>(), expected);
    let tier = |tier: &str| BTreeMap::from([("tier".to_owned(), tier.to_owned())]);
    let selected = |namespace, labels: &_| {
        directory.select(namespace, labels).map(|one| one.known.name.clone()).collect::<Vec<_>>()
    };
    assert_eq!(selected("shop", &tier("partner")), ["shop/partner"]);
    assert_eq!(selected("shop", &tier("suspended")), Vec::<String>::new());
}

#[test]
fn a_bundle_is_named_by_its_objects_and_by_what_it_may_vouch_for() {
    let refs = |names: &[&str]| -> Vec<postern_crds::trust::CaCertificateRef> {
        names.iter().map(|name| serde_json::from_value(json!({"name": name})).unwrap()).collect()
    };
    let vouches = |value: Value| serde_json::from_value::<postern_crds::trust::VouchesFor>(value).unwrap();
    assert_eq!(bundle_name("shop", &refs(&["b", "a", "b"]), None), "shop/a+b");
    let nothing = vouches(json!({"spiffe": [], "commonName": false}));
    assert_eq!(bundle_name("shop", &refs(&["a"]), Some(&nothing)), "shop/a");
    let names: BTreeSet<_> = [json!({"commonName": true}), json!({"spiffe": ["x"]}), json!({"spiffe": ["x", "y"]})]
        .into_iter()
        .map(|said| bundle_name("shop", &refs(&["a"]), Some(&vouches(said))))
        .collect();
    assert_eq!(names.len(), 3);
    let order = [vouches(json!({"spiffe": ["y", "x"]})), vouches(json!({"spiffe": ["x", "y"]}))];
    let [one, other] = order.map(|said| bundle_name("shop", &refs(&["a"]), Some(&said)));
    assert_eq!(one, other);
    let long = "n".repeat(253);
    assert!(bundle_name("shop", &refs(&[&long]), None).len() < 253);
}

/// Part `trust` with its files, as a sidecar accepts it.
fn accepted(document: &postern_operator::identity::trust::TrustDocument) -> sidecar_decide::snapshot::AcceptedTrust {
    let certificates = document.files.iter().map(|(name, text)| {
        let blocks = pem::parse_many(text).unwrap().into_iter();
        let read = blocks.map(|block| Certificate::from_der(block.into_contents()).unwrap());
        (name.clone(), Ok(read.collect()))
    });
    let files = Files { certificates: certificates.collect(), ..Files::default() };
    accept::trust(&document.document, &files).unwrap()
}

#[test]
fn what_is_revoked_anywhere_is_written_everywhere_and_accepted() {
    let ours = made(Algorithm::default());
    let (leaf, _) = issued(&ours.issuer, &request(), Algorithm::default());
    let serial = leaf.certificate.facts.serial.clone();
    let mut ledger = Ledger::default();
    let entry = Entry {
        identity: "billing".into(),
        uid: "u1".into(),
        not_after: "2026-12-20T00:00:00Z".parse().unwrap(),
        over: None,
        revoked: false,
    };
    ledger.remember(&serial, entry.clone(), NOW).unwrap();
    ledger.remember("0a:02", Entry { uid: "u2".into(), ..entry }, NOW).unwrap();
    ledger.revoke("u1");
    let directory =
        directory(&[identity("front", 1, &json!({"serviceAccount": {"name": "front"}, "state": "Suspended"}))]);
    let partner = made(Algorithm::default());
    let vouches_for = serde_json::from_value(json!({"spiffe": ["p.example", "demo.local"]})).unwrap();
    let external = ExternalBundle { pem: partner.issuer.roots_pem(), vouches_for };
    let bundles = BTreeMap::from([("shop/partner-ca".to_owned(), external)]);
    let names = names();
    let input = TrustInput {
        issuer: &ours.issuer,
        names: &names,
        directory: &directory,
        ledgers: &[Ledger::default(), ledger],
        bundles: &bundles,
    };
    let written = document(&input);
    assert_eq!(written, document(&input), "the same is the same");
    let trust = accepted(&written);
    let vouched: Vec<_> = trust.bundles.iter().map(|one| (&*one.name, one.vouches_for.spiffe.clone())).collect();
    // Nobody else may vouch for our own domain, whatever is written.
    assert_eq!(
        vouched,
        [("postern", vec!["demo.local".to_owned()]), ("shop/partner-ca", vec!["p.example".to_owned()])]
    );
    let revoked: Vec<_> = trust.bundles[0].revoked.iter().map(|one| one.to_string()).collect();
    assert_eq!(revoked, [serial]);
    assert_eq!(trust.revocations["shop/front"].state, Some(RevocationState::Suspended));
    for name in written.files.keys() {
        assert!(
            name.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-._".contains(&byte)),
            "a key of a ConfigMap: {name}"
        );
    }
}

/// Namespaces of sidecars, and what each has loaded.
type Loaded<'a> = &'a [(&'a str, Option<&'a str>)];

/// Sidecars that say they have loaded these.
fn seen(loaded: Loaded<'_>) -> Vec<SidecarSeen> {
    let sidecar = |(index, (namespace, loaded)): (usize, &(&str, Option<&str>))| SidecarSeen {
        namespace: (*namespace).to_owned(),
        pod: format!("pod-{index}"),
        trust_loaded: loaded.map(str::to_owned),
    };
    loaded.iter().enumerate().map(sidecar).collect()
}

fn suspended() -> IdentityRevocation {
    IdentityRevocation { name: "shop/a".into(), state: Some(RevocationState::Suspended), accept_issued_after: None }
}

/// What part `trust` says of revocations.
fn said(identities: Vec<IdentityRevocation>, serials: &[&str]) -> std::sync::Arc<Trust> {
    let serials =
        serials.iter().map(|serial| serde_json::from_value(json!({"bundle": "postern", "serial": serial})).unwrap());
    let revocations = Revocations { identities, serials: serials.collect() };
    std::sync::Arc::new(Trust { revocations, ..Trust::default() })
}

fn written(revision: &str, document: std::sync::Arc<Trust>) -> WrittenTrust {
    WrittenTrust { revision: revision.to_owned(), document }
}

#[test]
fn what_cannot_be_written_is_told_to_whom_it_concerns() {
    let suspended = suspended();
    let shop = vec![written("r1", said(vec![], &[]))];
    let web = vec![written("r1", said(vec![], &[])), written("r2", said(vec![suspended.clone()], &[]))];
    let written = BTreeMap::from([("shop".to_owned(), shop), ("web".to_owned(), web)]);
    let held_up = [("shop".to_owned(), "it does not fit".to_owned())].into();
    let seen = seen(&[("shop", Some("r1")), ("web", Some("r2"))]);
    let told = |name, revocation| {
        let to_know = ToKnow { name, revocation, serials: &[] };
        let (_, verdict) = enforced(&to_know, TrustView { written: &written, seen: &seen, held_up: &held_up });
        format!("{} {} {}", verdict.status, verdict.reason, verdict.message)
    };
    let expected = "False TooLarge 1 of 2 sidecars know it; it does not fit";
    assert_eq!(told("shop/a", Some(&suspended)), expected);
    assert_eq!(told("shop/b", None), "True Enforced 2 of 2 sidecars know it");
}

#[test]
fn enforced_is_counted_from_what_sidecars_have_loaded() {
    let suspended = suspended();
    // r1 says nothing, r2 and r3 the state, r4 also the serial number.
    let all = vec![
        written("r1", said(vec![], &[])),
        written("r2", said(vec![suspended.clone()], &[])),
        written("r3", said(vec![suspended.clone()], &["ff:01"])),
        written("r4", said(vec![suspended.clone()], &["ff:01", "0a:01"])),
    ];
    let written = BTreeMap::from([("shop".to_owned(), all.clone()), ("web".to_owned(), all)]);
    let serials = ["0a:01".to_owned()];
    let state = ToKnow { name: "shop/a", revocation: Some(&suspended), serials: &[] };
    let serial = ToKnow { serials: &serials, ..state.clone() };
    let active = ToKnow { name: "shop/b", revocation: None, serials: &[] };
    let rows: [(&ToKnow<'_>, Loaded<'_>, &str); 9] = [
        (&state, &[], "True Enforced 0 of 0 sidecars know it"),
        (&state, &[("shop", Some("r2")), ("web", Some("r4"))], "True Enforced 2 of 2 sidecars know it"),
        (
            &state,
            &[("shop", Some("r1")), ("web", Some("r3"))],
            "False Propagating 1 of 2 sidecars know it; not yet shop/pod-0",
        ),
        (&state, &[("shop", Some("none"))], "False Propagating 0 of 1 sidecars know it; not yet shop/pod-0"),
        (
            &state,
            &[("shop", None), ("web", Some("r3"))],
            "Unknown Unreachable 1 of 2 sidecars know it; no answer from shop/pod-0",
        ),
        (
            &state,
            &[("shop", None), ("web", Some("r1"))],
            "False Propagating 0 of 2 sidecars know it; not yet web/pod-1",
        ),
        (
            &serial,
            &[("shop", Some("r3")), ("web", Some("r4"))],
            "False Propagating 1 of 2 sidecars know it; not yet shop/pod-0",
        ),
        (&active, &[("shop", Some("r1")), ("web", Some("r4"))], "True Enforced 2 of 2 sidecars know it"),
        // Nothing was written to its namespace.
        (&active, &[("other", Some("r1"))], "False Propagating 0 of 1 sidecars know it; not yet other/pod-0"),
    ];
    for (to_know, loaded, expected) in rows {
        let seen = seen(loaded);
        let none = BTreeMap::new();
        let (counted, verdict) = enforced(to_know, TrustView { written: &written, seen: &seen, held_up: &none });
        assert_eq!(format!("{} {} {}", verdict.status, verdict.reason, verdict.message), expected);
        assert_eq!(counted.started as usize, loaded.len());
    }
    let many = seen(&[("shop", Some("r1")); 20]);
    let none = BTreeMap::new();
    let (counted, verdict) = enforced(&state, TrustView { written: &written, seen: &many, held_up: &none });
    assert_eq!((counted.started, counted.enforced), (20, 0));
    assert!(verdict.message.ends_with("shop/pod-0, shop/pod-1, shop/pod-10 and 17 more"), "{}", verdict.message);
}
