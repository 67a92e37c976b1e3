//! What is told of which change.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use k8s_openapi::jiff::Timestamp;
use postern_crds::condition::{Verdict, conditions};
use postern_crds::{ClientIdentity, ClientIdentityStatus, Condition, ConditionStatus, ConditionType, Reason};
use serde_json::json;

use super::{of_identity, of_route};

const YES: ConditionStatus = ConditionStatus::True;
const NO: ConditionStatus = ConditionStatus::False;
const UNKNOWN: ConditionStatus = ConditionStatus::Unknown;

fn is(kind: ConditionType, status: ConditionStatus, reason: Reason) -> Vec<Condition> {
    let verdict = Verdict { kind, status, reason, message: String::new() };
    conditions(&[verdict], 1, &[], &Time(Timestamp::UNIX_EPOCH))
}

/// Kind and reason of what is told, with a `!` where it is a warning.
fn words(told: &[super::Told]) -> Vec<String> {
    told.iter().map(|told| format!("{}{}", if told.is_warning { "!" } else { "" }, told.reason)).collect()
}

#[test]
fn of_a_route_what_was_done_and_what_somebody_has_to_mend() {
    use ConditionType::{Accepted, Enclosed, Programmed, Ready, ResolvedRefs};
    let nothing: &[&str] = &[];
    let new = Vec::new;
    for (before, after, expected) in [
        (new(), is(Accepted, YES, Reason::Accepted), nothing),
        (new(), is(Accepted, NO, Reason::Invalid), &["!Invalid"]),
        (is(Accepted, NO, Reason::Invalid), is(Accepted, NO, Reason::Invalid), nothing),
        (is(Accepted, NO, Reason::Invalid), is(Accepted, NO, Reason::Conflicted), &["!Conflicted"]),
        (is(Accepted, NO, Reason::Invalid), is(Accepted, YES, Reason::Accepted), &["Accepted"]),
        (new(), is(Programmed, NO, Reason::NoPods), nothing),
        (is(Programmed, NO, Reason::NoPods), is(Programmed, NO, Reason::Pending), nothing),
        (is(Programmed, NO, Reason::Pending), is(Programmed, YES, Reason::Programmed), &["Programmed"]),
        (is(Programmed, YES, Reason::Programmed), is(Programmed, NO, Reason::Rejected), &["!Rejected"]),
        (is(Programmed, YES, Reason::Programmed), is(Programmed, UNKNOWN, Reason::Unreachable), &["!Unreachable"]),
        // Accepted says it.
        (is(Programmed, YES, Reason::Programmed), is(Programmed, NO, Reason::Invalid), nothing),
        (is(ResolvedRefs, YES, Reason::ResolvedRefs), is(ResolvedRefs, NO, Reason::RefNotFound), &["!RefNotFound"]),
        (new(), is(Enclosed, UNKNOWN, Reason::NotChecked), nothing),
        (new(), is(Ready, YES, Reason::Ready), nothing),
    ] {
        assert_eq!(words(&of_route(&before, &after)), expected, "{before:?} {after:?}");
    }
}

fn identity(state: &str) -> ClientIdentity {
    let object = json!({
        "apiVersion": "postern.dev/v1alpha1",
        "kind": "ClientIdentity",
        "metadata": {"name": "billing", "namespace": "shop"},
        "spec": {"issue": {"secretName": "billing-client"}, "state": state},
    });
    serde_json::from_value(object).expect("an identity")
}

fn status(conditions: Vec<Condition>, serial: Option<&str>) -> ClientIdentityStatus {
    let certificate = serial.map(|serial| {
        json!({
            "serial": serial, "notBefore": "2026-01-01T00:00:00Z", "notAfter": "2026-04-01T00:00:00Z",
            "sha256": "", "spiffeId": "", "lfdi": "", "sfdi": "",
        })
    });
    let certificate = certificate.map(|told| serde_json::from_value(told).expect("a certificate"));
    ClientIdentityStatus { conditions, certificate, ..ClientIdentityStatus::default() }
}

#[test]
fn of_a_client_its_certificates_and_what_is_refused() {
    use ConditionType::{Enforced, Issued, Ready};
    let nothing: &[&str] = &[];
    let enforced = |status, reason| is(Enforced, status, reason);
    for (state, before, after, expected) in [
        ("Active", None, status(is(Issued, YES, Reason::Issued), Some("01")), &["Issued"] as &[&str]),
        (
            "Active",
            Some(status(is(Issued, YES, Reason::Issued), Some("01"))),
            status(is(Issued, YES, Reason::Issued), Some("01")),
            nothing,
        ),
        (
            "Active",
            Some(status(is(Issued, YES, Reason::Issued), Some("01"))),
            status(is(Issued, YES, Reason::Issued), Some("02")),
            &["Renewed"],
        ),
        (
            "Active",
            Some(status(is(Issued, YES, Reason::Issued), Some("01"))),
            status(is(Issued, NO, Reason::Expired), None),
            &["!Expired"],
        ),
        ("Active", None, status(enforced(YES, Reason::Enforced), None), nothing),
        (
            "Suspended",
            Some(status(enforced(NO, Reason::Propagating), None)),
            status(enforced(YES, Reason::Enforced), None),
            &["Enforced"],
        ),
        (
            "Revoked",
            Some(status(enforced(NO, Reason::Propagating), None)),
            status(enforced(UNKNOWN, Reason::Unreachable), None),
            &["!Unreachable"],
        ),
        (
            "Revoked",
            Some(status(is(Ready, YES, Reason::Ready), None)),
            status(is(Ready, NO, Reason::Revoked), None),
            &["Revoked"],
        ),
        (
            "Active",
            Some(status(is(Ready, NO, Reason::Suspended), None)),
            status(is(Ready, YES, Reason::Ready), None),
            &["Active"],
        ),
        (
            "Active",
            Some(status(is(Ready, NO, Reason::Propagating), None)),
            status(is(Ready, YES, Reason::Ready), None),
            nothing,
        ),
    ] {
        assert_eq!(
            words(&of_identity(&identity(state), before.as_ref(), &after)),
            expected,
            "{state} {before:?} {after:?}"
        );
    }
}
