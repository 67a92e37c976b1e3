//! Does what was planned: the ledger first, so that no certificate is ever given away that is not remembered; then the
//! finalizer, so that none is forgotten; then the Secret, whole.

use k8s_openapi::api::core::v1::Secret;
use kube::api::{Patch, PatchParams, PostParams};
use kube::{Api, Client};
use postern_crds::ClientIdentity;
use serde_json::json;
use sidecar_config::UtcTime;
use sidecar_decide::Certificate;
use zeroize::Zeroizing;

use super::directory::full_name;
use super::error::ReconcileError;
use super::ledgers::Ledgers;
use super::objects::{self, Content, FINALIZER, KEY, PASSWORD, PASSWORD_TYPE};
use super::observe::Observed;
use super::plan::{has_finalizer, held, uid};
use super::validate::{Issued, Target};
use crate::FIELD_MANAGER;
use crate::pki::authority::Issuer;
use crate::pki::issue::{Leaf, leaf};
use crate::pki::key::PrivateKey;
use crate::pki::ledger::{Entry, Ledger, LedgerError};
use crate::pki::rotate::renewal_time;
use crate::pki::{fresh, keystore};

/// What is needed to write.
pub(super) struct Writer<'a> {
    pub(super) client: &'a Client,
    pub(super) ledgers: &'a Ledgers,
    pub(super) identity: &'a ClientIdentity,
    pub(super) now: i64,
}

/// A certificate that is in place.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Placed {
    pub(super) certificate: Certificate,
    /// The chain, where its place is the status.
    pub(super) chain: Option<String>,
    pub(super) renewal: i64,
}

impl Writer<'_> {
    fn namespace(&self) -> &str {
        self.identity.metadata.namespace.as_deref().unwrap_or_default()
    }

    /// Makes a certificate and puts it into its place.
    pub(super) async fn make(
        &self,
        issued: &Issued,
        observed: &Observed,
        issuer: &Issuer,
    ) -> Result<Placed, ReconcileError> {
        let (public, private) = match &issued.target {
            Target::Status { key } => (key.clone(), None),
            Target::Secret { algorithm, .. } => {
                let key = fresh::key(*algorithm)?;
                (key.public(), Some(key))
            }
        };
        let version = self.add_finalizer().await?;
        let over = replaced(observed, version.as_deref());
        let serial = match observed.ledger.unpublished(uid(self.identity), &over, self.now).map(str::parse) {
            Some(Ok(serial)) => serial,
            _ => fresh::serial()?,
        };
        let leaf = leaf(issuer, &issued.request, &public, serial, self.now)?;
        self.remember(&leaf.certificate, over).await?;
        let Leaf { certificate, chain_pem } = leaf;
        let chain = match &private {
            Some(key) => {
                let written = self.write_secret(issued, observed, issuer, (&chain_pem, key)).await;
                if let Err(error) = written {
                    // A Secret that is refused each time would use up all that an identity may have.
                    if !error.is_open() {
                        self.forget(&certificate).await?;
                    }
                    return Err(error);
                }
                None
            }
            None => Some(chain_pem),
        };
        let renewal = renewal_time(&certificate, &full_name(self.identity), issued.renew_before_seconds);
        Ok(Placed { certificate, chain, renewal })
    }

    /// Writes what is around a good certificate anew.
    pub(super) async fn rewrite(
        &self,
        issued: &Issued,
        observed: &Observed,
        issuer: &Issuer,
    ) -> Result<(), ReconcileError> {
        let chain = objects::entry(observed.secret.as_ref(), objects::CHAIN).unwrap_or_default();
        let key = objects::entry(observed.secret.as_ref(), KEY).unwrap_or_default();
        let key = PrivateKey::from_pem(key)?;
        let chain = String::from_utf8_lossy(chain);
        self.write_secret(issued, observed, issuer, (&chain, &key)).await
    }

    async fn write_secret(
        &self,
        issued: &Issued,
        observed: &Observed,
        issuer: &Issuer,
        (chain, key): (&str, &PrivateKey),
    ) -> Result<(), ReconcileError> {
        let Target::Secret { name, password, .. } = &issued.target else { return Ok(()) };
        let roots = issuer.roots_pem();
        let keystore = match password {
            None => None,
            Some(secret) => {
                let password = self.password(secret, observed).await?;
                Some(keystore::write(key.der(), chain, &roots, &password)?)
            }
        };
        let key = Zeroizing::new(key.pem().as_bytes().to_vec());
        let content = Content { chain: chain.to_owned(), key, roots, keystore };
        let secret = objects::certificate_secret(self.identity, name, observed.secret.clone(), &content);
        self.write(name, &secret).await
    }

    /// The password of the keystore, which is made once.
    async fn password(&self, name: &str, observed: &Observed) -> Result<Zeroizing<String>, ReconcileError> {
        let own = self.identity.metadata.name.as_deref().unwrap_or_default();
        let before = observed.password.as_ref().filter(|secret| objects::is_of(secret, own, PASSWORD_TYPE));
        let known = objects::entry(before, PASSWORD).and_then(|bytes| str::from_utf8(bytes).ok());
        if let Some(password) = known.filter(|password| !password.is_empty()) {
            return Ok(Zeroizing::new(password.to_owned()));
        }
        let password = fresh::password()?;
        let secret = objects::password_secret(self.identity, name, observed.password.clone(), &password);
        self.write(name, &secret).await?;
        Ok(password)
    }

    /// Creates a Secret, or replaces the very one that was observed: one that somebody puts there meanwhile is not
    /// overwritten.
    async fn write(&self, name: &str, secret: &Secret) -> Result<(), ReconcileError> {
        let secrets: Api<Secret> = Api::namespaced(self.client.clone(), self.namespace());
        let parameters = post();
        let written = if secret.metadata.resource_version.is_some() {
            secrets.replace(name, &parameters, secret).await
        } else {
            secrets.create(&parameters, secret).await
        };
        written.map(|_| ()).map_err(ReconcileError::kube("write a Secret"))
    }

    /// The version that the identity has then.
    async fn add_finalizer(&self) -> Result<Option<String>, ReconcileError> {
        if has_finalizer(self.identity) {
            return Ok(self.identity.metadata.resource_version.clone());
        }
        let others = self.identity.metadata.finalizers.iter().flatten().map(String::as_str);
        self.set_finalizers(&others.chain([FINALIZER]).collect::<Vec<_>>(), "add the finalizer").await
    }

    /// Lets a deleted identity go.
    pub(super) async fn remove_finalizer(&self) -> Result<(), ReconcileError> {
        let all = self.identity.metadata.finalizers.iter().flatten().map(String::as_str);
        let others: Vec<_> = all.filter(|one| *one != FINALIZER).collect();
        match self.set_finalizers(&others, "remove the finalizer").await {
            // It is gone already.
            Err(ReconcileError::Kube { source, .. }) if matches!(&*source, kube::Error::Api(status) if status.code == 404) => {
                Ok(())
            }
            done => done.map(drop),
        }
    }

    /// With its version, so that nobody's finalizer is lost.
    async fn set_finalizers(&self, finalizers: &[&str], doing: &'static str) -> Result<Option<String>, ReconcileError> {
        let meta = &self.identity.metadata;
        let patch = json!({"metadata": {"finalizers": finalizers, "resourceVersion": meta.resource_version}});
        let identities: Api<ClientIdentity> = Api::namespaced(self.client.clone(), self.namespace());
        let name = meta.name.as_deref().unwrap_or_default();
        let parameters = PatchParams { field_manager: Some(FIELD_MANAGER.to_owned()), ..PatchParams::default() };
        let patched = identities.patch_metadata(name, &parameters, &Patch::Merge(patch)).await;
        patched.map(|patched| patched.metadata.resource_version).map_err(ReconcileError::kube(doing))
    }

    async fn remember(&self, certificate: &Certificate, over: String) -> Result<(), ReconcileError> {
        let facts = &certificate.facts;
        let not_after = UtcTime::from_seconds(facts.not_after);
        let not_after = not_after.ok_or_else(|| LedgerError::Unreadable("a year that cannot be written".to_owned()));
        let entry = Entry {
            identity: self.identity.metadata.name.clone().unwrap_or_default(),
            uid: uid(self.identity).to_owned(),
            not_after: not_after.map_err(ReconcileError::Ledger)?,
            over: Some(over),
            revoked: false,
        };
        let (serial, now) = (facts.serial.clone(), self.now);
        let remember = move |ledger: &mut Ledger| ledger.remember(&serial, entry.clone(), now);
        self.ledgers.change(self.namespace(), now, remember).await
    }

    /// Takes a certificate out of the ledger that nobody was given.
    async fn forget(&self, certificate: &Certificate) -> Result<(), ReconcileError> {
        let serial = certificate.facts.serial.clone();
        self.ledgers.change(self.namespace(), self.now, move |ledger| Ok(ledger.take_back(&serial))).await
    }

    /// Revokes all that was issued to the identity.
    pub(super) async fn revoke(&self) -> Result<(), ReconcileError> {
        let uid = uid(self.identity).to_owned();
        self.ledgers.change(self.namespace(), self.now, move |ledger| Ok(ledger.revoke(&uid))).await
    }
}

/// What a certificate takes the place of, in a form that is another one as soon as it has: the version of the Secret that
/// is replaced; where there is none, or none is to be, that of the identity, whose status tells of each certificate.
fn replaced(observed: &Observed, identity: Option<&str>) -> String {
    match observed.secret.as_ref().and_then(|secret| secret.metadata.resource_version.as_deref()) {
        Some(version) => format!("s{version}"),
        None => format!("i{}", identity.unwrap_or_default()),
    }
}

fn post() -> PostParams {
    PostParams { field_manager: Some(FIELD_MANAGER.to_owned()), ..PostParams::default() }
}

/// What is in place without anything having been done.
pub(super) fn in_place(identity: &ClientIdentity, observed: &Observed, renewal: i64) -> Option<Placed> {
    let certificate = held(identity, observed).leaf()?.clone();
    let in_status = identity.status.as_ref().and_then(|status| status.certificate.as_ref());
    let chain = in_status.and_then(|certificate| certificate.chain.clone()).filter(|_| identity.spec.csr.is_some());
    Some(Placed { certificate, chain, renewal })
}
