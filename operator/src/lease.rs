//! Who leads: one Lease, and of all processes only the one that holds it writes.
//!
//! As client-go does it: whoever holds the Lease renews it; the others wait until it has not changed for as long as it
//! lasts, by their own clocks, so that no two clocks have to agree. Whoever cannot renew in time stops before another may
//! begin, and ends. kube-lease-manager reads the end of a lease from the wall clock, and does not tell when the renewal
//! began that a write rests on.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use k8s_openapi::api::coordination::v1::{Lease, LeaseSpec};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{MicroTime, ObjectMeta};
use k8s_openapi::jiff::Timestamp;
use kube::api::PostParams;
use kube::{Api, Client};
use thiserror::Error;
use tokio::time::{Instant, sleep, timeout_at};

use crate::FIELD_MANAGER;
use crate::queue::spread;

/// Name of the Lease.
pub const LEASE: &str = "postern-operator";

/// How long things take.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Times {
    /// How long a Lease that is not renewed keeps others from leading.
    pub duration: Duration,
    /// How long whoever leads may go on without having renewed it. Shorter than the duration.
    pub renew_deadline: Duration,
    /// Between two tries to get or renew it.
    pub retry: Duration,
}

/// Leading is over.
#[derive(Debug, Error)]
pub enum Lost {
    /// The Lease could not be renewed.
    #[error("the Lease was not renewed for {0:?}; another process may lead soon")]
    Expired(Duration),
    /// Somebody else holds it.
    #[error("the Lease is held by {0}")]
    Taken(String),
}

/// Until when this process may write.
#[derive(Debug)]
pub struct Leadership {
    begun: Instant,
    /// Milliseconds since then.
    until: AtomicU64,
}

impl Leadership {
    /// Not yet.
    #[must_use]
    pub fn none() -> Arc<Self> {
        Arc::new(Self { begun: Instant::now(), until: AtomicU64::new(0) })
    }

    /// Whether this process may write now. It is asked before each write: a process that was stopped for a while goes on
    /// in the middle of what it did, when another one may lead already.
    #[must_use]
    pub fn may_write(&self) -> bool {
        self.millis(Instant::now()) < self.until.load(Ordering::Acquire)
    }

    /// For as long as the process runs: nobody else is there.
    pub fn hold(&self) {
        self.until.store(u64::MAX, Ordering::Release);
    }

    fn hold_until(&self, at: Instant) {
        self.until.store(self.millis(at), Ordering::Release);
    }

    fn end(&self) {
        self.until.store(0, Ordering::Release);
    }

    fn millis(&self, at: Instant) -> u64 {
        u64::try_from(at.duration_since(self.begun).as_millis()).unwrap_or(u64::MAX)
    }
}

/// What to do about a Lease as it is.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Move {
    /// There is none.
    Create,
    /// It is ours, nobody's, or has not changed for as long as it lasts.
    Write {
        /// How often it has gone from one to another.
        transitions: i32,
        /// Since when it is held by whoever holds it then.
        acquired: Option<MicroTime>,
    },
    /// Somebody else holds it.
    Wait(String),
}

/// What was seen of the Lease last, and since when it has been so.
#[derive(Clone, Debug, PartialEq)]
struct Seen {
    spec: LeaseSpec,
    since: Instant,
}

/// Decides, of the Lease as it is now, and of what was seen before.
fn decide(lease: Option<&Lease>, seen: &mut Option<Seen>, me: &str, now: Instant) -> Move {
    let Some(spec) = lease.map(|lease| lease.spec.clone().unwrap_or_default()) else { return Move::Create };
    if seen.as_ref().is_none_or(|seen| seen.spec != spec) {
        *seen = Some(Seen { spec: spec.clone(), since: now });
    }
    let holder = spec.holder_identity.clone().unwrap_or_default();
    let transitions = spec.lease_transitions.unwrap_or_default();
    if holder == me {
        return Move::Write { transitions, acquired: spec.acquire_time };
    }
    let lasts = Duration::from_secs(u64::try_from(spec.lease_duration_seconds.unwrap_or_default()).unwrap_or_default());
    let is_over = seen.as_ref().is_some_and(|seen| now.duration_since(seen.since) >= lasts);
    if holder.is_empty() || is_over {
        return Move::Write { transitions: transitions.saturating_add(1), acquired: None };
    }
    Move::Wait(holder)
}

/// The Lease, for one process.
pub struct Election {
    api: Api<Lease>,
    me: String,
    times: Times,
    leadership: Arc<Leadership>,
    seen: RwLock<Option<Seen>>,
}

/// What came of a try.
enum Tried {
    Held,
    Other(String),
}

impl Election {
    /// Of this process, which is told apart from all others by its name.
    #[must_use]
    pub fn new(client: Client, namespace: &str, me: String, times: Times, leadership: Arc<Leadership>) -> Self {
        Self { api: Api::namespaced(client, namespace), me, times, leadership, seen: RwLock::new(None) }
    }

    /// Waits until this process leads.
    pub async fn lead(&self) {
        let mut last = None;
        loop {
            let begun = Instant::now();
            match timeout_at(begun + self.times.renew_deadline, self.attempt(begun)).await {
                Ok(Ok(Tried::Held)) => {
                    tracing::info!(identity = self.me, "this process leads");
                    return;
                }
                Ok(Ok(Tried::Other(holder))) => {
                    if last.as_ref() != Some(&holder) {
                        tracing::info!(holder, "another process leads; waiting");
                        last = Some(holder);
                    }
                }
                Ok(Err(error)) => tracing::warn!(%error, "cannot ask who leads; trying again"),
                Err(_) => tracing::warn!("nobody answers who leads; trying again"),
            }
            self.pause().await;
        }
    }

    /// Goes on leading, until that is over.
    pub async fn keep(&self) -> Lost {
        let mut renewed = Instant::now();
        loop {
            self.pause().await;
            let (begun, deadline) = (Instant::now(), renewed + self.times.renew_deadline);
            // A process that was stopped for longer asks nobody any more.
            if begun >= deadline {
                return self.lost(Lost::Expired(begun.duration_since(renewed)));
            }
            match timeout_at(deadline, self.attempt(begun)).await {
                Ok(Ok(Tried::Held)) => renewed = begun,
                Ok(Ok(Tried::Other(holder))) => return self.lost(Lost::Taken(holder)),
                Ok(Err(error)) => tracing::warn!(%error, "cannot renew the Lease; trying again"),
                Err(_) => return self.lost(Lost::Expired(renewed.elapsed())),
            }
        }
    }

    /// Stops leading, so that another one can begin at once.
    pub async fn release(&self) {
        self.leadership.end();
        let released = timeout_at(Instant::now() + self.times.retry, async {
            let Some(mut lease) = self.api.get_opt(LEASE).await? else { return Ok(()) };
            let spec = lease.spec.get_or_insert_default();
            if spec.holder_identity.as_ref() != Some(&self.me) {
                return Ok(());
            }
            spec.holder_identity = Some(String::new());
            spec.lease_duration_seconds = Some(1);
            spec.renew_time = Some(MicroTime(Timestamp::now()));
            self.api.replace(LEASE, &parameters(), &lease).await.map(|_| ())
        });
        match released.await {
            Ok(Ok(())) => tracing::info!("the Lease is free"),
            Ok(Err(error)) => tracing::warn!(%error, "cannot give back the Lease; it ends by itself"),
            Err(_) => tracing::warn!("nobody answers; the Lease ends by itself"),
        }
    }

    fn lost(&self, lost: Lost) -> Lost {
        self.leadership.end();
        lost
    }

    async fn attempt(&self, begun: Instant) -> Result<Tried, kube::Error> {
        let lease = self.api.get_opt(LEASE).await?;
        let next = {
            // Each change is whole.
            let mut seen = self.seen.write().unwrap_or_else(PoisonError::into_inner);
            decide(lease.as_ref(), &mut seen, &self.me, Instant::now())
        };
        let (is_new, transitions, acquired) = match next {
            Move::Wait(holder) => return Ok(Tried::Other(holder)),
            Move::Create => (true, 0, None),
            Move::Write { transitions, acquired } => (false, transitions, acquired),
        };
        let now = MicroTime(Timestamp::now());
        let mut lease = lease.unwrap_or_else(|| Lease {
            metadata: ObjectMeta { name: Some(LEASE.to_owned()), ..ObjectMeta::default() },
            spec: None,
        });
        let spec = lease.spec.get_or_insert_default();
        spec.holder_identity = Some(self.me.clone());
        spec.lease_duration_seconds = Some(seconds(self.times.duration));
        spec.acquire_time = Some(acquired.unwrap_or_else(|| now.clone()));
        spec.renew_time = Some(now);
        spec.lease_transitions = Some(transitions);
        // In the very version that was read: of two who try at once one gets it.
        let written = if is_new {
            self.api.create(&parameters(), &lease).await
        } else {
            self.api.replace(LEASE, &parameters(), &lease).await
        };
        match written {
            Ok(_) => {
                // From before it was asked: the others count from when they see it, which is later.
                self.leadership.hold_until(begun + self.times.renew_deadline);
                Ok(Tried::Held)
            }
            Err(error) => Err(error),
        }
    }

    /// A little longer each time for one than for the other, so that they do not always ask at once.
    async fn pause(&self) {
        sleep(self.times.retry + spread((&self.me, Timestamp::now().as_nanosecond()), self.times.retry / 5)).await;
    }
}

fn parameters() -> PostParams {
    PostParams { field_manager: Some(FIELD_MANAGER.to_owned()), ..PostParams::default() }
}

/// Whole seconds, not less than what is meant.
fn seconds(duration: Duration) -> i32 {
    let whole = duration.as_secs() + u64::from(duration.subsec_nanos() > 0);
    i32::try_from(whole).unwrap_or(i32::MAX).max(1)
}

#[cfg(test)]
mod tests;
