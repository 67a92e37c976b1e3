//! Certificates by the days that they are still valid for, in a closed set of buckets: an alert needs no more, and each
//! certificate its own series would be thousands.

use std::collections::BTreeMap;
use std::sync::Arc;

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

/// The bucket of so many seconds.
fn bucket(left: i64) -> &'static str {
    BUCKETS.iter().find(|(least, _)| left >= *least).map_or("expired", |(_, days)| days)
}

#[cfg(test)]
mod tests {
    use super::{DAY, bucket};

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
}
