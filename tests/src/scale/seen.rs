//! What the statuses of routes and clients say, as it is watched.

use std::collections::{BTreeSet, HashMap, HashSet};
use std::pin::pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use futures_util::StreamExt;
use kube::api::{ApiResource, DynamicObject};
use kube::runtime::watcher::{self, Event, watcher};
use kube::{Api, Client, ResourceExt};
use serde_json::Value;
use tokio::runtime::Runtime;

use super::objects;

type Name = (String, String);
/// Takes in what a status says.
type Note = fn(&mut State, Name, &DynamicObject);

/// What was seen.
pub(super) struct Seen(Arc<Mutex<State>>);

#[derive(Default)]
struct State {
    /// The generation that is loaded by all pods of each route.
    programmed: HashMap<Name, i64>,
    issued: HashSet<Name>,
    failed: Option<String>,
}

fn lock(state: &Mutex<State>) -> MutexGuard<'_, State> {
    state.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Seen {
    /// Watches from now on, for as long as the runtime is there.
    pub(super) fn start(runtime: &Runtime, client: &Client, namespaces: &BTreeSet<String>) -> Self {
        let state = Arc::new(Mutex::new(State::default()));
        let watched: [(ApiResource, Note); 2] =
            [(objects::routes(), note_route), (objects::identities(), note_identity)];
        for (resource, note) in watched {
            let (state, namespaces) = (Arc::clone(&state), namespaces.clone());
            let api = Api::<DynamicObject>::all_with(client.clone(), &resource);
            runtime.spawn(async move {
                let mut events = pin!(watcher(api, watcher::Config::default()));
                while let Some(event) = events.next().await {
                    match event {
                        Ok(Event::Apply(object) | Event::InitApply(object)) => {
                            let name = (object.namespace().unwrap_or_default(), object.name_any());
                            if namespaces.contains(&name.0) {
                                note(&mut lock(&state), name, &object);
                            }
                        }
                        Ok(_) => {}
                        Err(error) => lock(&state).failed = Some(error.to_string()),
                    }
                }
            });
        }
        Self(state)
    }

    /// Routes that all their pods have loaded.
    pub(super) fn programmed(&self) -> usize {
        lock(&self.0).programmed.len()
    }

    /// Whether all pods have this generation of a route.
    pub(super) fn is_programmed(&self, namespace: &str, name: &str, generation: i64) -> bool {
        let state = lock(&self.0);
        state.programmed.get(&(namespace.to_owned(), name.to_owned())).is_some_and(|known| *known >= generation)
    }

    /// Clients that have their certificates.
    pub(super) fn issued(&self) -> usize {
        lock(&self.0).issued.len()
    }

    /// Why it cannot be watched.
    pub(super) fn failed(&self) -> Option<String> {
        lock(&self.0).failed.clone()
    }
}

/// The generation of which a condition is true.
fn is_true(object: &DynamicObject, kind: &str) -> Option<i64> {
    let conditions = object.data["status"]["conditions"].as_array()?;
    let condition = conditions.iter().find(|condition| condition["type"] == kind)?;
    Some(&condition["status"]).and_then(Value::as_str).filter(|status| *status == "True")?;
    condition["observedGeneration"].as_i64()
}

fn note_route(state: &mut State, name: Name, object: &DynamicObject) {
    match is_true(object, "Programmed") {
        Some(generation) => drop(state.programmed.insert(name, generation)),
        None => drop(state.programmed.remove(&name)),
    }
}

fn note_identity(state: &mut State, name: Name, object: &DynamicObject) {
    if is_true(object, "Issued").is_some() {
        state.issued.insert(name);
    }
}
