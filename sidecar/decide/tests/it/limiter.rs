//! The table of limits: frozen, and behind every reason that is a limit.

use std::collections::BTreeSet;

use sidecar_config::backend::PoolPolicy;
use sidecar_config::policy::Limits;
use sidecar_decide::{Limiter, Reason};

/// Names are in users' rows, queries and dashboards: a change here breaks them.
const FROZEN: [(&str, Option<Reason>); 12] = [
    ("limits.maxConnections", Some(Reason::LimitConnections)),
    ("limits.maxPendingRequests", Some(Reason::LimitPending)),
    ("limits.maxStreams", Some(Reason::LimitStreams)),
    ("limits.maxTunnels", Some(Reason::LimitTunnels)),
    ("limits.maxRequestBodySize", Some(Reason::LimitBodySize)),
    ("pool.maxConnections", None),
    ("pool.maxPending", None),
    ("pool.pendingTimeout", None),
    ("openFiles", None),
    ("handshakes", Some(Reason::LimitHandshakes)),
    ("identitySize", Some(Reason::LimitIdentitySize)),
    ("idleTime", Some(Reason::LimitIdle)),
];

#[test]
fn every_limit_has_its_reason() {
    let reason_of = |limiter| Reason::ALL.into_iter().find(|reason| reason.limiter() == Some(limiter));
    assert_eq!(Limiter::ALL.map(|limiter| (limiter.name(), reason_of(limiter))), FROZEN);
    let with_limit: BTreeSet<_> = FROZEN.iter().filter_map(|(_, reason)| *reason).collect();
    for reason in Reason::ALL {
        let is_limit = reason.code().starts_with("limit_");
        assert_eq!((reason.limiter().is_some(), with_limit.contains(&reason)), (is_limit, is_limit), "{reason}");
    }
}

/// Who reads a name finds the field.
#[test]
fn names_with_a_dot_are_fields() {
    for (part, field) in Limiter::ALL.iter().filter_map(|limiter| limiter.name().split_once('.')) {
        // No field is a list, and only a field that is there says so.
        let text = format!("{{\"{field}\": []}}");
        let said = match part {
            "limits" => serde_json::from_str::<Limits>(&text).unwrap_err(),
            _ => serde_json::from_str::<PoolPolicy>(&text).unwrap_err(),
        };
        assert!(!said.to_string().contains("unknown field"), "{part}.{field}: {said}");
    }
}
