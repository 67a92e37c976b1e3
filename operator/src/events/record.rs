//! Writes events, and counts what is told again soon instead of telling it anew. kube's own recorder does the same and
//! keeps each event as a whole for it: with 2,000 clients that are 9 MB, of which this keeps a tenth.

use std::collections::HashMap;

use k8s_openapi::api::core::v1::ObjectReference;
use k8s_openapi::api::events::v1::{Event, EventSeries};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{MicroTime, ObjectMeta};
use k8s_openapi::jiff::{SignedDuration, Timestamp};
use kube::api::{Patch, PatchParams, PostParams};
use kube::{Api, Client};
use serde_json::json;
use sha2::{Digest as _, Sha256};

use super::transition::Told;
use crate::FIELD_MANAGER;

/// How long the same again is the same event, as client-go has it.
const COUNTED_FOR: SignedDuration = SignedDuration::from_mins(6);

/// Whom and what an event is about, but not in which words: tells those apart that are counted.
type About = [u8; 16];

/// What is kept of an event.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Known {
    /// When it was told first, in nanoseconds: with that it has its name.
    first: i128,
    count: i32,
    last: Timestamp,
}

/// Writes events.
pub(super) struct Recorder {
    client: Client,
    instance: String,
    known: HashMap<About, Known>,
}

impl Recorder {
    /// One that writes as this process.
    pub(super) fn new(client: Client, instance: String) -> Self {
        Self { client, instance, known: HashMap::new() }
    }

    /// Tells of an object, or counts that it was told again.
    pub(super) async fn publish(&mut self, object: &ObjectReference, told: &Told) -> kube::Result<()> {
        let now = Timestamp::now();
        self.known.retain(|_, known| known.last + COUNTED_FOR > now);
        let about = about(object, told);
        let events = Api::<Event>::namespaced(self.client.clone(), object.namespace.as_deref().unwrap_or("default"));
        let known = match self.known.get(&about) {
            Some(before) => {
                let known = Known { count: before.count.saturating_add(1), last: now, ..*before };
                let series = EventSeries { count: known.count, last_observed_time: MicroTime(now) };
                let patch = Patch::Merge(json!({"series": series}));
                events.patch(&name(object, known.first), &PatchParams::default(), &patch).await?;
                known
            }
            None => {
                let known = Known { first: now.as_nanosecond(), count: 1, last: now };
                let event = self.event(object, told, name(object, known.first), now);
                events.create(&PostParams::default(), &event).await?;
                known
            }
        };
        self.known.insert(about, known);
        Ok(())
    }

    /// Writes an event under a name that is the same whoever writes it, unless it is there.
    pub(super) async fn once(&self, object: &ObjectReference, told: &Told) -> kube::Result<&'static str> {
        let events = Api::<Event>::namespaced(self.client.clone(), object.namespace.as_deref().unwrap_or("default"));
        let uid = object.uid.as_deref().unwrap_or_default();
        let name = format!("postern.{uid}.{}", told.reason.to_ascii_lowercase());
        match events.create(&PostParams::default(), &self.event(object, told, name, Timestamp::now())).await {
            Ok(_) => Ok("published"),
            Err(kube::Error::Api(error)) if error.code == 409 => Ok("known"),
            Err(error) => Err(error),
        }
    }

    fn event(&self, object: &ObjectReference, told: &Told, name: String, now: Timestamp) -> Event {
        Event {
            action: Some(told.action.to_owned()),
            event_time: Some(MicroTime(now)),
            metadata: ObjectMeta { name: Some(name), namespace: object.namespace.clone(), ..ObjectMeta::default() },
            note: Some(told.note.clone()).filter(|note| !note.is_empty()),
            reason: Some(told.reason.clone()),
            regarding: Some(object.clone()),
            reporting_controller: Some(FIELD_MANAGER.to_owned()),
            reporting_instance: Some(self.instance.clone()),
            type_: Some(if told.is_warning { "Warning" } else { "Normal" }.to_owned()),
            ..Event::default()
        }
    }
}

/// As client-go calls them.
fn name(object: &ObjectReference, first: i128) -> String {
    format!("{}.{first:x}", object.name.as_deref().unwrap_or(FIELD_MANAGER))
}

fn about(object: &ObjectReference, told: &Told) -> About {
    let Told { is_warning, reason, action, note: _ } = told;
    let ObjectReference { kind, namespace, name, uid, .. } = object;
    let mut hasher = Sha256::new_with_prefix([u8::from(*is_warning)]);
    let of_object = [kind, namespace, name, uid].map(|word| word.as_deref().unwrap_or_default());
    for word in of_object.into_iter().chain([reason.as_str(), action]) {
        hasher.update(word.len().to_le_bytes());
        hasher.update(word);
    }
    let mut about = About::default();
    about.copy_from_slice(&hasher.finalize()[..16]);
    about
}

#[cfg(test)]
mod tests {
    use k8s_openapi::api::core::v1::ObjectReference;

    use super::about;
    use crate::events::transition::Told;

    #[test]
    fn the_same_again_is_told_by_whom_and_what_it_is_about() {
        let object = |name: &str, uid: &str| ObjectReference {
            name: Some(name.to_owned()),
            uid: Some(uid.to_owned()),
            ..ObjectReference::default()
        };
        let told = |is_warning: bool, reason: &str, action: &'static str, note: &str| Told {
            is_warning,
            reason: reason.to_owned(),
            action,
            note: note.to_owned(),
        };
        let first = about(&object("a", "1"), &told(true, "Invalid", "Check", "one"));
        for (case, object, told, is_same) in [
            ("the same", object("a", "1"), told(true, "Invalid", "Check", "one"), true),
            ("in other words", object("a", "1"), told(true, "Invalid", "Check", "two"), true),
            ("another object", object("b", "1"), told(true, "Invalid", "Check", "one"), false),
            ("made anew", object("a", "2"), told(true, "Invalid", "Check", "one"), false),
            ("no warning", object("a", "1"), told(false, "Invalid", "Check", "one"), false),
            ("another reason", object("a", "1"), told(true, "Issued", "Check", "one"), false),
            ("another deed", object("a", "1"), told(true, "Invalid", "Issue", "one"), false),
            ("words that are cut elsewhere", object("a", "1"), told(true, "InvalidC", "heck", "one"), false),
        ] {
            assert_eq!(about(&object, &told) == first, is_same, "{case}");
        }
    }
}
