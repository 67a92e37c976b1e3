//! What the operator does for the webhook, which has no rights: it makes its certificate, and tells API servers whom to
//! trust in it. Both only where the webhook is installed, and the Secret is not somebody else's.
//!
//! No pod is refused while they change: API servers are told of a new authority first, the certificate is made afterwards,
//! and the old authority is taken away when nobody can have the old certificate any more.

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
use crate::limits::{WEBHOOK_AGAIN, WEBHOOK_AUTHORITIES, WEBHOOK_OVERLAP, WEBHOOK_SOON};
use crate::pki::authority::Issuer;
use crate::pki::blocks;
use crate::pki::fresh;
use crate::pki::issue::{self, BACKDATED_SECONDS, IssueError, Request};
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
    /// Name of its configuration.
    configuration: String,
    /// Names by which it is reached beside those of its Service.
    names: Vec<String>,
}

impl Upkeep {
    /// Of the webhook in the operator's namespace.
    #[must_use]
    pub fn new(client: Client, namespace: String, names: Vec<String>) -> Self {
        Self { client, namespace, names, configuration: CONFIGURATION.to_owned() }
    }

    /// The same of another configuration.
    #[must_use]
    pub fn of(self, configuration: String) -> Self {
        Self { configuration, ..self }
    }

    /// Makes what is not as it should be, and tells when to look again.
    ///
    /// # Errors
    /// When something cannot be read, made or written.
    pub async fn look(&self, issuer: &Issuer, names: &Names, now: i64) -> Result<Duration, UpkeepError> {
        let configurations = Api::<MutatingWebhookConfiguration>::all(self.client.clone());
        let name = self.configuration.as_str();
        let failed = |error| UpkeepError::Api(format!("webhook {name}"), Box::new(error));
        let configuration = configurations.get_opt(name).await.map_err(failed)?;
        let Some(configuration) = configuration.filter(|found| is_ours(found, &self.namespace)) else {
            // Not installed, or another operator's.
            return Ok(WEBHOOK_AGAIN);
        };
        let secrets = Api::<Secret>::namespaced(self.client.clone(), &self.namespace);
        let found = secrets.get_opt(SECRET).await.map_err(|error| self.secret_failed(error))?;
        if found.as_ref().is_some_and(|secret| !is_managed(secret)) {
            // Whoever brings a certificate says to API servers whom to trust in it, too.
            return Ok(WEBHOOK_AGAIN);
        }
        let request = self.request(names);
        let held = held(found.as_ref());
        let wanted = Wanted {
            name: SECRET,
            request: &request,
            issuer,
            key: KeyOf::Ours(Algorithm::EcdsaP256),
            renew_before_seconds: None,
            issued: None,
        };
        let decision = rotate::decide(&held, &wanted, now);
        let roots = issuer.roots_pem();
        let changes = changes(&configuration, &roots, keeps_former(&held, &decision, now));
        if !changes.is_empty() {
            let all: Vec<_> = changes
                .iter()
                .map(|(name, bundle)| json!({"name": name, "clientConfig": {"caBundle": ByteString(bundle.clone())}}))
                .collect();
            // With its version: what is patched is what was looked at.
            let version = &configuration.metadata.resource_version;
            let patch = Patch::Strategic(json!({"metadata": {"resourceVersion": version}, "webhooks": all}));
            let parameters = PatchParams { field_manager: Some(FIELD_MANAGER.to_owned()), ..PatchParams::default() };
            configurations.patch(name, &parameters, &patch).await.map_err(failed)?;
            tracing::info!(configuration = name, "API servers are told whom to trust in the webhook");
        }
        let Decision::Renew(why) = decision else { return Ok(WEBHOOK_AGAIN) };
        if held.leaf().is_some() && !is_trusted(&configuration, &roots) {
            // The certificate that is there is trusted still, and a new one would not be everywhere.
            return Ok(WEBHOOK_SOON);
        }
        self.make(issuer, &request, found, now).await?;
        let secret = format!("{}/{SECRET}", self.namespace);
        tracing::info!(secret, why = why.as_str(), "made the webhook's certificate");
        Ok(WEBHOOK_AGAIN)
    }

    fn secret_failed(&self, error: kube::Error) -> UpkeepError {
        UpkeepError::Api(format!("Secret {}/{SECRET}", self.namespace), Box::new(error))
    }

    /// Makes the certificate, in the place of what was found.
    async fn make(
        &self,
        issuer: &Issuer,
        request: &Request,
        found: Option<Secret>,
        now: i64,
    ) -> Result<(), UpkeepError> {
        let key = fresh::key(Algorithm::EcdsaP256)?;
        let leaf = issue::leaf(issuer, request, &key.public(), fresh::serial()?, now)?;
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
        let secrets = Api::<Secret>::namespaced(self.client.clone(), &self.namespace);
        let parameters = PostParams { field_manager: Some(FIELD_MANAGER.to_owned()), ..PostParams::default() };
        let written = match version {
            Some(_) => secrets.replace(SECRET, &parameters, &secret).await,
            None => secrets.create(&parameters, &secret).await,
        };
        written.map(drop).map_err(|error| self.secret_failed(error))
    }

    fn request(&self, names: &Names) -> Request {
        let Self { namespace, .. } = self;
        let own = [format!("{SERVICE}.{namespace}.svc"), format!("{SERVICE}.{namespace}.svc.{}", names.cluster_domain)];
        let all = own.into_iter().chain(self.names.iter().cloned()).collect();
        Request::pod(names, namespace, SERVICE, all, CERTIFICATE_SECONDS)
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

/// Whether the Secret is ours to write.
fn is_managed(secret: &Secret) -> bool {
    let labels = secret.metadata.labels.as_ref();
    labels.and_then(|labels| labels.get(MANAGED_LABEL.0)).is_some_and(|by| by == MANAGED_LABEL.1)
}

fn held(secret: Option<&Secret>) -> Held {
    let data = secret.and_then(|secret| secret.data.as_ref());
    let bytes = |name: &str| data.and_then(|data| data.get(name)).map(|bytes| bytes.0.as_slice());
    Held::read(bytes("tls.crt"), bytes("tls.key"))
}

/// Whether somebody may have a certificate of an authority of before.
fn keeps_former(held: &Held, decision: &Decision, now: i64) -> bool {
    let overlap = i64::try_from(WEBHOOK_OVERLAP.as_secs()).unwrap_or(i64::MAX);
    let made = held.leaf().map(|leaf| leaf.facts.not_before.saturating_add(BACKDATED_SECONDS));
    matches!(decision, Decision::Renew(_)) || made.is_some_and(|made| now < made.saturating_add(overlap))
}

/// The entries of a configuration whose bundle is another one than it should be, with that: the roots, and behind them what
/// was trusted before, as long as that is kept.
fn changes(configuration: &MutatingWebhookConfiguration, roots: &str, keeps_former: bool) -> Vec<(String, Vec<u8>)> {
    let webhooks = configuration.webhooks.iter().flatten();
    let wanted = webhooks.filter_map(|webhook| {
        let known = webhook.client_config.ca_bundle.as_ref().map(|known| known.0.as_slice()).unwrap_or_default();
        let bundle = bundle(known, roots, keeps_former);
        (bundle != known).then(|| (webhook.name.clone(), bundle))
    });
    wanted.collect()
}

fn bundle(known: &[u8], roots: &str, keeps_former: bool) -> Vec<u8> {
    let ours = blocks::certificates(roots.as_bytes()).unwrap_or_default();
    // What is no bundle is nobody's to keep.
    let former = if keeps_former { blocks::certificates(known).unwrap_or_default() } else { Vec::new() };
    let former: Vec<_> = former.into_iter().filter(|one| !ours.iter().any(|root| root.der == one.der)).collect();
    let former = &former[..former.len().min(WEBHOOK_AUTHORITIES)];
    [roots, &blocks::write(former)].concat().into_bytes()
}

/// Whether all entries have these roots.
fn is_trusted(configuration: &MutatingWebhookConfiguration, roots: &str) -> bool {
    let mut webhooks = configuration.webhooks.iter().flatten();
    webhooks.all(|webhook| {
        let known = webhook.client_config.ca_bundle.as_ref().map(|known| known.0.as_slice()).unwrap_or_default();
        bundle(known, roots, true) == known
    })
}

#[cfg(test)]
mod tests {
    use super::bundle;

    fn root(name: &str) -> String {
        let key = rcgen::KeyPair::generate().expect("a key");
        let mut parameters = rcgen::CertificateParams::new(Vec::new()).expect("names");
        parameters.distinguished_name.push(rcgen::DnType::CommonName, name);
        // Lines as they are written here.
        parameters.self_signed(&key).expect("a certificate").pem().replace("\r\n", "\n")
    }

    #[test]
    fn whom_api_servers_trusted_before_they_trust_for_a_while() {
        let (a, b) = (root("a"), root("b"));
        let of = |known: &str, roots: &str, keeps: bool| {
            let made = String::from_utf8(bundle(known.as_bytes(), roots, keeps)).expect("text");
            let names: Vec<_> =
                [("a", &a), ("b", &b)].into_iter().filter(|(_, one)| made.contains(one.trim())).collect();
            (made.matches("BEGIN").count(), names.iter().map(|(name, _)| *name).collect::<String>())
        };
        let both = [b.as_str(), a.as_str()].concat();
        let rows = [
            ("the first", "", &a, true, (1, "a")),
            ("another is new", &a, &b, true, (2, "ab")),
            ("it stays so", &both, &b, true, (2, "ab")),
            ("for a while", &both, &b, false, (1, "b")),
            ("nobody's bundle", "garbage", &a, true, (1, "a")),
        ];
        for (case, known, roots, keeps, (count, names)) in rows {
            assert_eq!(of(known, roots, keeps), (count, names.to_owned()), "{case}");
        }
        let once = bundle(both.as_bytes(), &b, true);
        assert_eq!(bundle(&once, &b, true), once, "what is so is not written again");
        let many: String = (0..10).map(|index| root(&index.to_string())).collect();
        assert_eq!(of(&many, &a, true).0, 5);
    }
}
