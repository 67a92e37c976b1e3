//! Asks each endpoint now and then whether it is well: on the control thread, once for all workers.

use std::cell::RefCell;
use std::collections::HashMap;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use sidecar_config::health::HealthCheck;
use tokio::sync::Semaphore;
use tokio::task::AbortHandle;
use tokio::time::sleep;

use super::probe::{ProbeError, probe};
use super::standing::{Health, Standing};
use crate::balance::Random;
use crate::limits::HEALTH_CHECKS_AT_ONCE;
use crate::tls::UpstreamTls;
use crate::upstream::EndpointState;

/// Counts of checks.
#[derive(Debug, Default)]
pub struct Checks {
    passed: AtomicU64,
    failed: AtomicU64,
    changes: [AtomicU64; 2],
}

impl Checks {
    /// Checks by their result.
    pub fn results(&self) -> [(&'static str, u64); 2] {
        [("passed", self.passed.load(Ordering::Relaxed)), ("failed", self.failed.load(Ordering::Relaxed))]
    }

    /// Endpoints that became well, or ceased to be.
    pub fn changes(&self) -> [(&'static str, u64); 2] {
        let [healthy, unhealthy] = &self.changes;
        [("healthy", healthy.load(Ordering::Relaxed)), ("unhealthy", unhealthy.load(Ordering::Relaxed))]
    }
}

/// The checks of all endpoints of a generation.
#[derive(Debug)]
pub struct Checker {
    running: HashMap<usize, Running>,
    shared: Rc<Shared>,
}

#[derive(Debug)]
struct Shared {
    turns: Semaphore,
    random: Random,
    checks: Arc<Checks>,
}

/// A task that checks an endpoint until it is dropped.
#[derive(Debug)]
struct Running {
    /// Kept, so that no other endpoint comes to lie in its place.
    _endpoint: Arc<EndpointState>,
    tls: Tls,
    task: AbortHandle,
}

/// TLS to an endpoint, as the newest generation has it; `None` where it speaks none, or none can be spoken.
type Tls = Rc<RefCell<Option<Arc<UpstreamTls>>>>;

impl Drop for Running {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Checker {
    /// One that checks nothing yet.
    pub fn new(checks: Arc<Checks>) -> Self {
        let turns = Semaphore::new(HEALTH_CHECKS_AT_ONCE);
        Self { running: HashMap::new(), shared: Rc::new(Shared { turns, random: Random::new(), checks }) }
    }

    /// Checks these endpoints from now on, and no others. What is known of those that stay is kept. Call it on a local
    /// runtime.
    pub fn follow(&mut self, endpoints: &[Arc<EndpointState>], tls: &[Option<Arc<UpstreamTls>>]) {
        let mut before = std::mem::take(&mut self.running);
        for (endpoint, tls) in endpoints.iter().zip(tls) {
            let Some(check) = endpoint.policy().health_check.clone() else { continue };
            let key = Arc::as_ptr(endpoint).addr();
            let running = before.remove(&key).unwrap_or_else(|| {
                let newest = Tls::default();
                let run = run(Arc::clone(endpoint), Rc::clone(&newest), check, Rc::clone(&self.shared));
                let task = tokio::task::spawn_local(run).abort_handle();
                Running { _endpoint: Arc::clone(endpoint), tls: newest, task }
            });
            running.tls.borrow_mut().clone_from(tls);
            self.running.insert(key, running);
        }
    }
}

async fn run(endpoint: Arc<EndpointState>, tls: Tls, check: HealthCheck, shared: Rc<Shared>) {
    let mut standing = Standing::default();
    loop {
        let Ok(turn) = shared.turns.acquire().await else { return };
        let newest = tls.borrow().clone();
        let result = probe(&endpoint, newest.as_deref(), &check).await;
        drop(turn);
        match &result {
            Err(error) if !error.is_its_fault() => {
                tracing::warn!(address = %endpoint.address(), %error, "an upstream could not be checked");
            }
            _ => standing = note(&endpoint, standing, &check, &result, &shared.checks),
        }
        sleep(pause(&check, &shared.random)).await;
    }
}

/// Enters a result.
fn note(
    endpoint: &EndpointState,
    before: Standing,
    check: &HealthCheck,
    result: &Result<(), ProbeError>,
    checks: &Checks,
) -> Standing {
    let count = if result.is_ok() { &checks.passed } else { &checks.failed };
    count.fetch_add(1, Ordering::Relaxed);
    let standing = before.after(result.is_ok(), check);
    endpoint.found(standing.health);
    match (before.health, standing.health) {
        (before, now) if before == now => {}
        // It was used before, and nothing changes.
        (Health::Unknown, Health::Healthy) => {}
        (_, Health::Unhealthy) => {
            checks.changes[1].fetch_add(1, Ordering::Relaxed);
            let why = result.as_ref().err().map(ToString::to_string).unwrap_or_default();
            tracing::warn!(address = %endpoint.address(), why, "an upstream is unhealthy");
        }
        (_, _) => {
            checks.changes[0].fetch_add(1, Ordering::Relaxed);
            tracing::info!(address = %endpoint.address(), "an upstream is healthy");
        }
    }
    standing
}

/// How long until the next check.
fn pause(check: &HealthCheck, random: &Random) -> Duration {
    let interval = check.interval.as_std();
    let most_ms = interval.as_millis() * u128::from(check.interval_jitter_percent) / 100;
    let more_ms = random.below(usize::try_from(most_ms).unwrap_or(usize::MAX).saturating_add(1));
    interval + Duration::from_millis(u64::try_from(more_ms).unwrap_or(u64::MAX))
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::pause;
    use crate::balance::Random;

    #[test]
    fn a_pause_is_the_interval_and_a_part_of_its_share() {
        for (percent, most) in [(0, 200), (10, 220), (100, 400)] {
            let document = serde_json::json!({ "tcp": {}, "interval": "200ms", "intervalJitterPercent": percent });
            let check = serde_json::from_value(document).unwrap();
            let random = Random::from_seed(7);
            let pauses: Vec<_> = (0..1000).map(|_| pause(&check, &random)).collect();
            let bounds = (*pauses.iter().min().unwrap(), *pauses.iter().max().unwrap());
            assert_eq!(bounds, (Duration::from_millis(200), Duration::from_millis(most)), "{percent}");
        }
    }
}
