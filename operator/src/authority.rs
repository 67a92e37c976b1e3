//! The authorities' Secrets: read at start, and made where there are none.

use std::collections::BTreeMap;
use std::sync::{Arc, PoisonError, RwLock};

use k8s_openapi::ByteString;
use k8s_openapi::api::core::v1::Secret;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::api::PostParams;
use kube::{Api, Client};
use sidecar_decide::Certificate;
use thiserror::Error;
use zeroize::Zeroizing;

use crate::FIELD_MANAGER;
use crate::index::held::{MANAGED_LABEL, PART_LABEL};
use crate::pki::authority::{AuthorityError, AuthoritySettings, Files, Issuer, Root};
use crate::pki::fresh;
use crate::pki::key::KeyError;

/// Secret of the root.
pub const ROOT: &str = "postern-root";
/// Secret of the intermediate, which signs.
pub const INTERMEDIATE: &str = "postern-intermediate";
/// What their label says that we make.
pub const AUTHORITY_PART: &str = "authority";
/// Their type.
pub const AUTHORITY_TYPE: &str = "postern.dev/authority";

/// Why there is nobody to sign.
#[derive(Debug, Error)]
pub enum LoadError {
    /// The API server does not answer, or does not let us.
    #[error("Secret {0}: {1}")]
    Api(String, #[source] Box<kube::Error>),
    /// What is there cannot be used.
    #[error("Secret {0}: {1}")]
    Authority(String, #[source] AuthorityError),
    /// It is of another type: not ours to read.
    #[error("Secret {0} is not of type {AUTHORITY_TYPE}; rename it, or give it that type")]
    Taken(String),
    /// No key could be made.
    #[error("{0}")]
    Key(#[from] KeyError),
}

/// Reads the authorities, makes those that are not there, and makes the intermediate anew when it is due or broken.
///
/// A root is never replaced: that would end all trust. An intermediate that was brought is only read.
///
/// # Errors
/// When one cannot be read, made or used.
pub async fn load(
    client: &Client,
    namespace: &str,
    settings: &AuthoritySettings,
    now: i64,
) -> Result<Issuer, LoadError> {
    let secrets = Secrets { api: Api::namespaced(client.clone(), namespace), namespace };
    let root = match secrets.read(ROOT).await? {
        Some(found) => found.files,
        None => {
            let made = Root::make(settings, fresh::key(settings.algorithm)?, fresh::serial()?, now);
            secrets.make(ROOT, made.map_err(secrets.wrong(ROOT))?, None).await?
        }
    };
    let root = Root::read(&root, now).map_err(secrets.wrong(ROOT))?;
    warn_of_age(&secrets.name(ROOT), root.certificates().first(), now);
    let found = secrets.read(INTERMEDIATE).await?;
    let read = found.as_ref().map(|found| Issuer::read(&found.files, &root, now));
    let version = match (&found, read) {
        (Some(found), Some(Ok(issuer))) if !is_due(issuer.chain().next(), now) || !found.is_ours => return Ok(issuer),
        (Some(_), Some(Ok(issuer))) if !root.has_key() => {
            // Whoever has the key has to sign the next one.
            warn_of_age(&secrets.name(INTERMEDIATE), issuer.chain().next(), now);
            return Ok(issuer);
        }
        (Some(found), Some(Err(error))) if !found.is_ours || !root.has_key() => {
            return Err(LoadError::Authority(secrets.name(INTERMEDIATE), error));
        }
        (Some(found), Some(read)) => {
            let why = read.err().map_or_else(|| "it was due".to_owned(), |error| error.to_string());
            tracing::info!(secret = %secrets.name(INTERMEDIATE), why, "making the intermediate anew");
            found.version.clone()
        }
        _ => None,
    };
    let key = fresh::key(settings.algorithm)?;
    let made = root.make_intermediate(settings, &key, fresh::serial()?, now);
    let files = secrets.make(INTERMEDIATE, made.map_err(secrets.wrong(INTERMEDIATE))?, version).await?;
    Issuer::read(&files, &root, now).map_err(secrets.wrong(INTERMEDIATE))
}

/// Whether two thirds of an authority's life are over.
fn is_due(authority: Option<&Certificate>, now: i64) -> bool {
    authority.is_some_and(|one| now >= one.facts.not_before + (one.facts.not_after - one.facts.not_before) / 3 * 2)
}

fn warn_of_age(name: &str, authority: Option<&Certificate>, now: i64) {
    if let Some(authority) = authority.filter(|one| is_due(Some(one), now)) {
        let days = (authority.facts.not_after - now) / 86_400;
        tracing::warn!(secret = name, days, "two thirds of an authority's life are over; bring another in time");
    }
}

/// A Secret of an authority as it is.
struct Found {
    files: Files,
    /// Whether we have made it.
    is_ours: bool,
    version: Option<String>,
}

/// The authorities' Secrets.
struct Secrets<'a> {
    api: Api<Secret>,
    namespace: &'a str,
}

impl Secrets<'_> {
    fn name(&self, name: &str) -> String {
        format!("{}/{name}", self.namespace)
    }

    fn wrong(&self, name: &str) -> impl FnOnce(AuthorityError) -> LoadError + use<> {
        let name = self.name(name);
        move |error| LoadError::Authority(name, error)
    }

    async fn read(&self, name: &str) -> Result<Option<Found>, LoadError> {
        let failed = |error| LoadError::Api(self.name(name), Box::new(error));
        let Some(secret) = self.api.get_opt(name).await.map_err(failed)? else { return Ok(None) };
        if secret.type_.as_deref() != Some(AUTHORITY_TYPE) {
            return Err(LoadError::Taken(self.name(name)));
        }
        let mut data = secret.data.unwrap_or_default();
        let mut take = |entry: &str| data.remove(entry).map(|bytes| bytes.0);
        let files = Files {
            certificates: take("tls.crt").unwrap_or_default(),
            key: take("tls.key").map(Zeroizing::new),
            more_roots: take("ca.crt"),
        };
        let labels = secret.metadata.labels.unwrap_or_default();
        let is_ours = labels.get(MANAGED_LABEL.0).is_some_and(|value| value == MANAGED_LABEL.1);
        Ok(Some(Found { files, is_ours, version: secret.metadata.resource_version }))
    }

    /// Makes a Secret, or replaces ours of a version. Where somebody was faster, theirs counts.
    async fn make(&self, name: &str, files: Files, version: Option<String>) -> Result<Files, LoadError> {
        let mut data = BTreeMap::from([("tls.crt".to_owned(), ByteString(files.certificates.clone()))]);
        if let Some(key) = &files.key {
            data.insert("tls.key".to_owned(), ByteString(key.to_vec()));
        }
        let labels = [MANAGED_LABEL, (PART_LABEL, AUTHORITY_PART)];
        let is_new = version.is_none();
        let secret = Secret {
            metadata: ObjectMeta {
                name: Some(name.to_owned()),
                resource_version: version,
                labels: Some(labels.map(|(label, value)| (label.to_owned(), value.to_owned())).into()),
                ..ObjectMeta::default()
            },
            data: Some(data),
            type_: Some(AUTHORITY_TYPE.to_owned()),
            ..Secret::default()
        };
        let parameters = PostParams { field_manager: Some(FIELD_MANAGER.to_owned()), ..PostParams::default() };
        let written = if is_new {
            self.api.create(&parameters, &secret).await
        } else {
            self.api.replace(name, &parameters, &secret).await
        };
        match written {
            Ok(_) => {
                tracing::info!(secret = %self.name(name), "made an authority");
                Ok(files)
            }
            Err(kube::Error::Api(error)) if error.code == 409 => {
                let theirs = self.read(name).await?;
                theirs.map(|found| found.files).ok_or_else(|| LoadError::Taken(self.name(name)))
            }
            Err(error) => Err(LoadError::Api(self.name(name), Box::new(error))),
        }
    }
}

/// Who signs now. It is replaced when another authority takes its place.
#[derive(Debug)]
pub struct Signer {
    settings: AuthoritySettings,
    issuer: RwLock<Arc<Issuer>>,
}

impl Signer {
    /// Begins with one.
    #[must_use]
    pub fn new(settings: AuthoritySettings, issuer: Issuer) -> Self {
        Self { settings, issuer: RwLock::new(Arc::new(issuer)) }
    }

    /// Who signs now.
    #[must_use]
    pub fn issuer(&self) -> Arc<Issuer> {
        // It is replaced as a whole.
        Arc::clone(&self.issuer.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// Looks again, and tells whether another one signs now, or others are trusted.
    ///
    /// # Errors
    /// As [`load`]. Who signed before still does.
    pub async fn renew(&self, client: &Client, namespace: &str, now: i64) -> Result<bool, LoadError> {
        let new = load(client, namespace, &self.settings, now).await?;
        let old = self.issuer();
        let is_other = (new.chain_pem(), new.roots_pem()) != (old.chain_pem(), old.roots_pem());
        *self.issuer.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(new);
        Ok(is_other)
    }
}
