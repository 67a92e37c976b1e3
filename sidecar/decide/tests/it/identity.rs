//! Who a certificate belongs to: a claim counts only under the bundle that its identity names.

use serde_json::{Value, json};
use sidecar_decide::{Caller, CertificateFacts, Snapshot, Who};

use crate::fixture::{Documents, expected, facts, told, trust_document};

const SPIFFE: &str = "spiffe://demo.local/ns/shop/client/billing";

/// The short form of a device whose certificate's SHA-256 is `ca` all along.
const SFDI_OF_CA: &str = "544366051006";
/// SHA-256 of the one byte `ab`, as `printf '\xab' | sha256sum` has it.
const SHA256_OF_AB: &str = "087d80f7f182dd44f184aa86ca34488853ebcc04f0c60d5294919a466b463831";

/// Everybody of these tables; the fingerprint of a digest byte stands for its whole certificate.
fn everybody() -> Value {
    json!([
        {"name": "shop/billing", "recognise": [{"bundle": "ours", "uri": SPIFFE}]},
        {"name": "shop/front", "recognise": [{"bundle": "ours", "dnsName": "Front.Shop.svc"}]},
        {"name": "shop/named", "recognise": [{"bundle": "ours", "commonName": "Named"}]},
        {"name": "shop/pinned", "recognise": [
            {"bundle": "partner", "fingerprint": format!("sha256:{}", "Ee".repeat(32))},
        ]},
        {"name": "shop/meter", "recognise": [{"bundle": "partner", "lfdi": "dF".repeat(20)}]},
        {"name": "partner/app", "recognise": [
            {"bundle": "partner", "uri": "spiffe://partner.example/app"},
            {"bundle": "partner", "uri": "https://partner.example/app"},
            {"bundle": "partner", "dnsName": "app.partner.example"},
        ]},
        {"name": "shop/both", "recognise": [
            {"bundle": "ours", "dnsName": "both.shop.svc"},
            {"bundle": "partner", "dnsName": "both.shop.svc"},
        ]},
        {"name": "shop/short", "recognise": [{"bundle": "partner", "sfdi": SFDI_OF_CA}]},
        {"name": "shop/numbered", "recognise": [{"bundle": "partner", "serial": "00:5A:0b"}]},
        {"name": "shop/keyed", "recognise": [{"bundle": "partner", "spki": format!("sha256:{SHA256_OF_AB}")}]},
        {"name": "shop/gone", "recognise": [{"bundle": "ours", "dnsName": "gone.shop.svc"}]},
        {"name": "shop/paused", "recognise": [{"bundle": "ours", "dnsName": "paused.shop.svc"}]},
        // Two identities that claim the same.
        {"name": "twin/one", "recognise": [
            {"bundle": "ours", "dnsName": "twin.svc"}, {"bundle": "ours", "dnsName": "one.twin.svc"},
        ]},
        {"name": "twin/two", "recognise": [
            {"bundle": "ours", "dnsName": "TWIN.svc"}, {"bundle": "ours", "dnsName": "two.twin.svc"},
        ]},
        // A revoked identity whose claim another one claims as well.
        {"name": "twin/gone", "recognise": [{"bundle": "ours", "dnsName": "undo.svc"}]},
        {"name": "twin/undoes", "recognise": [{"bundle": "ours", "dnsName": "undo.svc"}]},
    ])
}

fn documents() -> Documents {
    let states = json!([
        {"name": "shop/gone", "state": "Revoked"},
        {"name": "shop/paused", "state": "Suspended"},
        {"name": "twin/gone", "state": "Revoked"},
        {"name": "not/known", "state": "Revoked"},
    ]);
    Documents { trust: trust_document(&states), identities: everybody(), ..Documents::default() }
}

fn snapshot() -> Snapshot {
    documents().link().0
}

/// A certificate with these alternative names and a common name nobody claims.
fn names(uris: &[&str], dns_names: &[&str]) -> CertificateFacts {
    let owned = |list: &[&str]| list.iter().map(|name| (*name).to_owned()).collect();
    CertificateFacts { uris: owned(uris), dns_names: owned(dns_names), ..facts("nobody", 1) }
}

fn dns(name: &str) -> CertificateFacts {
    names(&[], &[name])
}

fn uri(name: &str) -> CertificateFacts {
    names(&[name], &[])
}

/// Resolves under the bundles of these names and says who it is: a name, `?` for nobody known, `!` for ambiguous.
fn who(snapshot: &Snapshot, facts: &CertificateFacts, bundles: &[&str]) -> String {
    let bundles: Vec<_> = bundles.iter().map(|name| snapshot.bundle(name).expect("a bundle")).collect();
    let caller = snapshot.directory.resolve(facts, bundles.clone());
    assert_eq!(caller.bundles, bundles);
    match caller.who {
        Who::Known(identity) => snapshot.directory.name(identity).expect("a known identity").to_string(),
        Who::Unknown => "?".to_owned(),
        Who::Ambiguous => "!".to_owned(),
    }
}

fn check(rows: &[(CertificateFacts, &[&str], &str)]) {
    let snapshot = snapshot();
    for (facts, bundles, expected) in rows {
        let about = (&facts.subject, &facts.uris, &facts.dns_names, bundles);
        assert_eq!(who(&snapshot, facts, bundles), *expected, "{about:?}");
    }
}

#[test]
fn a_claim_counts_under_its_own_bundle_only() {
    let (ours, partner, both): (&[&str], &[&str], &[&str]) = (&["ours"], &["partner"], &["ours", "partner"]);
    check(&[
        (uri(SPIFFE), ours, "shop/billing"),
        (uri(SPIFFE), both, "shop/billing"),
        (uri(SPIFFE), &["partner", "ours"], "shop/billing"),
        // A partner's certificate with our SPIFFE URI is an attribute, never one of us.
        (uri(SPIFFE), partner, "?"),
        (uri(SPIFFE), &[], "?"),
        (dns("front.shop.svc"), ours, "shop/front"),
        (dns("front.shop.svc"), partner, "?"),
        (facts("Named", 1), ours, "shop/named"),
        (facts("Named", 1), partner, "?"),
        (facts("x", 0xee), partner, "shop/pinned"),
        (facts("x", 0xee), ours, "?"),
        (facts("x", 0xdf), partner, "shop/meter"),
        (facts("x", 0xdf), ours, "?"),
        (uri("spiffe://partner.example/app"), partner, "partner/app"),
        (uri("spiffe://partner.example/app"), ours, "?"),
        (uri("https://partner.example/app"), partner, "partner/app"),
        (dns("app.partner.example"), partner, "partner/app"),
        (dns("app.partner.example"), ours, "?"),
        (dns("both.shop.svc"), ours, "shop/both"),
        (dns("both.shop.svc"), partner, "shop/both"),
        (dns("both.shop.svc"), both, "shop/both"),
    ]);
}

#[test]
fn a_claim_is_compared_whole() {
    let ours: &[&str] = &["ours"];
    check(&[
        (uri("spiffe://demo.local/ns/shop/client/billing/"), ours, "?"),
        (uri("spiffe://demo.local/ns/shop/client/Billing"), ours, "?"),
        (uri("SPIFFE://demo.local/ns/shop/client/billing"), ours, "?"),
        (uri("spiffe://demo.local/ns/shop/client/billing2"), ours, "?"),
        (uri("spiffe://demo.local/ns/shop/client"), ours, "?"),
        (uri("spiffe://demo.local/ns/shop/client/%62illing"), ours, "?"),
        (uri("front.shop.svc"), ours, "?"),
        (dns(SPIFFE), ours, "?"),
        (dns("front.shop.svc."), ours, "?"),
        (dns("x.front.shop.svc"), ours, "?"),
        (dns("*.shop.svc"), ours, "?"),
        (dns("shop.svc"), ours, "?"),
        (dns("named"), ours, "?"),
        (facts("named", 1), ours, "?"),
        (facts("Named ", 1), ours, "?"),
        (facts("Named\0", 1), ours, "?"),
        (facts("front.shop.svc", 1), ours, "?"),
        (CertificateFacts { common_name: None, ..facts("Named", 1) }, ours, "?"),
        (dns(""), ours, "?"),
        (names(&[], &[]), ours, "?"),
    ]);
}

#[test]
fn a_digest_is_compared_whole() {
    let snapshot = snapshot();
    let changed = |index: usize, digest: u8| {
        let mut facts = facts("x", digest);
        facts.sha256[index] ^= 1;
        facts
    };
    let rows = [
        (changed(0, 0xee), "?"),
        (changed(31, 0xee), "?"),
        // An LFDI is the first 20 bytes, so what follows them has no say.
        (changed(0, 0xdf), "?"),
        (changed(19, 0xdf), "?"),
        (changed(20, 0xdf), "shop/meter"),
        (changed(31, 0xdf), "shop/meter"),
    ];
    for (facts, expected) in rows {
        assert_eq!(who(&snapshot, &facts, &["partner"]), expected, "{}", facts.fingerprint());
    }
}

#[test]
fn numbers_and_keys_are_compared_as_numbers_and_keys() {
    let (ours, partner): (&[&str], &[&str]) = (&["ours"], &["partner"]);
    let numbered = |serial: &str| CertificateFacts { serial: serial.to_owned(), ..facts("x", 1) };
    check(&[
        (facts("x", 0xca), partner, "shop/short"),
        (facts("x", 0xca), ours, "?"),
        (facts("x", 0xcb), partner, "?"),
        (numbered("5a:0b"), partner, "shop/numbered"),
        (numbered("5a:0b"), ours, "?"),
        (numbered("5a0b"), partner, "?"),
        (numbered("5a"), partner, "?"),
        (numbered("5a:0b:00"), partner, "?"),
        (CertificateFacts { spki: vec![0xab], ..facts("x", 1) }, partner, "shop/keyed"),
        (CertificateFacts { spki: vec![0xab], ..facts("x", 1) }, ours, "?"),
        (CertificateFacts { spki: vec![0xab, 0], ..facts("x", 1) }, partner, "?"),
    ]);
}

#[test]
fn two_identities_are_none() {
    let (ours, both): (&[&str], &[&str]) = (&["ours"], &["ours", "partner"]);
    check(&[
        // One claim that is claimed twice.
        (dns("twin.svc"), ours, "!"),
        (dns("one.twin.svc"), ours, "twin/one"),
        (dns("two.twin.svc"), ours, "twin/two"),
        (names(&[], &["one.twin.svc", "twin.svc"]), ours, "!"),
        (names(&[], &["twin.svc", "one.twin.svc"]), ours, "!"),
        (dns("twin.svc"), &["partner"], "?"),
        // Two claims of two identities.
        (names(&[SPIFFE], &["front.shop.svc"]), ours, "!"),
        (names(&[], &["front.shop.svc", "both.shop.svc"]), ours, "!"),
        (names(&[SPIFFE], &["front.shop.svc", "both.shop.svc"]), ours, "!"),
        (CertificateFacts { uris: vec![SPIFFE.to_owned()], ..facts("Named", 1) }, ours, "!"),
        (CertificateFacts { uris: vec![SPIFFE.to_owned()], ..facts("x", 0xee) }, both, "!"),
        // The same certificate under one of the two bundles is one identity's.
        (CertificateFacts { uris: vec![SPIFFE.to_owned()], ..facts("x", 0xee) }, ours, "shop/billing"),
        (CertificateFacts { uris: vec![SPIFFE.to_owned()], ..facts("x", 0xee) }, &["partner"], "shop/pinned"),
    ]);
}

#[test]
fn two_names_of_one_identity_are_one() {
    let partner: &[&str] = &["partner"];
    check(&[
        (names(&["spiffe://partner.example/app"], &["app.partner.example"]), partner, "partner/app"),
        (names(&["spiffe://partner.example/app", "https://partner.example/app"], &[]), partner, "partner/app"),
        (names(&["https://other.example/", "https://partner.example/app"], &["x.example"]), partner, "partner/app"),
        (names(&[], &["app.partner.example", "app.partner.example"]), partner, "partner/app"),
    ]);
}

/// A revocation cannot be undone by one more identity that claims the revoked certificate.
#[test]
fn an_inactive_identity_is_never_hidden_by_another() {
    let ours: &[&str] = &["ours"];
    check(&[
        (dns("gone.shop.svc"), ours, "shop/gone"),
        (dns("paused.shop.svc"), ours, "shop/paused"),
        (names(&[], &["gone.shop.svc", "front.shop.svc"]), ours, "shop/gone"),
        (names(&[], &["front.shop.svc", "gone.shop.svc"]), ours, "shop/gone"),
        (names(&[SPIFFE], &["front.shop.svc", "paused.shop.svc"]), ours, "shop/paused"),
        (names(&[], &["twin.svc", "gone.shop.svc"]), ours, "shop/gone"),
        (names(&[], &["paused.shop.svc", "gone.shop.svc"]), ours, "shop/gone"),
        (dns("undo.svc"), ours, "twin/gone"),
        (dns("undo.svc"), &["partner"], "?"),
    ]);
}

/// What a bundle does not vouch for is told, and recognises nobody.
#[test]
fn a_bundle_vouches_for_what_it_says_only() {
    let recognise = |bundle: &str, field: &str, value: &str| json!({"bundle": bundle, field: value});
    let identities = json!([{"name": "a/b", "recognise": [
        recognise("partner", "uri", SPIFFE),
        recognise("partner", "uri", "SPIFFE://demo.local/x"),
        recognise("ours", "uri", "spiffe://partner.example/x"),
        recognise("ours", "uri", "spiffe://demo.local.evil/x"),
        recognise("ours", "uri", "spiffe://Demo.local/x"),
        recognise("ours", "uri", "spiffe://demo.local:8443/x"),
        recognise("ours", "uri", "spiffe://x@demo.local/x"),
        recognise("ours", "uri", "spiffe:///demo.local"),
        recognise("partner", "commonName", "billing"),
        recognise("absent", "dnsName", "a.b"),
        recognise("ours", "uri", "spiffe://demo.local"),
        recognise("partner", "uri", "urn:spiffe://demo.local/x"),
    ]}]);
    let (snapshot, problems) = Documents { identities, ..Documents::default() }.link();
    let spiffe = |bundle: &str, domain: &str| {
        format!(
            "bundle `{bundle}` does not vouch for SPIFFE trust domain `{domain}`; \
             add it to trust.bundles.{bundle}.vouchesFor.spiffe if it is theirs"
        )
    };
    let common_name = "bundle `partner` does not vouch for common names; \
                       set trust.bundles.partner.vouchesFor.commonName or use another claim";
    assert_eq!(
        told(&problems),
        expected(&[
            ("identities[0].recognise[0]", &spiffe("partner", "demo.local")),
            ("identities[0].recognise[1]", &spiffe("partner", "demo.local")),
            ("identities[0].recognise[2]", &spiffe("ours", "partner.example")),
            ("identities[0].recognise[3]", &spiffe("ours", "demo.local.evil")),
            ("identities[0].recognise[4]", &spiffe("ours", "Demo.local")),
            ("identities[0].recognise[5]", &spiffe("ours", "demo.local:8443")),
            ("identities[0].recognise[6]", &spiffe("ours", "x@demo.local")),
            ("identities[0].recognise[7]", &spiffe("ours", "")),
            ("identities[0].recognise[8]", common_name),
            ("identities[0].recognise[9].bundle", "there is no bundle `absent`; name one of trust.bundles"),
        ])
    );
    let both: &[&str] = &["ours", "partner"];
    let rows = [
        (uri(SPIFFE), "?"),
        (uri("SPIFFE://demo.local/x"), "?"),
        (uri("spiffe://partner.example/x"), "?"),
        (uri("spiffe://demo.local.evil/x"), "?"),
        (uri("spiffe://Demo.local/x"), "?"),
        (uri("spiffe:///demo.local"), "?"),
        (facts("billing", 1), "?"),
        (dns("a.b"), "?"),
        (uri("spiffe://demo.local"), "a/b"),
        (uri("urn:spiffe://demo.local/x"), "a/b"),
    ];
    for (facts, expected) in rows {
        assert_eq!(who(&snapshot, &facts, both), expected, "{:?} {}", facts.uris, facts.subject);
    }
}

#[test]
fn a_claim_claimed_twice_is_told() {
    let (_, problems) = documents().link();
    let advice = "another identity claims the same under this bundle, so neither is recognised by it; remove one";
    let rows = [("identities[13].recognise[0]", advice), ("identities[15].recognise[0]", advice)];
    assert_eq!(told(&problems), expected(&rows));
}

#[test]
fn names_and_states_are_by_identity() {
    let snapshot = snapshot();
    let nobody = snapshot.directory.name(16);
    assert_eq!(nobody, None);
    assert_eq!(snapshot.directory.state(16), None);
    assert_eq!(
        Caller::ANONYMOUS,
        Caller { bundles: Vec::new(), who: Who::Unknown, revoked: None, patterns: Vec::new() }
    );
    let rows = [("shop/gone", "Some(Revoked)"), ("shop/paused", "Some(Suspended)"), ("shop/front", "None")];
    for (name, state) in rows {
        let index = (0..16).find(|index| snapshot.directory.name(*index).is_some_and(|known| &**known == name));
        assert_eq!(format!("{:?}", snapshot.directory.state(index.expect("a known name"))), state, "{name}");
    }
}
