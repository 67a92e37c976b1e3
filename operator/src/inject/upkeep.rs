//! What the operator does for the webhook, which has no rights: it makes its certificate, and tells API servers whom to
//! trust in it. Both only where the webhook is installed, and the Secret is not somebody else's.

use std::collections::BTreeMap;
use std::time::Duration;

use k8s_openapi::ByteString;
use k8s_openapi::api::admissionregistration::v1::MutatingWebhookConfiguration;
use k8s_openapi::api::core::v1::Secret;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use k8s_openapi::jiff::Timestamp;
use kube::api::{Patch, PatchParams, PostParams};
use kube::{Api, Client};
use serde_json::json;
use thiserror::Error;

use crate::FIELD_MANAGER;
use crate::index::held::{MANAGED_LABEL, PART_LABEL};
use crate::limits::WEBHOOK_AGAIN;
use crate::pki::authority::Issuer;
use crate::pki::fresh;
use crate::pki::issue::{self, IssueError, Request};
use crate::pki::key::{Algorithm, KeyError};
use crate::pki::names::Names;
use crate::pki::rotate::{self, Decision, Held, KeyOf, Wanted};
use crate::queue::Outcome;
use crate::workload::turn::{TurnError, Worker};

/// The Secret with the webhook's certificate, which it mounts.
pub const SECRET: &str = "postern-injector-tls";
/// The MutatingWebhookConfiguration that has API servers ask it.
pub const CONFIGURATION: &str = "postern-injector";
/// Label of a configuration that names an address and no Service: the namespace of the operator that looks after it.
pub const OPERATOR_LABEL: &str = "postern.dev/operator-namespace";
/// The Service in front of it, and its service account.
pub const SERVICE: &str = "postern-injector";
/// What the Secret's label says that it is.
pub const PART: &str = "injector";
const SECRET_TYPE: &str = "kubernetes.io/tls";
/// How long the certificate is valid: injection must not end soon after the operator, and a key should not live for ever.
const CERTIFICATE_SECONDS: i64 = 30 * 24 * 3600;

/// The webhook could not be looked after.
#[derive(Debug, Error)]
pub enum UpkeepError {
    /// The API server does not answer, or does not let us.
    #[error("{0}: {1}")]
    Api(String, #[source] Box<kube::Error>),
    /// No key.
    #[error("cannot make a key: {0}")]
    Key(#[from] KeyError),
    /// No signature.
    #[error("cannot issue a certificate: {0}")]
    Issue(#[from] IssueError),
}

/// Looks after one webhook.
#[derive(Clone)]
pub struct Upkeep {
    client: Client,
    namespace: String,
    /// Names by which it is reached beside those of its Service.
    names: Vec<String>,
}

impl Upkeep {
    /// Of the webhook in the operator's namespace.
    #[must_use]
    pub fn new(client: Client, namespace: String, names: Vec<String>) -> Self {
        Self { client, namespace, names }
    }

    /// Makes what is not as it should be, and tells when to look again.
    ///
    /// # Errors
    /// When something cannot be read, made or written.
    pub async fn look(&self, issuer: &Issuer, names: &Names, now: i64) -> Result<Duration, UpkeepError> {
        let configurations = Api::<MutatingWebhookConfiguration>::all(self.client.clone());
        let failed = |error| UpkeepError::Api(format!("webhook {CONFIGURATION}"), Box::new(error));
        let configuration = configurations.get_opt(CONFIGURATION).await.map_err(failed)?;
        let Some(configuration) = configuration.filter(|found| is_ours(found, &self.namespace)) else {
            // Not installed, or another operator's.
            return Ok(WEBHOOK_AGAIN);
        };
        if !self.keep_certificate(issuer, names, now).await? {
            return Ok(WEBHOOK_AGAIN);
        }
        let bundle = issuer.roots_pem().into_bytes();
        let others = others(&configuration, &bundle);
        if !others.is_empty() {
            let changes: Vec<_> = others
                .iter()
                .map(|name| json!({"name": name, "clientConfig": {"caBundle": ByteString(bundle.clone())}}))
                .collect();
            // With its version: what is patched is what was looked at.
            let version = configuration.metadata.resource_version;
            let patch = Patch::Strategic(json!({"metadata": {"resourceVersion": version}, "webhooks": changes}));
            let parameters = PatchParams { field_manager: Some(FIELD_MANAGER.to_owned()), ..PatchParams::default() };
            configurations.patch(CONFIGURATION, &parameters, &patch).await.map_err(failed)?;
            tracing::info!(configuration = CONFIGURATION, "API servers are told whom to trust in the webhook");
        }
        Ok(WEBHOOK_AGAIN)
    }

    /// Makes the certificate when it is due. Whether it is ours to make: whoever brings one says to API servers whom to
    /// trust in it, too.
    async fn keep_certificate(&self, issuer: &Issuer, names: &Names, now: i64) -> Result<bool, UpkeepError> {
        let secrets = Api::<Secret>::namespaced(self.client.clone(), &self.namespace);
        let failed = |error| UpkeepError::Api(format!("Secret {}/{SECRET}", self.namespace), Box::new(error));
        let found = secrets.get_opt(SECRET).await.map_err(failed)?;
        let labels = found.as_ref().and_then(|secret| secret.metadata.labels.as_ref());
        if found.is_some()
            && labels.and_then(|labels| labels.get(MANAGED_LABEL.0)).is_none_or(|by| by != MANAGED_LABEL.1)
        {
            return Ok(false);
        }
        let data = found.as_ref().and_then(|secret| secret.data.as_ref());
        let bytes = |name: &str| data.and_then(|data| data.get(name)).map(|bytes| bytes.0.as_slice());
        let held = Held::read(bytes("tls.crt"), bytes("tls.key"));
        let request = self.request(names);
        let wanted = Wanted {
            name: SECRET,
            request: &request,
            issuer,
            key: KeyOf::Ours(Algorithm::EcdsaP256),
            renew_before_seconds: None,
            issued: None,
        };
        let Decision::Renew(why) = rotate::decide(&held, &wanted, now) else { return Ok(true) };
        let key = fresh::key(Algorithm::EcdsaP256)?;
        let leaf = issue::leaf(issuer, &request, &key.public(), fresh::serial()?, now)?;
        let pair = [("tls.crt", leaf.chain_pem.into_bytes()), ("tls.key", key.pem().as_bytes().to_vec())];
        let labels = [MANAGED_LABEL, (PART_LABEL, PART)];
        let version = found.and_then(|secret| secret.metadata.resource_version);
        let secret = Secret {
            metadata: ObjectMeta {
                name: Some(SECRET.to_owned()),
                resource_version: version.clone(),
                labels: Some(labels.map(|(label, value)| (label.to_owned(), value.to_owned())).into()),
                ..ObjectMeta::default()
            },
            data: Some(BTreeMap::from(pair.map(|(name, bytes)| (name.to_owned(), ByteString(bytes))))),
            type_: Some(SECRET_TYPE.to_owned()),
            ..Secret::default()
        };
        let parameters = PostParams { field_manager: Some(FIELD_MANAGER.to_owned()), ..PostParams::default() };
        let written = match version {
            Some(_) => secrets.replace(SECRET, &parameters, &secret).await,
            None => secrets.create(&parameters, &secret).await,
        };
        written.map_err(failed)?;
        tracing::info!(
            secret = format!("{}/{SECRET}", self.namespace),
            why = why.as_str(),
            "made the webhook's certificate"
        );
        Ok(true)
    }

    fn request(&self, names: &Names) -> Request {
        let Self { namespace, .. } = self;
        let own = [format!("{SERVICE}.{namespace}.svc"), format!("{SERVICE}.{namespace}.svc.{}", names.cluster_domain)];
        let all = own.into_iter().chain(self.names.iter().cloned()).collect();
        Request { duration_seconds: CERTIFICATE_SECONDS, ..Request::pod(names, namespace, SERVICE, all) }
    }
}

impl Worker {
    /// The webhook's turn.
    ///
    /// # Errors
    /// When something could not be written.
    pub async fn webhook(&self) -> Result<Outcome, TurnError> {
        let now = Timestamp::now().as_second();
        Ok(Outcome::Again(self.upkeep.look(&self.signer.issuer(), &self.names, now).await?))
    }
}

/// Whether a configuration is of the webhook in this namespace.
fn is_ours(configuration: &MutatingWebhookConfiguration, namespace: &str) -> bool {
    let labels = configuration.metadata.labels.as_ref();
    let labelled = labels.and_then(|labels| labels.get(OPERATOR_LABEL)).is_some_and(|of| of == namespace);
    let mut services = configuration.webhooks.iter().flatten().filter_map(|one| one.client_config.service.as_ref());
    labelled || services.any(|service| service.namespace == namespace)
}

/// Entries of the configuration by whose bundle the webhook would not be trusted.
fn others(configuration: &MutatingWebhookConfiguration, bundle: &[u8]) -> Vec<String> {
    let webhooks = configuration.webhooks.iter().flatten();
    let others =
        webhooks.filter(|webhook| webhook.client_config.ca_bundle.as_ref().is_none_or(|known| known.0 != bundle));
    others.map(|webhook| webhook.name.clone()).collect()
}
