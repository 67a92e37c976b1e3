//! What wakes the task that drives a connection of HTTP/1.1, but for one wake that tells it nothing.
//!
//! Whoever takes bytes of a body from hyper wakes the task that gave them, so that it reads more. After the last bytes there
//! is no more: it has found out when it gave them, and would be polled once more for each response.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};
use std::task::{Context, Wake, Waker};

/// Whom to wake. Everything that does is on the worker's thread; only a waker's type wants what any thread could use.
#[derive(Debug, Default)]
pub(super) struct Wakes {
    task: OnceLock<Waker>,
    /// Bytes are being taken.
    are_held: AtomicBool,
    /// One came meanwhile.
    is_due: AtomicBool,
}

impl Wakes {
    /// Wakes whoever asks, from now on. A task is asked by one waker for as long as it lives.
    pub(super) fn wake_with(&self, cx: &Context<'_>) {
        self.task.get_or_init(|| cx.waker().clone());
    }

    /// Lets `take` take bytes of a body, and say whether they were its last.
    pub(super) fn while_taking<T>(&self, take: impl FnOnce() -> (T, bool)) -> T {
        self.are_held.store(true, Ordering::Relaxed);
        let (taken, is_over) = take();
        self.are_held.store(false, Ordering::Relaxed);
        if self.is_due.load(Ordering::Relaxed) {
            self.is_due.store(false, Ordering::Relaxed);
            if !is_over {
                self.pass_on();
            }
        }
        taken
    }

    fn pass_on(&self) {
        if let Some(task) = self.task.get() {
            task.wake_by_ref();
        }
    }
}

impl Wake for Wakes {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        if self.are_held.load(Ordering::Relaxed) {
            self.is_due.store(true, Ordering::Relaxed);
        } else {
            self.pass_on();
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::task::{Context, Wake, Waker};

    use super::Wakes;

    #[derive(Default)]
    struct Count(AtomicUsize);

    impl Wake for Count {
        fn wake(self: Arc<Self>) {
            self.0.fetch_add(1, Ordering::Relaxed);
        }
    }

    #[test]
    fn only_what_comes_with_the_last_bytes_is_left_out() {
        let count = Arc::new(Count::default());
        let task = Waker::from(Arc::clone(&count));
        let wakes = Arc::new(Wakes::default());
        let waker = Waker::from(Arc::clone(&wakes));
        waker.wake_by_ref();
        wakes.wake_with(&Context::from_waker(&task));
        // Wakes while bytes are taken, whether they are the last, and how many come through then.
        for (during, is_last, expected) in [(0, false, 0), (0, true, 0), (1, false, 1), (2, false, 1), (1, true, 0)] {
            let before = count.0.load(Ordering::Relaxed);
            wakes.while_taking(|| ((0..during).for_each(|_| waker.wake_by_ref()), is_last));
            assert_eq!(count.0.load(Ordering::Relaxed) - before, expected, "{during} {is_last}");
            // None is left for later, and the next one comes through.
            waker.wake_by_ref();
            assert_eq!(count.0.load(Ordering::Relaxed) - before, expected + 1, "{during} {is_last}");
        }
    }
}
