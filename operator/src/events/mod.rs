//! Events: what became of routes and clients, for `kubectl describe` and `kubectl events`. They are sent beside the turns,
//! slowly, and are lost rather than waited for.

mod record;
pub mod transition;

use std::sync::Arc;

use k8s_openapi::api::core::v1::ObjectReference;
use kube::{Client, Resource};
use tokio::sync::mpsc;
use tokio::time::{MissedTickBehavior, interval};

use self::record::Recorder;
use self::transition::Told;
use crate::limits::{EVENT_EVERY, EVENTS_WAITING};
use crate::metrics::Metrics;

/// Where turns leave what there is to tell.
#[derive(Clone, Debug)]
pub struct Events {
    waiting: mpsc::Sender<(ObjectReference, Told)>,
    metrics: Arc<Metrics>,
}

/// What sends it.
pub struct Publisher {
    waiting: mpsc::Receiver<(ObjectReference, Told)>,
    recorder: Recorder,
    metrics: Arc<Metrics>,
}

/// Both ends. `instance` is the process that tells.
#[must_use]
pub fn channel(client: Client, instance: String, metrics: Arc<Metrics>) -> (Events, Publisher) {
    let (sender, waiting) = mpsc::channel(EVENTS_WAITING);
    let recorder = Recorder::new(client, instance);
    (Events { waiting: sender, metrics: Arc::clone(&metrics) }, Publisher { waiting, recorder, metrics })
}

impl Events {
    /// Tells of an object, unless too much waits to be told already.
    pub fn tell<K: Resource<DynamicType = ()>>(&self, object: &K, told: impl IntoIterator<Item = Told>) {
        for told in told {
            // Of any version, so that the same again is counted and not told anew.
            let reference = ObjectReference { resource_version: None, ..object.object_ref(&()) };
            if self.waiting.try_send((reference, told)).is_err() {
                self.metrics.event("dropped");
            }
        }
    }
}

impl Publisher {
    /// Sends what there is, until nobody can tell anything any more.
    pub async fn run(mut self) {
        let mut next = interval(EVENT_EVERY);
        next.set_missed_tick_behavior(MissedTickBehavior::Delay);
        while let Some((reference, told)) = self.waiting.recv().await {
            next.tick().await;
            let published = self.recorder.publish(&reference, &told).await;
            self.metrics.event(if published.is_ok() { "published" } else { "failed" });
            if let Err(error) = published {
                // Of a namespace that ends, or without the right to: nothing depends on it.
                tracing::debug!(%error, reason = told.reason, "an event could not be written");
            }
        }
    }
}
