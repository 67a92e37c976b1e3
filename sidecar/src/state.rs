//! What the whole process tells about itself: written by the control thread, read by the status port.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use postern_telemetry::SpanStats;
use sidecar_config::policy::Protocol;
use sidecar_config::settings::Settings;
use sidecar_config::status::{ContractRange, Parts, Shipping, Status};
use sidecar_config::{CONTRACT_MAX, CONTRACT_MIN};
use sidecar_decide::snapshot::Bundle;
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;
use tokio::sync::{Notify, Semaphore};

use crate::admin::Asker;
use crate::config::{Generation, KeepStats, Publisher, Reloads};
use crate::dns::Lookups;
use crate::exposure::Exposure;
use crate::health::{Checks, Ejections};
use crate::limit::UnderWay;
use crate::limits::{PROBES_AT_ONCE, ROUTE_WAIT};
use crate::log;
use crate::memory::Trims;
use crate::metrics::{Handshakes, Registry};
use crate::upstream::Budget;

/// The process as others see it.
pub struct State {
    /// What the workers count.
    pub counted: Arc<Registry>,
    /// Counts of handshakes and connections.
    pub handshakes: Arc<Handshakes>,
    /// What is under way.
    pub under_way: UnderWay,
    /// Connections to upstreams.
    pub upstreams: Arc<Budget>,
    /// Counts of endpoints that were left out.
    pub ejections: Arc<Ejections>,
    /// Lookups of names.
    pub lookups: Arc<Lookups>,
    /// Counts of their checks.
    pub checks: Arc<Checks>,
    /// Counts of the request log.
    pub log: Arc<log::Stats>,
    /// Counts of spans, where requests are traced.
    pub traces: Option<Arc<SpanStats>>,
    /// Memory given back.
    pub trims: Arc<Trims>,
    /// How the state directory fares.
    pub kept: Arc<KeepStats>,
    /// Places for probes of the application.
    pub probes: Semaphore,
    /// How the process runs.
    pub settings: Settings,
    /// Ways around the gate.
    exposure: Exposure,
    loaded: Mutex<Loaded>,
    draining: AtomicBool,
    drained: AtomicBool,
    drain_asked: Notify,
    started: AtomicBool,
    /// Connections whose time was over, by who asked.
    admin_cut: [AtomicU64; 2],
}

/// What is served now.
struct Loaded {
    generation: Arc<Generation>,
    parts: Parts,
    accepted: sidecar_decide::Parts,
    reloads: [Reloads; 5],
    unbound: Vec<String>,
    /// Since when there is a policy with listeners and no route of it for this pod.
    routeless: Option<Instant>,
}

impl State {
    /// A process that serves nothing yet.
    pub fn new(
        settings: Settings,
        generation: Arc<Generation>,
        parts: Parts,
        (upstreams, ejections): (Arc<Budget>, Arc<Ejections>),
    ) -> Self {
        let (accepted, reloads) = (sidecar_decide::Parts::default(), [Reloads::default(); 5]);
        let loaded = Loaded { generation, parts, accepted, reloads, unbound: Vec::new(), routeless: None };
        Self {
            counted: Arc::default(),
            handshakes: Arc::default(),
            under_way: UnderWay::default(),
            upstreams,
            ejections,
            lookups: Arc::default(),
            checks: Arc::default(),
            log: Arc::default(),
            traces: settings.tracing.is_some().then(Arc::default),
            trims: Arc::default(),
            kept: Arc::default(),
            probes: Semaphore::new(PROBES_AT_ONCE),
            settings,
            exposure: Exposure::default(),
            loaded: Mutex::new(loaded),
            draining: AtomicBool::new(false),
            drained: AtomicBool::new(false),
            drain_asked: Notify::new(),
            started: AtomicBool::new(false),
            admin_cut: Default::default(),
        }
    }

    /// Another generation is served, of what was accepted; these listeners could not be bound.
    pub fn load(&self, generation: Arc<Generation>, publisher: &Publisher, unbound: Vec<String>) {
        let (parts, accepted, reloads) = (publisher.states(), publisher.parts().clone(), publisher.reloads());
        let is_routeless = is_routeless(&generation, &accepted);
        let mut loaded = self.loaded.lock().unwrap_or_else(PoisonError::into_inner);
        let routeless = is_routeless.then(|| loaded.routeless.unwrap_or_else(Instant::now));
        *loaded = Loaded { generation, parts, accepted, reloads, unbound, routeless };
        drop(loaded);
        self.counted.reloaded();
        let _so_far = self.not_started();
    }

    /// From now on nothing new is wanted.
    pub fn drain(&self) {
        self.draining.store(true, Ordering::Relaxed);
    }

    /// Asks the control thread to drain. From now on it is not ready.
    pub fn ask_drain(&self) {
        self.drain();
        self.drain_asked.notify_one();
    }

    /// Resolves when somebody has asked.
    pub async fn drain_asked(&self) {
        self.drain_asked.notified().await;
    }

    /// All connections have ended.
    pub fn finish_drain(&self) {
        self.drained.store(true, Ordering::Relaxed);
    }

    /// Whether nothing new is wanted.
    pub fn is_draining(&self) -> bool {
        self.draining.load(Ordering::Relaxed)
    }

    /// Whether all connections have ended.
    pub fn is_drained(&self) -> bool {
        self.drained.load(Ordering::Relaxed)
    }

    /// Why it has not been ready yet; nothing once it was. A pod that no route selects, of a workload that has some, is waited
    /// with for a while: it may have come before its route was written.
    pub fn not_started(&self) -> Vec<String> {
        if self.started.load(Ordering::Relaxed) {
            return Vec::new();
        }
        let mut reasons = self.not_ready();
        let routeless = self.loaded.lock().unwrap_or_else(PoisonError::into_inner).routeless;
        reasons.extend(routeless.and_then(|since| still_waits(since.elapsed())));
        if reasons.is_empty() {
            self.started.store(true, Ordering::Relaxed);
        }
        reasons
    }

    /// What is served now.
    pub fn generation(&self) -> Arc<Generation> {
        Arc::clone(&self.loaded.lock().unwrap_or_else(PoisonError::into_inner).generation)
    }

    /// What is served, and what was accepted for it.
    pub fn served(&self) -> (Arc<Generation>, sidecar_decide::Parts) {
        let loaded = self.loaded.lock().unwrap_or_else(PoisonError::into_inner);
        (Arc::clone(&loaded.generation), loaded.accepted.clone())
    }

    /// What was accepted of each part.
    pub fn accepted(&self) -> sidecar_decide::Parts {
        self.loaded.lock().unwrap_or_else(PoisonError::into_inner).accepted.clone()
    }

    /// When the first of the gate's own leaves expires, seconds since the epoch.
    pub fn leaf_not_after(&self) -> Option<i64> {
        let loaded = self.loaded.lock().unwrap_or_else(PoisonError::into_inner);
        let certificates = &loaded.generation.snapshot.server.as_ref()?.certificates;
        certificates.iter().filter_map(|certificate| certificate.facts()).map(|facts| facts.not_after).min()
    }

    /// What became of the offers of every part, in the order of the status document.
    pub fn reloads(&self) -> [Reloads; 5] {
        self.loaded.lock().unwrap_or_else(PoisonError::into_inner).reloads
    }

    /// When the first certificate of each bundle expires, seconds since the epoch.
    pub fn bundle_expiries(&self) -> Vec<(Arc<str>, i64)> {
        let loaded = self.loaded.lock().unwrap_or_else(PoisonError::into_inner);
        let bundles = loaded.generation.snapshot.bundles.iter();
        let first = |bundle: &Bundle| {
            let certificates = bundle.roots.iter().chain(&bundle.intermediates);
            Some((Arc::clone(&bundle.name), certificates.map(|certificate| certificate.facts.not_after).min()?))
        };
        bundles.filter_map(first).collect()
    }

    /// Counts a connection to the status port or the admin socket that was ended because its time was over.
    pub fn cut_admin(&self, asker: Asker) {
        self.admin_cut[asker as usize].fetch_add(1, Ordering::Relaxed);
    }

    /// Such connections, of the status port and of the admin socket.
    pub fn admin_cut(&self) -> [u64; 2] {
        self.admin_cut.each_ref().map(|count| count.load(Ordering::Relaxed))
    }

    /// When the first revocation list of each bundle must be replaced, seconds since the epoch.
    pub fn crl_next_updates(&self) -> Vec<(Arc<str>, i64)> {
        let loaded = self.loaded.lock().unwrap_or_else(PoisonError::into_inner);
        let bundles = loaded.generation.snapshot.bundles.iter();
        bundles.filter_map(|bundle| Some((Arc::clone(&bundle.name), bundle.listed.next_update()?))).collect()
    }

    /// Why it is not ready; nothing when it is. A failing log is no reason: traffic goes on without it.
    pub fn not_ready(&self) -> Vec<String> {
        let mut reasons = Vec::new();
        if self.is_draining() {
            reasons.push("draining".to_owned());
        }
        let loaded = self.loaded.lock().unwrap_or_else(PoisonError::into_inner);
        let snapshot = &loaded.generation.snapshot;
        if snapshot.policy_revision.is_none() {
            reasons.push("no policy loaded".to_owned());
        }
        if snapshot.listeners.iter().any(|listener| listener.protocol != Protocol::Http) {
            match leaf(&loaded.generation) {
                None => reasons.push("no certificate loaded".to_owned()),
                Some(facts) if facts.not_after < unix_seconds() => reasons.push("certificate expired".to_owned()),
                Some(_) => {}
            }
        }
        reasons.extend(loaded.unbound.iter().cloned());
        reasons
    }

    /// The `/status` document.
    pub fn status(&self) -> Status {
        let ready = self.not_ready().is_empty();
        let loaded = self.loaded.lock().unwrap_or_else(PoisonError::into_inner);
        let leaf = leaf(&loaded.generation);
        let routes = loaded.generation.snapshot.routes.iter();
        let (local, own) = local_ports(&loaded.generation, self.settings.status_address);
        Status {
            contract: ContractRange { min: CONTRACT_MIN, max: CONTRACT_MAX },
            pod_uid: self.settings.pod.uid.clone(),
            parts: loaded.parts.clone(),
            routes: routes.map(|(name, hash)| (name.clone(), hash.to_string())).collect(),
            leaf_serial: leaf.map(|facts| facts.serial.clone()),
            leaf_not_after: leaf.and_then(|facts| rfc3339(facts.not_after)),
            ready,
            exposed_ports: self.exposure.ports(local, &own),
            version: Some(env!("CARGO_PKG_VERSION").to_owned()),
            shipping: self.log.ship.is_on().then(|| self.shipping()),
        }
    }

    fn shipping(&self) -> Shipping {
        let ship = &self.log.ship;
        Shipping {
            failing: ship.failing().map(|failure| failure.name().to_owned()),
            backlog_rows: ship.backlog_rows(&self.log),
            backlog_bytes: ship.backlog_bytes(),
            backlog_age_seconds: ship.backlog_age_seconds(SystemTime::now()),
            watermark: i64::try_from(ship.watermark_seconds()).ok().filter(|seconds| *seconds > 0).and_then(rfc3339),
            dropped_rows: ship.lost_total(),
        }
    }
}

/// Whether there are listeners, and no route on them for a pod that is told which it is.
fn is_routeless(generation: &Generation, accepted: &sidecar_decide::Parts) -> bool {
    let snapshot = &generation.snapshot;
    accepted.pod_labels.is_some() && snapshot.routes.is_empty() && !snapshot.listeners.is_empty()
}

/// What a start waits for that has waited so long for a route.
fn still_waits(waited: Duration) -> Option<String> {
    let left = ROUTE_WAIT.checked_sub(waited).filter(|left| !left.is_zero())?;
    let seconds = left.as_secs_f32().ceil();
    Some(format!("no route of its workload selects this pod by its labels; it starts without one in {seconds} s"))
}

/// Ports of backends on loopback, and where the gate itself listens.
fn local_ports(generation: &Generation, status: SocketAddr) -> (BTreeSet<u16>, Vec<SocketAddr>) {
    let backends = generation.snapshot.endpoints.iter().map(|endpoint| endpoint.address);
    let local = backends.filter(|address| address.ip().to_canonical().is_loopback());
    let listeners = generation.listening();
    let own = listeners.iter().map(|key| key.address).chain([status]).collect();
    (local.map(|address| address.port()).collect(), own)
}

/// The leaf of the default certificate: one for some other name that expires must not make the whole gate unready.
fn leaf(generation: &Generation) -> Option<&sidecar_decide::CertificateFacts> {
    generation.snapshot.server.as_ref()?.certificates.first()?.facts()
}

fn rfc3339(seconds: i64) -> Option<String> {
    OffsetDateTime::from_unix_timestamp(seconds).ok()?.format(&Rfc3339).ok()
}

fn unix_seconds() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_secs()).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::still_waits;
    use crate::limits::ROUTE_WAIT;

    #[test]
    fn a_start_waits_for_a_route_for_so_long_and_no_longer() {
        let told = |seconds| {
            format!("no route of its workload selects this pod by its labels; it starts without one in {seconds} s")
        };
        let table = [
            (Duration::ZERO, Some(told(10))),
            (Duration::from_millis(9_100), Some(told(1))),
            (ROUTE_WAIT, None),
            (Duration::MAX, None),
        ];
        for (waited, expected) in table {
            assert_eq!(still_waits(waited), expected, "{waited:?}");
        }
    }
}
