//! What the cluster holds of ours: ConfigMaps and Secrets, as far as one has to know them to tell whether they are right.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use k8s_openapi::api::core::v1::{ConfigMap, Secret};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use sha2::{Digest as _, Sha256};
use zeroize::Zeroizing;

use super::cluster::version_of;
use super::pod::WORKLOAD_LABEL;
use super::{ObjectName, Pairs};

/// Label of every object of ours; what has it not is never touched.
pub const MANAGED_LABEL: (&str, &str) = ("app.kubernetes.io/managed-by", "postern");
/// Label that says which part of the contract an object carries.
pub const PART_LABEL: &str = "postern.dev/part";
/// Annotation of a policy: a digest of its entries as they were written.
pub const WRITTEN_ANNOTATION: &str = "postern.dev/written";
/// Annotation of a policy: where the bundles are that its routes use.
pub const BUNDLES_ANNOTATION: &str = "postern.dev/bundles";
/// Annotation of an object of a workload without pods: since when there has been none, in seconds since the epoch.
pub const UNUSED_ANNOTATION: &str = "postern.dev/unused-since";
/// Beginning of all labels and annotations of ours.
const OUR_PREFIX: &str = "postern.dev/";
/// Largest content of a ConfigMap whose bytes are kept; of others the digest is enough.
const KEPT_PARTS: [&str; 1] = ["ledger"];

/// The kinds of objects that are ours.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum HeldKind {
    /// A ConfigMap.
    ConfigMap,
    /// A Secret.
    Secret,
}

impl fmt::Display for HeldKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::ConfigMap => "ConfigMap",
            Self::Secret => "Secret",
        })
    }
}

/// The bytes of an object's entries, by name. Its `Debug` prints none of them, and they are wiped when dropped.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Entries(BTreeMap<String, Zeroizing<Vec<u8>>>);

impl Entries {
    /// Adds an entry.
    #[must_use]
    pub fn with(mut self, name: impl Into<String>, bytes: impl Into<Vec<u8>>) -> Self {
        self.0.insert(name.into(), Zeroizing::new(bytes.into()));
        self
    }

    /// All of them.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &[u8])> {
        self.0.iter().map(|(name, bytes)| (name.as_str(), bytes.as_slice()))
    }

    /// The bytes of one.
    #[must_use]
    pub fn bytes(&self, name: &str) -> Option<&[u8]> {
        self.0.get(name).map(|bytes| bytes.as_slice())
    }

    /// One as text, if it is.
    #[must_use]
    pub fn text(&self, name: &str) -> Option<&str> {
        std::str::from_utf8(self.bytes(name)?).ok()
    }

    /// Tells them apart from others.
    #[must_use]
    pub fn digest(&self) -> ContentDigest {
        ContentDigest::of(&BTreeMap::new(), &BTreeMap::new(), self)
    }

    /// Bytes of all of them, with their names.
    #[must_use]
    pub fn size(&self) -> usize {
        self.iter().map(|(name, bytes)| name.len() + bytes.len()).sum()
    }

    /// Their names, in order.
    #[must_use]
    pub fn names(&self) -> Box<[Box<str>]> {
        self.0.keys().map(|name| name.as_str().into()).collect()
    }
}

impl fmt::Debug for Entries {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.0.keys()).finish()
    }
}

/// Tells two contents of an object apart.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct ContentDigest([u8; 32]);

impl ContentDigest {
    /// Of our labels and annotations and the entries. Labels and annotations of others are theirs.
    #[must_use]
    pub fn of(labels: &BTreeMap<String, String>, annotations: &BTreeMap<String, String>, entries: &Entries) -> Self {
        let mut hasher = Sha256::new();
        let mut enter = |bytes: &[u8]| {
            hasher.update(bytes.len().to_le_bytes());
            hasher.update(bytes);
        };
        for ours in [labels, annotations] {
            for (name, value) in ours.iter().filter(|(name, _)| is_ours(name)) {
                enter(name.as_bytes());
                enter(value.as_bytes());
            }
            enter(b"");
        }
        for (name, bytes) in entries.iter() {
            enter(name.as_bytes());
            enter(bytes);
        }
        Self(hasher.finalize().into())
    }
}

impl ContentDigest {
    /// Its bytes.
    #[must_use]
    pub fn bytes(&self) -> &[u8; 32] {
        &self.0
    }
}

impl fmt::Display for ContentDigest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for ContentDigest {
    // Short, and no way back to a key.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:02x}{:02x}…", self.0[0], self.0[1])
    }
}

/// Whether a label or an annotation is ours to set.
#[must_use]
pub fn is_ours(label: &str) -> bool {
    label == MANAGED_LABEL.0 || label.starts_with(OUR_PREFIX)
}

/// An object of ours as the cluster has it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Held {
    /// Its kind.
    pub kind: HeldKind,
    /// Its name.
    pub name: ObjectName,
    /// Its UID: what is made anew by somebody else under the name is not ours.
    pub uid: String,
    /// Its version; a larger one is newer.
    pub version: u64,
    /// Those of its labels that are ours.
    pub labels: Pairs,
    /// Those of its annotations that are ours.
    pub annotations: Pairs,
    /// The type of a Secret; empty of a ConfigMap.
    pub secret_type: String,
    /// Tells whether it is as it should be.
    pub digest: ContentDigest,
    /// Names of its entries.
    pub names: Box<[Box<str>]>,
    /// Its entries, where they are needed.
    pub entries: Option<Arc<Entries>>,
    /// Whether it is being deleted.
    pub is_ending: bool,
}

impl Held {
    /// What is kept of a ConfigMap; `None` if it is not ours.
    #[must_use]
    pub fn of_config_map(object: ConfigMap) -> Option<Self> {
        let text = object.data.unwrap_or_default().into_iter().map(|(name, text)| (name, text.into_bytes()));
        let binary = object.binary_data.unwrap_or_default().into_iter().map(|(name, bytes)| (name, bytes.0));
        let held = Self::of(HeldKind::ConfigMap, object.metadata, String::new(), text.chain(binary))?;
        let is_kept = held.labels.get(PART_LABEL).is_some_and(|part| KEPT_PARTS.contains(&part));
        Some(if is_kept { held } else { Self { entries: None, ..held } })
    }

    /// What is kept of a Secret; `None` if it is not ours.
    #[must_use]
    pub fn of_secret(object: Secret) -> Option<Self> {
        let entries = object.data.unwrap_or_default().into_iter().map(|(name, bytes)| (name, bytes.0));
        let held = Self::of(HeldKind::Secret, object.metadata, object.type_.unwrap_or_default(), entries)?;
        // Keys and passwords of clients are nobody's to compare: there are many, and whoever needs one reads it.
        Some(if held.workload().is_some() { held } else { Self { entries: None, ..held } })
    }

    fn of(
        kind: HeldKind,
        metadata: ObjectMeta,
        secret_type: String,
        entries: impl Iterator<Item = (String, Vec<u8>)>,
    ) -> Option<Self> {
        let mut labels = metadata.labels.unwrap_or_default();
        if labels.get(MANAGED_LABEL.0).is_none_or(|value| value != MANAGED_LABEL.1) {
            return None;
        }
        let entries = Entries(entries.map(|(name, bytes)| (name, Zeroizing::new(bytes))).collect());
        let mut annotations = metadata.annotations.unwrap_or_default();
        annotations.retain(|name, _| is_ours(name));
        labels.retain(|name, _| is_ours(name));
        Some(Self {
            kind,
            name: ObjectName::new(metadata.namespace.unwrap_or_default(), metadata.name.unwrap_or_default()),
            uid: metadata.uid.unwrap_or_default(),
            version: version_of(metadata.resource_version.as_deref()),
            secret_type,
            digest: ContentDigest::of(&labels, &annotations, &entries),
            labels: labels.into(),
            annotations: annotations.into(),
            names: entries.names(),
            entries: Some(Arc::new(entries)),
            is_ending: metadata.deletion_timestamp.is_some(),
        })
    }

    /// Whether two states of an object differ in more than their version.
    #[must_use]
    pub fn differs(&self, other: &Self) -> bool {
        let Self {
            kind,
            name,
            uid,
            version: _,
            labels,
            annotations,
            secret_type,
            digest,
            names,
            entries: _,
            is_ending,
        } = self;
        (kind, name, uid, labels, annotations)
            != (&other.kind, &other.name, &other.uid, &other.labels, &other.annotations)
            || (secret_type, digest, names, is_ending)
                != (&other.secret_type, &other.digest, &other.names, &other.is_ending)
    }

    /// Whether its entries, which may be no longer known, are as they were written: what others have put there is not.
    #[must_use]
    pub fn is_as_written(&self, entries: &Entries) -> bool {
        self.annotations.get(WRITTEN_ANNOTATION).is_some_and(|written| written == entries.digest().to_string())
    }

    /// The workload it is for, if it is for one.
    #[must_use]
    pub fn workload(&self) -> Option<ObjectName> {
        let workload = self.labels.get(WORKLOAD_LABEL)?;
        Some(ObjectName::new(self.name.namespace.clone(), workload))
    }
}
