//! The short form of `make soak`: every kind of change under every kind of traffic.

use postern_tests::soak;

#[test]
fn thirty_changes_under_load_break_nothing() {
    let report = soak::run(30).unwrap();
    assert_eq!(report.reloads, 30);
}
