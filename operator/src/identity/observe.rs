//! What is there of an identity's objects. The only part of its reconcile that reads.

use k8s_openapi::api::core::v1::{ConfigMap, Secret};
use kube::{Api, Client};
use postern_crds::ClientIdentity;
use postern_crds::clientidentity::Source;

use super::error::ReconcileError;
use super::objects::{LEDGER, is_ledger, ledger_name};
use super::validate::{Refusal, Target, Valid};
use crate::pki::ledger::{Ledger, LedgerError};

/// What is there.
#[derive(Clone, Debug, Default)]
pub struct Observed {
    /// The Secret that the identity names.
    pub secret: Option<Secret>,
    /// The Secret with the password of its keystore.
    pub password: Option<Secret>,
    /// What was issued in its namespace.
    pub ledger: Ledger,
    /// Why that cannot be told. Nothing is issued then that would not be remembered.
    pub ledger_error: Option<LedgerError>,
}

/// Reads it.
pub(super) async fn observe(
    client: &Client,
    operator_namespace: &str,
    identity: &ClientIdentity,
    valid: &Result<Valid, Refusal>,
) -> Result<Observed, ReconcileError> {
    if identity.metadata.deletion_timestamp.is_some() {
        // Nothing is looked at any more that could keep it.
        return Ok(Observed::default());
    }
    let namespace = identity.metadata.namespace.as_deref().unwrap_or_default();
    let secrets: Api<Secret> = Api::namespaced(client.clone(), namespace);
    let read = async |name: &str| secrets.get_opt(name).await.map_err(ReconcileError::kube("read a Secret"));
    let secret = match identity.spec.source() {
        Some(Source::Issue(issue)) => read(&issue.secret_name).await?,
        _ => None,
    };
    let password = match valid {
        Ok(Valid::Issued(issued)) => match &issued.target {
            Target::Secret { password: Some(name), .. } => read(name).await?,
            _ => None,
        },
        _ => None,
    };
    let ledger = match identity.spec.source() {
        Some(Source::Issue(_) | Source::Csr(_)) => read_ledger(client, operator_namespace, namespace).await,
        _ => Ok((None, Ledger::default())),
    };
    let (ledger, ledger_error) = match ledger {
        Ok((_, ledger)) => (ledger, None),
        Err(ReconcileError::Ledger(error)) => (Ledger::default(), Some(error)),
        Err(error) => return Err(error),
    };
    Ok(Observed { secret, password, ledger, ledger_error })
}

/// A namespace's ledger, and the object it is in.
pub(super) async fn read_ledger(
    client: &Client,
    operator_namespace: &str,
    namespace: &str,
) -> Result<(Option<ConfigMap>, Ledger), ReconcileError> {
    let objects: Api<ConfigMap> = Api::namespaced(client.clone(), operator_namespace);
    let object = objects.get_opt(&ledger_name(namespace)).await.map_err(ReconcileError::kube("read the ledger"))?;
    if let Some(foreign) = object.as_ref().filter(|object| !is_ledger(object)) {
        let name = foreign.metadata.name.clone().unwrap_or_default();
        return Err(ReconcileError::Ledger(LedgerError::Unreadable(format!("ConfigMap `{name}` was made by others"))));
    }
    let text = object.as_ref().and_then(|object| object.data.as_ref()?.get(LEDGER)).map(String::as_str);
    let ledger = Ledger::read(text).map_err(ReconcileError::Ledger)?;
    Ok((object, ledger))
}
