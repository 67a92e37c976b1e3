//! Who is ejected, when, and for how long.

use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use sidecar_config::health::OutlierDetection;

use super::Failure::{self, GatewayError, Interrupted, LocalOrigin};
use super::{Ejection, Ejections, History, Outlier, may_eject};

fn policy() -> OutlierDetection {
    OutlierDetection {
        consecutive_local_origin_failures: 3,
        consecutive_gateway_errors: Some(2),
        base_ejection_time: sidecar_config::Duration::from_millis(10_000),
        max_ejection_time: sidecar_config::Duration::from_millis(35_000),
        max_ejection_percent: 50,
    }
}

/// What is told after each outcome: `f` is no answer, `5` a gateway error, `2` another answer, `i` the middle of one,
/// `e` its end.
fn told(outcomes: &str, policy: &OutlierDetection) -> Vec<(usize, Failure)> {
    let outlier = Outlier::new(Instant::now());
    let after = |outcome| match outcome {
        'f' => outlier.failed(LocalOrigin, policy),
        'i' => outlier.failed(Interrupted, policy),
        'e' => {
            outlier.succeeded(Interrupted);
            None
        }
        answer => outlier.answered(answer == '5', policy),
    };
    outcomes.chars().enumerate().filter_map(|(index, outcome)| Some((index + 1, after(outcome)?))).collect()
}

#[test]
fn so_many_failures_in_a_row_are_too_many() {
    let table: [(&str, &[(usize, Failure)]); 12] = [
        ("", &[]),
        ("ff", &[]),
        ("fff", &[(3, LocalOrigin)]),
        // Told once: who was told empties the count.
        ("fffff", &[(3, LocalOrigin)]),
        ("ff2ff2", &[]),
        // An answer is an answer, whatever it says.
        ("ff5f", &[]),
        ("55", &[(2, GatewayError)]),
        ("525", &[]),
        // No answer neither proves nor disproves what is behind it.
        ("5f5", &[(3, GatewayError)]),
        // What breaks off has begun each time.
        ("2i2i2i", &[(6, Interrupted)]),
        ("2i2i2e2i", &[]),
        ("fff55", &[(3, LocalOrigin), (5, GatewayError)]),
    ];
    for (outcomes, expected) in table {
        assert_eq!(told(outcomes, &policy()), expected, "{outcomes}");
    }
    let lenient = OutlierDetection { consecutive_gateway_errors: None, ..policy() };
    assert_eq!(told("5555", &lenient), []);
    assert_eq!(told("f55ff5fff", &lenient), [(9, LocalOrigin)]);
}

#[test]
fn each_ejection_is_longer_and_is_forgotten_after_a_while() {
    /// Seconds without an ejection before each of them, and how long each lasts.
    const TABLE: [(&[u64], &[u64]); 6] = [
        (&[0], &[10]),
        (&[0, 0, 0], &[10, 20, 30]),
        // Up to the longest.
        (&[0, 0, 0, 0, 0], &[10, 20, 30, 35, 35]),
        // One is forgotten for each base time.
        (&[0, 9, 10, 25], &[10, 20, 20, 10]),
        (&[0, 0, 100_000], &[10, 20, 10]),
        // Those beyond the longest did not count: after three base times it is the second once more.
        (&[0, 0, 0, 0, 0, 0, 0, 30], &[10, 20, 30, 35, 35, 35, 35, 20]),
    ];
    for (pauses, times) in TABLE {
        let (mut now, mut history) = (Instant::now(), History::default());
        let mut lasted = Vec::new();
        for pause in pauses {
            now += Duration::from_secs(*pause);
            history = history.eject(now, &policy());
            let until = history.until.unwrap();
            lasted.push((until - now).as_secs());
            now = until;
        }
        assert_eq!(lasted, times, "{pauses:?}");
    }
}

#[test]
fn an_ejection_ends_by_itself() {
    let (start, ejections) = (Instant::now(), Ejections::default());
    let (one, other) = (Outlier::new(start), Outlier::new(start));
    let after = |millis| start + Duration::from_millis(millis);
    let eject = |at| ejections.eject(&one, [&one, &other].into_iter(), (LocalOrigin, &policy()), after(at));
    assert_eq!(one.ejected(|| panic!("the clock is not asked")), None);
    assert_eq!(eject(500), Ejection::Done(Duration::from_secs(10)));
    let left = [501, 10_499, 10_500].map(|at| one.ejected(|| after(at)).map(|left| left.as_millis()));
    assert_eq!(left, [Some(9_999), Some(1), None]);
    assert_eq!(one.ejected(|| panic!("the clock is not asked any more")), None);
    assert_eq!(eject(10_600), Ejection::Done(Duration::from_secs(20)));
    assert_eq!(eject(10_700), Ejection::Already);
    assert_eq!((ejections.done(LocalOrigin), ejections.done(GatewayError), ejections.refused()), (2, 0, 0));
}

#[test]
fn what_was_counted_before_an_ejection_does_not_count_after_it() {
    let (now, ejections) = (Instant::now(), Ejections::default());
    let one = Outlier::new(now);
    let whole = OutlierDetection { max_ejection_percent: 100, ..policy() };
    for percent in [100, 50] {
        let policy = OutlierDetection { max_ejection_percent: percent, ..whole.clone() };
        let failed: Vec<_> = (0..3).map(|_| one.failed(LocalOrigin, &policy)).collect();
        assert_eq!(failed, [None, None, Some(LocalOrigin)], "{percent}");
        let _done = ejections.eject(&one, [&one].into_iter(), (LocalOrigin, &policy), now);
        assert_eq!(one.failures[0].load(Ordering::Relaxed), 0);
    }
}

#[test]
fn a_share_is_left() {
    let table = [
        // Of one none, unless all may be.
        (1, 50, 0),
        (1, 99, 0),
        (1, 100, 1),
        (2, 50, 1),
        (2, 49, 0),
        (3, 50, 1),
        (3, 67, 2),
        (10, 10, 1),
        (9, 10, 0),
        (5, 100, 5),
        (0, 100, 0),
    ];
    for (all, percent, most) in table {
        let ejected = (0..=all).take_while(|ejected| may_eject(*ejected, all, percent)).count();
        assert_eq!(ejected, most, "{percent} % of {all}");
    }
}

/// Workers that count to the limit at the same moment do not eject more than may be together.
#[test]
fn the_share_is_kept_by_all_workers_together() {
    let (now, ejections) = (Instant::now(), Ejections::default());
    let all: Vec<_> = (0..8).map(|_| Outlier::new(now)).collect();
    std::thread::scope(|scope| {
        for one in &all {
            scope.spawn(|| ejections.eject(one, all.iter(), (GatewayError, &policy()), now));
        }
    });
    let ejected = all.iter().filter(|one| one.ejected(|| now).is_some()).count();
    assert_eq!((ejected, ejections.done(GatewayError), ejections.refused()), (4, 4, 4));
}
