//! Certificates by the days that they are still valid for, in a closed set of buckets: an alert needs no more, and each
//! certificate its own series would be thousands.

use std::collections::BTreeMap;
use std::sync::Arc;

use postern_crds::clientidentity::{ClientIdentity, State};
use sidecar_config::UtcTime;

use crate::index::{Held, HeldKind, Index, ObjectKind};
use crate::pki::blocks;
use crate::workload::leaf;

const DAY: i64 = 86_400;
/// Whole days that are left, at least, from the many to the few.
const BUCKETS: [(i64, &str); 6] =
    [(90 * DAY, "90+"), (30 * DAY, "30-90"), (7 * DAY, "7-30"), (DAY, "1-7"), (0, "0-1"), (i64::MIN, "expired")];

/// Whose they are.
const WORKLOAD: &str = "workload";
const CLIENT: &str = "client";

/// Counts them.
pub(super) fn count(index: &Index, now: i64) -> BTreeMap<(&'static str, &'static str), usize> {
    let (clients, workloads) = {
        let cluster = index.cluster();
        let clients = cluster.identities().filter_map(|one| one.status.as_ref()?.certificate.as_ref());
        let clients = clients.filter_map(|told| told.not_after.as_str().parse::<UtcTime>().ok());
        let clients: Vec<_> = clients.map(UtcTime::seconds).collect();
        let secrets = cluster.names(ObjectKind::Held(HeldKind::Secret), None);
        let held = secrets.iter().filter_map(|name| cluster.held(HeldKind::Secret, name));
        (clients, held.filter(|held| held.workload().is_some()).cloned().collect::<Vec<Arc<Held>>>())
    };
    let workloads = workloads.iter().filter_map(|held| {
        let chain = held.entries.as_deref()?.bytes(leaf::CHAIN)?;
        blocks::certificates(chain).ok()?.first().map(|leaf| leaf.facts.not_after)
    });
    let mut counts: BTreeMap<_, _> =
        [WORKLOAD, CLIENT].into_iter().flat_map(|of| BUCKETS.map(|(_, days)| ((of, days), 0))).collect();
    let all = workloads.map(|at| (WORKLOAD, at)).chain(clients.into_iter().map(|at| (CLIENT, at)));
    for (of, not_after) in all {
        *counts.entry((of, bucket(not_after - now))).or_default() += 1;
    }
    counts
}

/// Counts the clients that a certificate was promised to and who have none, or one that should have been made anew long
/// before: half of the time between its renewal and its end is over.
pub(super) fn overdue(index: &Index, now: i64) -> usize {
    index.cluster().identities().filter(|identity| is_overdue(identity, now)).count()
}

fn is_overdue(identity: &ClientIdentity, now: i64) -> bool {
    let asks = identity.spec.issue.is_some() || identity.spec.csr.is_some();
    if !asks || identity.spec.state == State::Revoked || identity.metadata.deletion_timestamp.is_some() {
        return false;
    }
    let Some(told) = identity.status.as_ref().and_then(|status| status.certificate.as_ref()) else { return true };
    let seconds = |time: &str| time.parse::<UtcTime>().ok().map(UtcTime::seconds);
    let (Some(from), Some(until)) = (seconds(told.not_before.as_str()), seconds(told.not_after.as_str())) else {
        return true;
    };
    let renewal = told.renewal_time.as_ref().and_then(|time| seconds(time.as_str()));
    // Nothing is said of a renewal where none can be made now.
    let renewal = renewal.unwrap_or(from + (until - from) / 3 * 2);
    now >= renewal + (until - renewal) / 2
}

/// The bucket of so many seconds.
fn bucket(left: i64) -> &'static str {
    BUCKETS.iter().find(|(least, _)| left >= *least).map_or("expired", |(_, days)| days)
}

#[cfg(test)]
mod tests {
    use postern_crds::clientidentity::ClientIdentity;
    use serde_json::{Value, json};
    use sidecar_config::UtcTime;

    use super::{DAY, bucket, is_overdue};

    #[test]
    fn days_are_whole_and_none_is_in_two_buckets() {
        for (left, expected) in [
            (-1, "expired"),
            (0, "0-1"),
            (DAY - 1, "0-1"),
            (DAY, "1-7"),
            (7 * DAY, "7-30"),
            (30 * DAY - 1, "7-30"),
            (30 * DAY, "30-90"),
            (90 * DAY, "90+"),
        ] {
            assert_eq!(bucket(left), expected, "{left}");
        }
    }

    /// A certificate of January, with or without a time of its renewal.
    fn january(renewal: Option<&str>) -> Value {
        json!({
            "serial": "01", "notBefore": "2026-01-01T00:00:00Z", "notAfter": "2026-01-31T00:00:00Z", "renewalTime": renewal,
            "sha256": "", "spiffeId": "", "lfdi": "", "sfdi": "",
        })
    }

    #[test]
    fn who_waits_for_a_certificate_in_vain_is_counted() {
        let issue = json!({"issue": {"secretName": "billing-client"}});
        let revoked = json!({"issue": {"secretName": "billing-client"}, "state": "Revoked"});
        let recognised = json!({"serviceAccount": {"name": "orders"}});
        let (kept, soon) = (january(Some("2026-01-21T00:00:00Z")), january(Some("2026-01-29T00:00:00Z")));
        for (spec, certificate, at, expected) in [
            (&issue, &kept, "2026-01-20T00:00:00Z", false),
            (&issue, &kept, "2026-01-25T23:00:00Z", false),
            (&issue, &kept, "2026-01-26T00:00:00Z", true),
            (&issue, &soon, "2026-01-29T23:00:00Z", false),
            (&issue, &soon, "2026-01-30T00:00:00Z", true),
            (&issue, &january(None), "2026-01-25T23:00:00Z", false),
            (&issue, &january(None), "2026-01-26T00:00:00Z", true),
            (&issue, &Value::Null, "2026-01-02T00:00:00Z", true),
            (&revoked, &kept, "2026-01-30T00:00:00Z", false),
            (&recognised, &Value::Null, "2026-01-30T00:00:00Z", false),
        ] {
            let object = json!({
                "apiVersion": "postern.dev/v1alpha1", "kind": "ClientIdentity", "metadata": {"name": "billing"},
                "spec": spec, "status": {"certificate": certificate},
            });
            let identity: ClientIdentity = serde_json::from_value(object).expect("an identity");
            let now = at.parse::<UtcTime>().expect("a time").seconds();
            assert_eq!(is_overdue(&identity, now), expected, "{spec} {certificate} {at}");
        }
    }
}
