//! Events: what became of routes and clients, and of pods without a sidecar, for `kubectl describe` and `kubectl events`.
//! They are sent beside the turns, slowly, and are lost rather than waited for.

pub mod transition;

use std::sync::Arc;

use k8s_openapi::api::core::v1::ObjectReference;
use k8s_openapi::api::events::v1::Event as EventObject;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{MicroTime, ObjectMeta};
use k8s_openapi::jiff::Timestamp;
use kube::api::PostParams;
use kube::runtime::events::{Event, EventType, Recorder, Reporter};
use kube::{Api, Client, Resource};
use tokio::sync::mpsc;
use tokio::time::{MissedTickBehavior, interval};

use self::transition::Told;
use crate::FIELD_MANAGER;
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
    client: Client,
    reporter: Reporter,
    recorder: Recorder,
    metrics: Arc<Metrics>,
}

/// Both ends. `instance` is the process that tells.
#[must_use]
pub fn channel(client: Client, instance: String, metrics: Arc<Metrics>) -> (Events, Publisher) {
    let (sender, waiting) = mpsc::channel(EVENTS_WAITING);
    let reporter = Reporter { controller: FIELD_MANAGER.to_owned(), instance: Some(instance) };
    let recorder = Recorder::new(client.clone(), reporter.clone());
    let publisher = Publisher { waiting, client, reporter, recorder, metrics: Arc::clone(&metrics) };
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
            let event = Event {
                type_: if told.is_warning { EventType::Warning } else { EventType::Normal },
                reason: told.reason,
                note: Some(told.note).filter(|note| !note.is_empty()),
                action: told.action.to_owned(),
                secondary: None,
            };
            let published = match is_once {
                true => self.once(&event, &about).await,
                false => self.recorder.publish(&event, &about).await.map(|()| "published"),
            };
            self.metrics.event(published.as_ref().unwrap_or(&"failed"));
            if let Err(error) = published {
                // Of a namespace that ends, or without the right to: nothing depends on it.
                tracing::debug!(%error, reason = event.reason, "an event could not be written");
            }
        }
    }
    /// Writes an event under a name that is the same whoever writes it, unless it is there.
    async fn once(&self, event: &Event, about: &ObjectReference) -> kube::Result<&'static str> {
        let namespace = about.namespace.clone().unwrap_or_default();
        let name =
            format!("postern.{}.{}", about.uid.as_deref().unwrap_or_default(), event.reason.to_ascii_lowercase());
        let object = EventObject {
            metadata: ObjectMeta { name: Some(name), namespace: Some(namespace.clone()), ..ObjectMeta::default() },
            event_time: Some(MicroTime(Timestamp::now())),
            type_: Some(if event.type_ == EventType::Warning { "Warning" } else { "Normal" }.to_owned()),
            reason: Some(event.reason.clone()),
            note: event.note.clone(),
            action: Some(event.action.clone()),
            regarding: Some(about.clone()),
            reporting_controller: Some(self.reporter.controller.clone()),
            reporting_instance: self.reporter.instance.clone(),
            ..EventObject::default()
        };
        let events = Api::<EventObject>::namespaced(self.client.clone(), &namespace);
        match events.create(&PostParams::default(), &object).await {
            Ok(_) => Ok("published"),
            Err(kube::Error::Api(error)) if error.code == 409 => Ok("known"),
            Err(error) => Err(error),
        }
    }
}
