//! The short forms of `make reloads` and `make soak`.

use std::path::Path;
use std::time::Duration;

use postern_tests::soak::{self, faults};

#[test]
fn thirty_changes_under_load_break_nothing() {
    let report = soak::run(30).unwrap();
    assert_eq!(report.reloads, 30);
}

/// Rows and counted drops are what the clients count, or it fails.
#[test]
fn while_everything_around_it_fails_each_decision_is_accounted_for() {
    let binary = Path::new(env!("CARGO_BIN_EXE_postern-soak"));
    let report = faults::run(binary, Duration::from_secs(10), 11).unwrap();
    assert!(report.decisions() > 0);
}
