//! The small form of `make bench-operator`: bounds that find what is stuck or asks without end, whoever shares the machine.

use std::time::Duration;

use postern_tests::apiserver::ApiServer;
use postern_tests::process::built;
use postern_tests::scale::{Sizes, run, series};

const SIZES: Sizes = Sizes { namespaces: 2, workloads: 10, pods: 30, identities: 40, changes: 5, serves_all: false };

#[test]
fn many_pods_get_what_concerns_them_and_a_change_asks_for_little() {
    let server = ApiServer::shared().unwrap();
    let figures = run(server, &built("postern-operator").unwrap(), &SIZES).unwrap();
    assert_eq!(figures.changes.len(), 5);
    assert!(figures.change(100) < Duration::from_secs(15), "{:?}", figures.changes);
    // The policy, three touches, the status before and after, the good policy.
    assert!(figures.requests <= 16.0, "{} requests a change: {}", figures.requests, figures.page);
    let failed = r#"postern_operator_turns_total{kind="workload",outcome="failed"}"#;
    assert_eq!(series(&figures.page, failed), 0.0, "{}", figures.page);
    assert_eq!(series(&figures.page, "postern_operator_programmed_seconds_count"), 5.0);
}
