//! Events: what became of routes and clients, and of pods without a sidecar, for `kubectl describe` and `kubectl events`.
//! They are sent beside the turns, slowly, and are lost rather than waited for.

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
    waiting: mpsc::Sender<Waiting>,
    metrics: Arc<Metrics>,
}

/// What is to be sent.
struct Waiting {
    about: ObjectReference,
    told: Told,
    /// Whether it is told once for each object and reason, whoever leads.
    is_once: bool,
}

/// What sends it.
pub struct Publisher {
    waiting: mpsc::Receiver<Waiting>,
    recorder: Recorder,
    metrics: Arc<Metrics>,
}

/// Both ends. `instance` is the process that tells.
#[must_use]
pub fn channel(client: Client, instance: String, metrics: Arc<Metrics>) -> (Events, Publisher) {
    let (sender, waiting) = mpsc::channel(EVENTS_WAITING);
    let recorder = Recorder::new(client, instance);
    let publisher = Publisher { waiting, recorder, metrics: Arc::clone(&metrics) };
    (Events { waiting: sender, metrics }, publisher)
}

impl Events {
    /// Tells of an object, unless too much waits to be told already.
    pub fn tell<K: Resource<DynamicType = ()>>(&self, object: &K, told: impl IntoIterator<Item = Told>) {
        told.into_iter().for_each(|told| self.send(object, told, false));
    }

    /// The same of what nothing in the cluster says to have been told: for as long as the API server keeps the event,
    /// nobody tells it again.
    pub fn tell_once<K: Resource<DynamicType = ()>>(&self, object: &K, told: Told) {
        self.send(object, told, true);
    }

    fn send<K: Resource<DynamicType = ()>>(&self, object: &K, told: Told, is_once: bool) {
        // Of any version, so that the same again is counted and not told anew.
        let about = ObjectReference { resource_version: None, ..object.object_ref(&()) };
        if self.waiting.try_send(Waiting { about, told, is_once }).is_err() {
            self.metrics.event("dropped");
        }
    }
}

impl Publisher {
    /// Sends what there is, until nobody can tell anything any more.
    pub async fn run(mut self) {
        let mut next = interval(EVENT_EVERY);
        next.set_missed_tick_behavior(MissedTickBehavior::Delay);
        while let Some(Waiting { about, told, is_once }) = self.waiting.recv().await {
            next.tick().await;
            let published = match is_once {
                true => self.recorder.once(&about, &told).await,
                false => self.recorder.publish(&about, &told).await.map(|()| "published"),
            };
            self.metrics.event(published.as_ref().unwrap_or(&"failed"));
            if let Err(error) = published {
                // Of a namespace that ends, or without the right to: nothing depends on it.
                tracing::debug!(%error, reason = told.reason, "an event could not be written");
            }
        }
    }
}
