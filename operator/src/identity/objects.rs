//! The objects of an identity: how they are named, labelled and told from others', and what is in them. Pure.

use std::collections::BTreeMap;

use k8s_openapi::ByteString;
use k8s_openapi::api::core::v1::{ConfigMap, Secret};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, OwnerReference};
use kube::Resource;
use postern_crds::ClientIdentity;
use sha2::{Digest, Sha256};
use zeroize::Zeroizing;

/// Label of every object of ours.
pub const MANAGED_LABEL: (&str, &str) = ("app.kubernetes.io/managed-by", "postern");
/// Label of a Secret: the identity it is for, by [`label_value`].
pub const IDENTITY_LABEL: &str = "postern.dev/client-identity";
/// Label of a ledger.
pub const LEDGER_LABEL: (&str, &str) = ("postern.dev/part", "ledger");
/// What keeps a deleted identity until its certificates are in the ledger.
pub const FINALIZER: &str = "postern.dev/revoke";

/// Type of the Secret with key and certificate.
pub const CERTIFICATE_TYPE: &str = "kubernetes.io/tls";
/// Type of the Secret with the password of a keystore.
pub const PASSWORD_TYPE: &str = "postern.dev/keystore-password";

pub(super) const CHAIN: &str = "tls.crt";
pub(super) const KEY: &str = "tls.key";
pub(super) const ROOTS: &str = "ca.crt";
pub(super) const KEYSTORE: &str = "keystore.p12";
pub(super) const PASSWORD: &str = "password";
pub(crate) const LEDGER: &str = "ledger.json";

/// Longest value of a label.
const LABEL_MAX_BYTES: usize = 63;

/// The name of an identity as the value of a label; a name that is too long for one ends in a digest.
#[must_use]
pub fn label_value(name: &str) -> String {
    if name.len() <= LABEL_MAX_BYTES {
        return name.to_owned();
    }
    let digest: String = Sha256::digest(name)[..6].iter().map(|byte| format!("{byte:02x}")).collect();
    // Names of objects are ASCII; the part in front may not end in a dot or a hyphen.
    let front = name.get(..LABEL_MAX_BYTES - digest.len() - 1).unwrap_or_default().trim_end_matches(['.', '-']);
    format!("{front}.{digest}")
}

/// The name of a namespace's ledger.
#[must_use]
pub fn ledger_name(namespace: &str) -> String {
    format!("postern-ledger-{namespace}")
}

/// Labels of an identity's Secrets.
fn labels(identity: &str) -> BTreeMap<String, String> {
    let managed = (MANAGED_LABEL.0.to_owned(), MANAGED_LABEL.1.to_owned());
    BTreeMap::from([managed, (IDENTITY_LABEL.to_owned(), label_value(identity))])
}

/// Whether a Secret is this identity's, and so may be written.
#[must_use]
pub fn is_of(secret: &Secret, identity: &str, kind: &str) -> bool {
    let found = secret.metadata.labels.as_ref();
    secret.type_.as_deref() == Some(kind)
        && labels(identity).iter().all(|(key, value)| found.is_some_and(|found| found.get(key) == Some(value)))
}

/// Whether a ConfigMap is a ledger of ours.
#[must_use]
pub fn is_ledger(object: &ConfigMap) -> bool {
    let has = |(key, value): (&str, &str)| {
        object.metadata.labels.as_ref().and_then(|labels| labels.get(key)).is_some_and(|found| found == value)
    };
    has(MANAGED_LABEL) && has(LEDGER_LABEL)
}

/// What an entry of a Secret holds.
#[must_use]
pub fn entry<'a>(secret: Option<&'a Secret>, name: &str) -> Option<&'a [u8]> {
    secret?.data.as_ref()?.get(name).map(|bytes| bytes.0.as_slice())
}

/// What a Secret with key and certificate is to hold.
pub struct Content {
    /// The chain.
    pub chain: String,
    /// The key.
    pub key: Zeroizing<Vec<u8>>,
    /// The roots.
    pub roots: String,
    /// The keystore, where one is asked for.
    pub keystore: Option<Vec<u8>>,
}

/// The Secret of an identity with this content: one that is there keeps what others have put into it.
#[must_use]
pub fn certificate_secret(identity: &ClientIdentity, name: &str, before: Option<Secret>, content: &Content) -> Secret {
    let mut secret = owned(identity, name, before, CERTIFICATE_TYPE);
    let data = secret.data.get_or_insert_default();
    data.insert(CHAIN.to_owned(), ByteString(content.chain.clone().into_bytes()));
    data.insert(KEY.to_owned(), ByteString(content.key.to_vec()));
    data.insert(ROOTS.to_owned(), ByteString(content.roots.clone().into_bytes()));
    match &content.keystore {
        Some(store) => _ = data.insert(KEYSTORE.to_owned(), ByteString(store.clone())),
        None => _ = data.remove(KEYSTORE),
    }
    secret
}

/// The Secret with the password of a keystore.
#[must_use]
pub fn password_secret(identity: &ClientIdentity, name: &str, before: Option<Secret>, password: &str) -> Secret {
    let mut secret = owned(identity, name, before, PASSWORD_TYPE);
    let data = secret.data.get_or_insert_default();
    data.insert(PASSWORD.to_owned(), ByteString(password.as_bytes().to_vec()));
    secret
}

/// A Secret that goes when its identity goes.
fn owned(identity: &ClientIdentity, name: &str, before: Option<Secret>, kind: &str) -> Secret {
    let mut secret = before.unwrap_or_default();
    let meta = &identity.metadata;
    let of_identity = meta.name.clone().unwrap_or_default();
    let owner = OwnerReference {
        api_version: ClientIdentity::api_version(&()).into_owned(),
        kind: ClientIdentity::kind(&()).into_owned(),
        name: of_identity.clone(),
        uid: meta.uid.clone().unwrap_or_default(),
        controller: Some(true),
        block_owner_deletion: None,
    };
    secret.metadata = ObjectMeta {
        name: Some(name.to_owned()),
        namespace: meta.namespace.clone(),
        owner_references: Some(vec![owner]),
        ..secret.metadata
    };
    secret.metadata.labels.get_or_insert_default().extend(labels(&of_identity));
    secret.type_ = Some(kind.to_owned());
    secret
}

/// The ledger of a namespace as an object.
#[must_use]
pub fn ledger(operator_namespace: &str, namespace: &str, before: Option<ConfigMap>, document: String) -> ConfigMap {
    let mut object = before.unwrap_or_default();
    object.metadata.name = Some(ledger_name(namespace));
    object.metadata.namespace = Some(operator_namespace.to_owned());
    let labels = object.metadata.labels.get_or_insert_default();
    for (key, value) in [MANAGED_LABEL, LEDGER_LABEL] {
        labels.insert(key.to_owned(), value.to_owned());
    }
    object.data.get_or_insert_default().insert(LEDGER.to_owned(), document);
    object
}
