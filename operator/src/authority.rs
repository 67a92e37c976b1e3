//! The authorities' Secrets: read at start, and made where there are none.

use std::collections::BTreeMap;

use k8s_openapi::ByteString;
use k8s_openapi::api::core::v1::Secret;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::api::PostParams;
use kube::{Api, Client};
use thiserror::Error;
use zeroize::Zeroizing;

use crate::index::held::{MANAGED_LABEL, PART_LABEL};
use crate::pki::authority::{AuthorityError, AuthoritySettings, Files, Issuer, Root};
use crate::pki::fresh;
use crate::pki::key::KeyError;
use crate::workload::apply::FIELD_MANAGER;

/// Secret of the root.
pub const ROOT: &str = "postern-root";
/// Secret of the intermediate, which signs.
pub const INTERMEDIATE: &str = "postern-intermediate";
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

/// Reads the authorities, and makes those that are not there.
///
/// # Errors
/// When one cannot be read, made or used.
pub async fn load(
    client: &Client,
    namespace: &str,
    settings: &AuthoritySettings,
    now: i64,
) -> Result<Issuer, LoadError> {
    let api = Api::<Secret>::namespaced(client.clone(), namespace);
    let wrong = |name: &str| {
        let name = format!("{namespace}/{name}");
        move |error| LoadError::Authority(name, error)
    };
    let found = read(&api, namespace, ROOT).await?;
    let files = match found {
        Some(files) => files,
        None => {
            let made = Root::make(settings, fresh::key(settings.algorithm)?, fresh::serial()?, now);
            make(&api, namespace, ROOT, made.map_err(wrong(ROOT))?).await?
        }
    };
    let root = Root::read(&files, now).map_err(wrong(ROOT))?;
    let found = read(&api, namespace, INTERMEDIATE).await?;
    let files = match found {
        Some(files) => files,
        None => {
            let key = fresh::key(settings.algorithm)?;
            let made = root.make_intermediate(settings, &key, fresh::serial()?, now);
            make(&api, namespace, INTERMEDIATE, made.map_err(wrong(INTERMEDIATE))?).await?
        }
    };
    Issuer::read(&files, &root, now).map_err(wrong(INTERMEDIATE))
}

async fn read(api: &Api<Secret>, namespace: &str, name: &str) -> Result<Option<Files>, LoadError> {
    let failed = |error| LoadError::Api(format!("{namespace}/{name}"), Box::new(error));
    let Some(secret) = api.get_opt(name).await.map_err(failed)? else { return Ok(None) };
    if secret.type_.as_deref() != Some(AUTHORITY_TYPE) {
        return Err(LoadError::Taken(format!("{namespace}/{name}")));
    }
    let mut data = secret.data.unwrap_or_default();
    let mut take = |entry: &str| data.remove(entry).map(|bytes| bytes.0);
    Ok(Some(Files {
        certificates: take("tls.crt").unwrap_or_default(),
        key: take("tls.key").map(Zeroizing::new),
        more_roots: take("ca.crt"),
    }))
}

/// Makes a Secret. Where somebody was faster, theirs counts.
async fn make(api: &Api<Secret>, namespace: &str, name: &str, files: Files) -> Result<Files, LoadError> {
    let mut data = BTreeMap::from([("tls.crt".to_owned(), ByteString(files.certificates.clone()))]);
    if let Some(key) = &files.key {
        data.insert("tls.key".to_owned(), ByteString(key.to_vec()));
    }
    let labels = [MANAGED_LABEL, (PART_LABEL, "authority")];
    let secret = Secret {
        metadata: ObjectMeta {
            name: Some(name.to_owned()),
            labels: Some(labels.map(|(label, value)| (label.to_owned(), value.to_owned())).into()),
            ..ObjectMeta::default()
        },
        data: Some(data),
        type_: Some(AUTHORITY_TYPE.to_owned()),
        ..Secret::default()
    };
    let parameters = PostParams { field_manager: Some(FIELD_MANAGER.to_owned()), ..PostParams::default() };
    match api.create(&parameters, &secret).await {
        Ok(_) => {
            tracing::info!(secret = %format!("{namespace}/{name}"), "made an authority");
            Ok(files)
        }
        Err(kube::Error::Api(error)) if error.code == 409 => {
            let theirs = read(api, namespace, name).await?;
            theirs.ok_or_else(|| LoadError::Taken(format!("{namespace}/{name}")))
        }
        Err(error) => Err(LoadError::Api(format!("{namespace}/{name}"), Box::new(error))),
    }
}
