//! Who a rule names without naming an identity: by labels, by service account, by SPIFFE ID; and what is revoked.

use serde_json::{Value, json};
use sidecar_decide::Reason::{self, PolicyCertificateRevoked, PolicyIdentitySuspended, PolicyIssuedTooEarly};
use sidecar_decide::{CertificateFacts, Decision, Problem, Snapshot, Verdict};

use crate::fixture::{Documents, expected, facts, listener, told, trust_document};

const FRONT: &str = "spiffe://demo.local/ns/web/sa/front";

/// A snapshot with one rule for each entry of `allow`, named after its place.
fn link(trust: Value, identities: Value, allow: &[Value]) -> (Snapshot, Vec<Problem>) {
    let rules = allow.iter().enumerate().map(
        |(index, entry)| json!({"name": index.to_string(), "allow": [entry], "backends": [{"address": "127.0.0.1:1"}]}),
    );
    let routes = json!([{"name": "route", "listener": "main", "rules": rules.collect::<Vec<_>>()}]);
    let policy = json!({"listeners": [listener("main", 8443)], "routes": routes});
    Documents { trust, identities, policy, ..Documents::default() }.link()
}

/// Which rules let a certificate pass whose chain ends in these bundles.
fn passes(snapshot: &Snapshot, facts: &CertificateFacts, bundles: &[&str]) -> Vec<usize> {
    let bundles = bundles.iter().map(|name| snapshot.bundle(name).expect("a bundle")).collect();
    let caller = snapshot.directory.resolve(facts, bundles);
    let allows = |index: &usize| snapshot.decide(&snapshot.rules[*index], &caller).verdict == Verdict::Allowed;
    (0..snapshot.rules.len()).filter(allows).collect()
}

fn uris(list: &[&str]) -> CertificateFacts {
    CertificateFacts { uris: list.iter().map(|uri| (*uri).to_owned()).collect(), ..facts("client", 1) }
}

fn dns(name: &str) -> CertificateFacts {
    CertificateFacts { dns_names: vec![name.to_owned()], ..facts("client", 1) }
}

fn labelled(name: &str, labels: &Value) -> Value {
    json!({"name": name, "labels": labels, "recognise": [{"bundle": "ours", "dnsName": name}]})
}

#[test]
fn a_selector_chooses_who_has_all_its_labels() {
    let mut identities = vec![
        labelled("gold", &json!({"tier": "gold", "zone": "a"})),
        labelled("silver", &json!({"tier": "silver", "zone": "a"})),
        labelled("bare", &json!({})),
        labelled("empty", &json!({"tier": ""})),
        labelled("twin-1", &json!({"tier": "gold"})),
    ];
    // Beyond the first words of a set.
    identities
        .extend((0..200).map(|number| labelled(&format!("other-{number}"), &json!({"number": number.to_string()}))));
    identities.push(labelled("last", &json!({"tier": "gold", "zone": "b"})));
    let selector = |labels: Value| json!({"identitySelector": {"matchLabels": labels}});
    let allow = [
        selector(json!({"tier": "gold"})),
        selector(json!({"zone": "a"})),
        selector(json!({"tier": "gold", "zone": "a"})),
        selector(json!({"tier": "gold", "zone": "c"})),
        selector(json!({"tier": "Gold"})),
        selector(json!({"absent": "gold"})),
        selector(json!({"tier": ""})),
        selector(json!({"number": "130"})),
        // The same as the first: a set that is shared.
        selector(json!({"tier": "gold"})),
    ];
    let (snapshot, problems) = link(trust_document(&json!([])), json!(identities), &allow);
    assert_eq!(told(&problems), expected(&[]));
    let rows: &[(&str, &[&str], &[usize])] = &[
        ("gold", &["ours"], &[0, 1, 2, 8]),
        ("silver", &["ours"], &[1]),
        ("bare", &["ours"], &[]),
        ("empty", &["ours"], &[6]),
        ("twin-1", &["ours"], &[0, 8]),
        ("last", &["ours"], &[0, 8]),
        ("other-130", &["ours"], &[7]),
        ("other-131", &["ours"], &[]),
        ("nobody", &["ours"], &[]),
        ("gold", &["partner"], &[]),
    ];
    for (name, bundles, allowed) in rows {
        assert_eq!(passes(&snapshot, &dns(name), bundles), *allowed, "{name} by {bundles:?}");
    }
    let both = CertificateFacts { dns_names: vec!["gold".to_owned(), "silver".to_owned()], ..facts("client", 1) };
    assert_eq!(passes(&snapshot, &both, &["ours"]), [0; 0], "a certificate of two identities has no labels");
}

#[test]
fn a_selector_chooses_in_the_namespace_of_its_route() {
    let gold = json!({"tier": "gold"});
    let names = ["a/client", "b/client", "ab/client", "client", "/client", "a/b/client", "A/upper"];
    let identities = names.map(|name| {
        let dns = format!("{}.test", name.replace('/', "-at-"));
        json!({"name": name, "labels": gold, "recognise": [{"bundle": "ours", "dnsName": dns}]})
    });
    let selector = json!({"identitySelector": {"matchLabels": gold}});
    // The same labels each time, so that a set shared between namespaces would show.
    let rows: &[(&str, &[&str])] = &[
        ("a/route", &["a/client", "a/b/client"]),
        ("b/route", &["b/client"]),
        ("a/other", &["a/client", "a/b/client"]),
        ("route", &["client", "/client"]),
        ("/route", &["client", "/client"]),
        ("a", &["client", "/client"]),
        ("nowhere/route", &[]),
    ];
    let rule = json!({"name": "0", "allow": [selector], "backends": [{"address": "127.0.0.1:1"}]});
    let routes = rows.iter().map(|(name, _)| json!({"name": name, "listener": "main", "rules": [rule]}));
    let policy = json!({"listeners": [listener("main", 8443)], "routes": routes.collect::<Vec<_>>()});
    let trust = trust_document(&json!([]));
    let documents = Documents { trust, identities: json!(identities), policy, ..Documents::default() };
    let (snapshot, problems) = documents.link();
    assert_eq!(told(&problems), expected(&[]));
    for name in names {
        let dns = format!("{}.test", name.replace('/', "-at-"));
        let allowed = (0..).zip(rows).filter(|(_, (_, chosen))| chosen.contains(&name)).map(|(index, _)| index);
        assert_eq!(passes(&snapshot, &self::dns(&dns), &["ours"]), allowed.collect::<Vec<usize>>(), "{name}");
    }
}

#[test]
fn a_pattern_is_compared_by_segments() {
    let spiffe = |pattern: &str| json!({"spiffe": pattern});
    let allow = [
        spiffe(FRONT),
        spiffe("spiffe://demo.local/ns/web/*"),
        spiffe("spiffe://demo.local/*"),
        spiffe("spiffe://demo.local"),
        spiffe("spiffe://partner.example/*"),
        json!({"serviceAccount": {"namespace": "web", "name": "front", "trustDomain": "demo.local"}}),
    ];
    let (snapshot, problems) = link(trust_document(&json!([])), json!([]), &allow);
    assert_eq!(told(&problems), expected(&[]));
    let long = format!("spiffe://demo.local/ns/web/{}", "x".repeat(2048));
    let deep = format!("spiffe://demo.local/ns/web{}", "/x".repeat(1000));
    let rows: &[(&[&str], &[usize])] = &[
        (&[FRONT], &[0, 1, 2, 5]),
        (&["spiffe://demo.local/ns/web/sa/back"], &[1, 2]),
        (&["spiffe://demo.local/ns/web/x"], &[1, 2]),
        (&["spiffe://demo.local/ns/web"], &[2]),
        (&["spiffe://demo.local/ns/webshop/sa/front"], &[2]),
        (&["spiffe://demo.local/ns/Web/sa/front"], &[2]),
        (&["spiffe://demo.local/ns/web/sa/front/x"], &[1, 2]),
        (&["spiffe://demo.local"], &[3]),
        (&[deep.as_str()], &[1, 2]),
        // Not well-formed, so nobody's.
        (&["spiffe://demo.local/ns/web/sa/front/"], &[]),
        (&["spiffe://demo.local/"], &[]),
        (&["spiffe://demo.local//ns/web/sa/front"], &[]),
        (&["spiffe://demo.local/ns/web/../web/sa/front"], &[]),
        (&["spiffe://demo.local/ns/web/./sa"], &[]),
        (&["spiffe://demo.local/ns/web/%73a"], &[]),
        (&["spiffe://demo.local/ns/web/*"], &[]),
        (&["spiffe://demo.local/ns/web/sa/front?x"], &[]),
        (&["spiffe://demo.local/ns/web/sa/front#x"], &[]),
        (&["spiffe://demo.local:443/ns/web/sa/front"], &[]),
        (&["spiffe://x@demo.local/ns/web/sa/front"], &[]),
        (&["SPIFFE://demo.local/ns/web/sa/front"], &[]),
        (&["spiffe://Demo.local/ns/web/sa/front"], &[]),
        (&["spiffe:///ns/web/sa/front"], &[]),
        (&["https://demo.local/ns/web/sa/front"], &[]),
        (&[long.as_str()], &[]),
        (&[], &[]),
        // Two SPIFFE IDs are none; a URI of another kind is none's concern.
        (&[FRONT, "spiffe://demo.local/ns/web/sa/back"], &[]),
        (&[FRONT, "SPIFFE://else.where/"], &[]),
        (&[FRONT, FRONT], &[]),
        (&["https://demo.local/", FRONT], &[0, 1, 2, 5]),
    ];
    for (list, allowed) in rows {
        assert_eq!(passes(&snapshot, &uris(list), &["ours"]), *allowed, "{list:?}");
    }
}

#[test]
fn a_pattern_counts_under_bundles_that_vouch_only() {
    let allow = [
        json!({"spiffe": "spiffe://demo.local/*"}),
        json!({"spiffe": "spiffe://partner.example/*"}),
        json!({"serviceAccount": {"namespace": "web", "name": "front", "trustDomain": "demo.local"}}),
        json!({"serviceAccount": {"namespace": "web", "name": "front", "trustDomain": "partner.example"}}),
    ];
    let (snapshot, problems) = link(trust_document(&json!([])), json!([]), &allow);
    assert_eq!(told(&problems), expected(&[]));
    let theirs = "spiffe://partner.example/ns/web/sa/front";
    let rows: &[(&str, &[&str], &[usize])] = &[
        (FRONT, &["ours"], &[0, 2]),
        (FRONT, &["partner"], &[]),
        (FRONT, &["partner", "ours"], &[0, 2]),
        (FRONT, &[], &[]),
        (theirs, &["partner"], &[1, 3]),
        (theirs, &["ours"], &[]),
    ];
    for (uri, bundles, allowed) in rows {
        assert_eq!(passes(&snapshot, &uris(&[uri]), bundles), *allowed, "{uri} by {bundles:?}");
    }
}

#[test]
fn what_nobody_vouches_for_allows_nobody_and_is_told() {
    let account = json!({"serviceAccount": {"namespace": "web", "name": "front"}});
    let of_other = json!({"serviceAccount": {"namespace": "web", "name": "front", "trustDomain": "other.local"}});
    let allow = [account, of_other, json!({"spiffe": "spiffe://other.local/*"})];
    let place = |index: usize, field: &str| format!("policy.routes[0].rules[{index}].allow[0]{field}");
    let several =
        "could be of several trust domains, such as `demo.local` and `partner.example`; write its trustDomain";
    let none = "no bundle vouches for a SPIFFE trust domain; name one in trust.bundles.NAME.vouchesFor.spiffe";
    let other = "no bundle vouches for SPIFFE trust domain `other.local`; \
                 add it to trust.bundles.NAME.vouchesFor.spiffe of the bundle whose it is";
    let bundles = |domains: Value| {
        json!({"bundles": {"ours": {"roots": ["ours.pem"], "vouchesFor": {"spiffe": domains}},
        "partner": {"roots": ["partner.pem"]}}})
    };
    let rows: [(Value, Option<&str>, &[usize]); 3] = [
        (trust_document(&json!([])), Some(several), &[]),
        (bundles(json!([])), Some(none), &[]),
        (bundles(json!(["demo.local"])), None, &[0]),
    ];
    for (trust, detail, allowed) in rows {
        let (snapshot, problems) = link(trust.clone(), json!([]), &allow);
        let mut wanted = Vec::new();
        wanted.extend(detail.map(|detail| (place(0, ".serviceAccount"), detail.to_owned())));
        wanted.extend([1, 2].map(|index| (place(index, ""), other.to_owned())));
        assert_eq!(told(&problems), wanted, "{trust}");
        assert_eq!(passes(&snapshot, &uris(&[FRONT]), &["ours"]), allowed, "{trust}");
        assert_eq!(passes(&snapshot, &uris(&["spiffe://other.local/ns/web/sa/front"]), &["ours"]), [0; 0], "{trust}");
    }
}

/// A snapshot with revocations of every kind, and a rule for every way to allow.
fn revoked() -> Snapshot {
    let mut trust = trust_document(&json!([
        {"name": "late", "acceptIssuedAfter": "1970-01-02T00:00:00Z"},
        {"name": "both", "acceptIssuedAfter": "1970-01-02T00:00:00Z", "state": "Suspended"},
    ]));
    trust["revocations"]["serials"] =
        json!([{"bundle": "ours", "serial": "5A01"}, {"bundle": "ours", "serial": "00:00:5a:02"}]);
    let identities = ["late", "both", "free"].map(|name| labelled(name, &json!({"tier": "gold"})));
    let selector = json!({"identitySelector": {"matchLabels": {"tier": "gold"}}});
    let allow = [json!({"anyone": {}}), selector, json!({"verified": "ours"}), json!({"spiffe": FRONT})];
    link(trust, json!(identities), &allow).0
}

#[test]
fn what_is_revoked_passes_no_rule() {
    let snapshot = revoked();
    let certificate = |names: &str, serial: &str, not_before: i64| CertificateFacts {
        uris: vec![FRONT.to_owned()],
        dns_names: names.split(' ').map(str::to_owned).collect(),
        serial: serial.to_owned(),
        not_before,
        ..facts("client", 1)
    };
    let (early, on_time, late) = (86_399, 86_400, 86_401);
    type Row<'a> = (&'a str, &'a str, i64, &'a [&'a str], Option<Reason>);
    let rows: &[Row<'_>] = &[
        ("late", "01", early, &["ours"], Some(PolicyIssuedTooEarly)),
        ("late", "01", i64::MIN, &["ours"], Some(PolicyIssuedTooEarly)),
        ("late", "01", on_time, &["ours"], None),
        ("late", "01", late, &["ours"], None),
        ("late", "01", early, &["partner"], None),
        ("free", "01", early, &["ours"], None),
        ("both", "01", early, &["ours"], Some(PolicyIdentitySuspended)),
        ("both", "01", late, &["ours"], Some(PolicyIdentitySuspended)),
        // One more identity that claims an old certificate does not make it new.
        ("late free", "01", early, &["ours"], Some(PolicyIssuedTooEarly)),
        ("late free", "01", late, &["ours"], None),
        ("late both", "01", late, &["ours"], Some(PolicyIdentitySuspended)),
        ("free", "5a:01", late, &["ours"], Some(PolicyCertificateRevoked)),
        ("free", "5a:02", late, &["ours"], Some(PolicyCertificateRevoked)),
        ("nobody", "5a:01", late, &["ours"], Some(PolicyCertificateRevoked)),
        ("both", "5a:01", late, &["ours"], Some(PolicyCertificateRevoked)),
        ("free", "5a:01", late, &["partner"], None),
        ("free", "5a:01", late, &["partner", "ours"], Some(PolicyCertificateRevoked)),
        ("free", "5a:03", late, &["ours"], None),
        ("free", "5a", late, &["ours"], None),
    ];
    for (names, serial, not_before, bundles, reason) in rows {
        let facts = certificate(names, serial, *not_before);
        let indices = bundles.iter().map(|name| snapshot.bundle(name).expect("a bundle")).collect();
        let caller = snapshot.directory.resolve(&facts, indices);
        let case = format!("{names} {serial} {not_before} {bundles:?}");
        assert_eq!(caller.revoked, *reason, "{case}");
        let Some(reason) = reason else {
            assert_eq!(snapshot.decide(&snapshot.rules[0], &caller), Decision::ALLOWED, "{case}");
            continue;
        };
        for rule in &snapshot.rules {
            assert_eq!(snapshot.decide(rule, &caller), Decision::refused(*reason), "{case} by {}", rule.name);
        }
    }
}
