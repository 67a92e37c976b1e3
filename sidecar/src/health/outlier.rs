//! Ejection: an endpoint that fails several times in a row is left out for a while, and each time for longer.
//!
//! Time is a value here, so that all of it is tested as tables. A request that is answered costs one load of a cache line
//! that nobody writes while all is well; a lock is taken only by who has counted to the limit.

#[cfg(test)]
mod tests;

use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use sidecar_config::health::OutlierDetection;

/// How an endpoint fails.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Failure {
    /// No connection, or no answer in time.
    LocalOrigin,
    /// It answers that something behind it failed.
    GatewayError,
    /// Its answers begin, and break off.
    Interrupted,
}

impl Failure {
    /// All, in their order.
    pub const ALL: [Self; 3] = [Self::LocalOrigin, Self::GatewayError, Self::Interrupted];

    /// What metrics and messages call it.
    pub fn name(self) -> &'static str {
        match self {
            Self::LocalOrigin => "local_origin",
            Self::GatewayError => "gateway_error",
            Self::Interrupted => "interrupted",
        }
    }
}

/// What requests have found out about one endpoint.
#[derive(Debug)]
pub struct Outlier {
    born: Instant,
    /// Failures since the last success, by kind.
    failures: [AtomicU32; Failure::ALL.len()],
    /// Milliseconds after its birth until which it is ejected; 0 while it is not.
    until_ms: AtomicU64,
    history: Mutex<History>,
}

/// How often it was ejected lately, and until when.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct History {
    times: u32,
    until: Option<Instant>,
}

impl History {
    /// One more ejection. For each base time without one, one of those before is forgotten.
    fn eject(self, now: Instant, policy: &OutlierDetection) -> Self {
        let base = policy.base_ejection_time.as_std();
        let quiet = self.until.map_or(Duration::ZERO, |until| now.saturating_duration_since(until));
        let forgotten = u32::try_from(quiet.as_millis() / base.as_millis().max(1)).unwrap_or(u32::MAX);
        let times = self.times.saturating_sub(forgotten).saturating_add(1);
        let time = base.saturating_mul(times).min(policy.max_ejection_time.as_std());
        // Times that would not get longer are not counted, or they would take as long to be forgotten.
        let most = policy.max_ejection_time.as_std().as_millis().div_ceil(base.as_millis().max(1));
        Self { times: times.min(u32::try_from(most).unwrap_or(u32::MAX)), until: Some(now + time) }
    }
}

impl Outlier {
    /// One that nothing is known of.
    pub fn new(now: Instant) -> Self {
        Self {
            born: now,
            failures: Default::default(),
            until_ms: AtomicU64::new(0),
            history: Mutex::new(History::default()),
        }
    }

    /// Notes an answer: it counts against one kind of failure or none, and ends the row of the others.
    pub fn answered(&self, is_gateway_error: bool, policy: &OutlierDetection) -> Option<Failure> {
        self.succeeded(Failure::LocalOrigin);
        if is_gateway_error {
            return self.failed(Failure::GatewayError, policy);
        }
        self.succeeded(Failure::GatewayError);
        None
    }

    /// Notes that it did not fail so, which ends the row of such failures.
    pub fn succeeded(&self, failure: Failure) {
        let count = &self.failures[failure as usize];
        // Not written where there is nothing to write: the line stays shared by all workers.
        if count.load(Ordering::Relaxed) > 0 {
            count.store(0, Ordering::Relaxed);
        }
    }

    /// Notes a failure. It is told again when it is one too many.
    pub fn failed(&self, failure: Failure, policy: &OutlierDetection) -> Option<Failure> {
        let most = match failure {
            Failure::LocalOrigin | Failure::Interrupted => policy.consecutive_local_origin_failures,
            Failure::GatewayError => policy.consecutive_gateway_errors?,
        };
        let count = self.failures[failure as usize].fetch_add(1, Ordering::Relaxed).saturating_add(1);
        // Of several workers the one whose failure is the last of them: nobody else is told.
        (count == most).then_some(failure)
    }

    /// How long it is still ejected; `None` while it is not.
    pub fn ejected(&self, now: impl FnOnce() -> Instant) -> Option<Duration> {
        let until_ms = self.until_ms.load(Ordering::Relaxed);
        if until_ms == 0 {
            return None;
        }
        let now = now().saturating_duration_since(self.born);
        let left = Duration::from_millis(until_ms).saturating_sub(now);
        if left.is_zero() {
            // So that the clock is not asked again. Somebody who ejects it anew at this moment is not undone.
            let _newer = self.until_ms.compare_exchange(until_ms, 0, Ordering::Relaxed, Ordering::Relaxed);
            return None;
        }
        Some(left)
    }

    fn eject(&self, now: Instant, policy: &OutlierDetection) -> Duration {
        let mut history = lock(&self.history);
        *history = history.eject(now, policy);
        let until = history.until.unwrap_or(now);
        let until_ms = until.saturating_duration_since(self.born).as_millis();
        self.until_ms.store(u64::try_from(until_ms).unwrap_or(u64::MAX).max(1), Ordering::Relaxed);
        until.saturating_duration_since(now)
    }

    fn forget_failures(&self) {
        self.failures.iter().for_each(|count| count.store(0, Ordering::Relaxed));
    }
}

/// What all endpoints share: at a time one is ejected, so that the share of those that may be is kept; and counts.
#[derive(Debug, Default)]
pub struct Ejections {
    turn: Mutex<()>,
    done: [AtomicU64; Failure::ALL.len()],
    refused: AtomicU64,
}

/// What became of an endpoint that failed too often.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ejection {
    /// It is ejected for so long.
    Done(Duration),
    /// It was already.
    Already,
    /// As many of its peers are ejected as may be.
    Refused,
}

impl Ejections {
    /// Ejects an endpoint that failed too often, if its peers, of which it is one, allow it.
    pub fn eject<'a>(
        &self,
        outlier: &Outlier,
        peers: impl Iterator<Item = &'a Outlier>,
        (failure, policy): (Failure, &OutlierDetection),
        now: Instant,
    ) -> Ejection {
        let _turn = lock(&self.turn);
        // Ejected or not, it is counted anew.
        outlier.forget_failures();
        if outlier.ejected(|| now).is_some() {
            return Ejection::Already;
        }
        let (mut all, mut ejected) = (0, 0);
        for peer in peers {
            all += 1;
            ejected += usize::from(peer.ejected(|| now).is_some());
        }
        if !may_eject(ejected, all, policy.max_ejection_percent) {
            self.refused.fetch_add(1, Ordering::Relaxed);
            return Ejection::Refused;
        }
        self.done[failure as usize].fetch_add(1, Ordering::Relaxed);
        Ejection::Done(outlier.eject(now, policy))
    }

    /// Endpoints that were ejected, by what they failed with.
    pub fn done(&self, failure: Failure) -> u64 {
        self.done[failure as usize].load(Ordering::Relaxed)
    }

    /// Endpoints that were not ejected because too many others were.
    pub fn refused(&self) -> u64 {
        self.refused.load(Ordering::Relaxed)
    }
}

/// Whether one more of them may be ejected.
fn may_eject(ejected: usize, all: usize, percent: u32) -> bool {
    let most = all.saturating_mul(usize::try_from(percent).unwrap_or(100)) / 100;
    ejected < most
}

/// What is behind it is as good as before: nobody leaves it half written.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
