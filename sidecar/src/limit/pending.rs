//! Requests that the upstream owes a response's head, and backpressure when there are too many of them.
//!
//! A burst is held back: at the limit nothing new is accepted, and what was read waits for its turn. An upstream that has
//! stopped is told apart by time: once the limit has stood for `pendingTimeout`, whatever comes is refused at once, until
//! there is clearly less under way. So a client waits a moment for its answer and never without end.

use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

use tokio::sync::Notify;
use tokio::time::{Instant, timeout_at};

/// How much below the limit the requests have to be for the next time at the limit to be another one: an eighth.
const CLEARLY_LESS: usize = 8;

/// The requests of all workers that wait for a response's head.
#[derive(Debug)]
pub struct Pending {
    count: AtomicUsize,
    /// Requests that wait for a place among them.
    waiting: AtomicUsize,
    /// Since when the limit stands: milliseconds since `epoch` and one; 0 while it does not.
    full_since: AtomicU64,
    epoch: Instant,
    /// A place is free: for one request that waits for it.
    freed: Notify,
    /// There is clearly less: for those who accept.
    eased: Notify,
}

/// What the configuration says of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Bounds {
    /// Requests at once.
    pub limit: usize,
    /// How long nothing is accepted or refused at the limit.
    pub timeout: Duration,
}

/// A request's place among those that wait for their response's head.
#[derive(Debug)]
pub struct Pend {
    pending: Arc<Pending>,
    limit: usize,
}

impl Default for Pending {
    fn default() -> Self {
        Self {
            count: AtomicUsize::new(0),
            waiting: AtomicUsize::new(0),
            full_since: AtomicU64::new(0),
            epoch: Instant::now(),
            freed: Notify::new(),
            eased: Notify::new(),
        }
    }
}

impl Pending {
    /// How many there are now.
    pub fn count(&self) -> usize {
        self.count.load(Ordering::Relaxed)
    }

    /// A place for a request, as soon as there is one; `None` where there is none in time.
    pub async fn enter(self: &Arc<Self>, bounds: Bounds) -> Option<Pend> {
        if let Some(place) = self.try_enter(bounds.limit) {
            return Some(place);
        }
        let deadline = self.full_until(bounds);
        let _waits = Waiting::begin(&self.waiting, bounds.limit)?;
        loop {
            let mut freed = pin!(self.freed.notified());
            // From here on nothing that is freed goes by unnoticed.
            freed.as_mut().enable();
            if let Some(place) = self.try_enter(bounds.limit) {
                return Some(place);
            }
            timeout_at(deadline, freed).await.ok()?;
        }
    }

    /// Resolves when another connection may be accepted: below the limit, or when it has stood for too long.
    pub async fn room(&self, bounds: Bounds) {
        while self.count() >= bounds.limit {
            let deadline = self.full_until(bounds);
            let mut eased = pin!(self.eased.notified());
            eased.as_mut().enable();
            if self.count() < bounds.limit || timeout_at(deadline, eased).await.is_err() {
                return;
            }
        }
    }

    fn try_enter(self: &Arc<Self>, limit: usize) -> Option<Pend> {
        let more = |count: usize| (count < limit).then_some(count + 1);
        let before = self.count.fetch_update(Ordering::SeqCst, Ordering::SeqCst, more).ok()?;
        if before + 1 == limit {
            self.begin_full();
        }
        Some(Pend { pending: Arc::clone(self), limit })
    }

    /// When the patience ends that began when the limit was reached.
    fn full_until(&self, bounds: Bounds) -> Instant {
        self.epoch + Duration::from_millis(self.begin_full() - 1) + bounds.timeout
    }

    /// Notes that the limit stands; the time since when it does.
    fn begin_full(&self) -> u64 {
        let now = u64::try_from(self.epoch.elapsed().as_millis()).unwrap_or(u64::MAX - 1) + 1;
        match self.full_since.compare_exchange(0, now, Ordering::AcqRel, Ordering::Acquire) {
            Ok(_) => now,
            Err(since) => since,
        }
    }
}

impl Drop for Pend {
    fn drop(&mut self) {
        let pending = &self.pending;
        // Who frees a place looks for those who wait, and who waits looks for a place, each after its own announcement: in
        // one order for all threads, or both could miss the other.
        let left = pending.count.fetch_sub(1, Ordering::SeqCst) - 1;
        if left <= self.limit - 1 - self.limit / CLEARLY_LESS && pending.full_since.load(Ordering::Acquire) != 0 {
            pending.full_since.store(0, Ordering::Release);
            pending.eased.notify_waiters();
        }
        if pending.waiting.load(Ordering::SeqCst) > 0 {
            pending.freed.notify_one();
        }
    }
}

/// A request that waits. No more wait than may be under way: their heads are memory too.
struct Waiting<'a>(&'a AtomicUsize);

impl<'a> Waiting<'a> {
    fn begin(waiting: &'a AtomicUsize, limit: usize) -> Option<Self> {
        let waits = Self(waiting);
        (waiting.fetch_add(1, Ordering::SeqCst) < limit).then_some(waits)
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::AcqRel);
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::time::Duration;

    use tokio::time::{Instant, advance, timeout};

    use super::{Bounds, Pend, Pending};

    const SECOND: Duration = Duration::from_secs(1);
    const BOUNDS: Bounds = Bounds { limit: 2, timeout: SECOND };

    async fn full() -> (Arc<Pending>, Vec<Pend>) {
        let pending = Arc::new(Pending::default());
        let places = vec![pending.enter(BOUNDS).await.unwrap(), pending.enter(BOUNDS).await.unwrap()];
        (pending, places)
    }

    #[tokio::test(start_paused = true)]
    async fn at_the_limit_a_request_waits_and_is_refused_in_time() {
        let (pending, places) = full().await;
        let begun = Instant::now();
        assert!(pending.enter(BOUNDS).await.is_none());
        assert_eq!(begun.elapsed().as_millis(), 1000);
        // The limit stands for long enough now: nobody else waits.
        assert!(pending.enter(BOUNDS).await.is_none());
        assert_eq!(begun.elapsed().as_millis(), 1000);
        assert_eq!(pending.count(), 2);
        drop(places);
        assert_eq!(pending.count(), 0);
        assert!(pending.enter(BOUNDS).await.is_some());
    }

    #[tokio::test(start_paused = true)]
    async fn a_place_that_is_freed_goes_to_who_waits() {
        let (pending, mut places) = full().await;
        let waits = {
            let pending = Arc::clone(&pending);
            tokio::spawn(async move { pending.enter(BOUNDS).await })
        };
        tokio::task::yield_now().await;
        advance(SECOND / 2).await;
        assert!(!waits.is_finished());
        drop(places.pop());
        assert!(waits.await.unwrap().is_some());
    }

    #[tokio::test(start_paused = true)]
    async fn no_more_wait_than_may_be_under_way() {
        let (pending, _places) = full().await;
        let wait = || {
            let pending = Arc::clone(&pending);
            tokio::spawn(async move { pending.enter(BOUNDS).await })
        };
        let waiting = [wait(), wait()];
        tokio::task::yield_now().await;
        let begun = Instant::now();
        assert!(pending.enter(BOUNDS).await.is_none());
        assert_eq!(begun.elapsed(), Duration::ZERO, "a third is refused at once");
        for one in waiting {
            assert!(one.await.unwrap().is_none());
        }
    }

    #[tokio::test(start_paused = true)]
    async fn accepting_pauses_for_so_long_and_no_longer() {
        let (pending, mut places) = full().await;
        let begun = Instant::now();
        pending.room(BOUNDS).await;
        assert_eq!(begun.elapsed().as_millis(), 1000);
        // Not once more for each connection.
        pending.room(BOUNDS).await;
        assert_eq!(begun.elapsed().as_millis(), 1000);
        drop(places.pop());
        places.push(pending.enter(BOUNDS).await.unwrap());
        // Another time at the limit.
        assert!(timeout(SECOND / 2, pending.room(BOUNDS)).await.is_err());
        drop(places);
        pending.room(BOUNDS).await;
    }

    #[tokio::test(start_paused = true)]
    async fn a_moment_below_a_large_limit_does_not_begin_anew() {
        let bounds = Bounds { limit: 16, ..BOUNDS };
        let pending = Arc::new(Pending::default());
        let mut places = Vec::new();
        while pending.count() < 16 {
            places.push(pending.enter(bounds).await.unwrap());
        }
        advance(SECOND * 2).await;
        for _ in 0..3 {
            drop(places.pop());
            places.push(pending.enter(bounds).await.unwrap());
            let begun = Instant::now();
            assert!(pending.enter(bounds).await.is_none());
            pending.room(bounds).await;
            assert_eq!(begun.elapsed(), Duration::ZERO);
        }
    }
}
