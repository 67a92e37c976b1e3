//! May this caller use this rule: every kind of caller by every kind of `allow`, in both modes.

use serde_json::{Value, json};
use sidecar_decide::Reason::{
    PolicyAmbiguous, PolicyIdentityRevoked, PolicyIdentitySuspended, PolicyNoCertificate, PolicyNoIdentity,
    PolicyNotAllowed,
};
use sidecar_decide::{Caller, CertificateFacts, Decision, Reason, Snapshot, Verdict};

use crate::fixture::{Documents, facts, listener, trust_document};

/// A caller without a certificate.
const ANONYMOUS: (&str, &[&str]) = ("", &[]);
/// One whose certificate is ours and nobody's.
const UNKNOWN: (&str, &[&str]) = ("nobody.svc", &["ours"]);
/// One whose certificate is a partner's and nobody's.
const PARTNER: (&str, &[&str]) = ("nobody.svc", &["partner"]);
/// One whose certificate is nobody's and ends in both bundles.
const CROSS_SIGNED: (&str, &[&str]) = ("nobody.svc", &["ours", "partner"]);
/// The identity that rules grant.
const GRANTED: (&str, &[&str]) = ("granted.svc", &["ours"]);
/// The granted identity's name under another bundle.
const GRANTED_BY_PARTNER: (&str, &[&str]) = ("granted.svc", &["partner"]);
/// An identity that no rule grants.
const OTHER: (&str, &[&str]) = ("other.svc", &["ours"]);
/// An identity that no rule grants, of a partner.
const OTHER_PARTNER: (&str, &[&str]) = ("app.partner", &["partner"]);
/// A certificate that is two identities', one of them granted.
const AMBIGUOUS: (&str, &[&str]) = ("granted.svc other.svc", &["ours"]);
/// A partner's certificate that is two identities'.
const AMBIGUOUS_PARTNER: (&str, &[&str]) = ("app.partner two.partner", &["partner"]);
/// A suspended identity that rules grant.
const SUSPENDED: (&str, &[&str]) = ("suspended.svc", &["ours"]);
/// A revoked identity that rules grant.
const REVOKED: (&str, &[&str]) = ("revoked.svc", &["ours"]);
/// A revoked identity that no rule grants, of a partner.
const REVOKED_PARTNER: (&str, &[&str]) = ("revoked.partner", &["partner"]);
/// A certificate that is a revoked identity's and an active one's.
const REVOKED_AND_GRANTED: (&str, &[&str]) = ("granted.svc revoked.svc", &["ours"]);

const ALLOWED: Decision = Decision { verdict: Verdict::Allowed, reason: None };

const fn refused(reason: Reason) -> Decision {
    Decision { verdict: Verdict::Refused, reason: Some(reason) }
}

const fn would_refuse(reason: Reason) -> Decision {
    Decision { verdict: Verdict::WouldRefuse, reason: Some(reason) }
}

fn snapshot() -> Snapshot {
    let known = |name: &str, bundle: &str| json!({"name": name, "recognise": [{"bundle": bundle, "dnsName": name}]});
    let identities = json!([
        known("revoked.svc", "ours"),
        known("granted.svc", "ours"),
        known("other.svc", "ours"),
        known("suspended.svc", "ours"),
        known("app.partner", "partner"),
        known("two.partner", "partner"),
        known("revoked.partner", "partner"),
    ]);
    let states = json!([
        {"name": "suspended.svc", "state": "Suspended"},
        {"name": "revoked.svc", "state": "Revoked"},
        {"name": "revoked.partner", "state": "Revoked"},
    ]);
    let granted = ["revoked.svc", "suspended.svc", "granted.svc"].map(|name| json!({"identity": name}));
    let allows = [
        ("identity", json!(granted)),
        ("verified", json!([{"verified": "partner"}])),
        ("anyone", json!([{"anyone": {}}])),
        ("missing", json!([{"identity": "not/known"}])),
        ("missing-bundle", json!([{"verified": "absent"}])),
        ("several", json!([{"identity": "not/known"}, {"verified": "partner"}, {"identity": "granted.svc"}])),
    ];
    let rule = |allow: &(&str, Value), mode: &str| {
        let backends = json!([{"address": "127.0.0.1:1"}]);
        json!({"name": format!("{}-{mode}", allow.0), "allow": allow.1, "mode": mode, "backends": backends})
    };
    let rules: Vec<_> = allows.iter().flat_map(|allow| ["Enforce", "Audit"].map(|mode| rule(allow, mode))).collect();
    let routes = json!([{"name": "route", "listener": "main", "rules": rules}]);
    let policy = json!({"listeners": [listener("main", 8443)], "routes": routes});
    Documents { trust: trust_document(&states), identities, policy, ..Documents::default() }.link().0
}

/// The caller of these DNS names (apart by blanks) whose chain ends in these bundles.
fn caller(snapshot: &Snapshot, (names, bundles): (&str, &[&str])) -> Caller {
    if bundles.is_empty() {
        return Caller::ANONYMOUS;
    }
    let dns_names = names.split(' ').map(str::to_owned).collect();
    let bundles = bundles.iter().map(|name| snapshot.bundle(name).expect("a bundle")).collect();
    snapshot.directory.resolve(&CertificateFacts { dns_names, ..facts("client", 1) }, bundles)
}

fn decide(snapshot: &Snapshot, who: (&str, &[&str]), allow: &str, mode: &str) -> Decision {
    let name = format!("{allow}-{mode}");
    let rule = snapshot.rules.iter().find(|rule| *rule.name == *name).expect("a rule of the document");
    snapshot.decide(rule, &caller(snapshot, who))
}

type Row = ((&'static str, &'static [&'static str]), &'static str, Decision, Decision);

/// Caller, `allow`, decision where the rule enforces, decision where it audits.
const ROWS: &[Row] = &[
    (ANONYMOUS, "identity", refused(PolicyNoCertificate), would_refuse(PolicyNoCertificate)),
    (ANONYMOUS, "verified", refused(PolicyNoCertificate), would_refuse(PolicyNoCertificate)),
    (ANONYMOUS, "anyone", ALLOWED, ALLOWED),
    (ANONYMOUS, "missing", refused(PolicyNoCertificate), would_refuse(PolicyNoCertificate)),
    (ANONYMOUS, "missing-bundle", refused(PolicyNoCertificate), would_refuse(PolicyNoCertificate)),
    (ANONYMOUS, "several", refused(PolicyNoCertificate), would_refuse(PolicyNoCertificate)),
    (UNKNOWN, "identity", refused(PolicyNoIdentity), would_refuse(PolicyNoIdentity)),
    (UNKNOWN, "verified", refused(PolicyNoIdentity), would_refuse(PolicyNoIdentity)),
    (UNKNOWN, "anyone", ALLOWED, ALLOWED),
    (UNKNOWN, "missing", refused(PolicyNoIdentity), would_refuse(PolicyNoIdentity)),
    (UNKNOWN, "missing-bundle", refused(PolicyNoIdentity), would_refuse(PolicyNoIdentity)),
    (UNKNOWN, "several", refused(PolicyNoIdentity), would_refuse(PolicyNoIdentity)),
    (PARTNER, "identity", refused(PolicyNoIdentity), would_refuse(PolicyNoIdentity)),
    (PARTNER, "verified", ALLOWED, ALLOWED),
    (PARTNER, "anyone", ALLOWED, ALLOWED),
    (PARTNER, "missing", refused(PolicyNoIdentity), would_refuse(PolicyNoIdentity)),
    (PARTNER, "missing-bundle", refused(PolicyNoIdentity), would_refuse(PolicyNoIdentity)),
    (PARTNER, "several", ALLOWED, ALLOWED),
    (CROSS_SIGNED, "identity", refused(PolicyNoIdentity), would_refuse(PolicyNoIdentity)),
    (CROSS_SIGNED, "verified", ALLOWED, ALLOWED),
    (CROSS_SIGNED, "anyone", ALLOWED, ALLOWED),
    (CROSS_SIGNED, "missing", refused(PolicyNoIdentity), would_refuse(PolicyNoIdentity)),
    (CROSS_SIGNED, "missing-bundle", refused(PolicyNoIdentity), would_refuse(PolicyNoIdentity)),
    (CROSS_SIGNED, "several", ALLOWED, ALLOWED),
    (GRANTED, "identity", ALLOWED, ALLOWED),
    (GRANTED, "verified", refused(PolicyNotAllowed), would_refuse(PolicyNotAllowed)),
    (GRANTED, "anyone", ALLOWED, ALLOWED),
    (GRANTED, "missing", refused(PolicyNotAllowed), would_refuse(PolicyNotAllowed)),
    (GRANTED, "missing-bundle", refused(PolicyNotAllowed), would_refuse(PolicyNotAllowed)),
    (GRANTED, "several", ALLOWED, ALLOWED),
    (GRANTED_BY_PARTNER, "identity", refused(PolicyNoIdentity), would_refuse(PolicyNoIdentity)),
    (GRANTED_BY_PARTNER, "verified", ALLOWED, ALLOWED),
    (GRANTED_BY_PARTNER, "anyone", ALLOWED, ALLOWED),
    (GRANTED_BY_PARTNER, "missing", refused(PolicyNoIdentity), would_refuse(PolicyNoIdentity)),
    (GRANTED_BY_PARTNER, "missing-bundle", refused(PolicyNoIdentity), would_refuse(PolicyNoIdentity)),
    (GRANTED_BY_PARTNER, "several", ALLOWED, ALLOWED),
    (OTHER, "identity", refused(PolicyNotAllowed), would_refuse(PolicyNotAllowed)),
    (OTHER, "verified", refused(PolicyNotAllowed), would_refuse(PolicyNotAllowed)),
    (OTHER, "anyone", ALLOWED, ALLOWED),
    (OTHER, "missing", refused(PolicyNotAllowed), would_refuse(PolicyNotAllowed)),
    (OTHER, "missing-bundle", refused(PolicyNotAllowed), would_refuse(PolicyNotAllowed)),
    (OTHER, "several", refused(PolicyNotAllowed), would_refuse(PolicyNotAllowed)),
    (OTHER_PARTNER, "identity", refused(PolicyNotAllowed), would_refuse(PolicyNotAllowed)),
    (OTHER_PARTNER, "verified", ALLOWED, ALLOWED),
    (OTHER_PARTNER, "anyone", ALLOWED, ALLOWED),
    (OTHER_PARTNER, "missing", refused(PolicyNotAllowed), would_refuse(PolicyNotAllowed)),
    (OTHER_PARTNER, "missing-bundle", refused(PolicyNotAllowed), would_refuse(PolicyNotAllowed)),
    (OTHER_PARTNER, "several", ALLOWED, ALLOWED),
    (AMBIGUOUS, "identity", refused(PolicyAmbiguous), would_refuse(PolicyAmbiguous)),
    (AMBIGUOUS, "verified", refused(PolicyAmbiguous), would_refuse(PolicyAmbiguous)),
    (AMBIGUOUS, "anyone", ALLOWED, ALLOWED),
    (AMBIGUOUS, "missing", refused(PolicyAmbiguous), would_refuse(PolicyAmbiguous)),
    (AMBIGUOUS, "missing-bundle", refused(PolicyAmbiguous), would_refuse(PolicyAmbiguous)),
    (AMBIGUOUS, "several", refused(PolicyAmbiguous), would_refuse(PolicyAmbiguous)),
    // It has no identity, and its chain still ends in the bundle.
    (AMBIGUOUS_PARTNER, "identity", refused(PolicyAmbiguous), would_refuse(PolicyAmbiguous)),
    (AMBIGUOUS_PARTNER, "verified", ALLOWED, ALLOWED),
    (AMBIGUOUS_PARTNER, "anyone", ALLOWED, ALLOWED),
    (AMBIGUOUS_PARTNER, "missing", refused(PolicyAmbiguous), would_refuse(PolicyAmbiguous)),
    (AMBIGUOUS_PARTNER, "missing-bundle", refused(PolicyAmbiguous), would_refuse(PolicyAmbiguous)),
    (AMBIGUOUS_PARTNER, "several", ALLOWED, ALLOWED),
    // A revocation is an order, not a rule under trial: `anyone`, `verified` and Audit do not soften it.
    (SUSPENDED, "identity", refused(PolicyIdentitySuspended), refused(PolicyIdentitySuspended)),
    (SUSPENDED, "verified", refused(PolicyIdentitySuspended), refused(PolicyIdentitySuspended)),
    (SUSPENDED, "anyone", refused(PolicyIdentitySuspended), refused(PolicyIdentitySuspended)),
    (SUSPENDED, "missing", refused(PolicyIdentitySuspended), refused(PolicyIdentitySuspended)),
    (SUSPENDED, "missing-bundle", refused(PolicyIdentitySuspended), refused(PolicyIdentitySuspended)),
    (SUSPENDED, "several", refused(PolicyIdentitySuspended), refused(PolicyIdentitySuspended)),
    (REVOKED, "identity", refused(PolicyIdentityRevoked), refused(PolicyIdentityRevoked)),
    (REVOKED, "verified", refused(PolicyIdentityRevoked), refused(PolicyIdentityRevoked)),
    (REVOKED, "anyone", refused(PolicyIdentityRevoked), refused(PolicyIdentityRevoked)),
    (REVOKED, "missing", refused(PolicyIdentityRevoked), refused(PolicyIdentityRevoked)),
    (REVOKED, "missing-bundle", refused(PolicyIdentityRevoked), refused(PolicyIdentityRevoked)),
    (REVOKED, "several", refused(PolicyIdentityRevoked), refused(PolicyIdentityRevoked)),
    (REVOKED_PARTNER, "identity", refused(PolicyIdentityRevoked), refused(PolicyIdentityRevoked)),
    (REVOKED_PARTNER, "verified", refused(PolicyIdentityRevoked), refused(PolicyIdentityRevoked)),
    (REVOKED_PARTNER, "anyone", refused(PolicyIdentityRevoked), refused(PolicyIdentityRevoked)),
    (REVOKED_PARTNER, "missing", refused(PolicyIdentityRevoked), refused(PolicyIdentityRevoked)),
    (REVOKED_PARTNER, "missing-bundle", refused(PolicyIdentityRevoked), refused(PolicyIdentityRevoked)),
    (REVOKED_PARTNER, "several", refused(PolicyIdentityRevoked), refused(PolicyIdentityRevoked)),
    (REVOKED_AND_GRANTED, "identity", refused(PolicyIdentityRevoked), refused(PolicyIdentityRevoked)),
    (REVOKED_AND_GRANTED, "verified", refused(PolicyIdentityRevoked), refused(PolicyIdentityRevoked)),
    (REVOKED_AND_GRANTED, "anyone", refused(PolicyIdentityRevoked), refused(PolicyIdentityRevoked)),
    (REVOKED_AND_GRANTED, "missing", refused(PolicyIdentityRevoked), refused(PolicyIdentityRevoked)),
    (REVOKED_AND_GRANTED, "missing-bundle", refused(PolicyIdentityRevoked), refused(PolicyIdentityRevoked)),
    (REVOKED_AND_GRANTED, "several", refused(PolicyIdentityRevoked), refused(PolicyIdentityRevoked)),
];

#[test]
fn every_caller_by_every_allow_in_both_modes() {
    let snapshot = snapshot();
    for (who, allow, enforced, audited) in ROWS {
        assert_eq!(decide(&snapshot, *who, allow, "Enforce"), *enforced, "{who:?} by {allow}, enforced");
        assert_eq!(decide(&snapshot, *who, allow, "Audit"), *audited, "{who:?} by {allow}, audited");
    }
}

/// The product is whole: fourteen callers by six ways to allow, none of them twice.
#[test]
fn no_combination_is_left_out() {
    let mut combinations: Vec<_> = ROWS.iter().map(|(who, allow, ..)| (who, allow)).collect();
    combinations.sort_unstable();
    combinations.dedup();
    assert_eq!((ROWS.len(), combinations.len()), (14 * 6, 14 * 6));
}

/// The words are in users' rows and queries.
#[test]
fn verdicts_have_their_words() {
    assert_eq!(Verdict::ALL, [Verdict::Allowed, Verdict::Refused, Verdict::WouldRefuse]);
    assert_eq!(Verdict::ALL.map(Verdict::name), ["allowed", "refused", "would_refuse"]);
}
