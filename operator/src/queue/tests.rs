//! The queue by tokio's paused clock: what comes when, and how often.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::{Instant, advance, timeout};

use super::{Depth, Key, Outcome, Pace, Queue, Turn, back_off};
use crate::index::ObjectName;
use crate::limits::{BACK_OFF_FIRST, BACK_OFF_LONGEST, GATHER};

fn workload(name: &str) -> Key {
    Key::Workload(ObjectName::new("shop", name))
}

fn trust() -> Key {
    Key::Trust("shop".to_owned())
}

/// The next turn, if there is one without waiting.
async fn at_once(queue: &Arc<Queue>) -> Option<Turn> {
    timeout(Duration::ZERO, queue.next()).await.ok().flatten()
}

/// The next turn and how long it took to come.
async fn after(queue: &Arc<Queue>) -> (Turn, Duration) {
    let start = Instant::now();
    let turn = queue.next().await.expect("an open queue");
    (turn, start.elapsed())
}

#[tokio::test(start_paused = true)]
async fn a_key_waits_once_however_often_it_is_asked_for() {
    let queue = Arc::new(Queue::default());
    for _ in 0..100 {
        queue.add(workload("a"), Pace::Gathered);
    }
    assert!(at_once(&queue).await.is_none(), "it is gathered first");
    let (turn, waited) = after(&queue).await;
    assert_eq!((turn.key(), waited.as_millis()), (&workload("a"), GATHER.as_millis()));
    turn.end(Outcome::Done);
    assert!(timeout(Duration::from_secs(3600), queue.next()).await.is_err(), "nothing is left");
}

#[tokio::test(start_paused = true)]
async fn what_is_urgent_comes_first_and_at_once() {
    let queue = Arc::new(Queue::default());
    for name in ["a", "b", "c"] {
        queue.add(workload(name), Pace::Now);
    }
    advance(Duration::from_secs(1)).await;
    queue.add(trust(), Pace::Gathered);
    queue.add(trust(), Pace::Urgent);
    let turn = at_once(&queue).await.expect("the urgent one");
    assert_eq!(turn.key(), &trust());
    turn.end(Outcome::Done);
    assert_eq!(at_once(&queue).await.expect("the first of the others").key(), &workload("a"));
}

#[tokio::test(start_paused = true)]
async fn a_key_is_with_one_at_a_time_and_comes_again_if_it_was_asked_for() {
    let queue = Arc::new(Queue::default());
    queue.add(workload("a"), Pace::Now);
    let turn = at_once(&queue).await.expect("a turn");
    queue.add(workload("a"), Pace::Now);
    queue.add(workload("b"), Pace::Now);
    let other = at_once(&queue).await.expect("another key's turn");
    assert_eq!(other.key(), &workload("b"));
    assert!(at_once(&queue).await.is_none(), "the first is still under way");
    turn.end(Outcome::Done);
    let again = at_once(&queue).await.expect("what was asked for meanwhile");
    assert_eq!(again.key(), &workload("a"));
    again.end(Outcome::Done);
    other.end(Outcome::Done);
    assert!(at_once(&queue).await.is_none());
}

#[tokio::test(start_paused = true)]
async fn what_is_looked_at_again_comes_then_or_when_it_changes() {
    let queue = Arc::new(Queue::default());
    queue.add(workload("a"), Pace::Now);
    at_once(&queue).await.expect("a turn").end(Outcome::Again(Duration::from_secs(30)));
    let (turn, waited) = after(&queue).await;
    assert_eq!(waited.as_secs(), 30);
    turn.end(Outcome::Again(Duration::from_secs(30)));
    queue.add(workload("a"), Pace::Now);
    at_once(&queue).await.expect("the change does not wait").end(Outcome::Done);
    assert!(timeout(Duration::from_secs(3600), queue.next()).await.is_err(), "it had one place only");
}

#[tokio::test(start_paused = true)]
async fn what_fails_comes_later_each_time_and_at_once_when_it_is_urgent() {
    let queue = Arc::new(Queue::default());
    queue.add(workload("a"), Pace::Now);
    let mut turn = at_once(&queue).await.expect("a turn");
    let mut last = Duration::ZERO;
    for failures in 1..=12 {
        if failures % 2 == 0 {
            turn.end(Outcome::Failed)
        } else {
            drop(turn)
        }
        let waited;
        (turn, waited) = after(&queue).await;
        let expected = back_off(&workload("a"), failures);
        assert!(waited >= expected && waited - expected < Duration::from_millis(2), "{waited:?} for {expected:?}");
        assert!(expected >= BACK_OFF_FIRST && expected <= BACK_OFF_LONGEST.mul_f64(1.2));
        assert!(expected > last || last > BACK_OFF_LONGEST.mul_f64(0.9));
        last = expected;
    }
    turn.end(Outcome::Failed);
    queue.add(workload("a"), Pace::Urgent);
    at_once(&queue).await.expect("a turn at once").end(Outcome::Done);
    queue.add(workload("a"), Pace::Now);
    at_once(&queue).await.expect("a turn").end(Outcome::Failed);
    let (_turn, waited) = after(&queue).await;
    assert!(waited <= BACK_OFF_FIRST.mul_f64(1.3), "success ends the count: {waited:?}");
}

#[tokio::test(start_paused = true)]
async fn urgent_turns_have_somebody_for_themselves() {
    let queue = Arc::new(Queue::default());
    let mut under_way = Vec::new();
    for name in ["a", "b"] {
        queue.add(workload(name), Pace::Now);
        under_way.push(at_once(&queue).await.expect("a turn"));
    }
    queue.add(workload("c"), Pace::Now);
    let waiting = tokio::spawn({
        let queue = Arc::clone(&queue);
        async move { queue.next_urgent().await }
    });
    advance(Duration::from_secs(1)).await;
    assert!(!waiting.is_finished(), "what is not urgent is not for it");
    queue.add(trust(), Pace::Urgent);
    let turn = timeout(Duration::from_millis(1), waiting).await.expect("at once").expect("a task that ends");
    assert_eq!(turn.expect("a turn").key(), &trust());
}

#[test]
fn keys_that_fail_together_do_not_come_back_together() {
    let waits: std::collections::BTreeSet<_> =
        (0..50).map(|number| back_off(&workload(&format!("w{number}")), 5)).collect();
    assert!(waits.len() > 45, "{waits:?}");
}

#[tokio::test(start_paused = true)]
async fn a_closed_queue_has_no_more_turns() {
    let queue = Arc::new(Queue::default());
    let waiting: Vec<_> = (0..3)
        .map(|_| {
            tokio::spawn({
                let queue = Arc::clone(&queue);
                async move { queue.next().await.is_none() }
            })
        })
        .collect();
    tokio::task::yield_now().await;
    queue.close();
    queue.add(workload("a"), Pace::Urgent);
    for task in waiting {
        assert!(task.await.expect("a task that ends"));
    }
    assert!(queue.next().await.is_none());
}

#[tokio::test(start_paused = true)]
async fn several_workers_share_what_came_at_once() {
    let queue = Arc::new(Queue::default());
    let workers: Vec<_> = (0..4)
        .map(|_| {
            tokio::spawn({
                let queue = Arc::clone(&queue);
                async move { queue.next().await.expect("a turn") }
            })
        })
        .collect();
    tokio::task::yield_now().await;
    for name in ["a", "b", "c", "d"] {
        queue.add(workload(name), Pace::Now);
    }
    let mut turns = Vec::new();
    for worker in workers {
        turns.push(
            timeout(Duration::from_secs(1), worker).await.expect("nobody waits in vain").expect("a task that ends"),
        );
    }
    let mut keys: Vec<_> = turns.iter().map(|turn| turn.key().clone()).collect();
    keys.sort();
    assert_eq!(keys, ["a", "b", "c", "d"].map(workload));
}

#[tokio::test(start_paused = true)]
async fn what_is_asked_for_while_it_is_held_is_nobodys() {
    let queue = Queue::held();
    queue.add(workload("a"), Pace::Urgent);
    queue.open();
    assert!(at_once(&queue).await.is_none());
    queue.add(workload("b"), Pace::Now);
    assert_eq!(at_once(&queue).await.expect("a turn").key(), &workload("b"));
}

#[tokio::test(start_paused = true)]
async fn it_tells_how_much_there_is_to_do_and_for_how_long() {
    let queue = Arc::new(Queue::default());
    queue.add(workload("a"), Pace::Now);
    queue.add(workload("b"), Pace::Now);
    queue.add(workload("c"), Pace::After(Duration::from_secs(3)));
    queue.add(trust(), Pace::Urgent);
    let second = Duration::from_secs(1);
    advance(second).await;
    let turn = at_once(&queue).await.expect("a turn");
    assert_eq!((turn.lane(), turn.waited()), ("urgent", second));
    advance(second).await;
    let other = at_once(&queue).await.expect("another");
    assert_eq!((other.lane(), other.waited()), ("usual", second * 2));
    assert_eq!(queue.depth(), Depth { due: 1, running: 2, later: 1 });
    assert_eq!(queue.longest(), Some((trust().to_string(), second)));
    turn.end(Outcome::Done);
    assert_eq!(queue.longest(), Some((workload("a").to_string(), Duration::ZERO)));
}

#[tokio::test(start_paused = true)]
async fn thousands_of_clients_put_off_no_workload_and_wait_for_nobody_either() {
    let queue = Arc::new(Queue::default());
    let client = |number: u32| Key::Identity(ObjectName::new("shop", number.to_string()));
    (0..100).for_each(|number| queue.add(client(number), Pace::Now));
    advance(Duration::from_secs(1)).await;
    queue.add(workload("a"), Pace::Gathered);
    advance(GATHER).await;
    queue.add(trust(), Pace::Urgent);
    let own = timeout(Duration::ZERO, queue.next_client()).await.ok().flatten().expect("a client's turn");
    assert_eq!((own.key().kind(), own.lane()), ("identity", "clients"));
    let next = [at_once(&queue).await, at_once(&queue).await, at_once(&queue).await];
    let kinds: Vec<_> = next.iter().flatten().map(|turn| turn.key().kind()).collect();
    assert_eq!(kinds, ["trust", "workload", "identity"]);
}
