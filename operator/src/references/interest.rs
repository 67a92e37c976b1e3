//! Who names which object of others, and who has to look at one again. Pure.

use std::collections::{BTreeMap, BTreeSet};

use crate::index::ObjectName;
use crate::queue::Key;

/// Kinds of objects of others that are named.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Kind {
    /// A Secret with a certificate and its key.
    Certificate,
    /// A ConfigMap with certificates of authorities.
    Authority,
}

impl Kind {
    /// In a closed set of words.
    #[must_use]
    pub fn word(self) -> &'static str {
        match self {
            Self::Certificate => "certificate",
            Self::Authority => "authority",
        }
    }
}

/// Where objects of a kind are watched.
pub type Place = (Kind, String);

/// What is named, and what is known of it.
#[derive(Debug, Default)]
pub struct Interest {
    objects: BTreeMap<(Kind, ObjectName), Object>,
    /// What each turn has named last.
    named: BTreeMap<(Kind, Key), BTreeSet<ObjectName>>,
}

/// What is known of an object.
#[derive(Debug, Default)]
struct Object {
    users: BTreeSet<Key>,
    /// Its version as it was read or seen last; 0 where there is none.
    version: u64,
    /// Whether it was read as of that version.
    is_read: bool,
}

/// What has changed of where objects are named.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Moved {
    /// Nobody named one there before.
    pub begin: BTreeSet<Place>,
    /// Nobody names one there any more.
    pub end: BTreeSet<Place>,
}

impl Interest {
    /// Takes in all that a turn names of a kind.
    pub fn name(&mut self, key: &Key, kind: Kind, names: &BTreeSet<ObjectName>) -> Moved {
        let mut moved = Moved::default();
        let at = (kind, key.clone());
        if self.named.get(&at).map_or(names.is_empty(), |before| before == names) {
            return moved;
        }
        let before = if names.is_empty() { self.named.remove(&at) } else { self.named.insert(at, names.clone()) };
        for name in names {
            if !self.is_named_in(kind, &name.namespace) {
                moved.begin.insert((kind, name.namespace.clone()));
            }
            self.objects.entry((kind, name.clone())).or_default().users.insert(key.clone());
        }
        for name in before.into_iter().flatten().filter(|name| !names.contains(name)) {
            let at = (kind, name.clone());
            let is_idle = self.objects.get_mut(&at).is_some_and(|object| {
                object.users.remove(key);
                object.users.is_empty()
            });
            if is_idle {
                self.objects.remove(&at);
                if !self.is_named_in(kind, &name.namespace) {
                    moved.end.insert((kind, name.namespace));
                }
            }
        }
        moved
    }

    fn is_named_in(&self, kind: Kind, namespace: &str) -> bool {
        self.named_in(kind, namespace).next().is_some()
    }

    fn named_in<'a>(&'a self, kind: Kind, namespace: &'a str) -> impl Iterator<Item = (&'a ObjectName, &'a Object)> {
        let first = (kind, ObjectName::new(namespace, ""));
        let all = self.objects.range(first..).map(|((kind, name), object)| (*kind, name, object));
        let there = all.take_while(move |(of, name, _)| *of == kind && name.namespace == namespace);
        there.map(|(_, name, object)| (name, object))
    }

    /// Whether somebody names an object.
    #[must_use]
    pub fn is_named(&self, kind: Kind, name: &ObjectName) -> bool {
        self.objects.contains_key(&(kind, name.clone()))
    }

    /// Whether an object was read, and has not changed since.
    #[must_use]
    pub fn is_read(&self, kind: Kind, name: &ObjectName) -> bool {
        self.objects.get(&(kind, name.clone())).is_some_and(|object| object.is_read)
    }

    /// Takes in that an object was read in a version; 0 where there was none.
    pub fn read(&mut self, kind: Kind, name: &ObjectName, version: u64) {
        if let Some(object) = self.objects.get_mut(&(kind, name.clone()))
            // What was seen meanwhile is to be read, too.
            && (version >= object.version || version == 0)
        {
            (object.version, object.is_read) = (version, true);
        }
    }

    /// Takes in that an object was seen in a version, or going in it, and tells who has to look.
    pub fn seen(&mut self, kind: Kind, name: &ObjectName, version: u64) -> BTreeSet<Key> {
        match self.objects.get_mut(&(kind, name.clone())) {
            Some(object) if version > object.version => {
                (object.version, object.is_read) = (version, false);
                object.users.clone()
            }
            _ => BTreeSet::new(),
        }
    }

    /// Takes in what there is of a kind in a namespace, and tells who has to look: what is listed is believed whatever was
    /// known.
    pub fn listed(&mut self, kind: Kind, namespace: &str, versions: &BTreeMap<ObjectName, u64>) -> BTreeSet<Key> {
        let changed = self.named_in(kind, namespace).filter_map(|(name, object)| {
            let now = versions.get(name).copied().unwrap_or(0);
            (now != object.version).then(|| (name.clone(), now))
        });
        let mut keys = BTreeSet::new();
        for (name, version) in changed.collect::<Vec<_>>() {
            if let Some(object) = self.objects.get_mut(&(kind, name)) {
                (object.version, object.is_read) = (version, false);
                keys.extend(object.users.iter().cloned());
            }
        }
        keys
    }
}

#[cfg(test)]
mod tests {
    use std::collections::{BTreeMap, BTreeSet};

    use super::{Interest, Kind, Moved};
    use crate::index::ObjectName;
    use crate::queue::Key;

    const KIND: Kind = Kind::Certificate;

    fn name(name: &str) -> ObjectName {
        ObjectName::read(name).expect("a name")
    }

    fn names(all: &[&str]) -> BTreeSet<ObjectName> {
        all.iter().map(|one| name(one)).collect()
    }

    fn workload(name: &str) -> Key {
        Key::Workload(ObjectName::new("shop", name))
    }

    fn moved(begin: &[&str], end: &[&str]) -> Moved {
        let places = |all: &[&str]| all.iter().map(|namespace| (KIND, (*namespace).to_owned())).collect();
        Moved { begin: places(begin), end: places(end) }
    }

    #[test]
    fn a_namespace_is_watched_while_somebody_names_something_there() {
        let mut interest = Interest::default();
        let (one, two) = (workload("one"), workload("two"));
        assert_eq!(interest.name(&one, KIND, &names(&[])), moved(&[], &[]));
        assert_eq!(interest.name(&one, KIND, &names(&["a/x", "a/y"])), moved(&["a"], &[]));
        assert_eq!(interest.name(&two, KIND, &names(&["a/x", "b/x"])), moved(&["b"], &[]));
        assert_eq!(interest.name(&one, KIND, &names(&["b/x"])), moved(&[], &[]));
        assert!(interest.is_named(KIND, &name("a/x")) && !interest.is_named(KIND, &name("a/y")));
        assert_eq!(interest.name(&two, KIND, &names(&["b/x"])), moved(&[], &["a"]));
        assert_eq!(interest.name(&two, KIND, &names(&[])), moved(&[], &[]));
        assert_eq!(
            interest.name(&two, Kind::Authority, &names(&["b/x"])).begin,
            [(Kind::Authority, "b".to_owned())].into()
        );
        assert_eq!(interest.name(&one, KIND, &names(&[])), moved(&[], &["b"]));
        assert!(!interest.is_named(KIND, &name("b/x")) && interest.is_named(Kind::Authority, &name("b/x")));
    }

    #[test]
    fn whoever_names_what_has_changed_looks_again() {
        let mut interest = Interest::default();
        let (one, two, nobody) = (workload("one"), workload("two"), BTreeSet::new());
        let (x, y) = (name("a/x"), name("a/y"));
        interest.name(&one, KIND, &names(&["a/x", "a/y"]));
        interest.name(&two, KIND, &names(&["a/y"]));
        assert!(!interest.is_read(KIND, &x));
        interest.read(KIND, &x, 5);
        interest.read(KIND, &y, 0);
        // What has been read is no news, nor what is of nobody's concern.
        let list = |versions: &[(&str, u64)]| versions.iter().map(|(one, version)| (name(one), *version)).collect();
        let listed: BTreeMap<_, _> = list(&[("a/x", 5), ("a/z", 6)]);
        assert_eq!(interest.listed(KIND, "a", &listed), nobody);
        assert_eq!(interest.seen(KIND, &x, 5), nobody);
        assert_eq!(interest.seen(KIND, &name("a/z"), 7), nobody);
        assert_eq!(interest.seen(Kind::Authority, &x, 7), nobody);
        assert!(interest.is_read(KIND, &x) && interest.is_read(KIND, &y));
        // Changed, made, gone.
        assert_eq!(interest.seen(KIND, &x, 8), [one.clone()].into());
        assert!(!interest.is_read(KIND, &x));
        assert_eq!(interest.seen(KIND, &y, 9), [one.clone(), two.clone()].into());
        // An answer from before the change leaves it to be read.
        interest.read(KIND, &x, 5);
        assert!(!interest.is_read(KIND, &x));
        interest.read(KIND, &x, 8);
        assert!(interest.is_read(KIND, &x));
        interest.read(KIND, &y, 9);
        // While nobody watched: y has gone, and x was made anew from an older copy of the cluster.
        let listed: BTreeMap<_, _> = list(&[("a/x", 3)]);
        assert_eq!(interest.listed(KIND, "a", &listed), [one, two].into());
        assert!(!interest.is_read(KIND, &x) && !interest.is_read(KIND, &y));
        assert_eq!(interest.listed(KIND, "b", &BTreeMap::new()), nobody);
    }
}
