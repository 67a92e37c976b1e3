//! A namespace's turn: part `trust`, before everything else and never held back.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::PemObject;
use sidecar_config::Part;
use sidecar_decide::snapshot::AcceptedTrust;
use sidecar_decide::{Certificate, Files, accept};

use super::content::Content;
use super::document::document;
use super::names;
use crate::identity::enforced::WrittenTrust;
use crate::identity::trust::TrustDocument;
use crate::index::{Entries, ObjectName};
use crate::limits::TRUSTS_KNOWN;

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
            written: Vec::new(),
        });
        let is_other = known.unreadable != unreadable;
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

    // Each change is whole.
    fn known(&self) -> MutexGuard<'_, BTreeMap<String, Known>> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The ConfigMap of a namespace.
#[must_use]
pub fn content(namespace: &str, trust: &TrustDocument) -> Content {
    let entries = Entries::default().with("trust.json", document(Part::Trust, &trust.document));
    let entries = trust.files.iter().fold(entries, |entries, (name, pem)| entries.with(name, pem.as_bytes()));
    Content::config_map(ObjectName::new(namespace, names::TRUST), "trust", None, entries)
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
