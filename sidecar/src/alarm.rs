//! A timer for deadlines one after the other, nearly none of which is ever reached.
//!
//! To register a timer with the runtime and to take it back costs more than deciding a request does. Here it stays
//! registered as it was, for a deadline that has been met long since, and is moved when it goes off: once in so long as a
//! deadline is away, not once for each of them.

use std::cell::RefCell;
use std::future::{Future, poll_fn};
use std::pin::{Pin, pin};
use std::task::{Context, Poll, Waker};

use tokio::task::unconstrained;
use tokio::time::{Instant, Sleep, sleep_until};

/// The timer; nothing until it is first waited for.
#[derive(Debug, Default)]
pub struct Alarm(Option<Armed>);

#[derive(Debug)]
struct Armed {
    sleep: Pin<Box<Sleep>>,
    /// Whom it wakes; `None` where it has to be asked again.
    wakes: Option<Waker>,
}

impl Alarm {
    /// Ready when `deadline` has passed. It may wake its task without that. For one task, and one deadline, at a time.
    pub fn poll(&mut self, deadline: Instant, cx: &mut Context<'_>) -> Poll<()> {
        let armed = self.0.get_or_insert_with(|| Armed { sleep: Box::pin(sleep_until(deadline)), wakes: None });
        if armed.sleep.deadline() > deadline {
            armed.set(deadline);
        }
        // It is registered and has not gone off, so that it wakes the same task as before.
        if armed.wakes.as_ref().is_some_and(|wakes| wakes.will_wake(cx.waker())) && !armed.sleep.is_elapsed() {
            return Poll::Pending;
        }
        loop {
            armed.wakes = None;
            // Else a task that has used up its share would wait without having been registered.
            let Poll::Ready(()) = pin!(unconstrained(armed.sleep.as_mut())).poll(cx) else {
                armed.wakes = Some(cx.waker().clone());
                return Poll::Pending;
            };
            if armed.sleep.deadline() >= deadline {
                return Poll::Ready(());
            }
            armed.set(deadline);
        }
    }
}

/// What `future` resolves to; `None` where `deadline` comes first. As `tokio::time::timeout_at`, but for the timer.
pub async fn within<F: Future>(
    alarm: &RefCell<Alarm>,
    deadline: Instant,
    mut future: Pin<&mut F>,
) -> Option<F::Output> {
    poll_fn(|cx| match future.as_mut().poll(cx) {
        Poll::Ready(output) => Poll::Ready(Some(output)),
        Poll::Pending => alarm.borrow_mut().poll(deadline, cx).map(|()| None),
    })
    .await
}

impl Armed {
    fn set(&mut self, deadline: Instant) {
        self.sleep.as_mut().reset(deadline);
        self.wakes = None;
    }
}

#[cfg(test)]
mod tests {
    use std::cell::RefCell;
    use std::future::{pending, poll_fn, ready};
    use std::pin::pin;
    use std::task::Poll;
    use std::time::Duration;

    use tokio::task::coop::poll_proceed;
    use tokio::time::{Instant, advance, sleep};

    use super::{Alarm, within};

    const SECOND: Duration = Duration::from_secs(1);

    /// After how many milliseconds somebody who waits so long is told.
    async fn waits(alarm: &mut Alarm, time: Duration) -> u128 {
        let begun = Instant::now();
        poll_fn(|cx| alarm.poll(begun + time, cx)).await;
        begun.elapsed().as_millis()
    }

    #[tokio::test(start_paused = true)]
    async fn each_deadline_is_met_whatever_was_waited_for_before() {
        let mut alarm = Alarm::default();
        for seconds in [3, 1, 1, 5, 2] {
            assert_eq!(waits(&mut alarm, SECOND * seconds).await, u128::from(seconds) * 1000);
        }
    }

    #[tokio::test(start_paused = true)]
    async fn what_was_not_waited_for_to_its_end_disturbs_nobody() {
        let mut alarm = Alarm::default();
        for (first, pause, then) in [(10, 0, 3), (3, 1, 10), (3, 5, 10), (1, 0, 1), (5, 20, 1)] {
            let deadline = Instant::now() + SECOND * first;
            let is_pending = poll_fn(|cx| Poll::Ready(alarm.poll(deadline, cx).is_pending())).await;
            assert!(is_pending, "{first}");
            advance(SECOND * pause).await;
            assert_eq!(waits(&mut alarm, SECOND * then).await, u128::from(then) * 1000, "{first} {pause} {then}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn another_task_is_woken_as_well() {
        let alarm = std::rc::Rc::new(RefCell::new(Alarm::default()));
        let deadline = Instant::now() + SECOND;
        let _pending = poll_fn(|cx| Poll::Ready(alarm.borrow_mut().poll(deadline, cx))).await;
        let other = tokio::task::LocalSet::new();
        let shared = std::rc::Rc::clone(&alarm);
        other
            .run_until(async move {
                let told =
                    tokio::task::spawn_local(async move { within(&shared, deadline, pin!(pending::<()>())).await });
                assert_eq!(told.await.unwrap(), None);
            })
            .await;
    }

    #[tokio::test(start_paused = true)]
    async fn a_task_that_has_used_up_its_share_is_woken_in_time() {
        let alarm = RefCell::new(Alarm::default());
        let begun = Instant::now();
        // Whatever counts towards the share of a task, until that is used up.
        while poll_fn(|cx| Poll::Ready(poll_proceed(cx).map(|share| share.made_progress()).is_ready())).await {}
        assert_eq!(within(&alarm, begun + SECOND, pin!(pending::<()>())).await, None);
        assert_eq!(begun.elapsed(), SECOND);
    }

    #[tokio::test(start_paused = true)]
    async fn what_comes_in_time_is_passed_on() {
        let alarm = RefCell::new(Alarm::default());
        let deadline = Instant::now() + SECOND;
        assert_eq!(within(&alarm, deadline, pin!(ready(1))).await, Some(1));
        assert_eq!(within(&alarm, deadline, pin!(async { sleep(SECOND / 2).await })).await, Some(()));
        assert_eq!(within(&alarm, deadline, pin!(sleep(SECOND))).await, None);
    }
}
