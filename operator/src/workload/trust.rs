//! A namespace's turn: part `trust`, before everything else and never held back.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use k8s_openapi::api::core::v1::ConfigMap;
use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::PemObject;
use serde_json::Value;
use sidecar_config::{Document, Part};
use sidecar_decide::snapshot::AcceptedTrust;
use sidecar_decide::{Certificate, Files, accept};

use super::content::Content;
use super::document::document;
use super::names;
use crate::identity::enforced::WrittenTrust;
use crate::identity::trust::TrustDocument;
use crate::index::{Entries, Held, ObjectName};
use crate::limits::TRUSTS_KNOWN;

/// Entry of the ConfigMap with the part; the others are files that it names.
const ENTRY: &str = "trust.json";

/// What was made of part `trust` of each namespace.
#[derive(Debug, Default)]
pub struct Trusts {
    known: Mutex<BTreeMap<String, Known>>,
}

#[derive(Debug)]
struct Known {
    accepted: Arc<AcceptedTrust>,
    /// Why a bundle is not there, by its name.
    unreadable: BTreeMap<String, String>,
    /// Why what should be there is not written.
    held_up: Option<String>,
    /// The newest last.
    written: Vec<WrittenTrust>,
}

impl Trusts {
    /// What the sidecars of a namespace are to trust, and which bundles cannot be read and why; `None` until its first
    /// turn.
    #[must_use]
    pub fn accepted(&self, namespace: &str) -> Option<(Arc<AcceptedTrust>, BTreeMap<String, String>)> {
        self.known().get(namespace).map(|known| (Arc::clone(&known.accepted), known.unreadable.clone()))
    }

    /// Namespaces whose trust is not written as it should be.
    #[must_use]
    pub fn held_up(&self) -> BTreeMap<String, String> {
        let known = self.known();
        let held_up = known.iter().filter_map(|(name, known)| Some((name.clone(), known.held_up.clone()?)));
        held_up.collect()
    }

    /// What was written stays, because something keeps the namespace from what it should be; the bundles that are to be
    /// there and are not cannot be used. Tells whether that is news, and `None` if it is not known what was written.
    pub fn hold_up(&self, namespace: &str, why: &str, bundles: &BTreeSet<String>) -> Option<bool> {
        let mut all = self.known();
        let known = all.get_mut(namespace)?;
        let is_there = |name: &String| known.accepted.bundles.iter().any(|bundle| *bundle.name == **name);
        let unreadable = bundles.iter().filter(|name| !is_there(name)).map(|name| (name.clone(), why.to_owned()));
        let unreadable: BTreeMap<_, _> = unreadable.collect();
        let is_news = known.held_up.as_deref() != Some(why) || known.unreadable != unreadable;
        known.unreadable = unreadable;
        known.held_up = Some(why.to_owned());
        Some(is_news)
    }

    /// What was written, by namespace, the newest last.
    #[must_use]
    pub fn written(&self) -> BTreeMap<String, Vec<WrittenTrust>> {
        self.known().iter().map(|(namespace, known)| (namespace.clone(), known.written.clone())).collect()
    }

    /// Enters what was written. Tells whether it is new.
    pub fn enter(
        &self,
        namespace: &str,
        accepted: AcceptedTrust,
        document: TrustDocument,
        unreadable: BTreeMap<String, String>,
    ) -> bool {
        let revision = accepted.revision.to_string();
        let mut all = self.known();
        let accepted = Arc::new(accepted);
        let known = all.entry(namespace.to_owned()).or_insert_with(|| Known {
            accepted: Arc::clone(&accepted),
            unreadable: BTreeMap::new(),
            held_up: None,
            written: Vec::new(),
        });
        let is_other = known.unreadable != unreadable || known.held_up.take().is_some();
        known.unreadable = unreadable;
        let is_new = known.written.last().is_none_or(|last| last.revision != revision);
        if is_new {
            if known.written.len() >= TRUSTS_KNOWN {
                known.written.remove(0);
            }
            known.written.push(WrittenTrust { revision, document: Arc::new(document.document) });
            known.accepted = accepted;
        }
        is_new || is_other
    }

    /// Forgets a namespace that is not served any more.
    pub fn forget(&self, namespace: &str) {
        self.known().remove(namespace);
    }

    // Each change is whole.
    fn known(&self) -> MutexGuard<'_, BTreeMap<String, Known>> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The ConfigMap of a namespace.
#[must_use]
pub fn content(namespace: &str, trust: &TrustDocument) -> Content {
    let entries = Entries::default().with(ENTRY, document(Part::Trust, &trust.document));
    let entries = trust.files.iter().fold(entries, |entries, (name, pem)| entries.with(name, pem.as_bytes()));
    Content::config_map(ObjectName::new(namespace, names::TRUST), "trust", None, entries).sealed()
}

/// Part `trust` as it was written; `None` of what nobody of us wrote.
#[must_use]
pub fn written(object: ConfigMap) -> Option<TrustDocument> {
    let mut files = object.data.clone().unwrap_or_default();
    let entries = files.iter().fold(Entries::default(), |entries, (name, text)| entries.with(name, text.as_bytes()));
    if !Held::of_config_map(object)?.is_as_written(&entries) {
        return None;
    }
    let value: Value = serde_json::from_str(&files.remove(ENTRY)?).ok()?;
    let document = Document::read(Part::Trust.name(), value.get(Part::Trust.name())?.clone()).ok()?;
    Some(TrustDocument { document, files })
}

/// Accepts part `trust` as a sidecar will.
///
/// # Errors
/// With everything that is wrong.
pub fn accepted(trust: &TrustDocument) -> Result<AcceptedTrust, String> {
    let mut files = Files::default();
    for (name, pem) in &trust.files {
        files.certificates.insert(name.clone(), certificates(pem.as_bytes()).map_err(|why| format!("`{name}`: {why}")));
    }
    accept::trust(&trust.document, &files).map_err(|refusal| {
        let told: Vec<_> = refusal.problems.iter().map(ToString::to_string).collect();
        told.join("; ")
    })
}

fn certificates(pem: &[u8]) -> Result<Vec<Certificate>, String> {
    let read = CertificateDer::pem_slice_iter(pem).map(|der| {
        let der = der.map_err(|error| error.to_string())?;
        Certificate::from_der(der.to_vec()).map_err(|error| error.to_string())
    });
    read.collect()
}
