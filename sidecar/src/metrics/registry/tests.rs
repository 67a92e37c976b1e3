//! Cells of several workers are one series, and there are only so many series.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use sidecar_decide::{MessageType, Reason, Verdict};

use super::{Cells, Registry, SERIES_OF_HISTOGRAM, SERIES_OF_PLACE, Sums};
use crate::limits::METRIC_SERIES;
use crate::message_type::Message;
use crate::metrics::place::{Amount, Counted, Event, OTHER, Outcome, PlaceName};

const AMOUNT: Amount = Amount { duration: Duration::from_micros(700), request_bytes: 10, response_bytes: 20 };
const ALLOWED: Outcome = Outcome { event: Event::Request, verdict: Verdict::Allowed, reason: None, limiter: None };

fn rule(number: usize) -> PlaceName {
    PlaceName::Rule { listener: "gate".into(), route: format!("demo/{number}").into(), rule: "all".into() }
}

fn refused(reason: Reason) -> Outcome {
    Outcome::refused(Event::Request, Some(reason))
}

/// Counts at a place that nothing holds on to.
fn count(cells: &Cells, name: &PlaceName, outcome: Outcome) {
    cells.count(&Counted::default(), || name.clone(), outcome, &AMOUNT);
}

fn counted(registry: &Registry, name: &PlaceName, outcome: Outcome) -> Option<u64> {
    registry.read().places.get(name)?.get(&outcome).map(|sums| sums.count)
}

#[test]
fn workers_and_generations_share_a_series() {
    let registry = Arc::new(Registry::default());
    let workers = [registry.worker(), registry.worker()];
    for cells in &workers {
        for _generation in 0..2 {
            let held = Counted::default();
            cells.count(&held, || rule(1), ALLOWED, &AMOUNT);
            cells.count(&held, || unreachable!("it is known"), ALLOWED, &AMOUNT);
        }
    }
    let place = &registry.read().places[&rule(1)];
    let all = Sums { count: 8, duration_us: 5600, request_bytes: 80, response_bytes: 160 };
    assert_eq!(place.iter().map(|(outcome, sums)| (*outcome, *sums)).collect::<Vec<_>>(), [(ALLOWED, all)]);
    let durations = registry.read().durations["gate"];
    assert_eq!((durations.sum_us, durations.buckets[0], durations.buckets[1]), (5600, 0, 8));
    assert_eq!(registry.series(), SERIES_OF_PLACE + SERIES_OF_HISTOGRAM + 1);
}

#[test]
fn what_is_refused_is_in_no_histogram() {
    let registry = Arc::new(Registry::default());
    let cells = registry.worker();
    count(&cells, &rule(1), refused(Reason::PolicyNotAllowed));
    assert_eq!(registry.read().durations["gate"].buckets.iter().sum::<u64>(), 0);
    assert_eq!(counted(&registry, &rule(1), refused(Reason::PolicyNotAllowed)), Some(1));
}

#[test]
fn messages_are_counted_beside_outcomes_and_need_series_too() {
    let registry = Arc::new(Registry::default());
    let workers = [registry.worker(), registry.worker()];
    let call = Message::Call("shop.v1.Stock/Count".into());
    let held = Counted::default();
    workers[0].count_message(&held, &call);
    assert!(registry.read().messages.is_empty(), "nothing was counted there");
    for cells in &workers {
        cells.count(&held, || rule(1), ALLOWED, &AMOUNT);
        cells.count_message(&held, &Message::Known(MessageType::JSON));
        cells.count_message(&held, &call);
        cells.count_message(&held, &call);
    }
    let expected = BTreeMap::from([("json".into(), 2), ("shop.v1.Stock/Count".into(), 4)]);
    assert_eq!(registry.read().messages, BTreeMap::from([(rule(1), expected)]));
    assert_eq!(registry.series(), SERIES_OF_PLACE + SERIES_OF_HISTOGRAM + 3);
    // Where there are no series left nothing is lost.
    let held: Vec<_> = (0..METRIC_SERIES).map(|_| Counted::default()).collect();
    for (number, counted) in (100..).zip(&held) {
        workers[0].count(counted, || rule(number), ALLOWED, &AMOUNT);
    }
    MessageType::all().for_each(|known| workers[0].count_message(&held[0], &Message::Known(known)));
    let counts = registry.read();
    let sum = |name: &PlaceName| counts.messages.get(name).map_or(0, |messages| messages.values().sum::<u64>());
    let (own, other) = (sum(&rule(100)), sum(&rule(100).other()));
    assert_eq!(own + other, MessageType::COUNT as u64);
    assert!(own <= SERIES_OF_PLACE as u64, "{own} have series of their own");
}

#[test]
fn what_is_too_much_is_counted_as_other_and_stays_so() {
    let registry = Arc::new(Registry::default());
    let cells = registry.worker();
    let held: Vec<_> = (0..METRIC_SERIES).map(|_| Counted::default()).collect();
    for (number, counted) in held.iter().enumerate() {
        cells.count(counted, || rule(number), ALLOWED, &AMOUNT);
    }
    let own = (METRIC_SERIES - SERIES_OF_HISTOGRAM) / (SERIES_OF_PLACE + 1);
    assert_eq!(registry.read().places.len(), own + 1);
    assert!(registry.series() <= METRIC_SERIES);
    assert!(registry.refused() > 0);
    let other = rule(0).other();
    assert_eq!(counted(&registry, &other, ALLOWED), Some((METRIC_SERIES - own) as u64));
    // An outcome that is new at a place with series, too; nothing is lost.
    cells.count(&held[0], || rule(0), refused(Reason::LimitPending), &AMOUNT);
    let places = registry.read().places;
    let counted: u64 = places.values().flat_map(|outcomes| outcomes.values()).map(|sums| sums.count).sum();
    assert_eq!(counted, METRIC_SERIES as u64 + 1);
    assert!(matches!(&other, PlaceName::Rule { listener, .. } if &**listener == OTHER));
}

#[test]
fn a_reload_makes_room() {
    let registry = Arc::new(Registry::default());
    let cells = registry.worker();
    let mut held: Vec<_> = (0..METRIC_SERIES).map(|_| Counted::default()).collect();
    for (number, counted) in held.iter().enumerate() {
        cells.count(counted, || rule(number), ALLOWED, &AMOUNT);
    }
    held.clear();
    let new = PlaceName::Rule { listener: "new".into(), route: "new".into(), rule: "new".into() };
    count(&cells, &new, ALLOWED);
    assert_eq!(counted(&registry, &new, ALLOWED), None, "it is looked for room once for each configuration");
    registry.reloaded();
    let newer = PlaceName::Rule { listener: "new".into(), route: "newer".into(), rule: "new".into() };
    count(&cells, &newer, ALLOWED);
    assert_eq!(counted(&registry, &newer, ALLOWED), Some(1));
    assert!(registry.series() < 100, "{}", registry.series());
}

#[test]
fn what_the_configuration_has_no_more_makes_room() {
    let registry = Arc::new(Registry::default());
    let cells = registry.worker();
    for number in 0..METRIC_SERIES {
        // Nothing holds on to it afterwards, as after a reload.
        count(&cells, &rule(number), ALLOWED);
    }
    assert_eq!(registry.refused(), 0);
    assert!(registry.series() <= METRIC_SERIES);
    assert_eq!(counted(&registry, &rule(METRIC_SERIES - 1), ALLOWED), Some(1));
    assert_eq!(counted(&registry, &rule(0).other(), ALLOWED), None);
}

#[test]
fn backends_have_no_durations() {
    let registry = Arc::new(Registry::default());
    let cells = registry.worker();
    let backend = PlaceName::Backend("127.0.0.1:80".into());
    count(&cells, &backend, ALLOWED);
    assert_eq!(registry.read().durations.len(), 0);
    assert_eq!(counted(&registry, &backend, ALLOWED), Some(1));
}
