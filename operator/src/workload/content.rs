//! What an object of ours is to be, and what has to be done that it is so. Pure.

use std::collections::{BTreeMap, BTreeSet};

use crate::index::held::{MANAGED_LABEL, PART_LABEL, WRITTEN_ANNOTATION, is_ours};
use crate::index::pod::WORKLOAD_LABEL;
use crate::index::{ContentDigest, Entries, Held, HeldKind, ObjectName, Pairs};

/// An object as it is to be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Content {
    /// Its kind.
    pub kind: HeldKind,
    /// Its name.
    pub name: ObjectName,
    /// The type of a Secret; empty of a ConfigMap.
    pub secret_type: &'static str,
    /// Its labels.
    pub labels: BTreeMap<String, String>,
    /// Its annotations.
    pub annotations: BTreeMap<String, String>,
    /// Its entries.
    pub entries: Entries,
}

impl Content {
    /// A ConfigMap that carries a part, of one workload or a namespace.
    #[must_use]
    pub fn config_map(name: ObjectName, part: &str, workload: Option<&str>, entries: Entries) -> Self {
        let annotations = BTreeMap::new();
        Self { kind: HeldKind::ConfigMap, name, secret_type: "", labels: labels(part, workload), annotations, entries }
    }

    /// With an annotation, unless it is empty.
    #[must_use]
    pub fn annotated(mut self, name: &str, value: String) -> Self {
        if !value.is_empty() {
            self.annotations.insert(name.to_owned(), value);
        }
        self
    }

    /// With the digest of its entries beside them, so that whoever reads them again can tell that nobody else wrote them.
    #[must_use]
    pub fn sealed(self) -> Self {
        let digest = self.entries.digest().to_string();
        self.annotated(WRITTEN_ANNOTATION, digest)
    }

    /// A Secret that carries a part of one workload.
    #[must_use]
    pub fn secret(name: ObjectName, secret_type: &'static str, part: &str, workload: &str, entries: Entries) -> Self {
        let (labels, annotations) = (labels(part, Some(workload)), BTreeMap::new());
        Self { kind: HeldKind::Secret, name, secret_type, labels, annotations, entries }
    }

    /// Tells it apart from others.
    #[must_use]
    pub fn digest(&self) -> ContentDigest {
        ContentDigest::of(&self.labels, &self.annotations, &self.entries)
    }

    /// What has to be done, where the cluster has this of it.
    #[must_use]
    pub fn deed(&self, held: Option<&Held>) -> Deed {
        let Some(held) = held else { return Deed::Create };
        let is_of_others = [PART_LABEL, WORKLOAD_LABEL]
            .iter()
            .any(|label| held.labels.get(label) != self.labels.get(*label).map(String::as_str));
        if is_of_others || held.secret_type != self.secret_type {
            return Deed::Taken;
        }
        if held.is_ending {
            return Deed::Wait;
        }
        if held.digest == self.digest() {
            return Deed::Nothing;
        }
        let wanted = self.entries.names();
        let entries = held.names.iter().filter(|name| !wanted.contains(name)).map(|name| name.to_string()).collect();
        let surplus = |held: &Pairs, wanted: &BTreeMap<String, String>| {
            let names = held.iter().map(|(name, _)| name);
            names.filter(|name| is_ours(name) && !wanted.contains_key(*name)).map(str::to_owned).collect()
        };
        let labels = surplus(&held.labels, &self.labels);
        let annotations = surplus(&held.annotations, &self.annotations);
        Deed::Update { uid: held.uid.clone(), surplus: Surplus { entries, labels, annotations } }
    }
}

fn labels(part: &str, workload: Option<&str>) -> BTreeMap<String, String> {
    let mut labels =
        BTreeMap::from([MANAGED_LABEL, (PART_LABEL, part)].map(|(name, value)| (name.to_owned(), value.to_owned())));
    if let Some(workload) = workload {
        labels.insert(WORKLOAD_LABEL.to_owned(), workload.to_owned());
    }
    labels
}

/// What has to be done for an object to be as it should.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Deed {
    /// It is as it should be.
    Nothing,
    /// It has to be made, and only if there is none of this name.
    Create,
    /// It has to be changed, if it is still this one.
    Update {
        /// Its UID.
        uid: String,
        /// What it has and should not.
        surplus: Surplus,
    },
    /// It is on its way out, and can be made anew when it is gone.
    Wait,
    /// The name belongs to something else, which is left alone.
    Taken,
}

/// What an object has and should not: whoever applies what it should have leaves what others have added.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Surplus {
    /// Names of entries.
    pub entries: BTreeSet<String>,
    /// Labels that look like ours.
    pub labels: BTreeSet<String>,
    /// Annotations that look like ours.
    pub annotations: BTreeSet<String>,
}

impl Surplus {
    /// Whether there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty() && self.labels.is_empty() && self.annotations.is_empty()
    }
}

/// What becomes of an object by a plan. What a plan does not speak of stays: an incomplete plan must not remove anything.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Write {
    /// It is to be this.
    Set(Content),
    /// It stays as it is.
    Keep,
    /// It goes, if it is ours.
    Remove(HeldKind, ObjectName),
}

#[cfg(test)]
mod tests {
    use super::{Content, Deed, Surplus};
    use crate::index::{Entries, Held, HeldKind, ObjectName};

    fn content(text: &str) -> Content {
        let name = ObjectName::new("shop", "postern-policy-orders");
        Content::config_map(name, "policy", Some("orders"), Entries::default().with("policy.json", text))
    }

    fn held(content: &Content) -> Held {
        Held {
            kind: HeldKind::ConfigMap,
            name: content.name.clone(),
            uid: "u1".to_owned(),
            version: 1,
            labels: content.labels.clone().into(),
            annotations: content.annotations.clone().into(),
            secret_type: String::new(),
            digest: content.digest(),
            names: content.entries.names(),
            entries: None,
            is_ending: false,
        }
    }

    #[test]
    fn what_is_there_decides_what_is_done() {
        let wanted = content("new");
        let update_noted = |entries: &[&str], labels: &[&str], annotations: &[&str]| {
            let set = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect();
            let surplus = Surplus { entries: set(entries), labels: set(labels), annotations: set(annotations) };
            Deed::Update { uid: "u1".to_owned(), surplus }
        };
        let update = |entries: &[&str], labels: &[&str]| update_noted(entries, labels, &[]);
        let same = held(&wanted);
        let other_workload = Content::config_map(wanted.name.clone(), "policy", Some("x"), wanted.entries.clone());
        let other_part = Content::config_map(wanted.name.clone(), "endpoints", Some("orders"), wanted.entries.clone());
        let mut labelled = wanted.clone();
        labelled.labels.insert("team".to_owned(), "blue".to_owned());
        let mut marked = wanted.clone();
        marked.labels.insert("postern.dev/else".to_owned(), "1".to_owned());
        let noted = wanted.clone().annotated("postern.dev/else", "1".to_owned());
        let noted_by_others = wanted.clone().annotated("team", "blue".to_owned());
        let more = Content { entries: wanted.entries.clone().with("stray", "x"), ..wanted.clone() };
        let rows = [
            ("nothing there", None, Deed::Create),
            ("the same", Some(same.clone()), Deed::Nothing),
            ("labels of others", Some(held(&labelled)), Deed::Nothing),
            ("a label of ours too many", Some(held(&marked)), update(&[], &["postern.dev/else"])),
            ("an annotation of ours too many", Some(held(&noted)), update_noted(&[], &[], &["postern.dev/else"])),
            ("annotations of others", Some(held(&noted_by_others)), Deed::Nothing),
            ("older", Some(held(&content("old"))), update(&[], &[])),
            ("empty", Some(held(&Content { entries: Entries::default(), ..wanted.clone() })), update(&[], &[])),
            ("an entry too many", Some(held(&more)), update(&["stray"], &[])),
            ("going", Some(Held { is_ending: true, ..held(&content("old")) }), Deed::Wait),
            ("another workload's", Some(held(&other_workload)), Deed::Taken),
            ("another part", Some(held(&other_part)), Deed::Taken),
            ("another type", Some(Held { secret_type: "Opaque".to_owned(), ..same }), Deed::Taken),
        ];
        for (case, held, expected) in rows {
            assert_eq!(wanted.deed(held.as_ref()), expected, "{case}");
        }
    }
}
