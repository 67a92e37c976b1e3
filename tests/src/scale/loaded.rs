//! What a sidecar has loaded when these objects are in its volume: accepted and linked by the code of the sidecar itself, so
//! that what a simulated pod answers is what a real one would.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use anyhow::{Context, Result, anyhow};
use rcgen::{KeyPair, PublicKeyData};
use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::PemObject;
use serde_json::Value;
use sidecar_config::status::{ContractRange, PartStatus, Parts as PartsStatus, Status};
use sidecar_config::{CONTRACT_MAX, CONTRACT_MIN, Document};
use sidecar_decide::snapshot::Parts;
use sidecar_decide::{Certificate, Files, accept, link};

/// Answers that are remembered: all pods of a workload ask for the same.
const REMEMBERED: usize = 1000;
/// ConfigMaps with identities that a workload may have.
const CHUNKS: usize = 4;

/// A ConfigMap or Secret.
#[derive(Debug)]
pub(super) struct Object {
    /// Tells it apart from what it was before.
    pub(super) version: String,
    pub(super) entries: BTreeMap<String, Vec<u8>>,
}

/// All that there are, by namespace and name, with a letter before the name that tells ConfigMaps from Secrets.
pub(super) type Objects = HashMap<(String, String), Arc<Object>>;

/// What has been loaded before, by what it was loaded from.
#[derive(Default)]
pub(super) struct Memory {
    answers: HashMap<String, Arc<Loaded>>,
}

/// What a sidecar has loaded.
pub(super) struct Loaded {
    parts: PartsStatus,
    routes: BTreeMap<String, String>,
    leaf: Option<String>,
}

impl Loaded {
    /// Whether a sidecar has everything that it needs to start.
    pub(super) fn is_startable(&self) -> bool {
        let PartsStatus { trust, identity, policy, .. } = &self.parts;
        [trust, identity, policy].iter().all(|part| part.loaded != "none")
    }

    /// What the pod of this UID answers.
    pub(super) fn status(&self, uid: &str) -> Status {
        Status {
            contract: ContractRange { min: CONTRACT_MIN, max: CONTRACT_MAX },
            pod_uid: uid.to_owned(),
            parts: self.parts.clone(),
            routes: self.routes.clone(),
            leaf_serial: self.leaf.clone(),
            leaf_not_after: None,
            // Nothing listens there but what answers this.
            exposed_ports: Some(Vec::new()),
            version: Some(env!("CARGO_PKG_VERSION").to_owned()),
            ready: self.is_startable(),
            shipping: None,
        }
    }
}

impl Memory {
    /// What is loaded from the objects of a pod's volume.
    pub(super) fn load(
        &mut self,
        objects: &Objects,
        namespace: &str,
        (workload, account): (&str, &str),
        labels: &BTreeMap<String, String>,
    ) -> Arc<Loaded> {
        let find = |name: String| objects.get(&(namespace.to_owned(), name)).cloned();
        let volume = Volume {
            trust: find("c postern-trust".to_owned()),
            identity: find(format!("s postern-id-{workload}-{account}")),
            policy: find(format!("c postern-policy-{workload}")),
            endpoints: find(format!("c postern-endpoints-{workload}")),
            identities: (0..CHUNKS)
                .filter_map(|chunk| find(format!("c postern-identities-{workload}-{chunk}")))
                .collect(),
        };
        let key = format!("{namespace}/{workload}/{account} {} {labels:?}", volume.versions());
        if let Some(known) = self.answers.get(&key) {
            return Arc::clone(known);
        }
        if self.answers.len() >= REMEMBERED {
            self.answers.clear();
        }
        let loaded = Arc::new(volume.load(labels));
        self.answers.insert(key, Arc::clone(&loaded));
        loaded
    }
}

struct Volume {
    trust: Option<Arc<Object>>,
    identity: Option<Arc<Object>>,
    policy: Option<Arc<Object>>,
    endpoints: Option<Arc<Object>>,
    identities: Vec<Arc<Object>>,
}

impl Volume {
    fn versions(&self) -> String {
        let all = [&self.trust, &self.identity, &self.policy, &self.endpoints].into_iter().map(Option::as_ref);
        let all = all.chain(self.identities.iter().map(Some));
        all.map(|object| object.map_or("-", |object| &object.version)).collect::<Vec<_>>().join(" ")
    }

    fn load(&self, labels: &BTreeMap<String, String>) -> Loaded {
        let mut parts = Parts { pod_labels: Some(labels.clone()), ..Parts::default() };
        let mut told = PartsStatus::default();
        let trust = self.trust.as_ref().map(|object| trust(object));
        parts.trust = enter(&mut told.trust, trust, |accepted| accepted.revision.to_string());
        let identity = self.identity.as_ref().map(|object| identity(object));
        parts.identity = enter(&mut told.identity, identity, |accepted| accepted.revision.to_string());
        let identities = (!self.identities.is_empty()).then(|| identities(&self.identities));
        parts.identities = enter(&mut told.identities, identities, |accepted| accepted.revision.to_string());
        let policy = self.policy.as_ref().map(|object| {
            accept::policy(&Document::read("policy", part(object, "policy.json", "policy")?)?).map_err(refused)
        });
        parts.policy = enter(&mut told.policy, policy, |accepted| accepted.revision.to_string());
        let endpoints = self.endpoints.as_ref().map(|object| {
            let value = part(object, "endpoints.json", "endpoints")?;
            accept::endpoints(&Document::read::<Vec<_>>("endpoints", value)?).map_err(refused)
        });
        parts.endpoints = enter(&mut told.endpoints, endpoints, |accepted| accepted.revision.to_string());
        let (snapshot, _) = link(&parts);
        let routes = snapshot.routes.iter().map(|(name, hash)| (name.clone(), hash.to_string())).collect();
        let leaf = parts.identity.as_ref().and_then(|identity| identity.certificates.first()?.facts());
        Loaded { parts: told, routes, leaf: leaf.map(|facts| facts.serial.clone()) }
    }
}

/// Enters a part that is there, loaded or refused.
fn enter<T>(told: &mut PartStatus, read: Option<Result<T>>, revision: impl FnOnce(&T) -> String) -> Option<Arc<T>> {
    "none".clone_into(&mut told.loaded);
    match read? {
        Ok(accepted) => {
            told.loaded = revision(&accepted);
            Some(Arc::new(accepted))
        }
        Err(error) => {
            told.refused = Some("unreadable".to_owned());
            told.why = Some(format!("{error:#}"));
            None
        }
    }
}

#[expect(clippy::needless_pass_by_value, reason = "it is what `map_err` hands over")]
fn refused(refusal: sidecar_decide::Refusal) -> anyhow::Error {
    let problems: Vec<_> = refusal.problems.iter().map(ToString::to_string).collect();
    anyhow!(problems.join("; "))
}

/// One part of a document.
fn part(object: &Object, entry: &str, part: &str) -> Result<Value> {
    let bytes = object.entries.get(entry).with_context(|| format!("no {entry}"))?;
    taken(bytes, part)
}

fn taken(bytes: &[u8], part: &str) -> Result<Value> {
    let mut document: Value = serde_json::from_slice(bytes)?;
    Ok(document[part].take())
}

fn certificates(pem: &[u8]) -> Result<Vec<Certificate>, String> {
    let read = CertificateDer::pem_slice_iter(pem).map(|der| {
        let der = der.map_err(|error| error.to_string())?;
        Certificate::from_der(der.to_vec()).map_err(|error| error.to_string())
    });
    read.collect()
}

fn trust(object: &Object) -> Result<sidecar_decide::snapshot::AcceptedTrust> {
    let mut files = Files::default();
    for (name, bytes) in object.entries.iter().filter(|(name, _)| *name != "trust.json") {
        files.certificates.insert(name.clone(), certificates(bytes));
    }
    accept::trust(&Document::read("trust", part(object, "trust.json", "trust")?)?, &files).map_err(refused)
}

fn identity(object: &Object) -> Result<sidecar_decide::snapshot::AcceptedIdentity> {
    let mut files = Files::default();
    let entry = |name: &str| object.entries.get(name).with_context(|| format!("no {name}"));
    files.certificates.insert("tls.crt".to_owned(), certificates(entry("tls.crt")?));
    let key = KeyPair::from_pem(std::str::from_utf8(entry("tls.key")?)?)?;
    files.public_keys.insert("tls.key".to_owned(), Ok(key.subject_public_key_info()));
    accept::identity(&Document::read("identity", part(object, "identity.json", "identity")?)?, &files).map_err(refused)
}

fn identities(chunks: &[Arc<Object>]) -> Result<sidecar_decide::snapshot::AcceptedIdentities> {
    let mut document = Vec::new();
    for (index, object) in chunks.iter().enumerate() {
        let name = format!("identities.{index}.zst");
        let bytes = object.entries.get(&name).with_context(|| format!("no {name}"))?;
        zstd::stream::copy_decode(bytes.as_slice(), &mut document)?;
    }
    accept::identities(&Document::read::<Vec<_>>("identities", taken(&document, "identities")?)?).map_err(refused)
}
