//! Who may lead, by values alone.

use std::time::Duration;

use k8s_openapi::api::coordination::v1::{Lease, LeaseSpec};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::MicroTime;
use k8s_openapi::jiff::Timestamp;
use tokio::time::{Instant, advance};

use super::{Leadership, Move, decide, seconds};

fn lease(holder: &str, renewed: i64) -> Lease {
    let spec = LeaseSpec {
        holder_identity: Some(holder.to_owned()),
        lease_duration_seconds: Some(15),
        lease_transitions: Some(3),
        renew_time: Timestamp::from_second(renewed).ok().map(MicroTime),
        ..LeaseSpec::default()
    };
    Lease { spec: Some(spec), ..Lease::default() }
}

fn taken() -> Move {
    Move::Write { transitions: 4, acquired: None }
}

#[test]
fn whoever_waits_counts_by_the_own_clock_from_the_last_change_that_was_seen() {
    let start = Instant::now();
    let at = |seconds| start + Duration::from_secs(seconds);
    let mut seen = None;
    let other = || Move::Wait("other".to_owned());
    // What its clock says is long ago by ours, or far ahead: neither counts.
    for (renewed, now, expected) in [
        (1, 0, other()),
        (1, 14, other()),
        (9_999_999_999, 14, other()),
        (9_999_999_999, 28, other()),
        (9_999_999_999, 29, taken()),
    ] {
        assert_eq!(decide(Some(&lease("other", renewed)), &mut seen, "me", at(now)), expected, "{renewed} at {now}");
    }
}

#[test]
fn what_is_nobodys_is_taken_at_once_and_the_own_is_renewed() {
    let now = Instant::now();
    assert_eq!(decide(None, &mut None, "me", now), Move::Create);
    assert_eq!(decide(Some(&lease("", 1)), &mut None, "me", now), taken());
    let own = Move::Write { transitions: 3, acquired: None };
    assert_eq!(decide(Some(&lease("me", 1)), &mut None, "me", now), own, "it goes from nobody to nobody");
    assert_eq!(decide(Some(&lease("me-too", 1)), &mut None, "me", now), Move::Wait("me-too".to_owned()));
}

#[tokio::test(start_paused = true)]
async fn nothing_is_written_after_the_deadline() {
    let leadership = Leadership::none();
    assert!(!leadership.may_write());
    leadership.hold_until(Instant::now() + Duration::from_secs(10));
    advance(Duration::from_millis(9_999)).await;
    assert!(leadership.may_write());
    advance(Duration::from_millis(1)).await;
    assert!(!leadership.may_write());
    leadership.hold();
    assert!(leadership.may_write());
    leadership.end();
    assert!(!leadership.may_write());
}

#[test]
fn a_lease_lasts_whole_seconds_and_not_less_than_is_meant() {
    for (milliseconds, expected) in [(1, 1), (1000, 1), (1001, 2), (15_000, 15)] {
        assert_eq!(seconds(Duration::from_millis(milliseconds)), expected);
    }
}
