//! Brings objects of ours to what they are to be. The only step that writes them.
//!
//! What is there is compared with what the index holds, so that nothing is written while nothing changes. An object is
//! made by a creation, which fails where one of that name exists, and changed by server-side apply to the very object
//! that was seen: nothing of others is ever taken over.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Debug;
use std::sync::Arc;

use k8s_openapi::ByteString;
use k8s_openapi::NamespaceResourceScope;
use k8s_openapi::api::core::v1::{ConfigMap, Secret};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::api::{DeleteParams, Patch, PatchParams, PostParams, Preconditions};
use kube::{Api, Client, Resource};
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::json;
use thiserror::Error;

use super::content::{Content, Deed};
use crate::FIELD_MANAGER;
use crate::index::{Entries, Held, HeldKind, Index, Object, ObjectKind, ObjectName};

/// Ending of entries that are not text.
const BINARY_ENDING: &str = ".zst";

/// Why something could not be written.
#[derive(Debug, Error)]
#[error("cannot write {kind} {name}: {cause}")]
pub struct ApplyError {
    /// Its kind.
    pub kind: HeldKind,
    /// Its name.
    pub name: ObjectName,
    /// Why.
    pub cause: Box<kube::Error>,
}

/// What became of an object.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Applied {
    /// It was as it should be.
    Unchanged,
    /// It was written.
    Written,
    /// It cannot be written now; it will be seen when it can.
    Later,
    /// Its name belongs to something that is not ours.
    Taken,
}

/// Writes objects of ours.
#[derive(Clone)]
pub struct Writer {
    client: Client,
    index: Arc<Index>,
}

impl Writer {
    /// For a client and the picture that is compared with.
    #[must_use]
    pub fn new(client: Client, index: Arc<Index>) -> Self {
        Self { client, index }
    }

    /// What would have to be done.
    #[must_use]
    pub fn deed(&self, content: &Content) -> Deed {
        let cluster = self.index.cluster();
        content.deed(cluster.held(content.kind, &content.name).map(|held| &**held))
    }

    /// Brings an object to what it is to be.
    ///
    /// # Errors
    /// When the API server does not let it.
    pub async fn set(&self, content: &Content) -> Result<Applied, ApplyError> {
        match content.kind {
            HeldKind::ConfigMap => self.set_as(content, config_map, Held::of_config_map).await,
            HeldKind::Secret => self.set_as(content, secret, Held::of_secret).await,
        }
    }

    async fn set_as<K>(
        &self,
        content: &Content,
        make: fn(&Content, Option<String>) -> K,
        read: fn(K) -> Option<Held>,
    ) -> Result<Applied, ApplyError>
    where
        K: Resource<Scope = NamespaceResourceScope, DynamicType = ()> + Clone + Debug + Serialize + DeserializeOwned,
    {
        let api = Api::<K>::namespaced(self.client.clone(), &content.name.namespace);
        let name = &content.name.name;
        let failed = |cause| ApplyError { kind: content.kind, name: content.name.clone(), cause: Box::new(cause) };
        let mut deed = self.deed(content);
        if deed == Deed::Create {
            let parameters = PostParams { field_manager: Some(FIELD_MANAGER.to_owned()), ..PostParams::default() };
            match api.create(&parameters, &make(content, None)).await {
                Ok(object) => return Ok(self.enter(read(object))),
                Err(kube::Error::Api(error)) if is_ending(&error) => return Ok(Applied::Later),
                // Of this name there is one that the index does not know: another's, or ours of a moment ago.
                Err(kube::Error::Api(error)) if error.code == 409 => {
                    let Some(held) = api.get_opt(name).await.map_err(failed)?.and_then(read) else {
                        return Ok(Applied::Taken);
                    };
                    deed = content.deed(Some(&held));
                    self.enter(Some(held));
                }
                Err(error) => return Err(failed(error)),
            }
        }
        match deed {
            Deed::Nothing => Ok(Applied::Unchanged),
            Deed::Taken => Ok(Applied::Taken),
            Deed::Create | Deed::Wait => Ok(Applied::Later),
            Deed::Update { uid, surplus } => {
                let parameters = PatchParams::apply(FIELD_MANAGER).force();
                let patch = Patch::Apply(make(content, Some(uid.clone())));
                let mut object = api.patch(name, &parameters, &patch).await.map_err(failed)?;
                if !surplus.is_empty() {
                    // Server-side apply leaves what others have added.
                    let nothing = |names: &BTreeSet<String>| names.iter().map(|name| (name.clone(), ())).collect();
                    let metadata: [BTreeMap<_, _>; 2] = [&surplus.labels, &surplus.annotations].map(nothing);
                    let [labels, annotations] = metadata;
                    let entries: BTreeMap<_, _> = nothing(&surplus.entries);
                    let metadata = json!({"uid": uid, "labels": labels, "annotations": annotations});
                    let mut patch = json!({"metadata": metadata, "data": entries});
                    if content.kind == HeldKind::ConfigMap {
                        patch["binaryData"] = json!(entries);
                    }
                    object = api.patch(name, &PatchParams::default(), &Patch::Merge(patch)).await.map_err(failed)?;
                }
                Ok(self.enter(read(object)))
            }
        }
    }

    fn enter(&self, held: Option<Held>) -> Applied {
        if let Some(held) = held {
            self.index.written(Object::Held(Arc::new(held)));
        }
        Applied::Written
    }

    /// Removes an object, if it is ours.
    ///
    /// # Errors
    /// When the API server does not let it.
    pub async fn remove(&self, kind: HeldKind, name: &ObjectName) -> Result<Applied, ApplyError> {
        let Some(held) = self.index.cluster().held(kind, name).cloned() else { return Ok(Applied::Unchanged) };
        let preconditions = Preconditions { uid: Some(held.uid.clone()), resource_version: None };
        let parameters = DeleteParams::default().preconditions(preconditions);
        let removed = match kind {
            HeldKind::ConfigMap => {
                let api = Api::<ConfigMap>::namespaced(self.client.clone(), &name.namespace);
                api.delete(&name.name, &parameters).await.map(|_| ())
            }
            HeldKind::Secret => {
                let api = Api::<Secret>::namespaced(self.client.clone(), &name.namespace);
                api.delete(&name.name, &parameters).await.map(|_| ())
            }
        };
        match removed {
            Ok(()) => {}
            Err(kube::Error::Api(error)) if error.code == 404 => {}
            Err(cause) => return Err(ApplyError { kind, name: name.clone(), cause: Box::new(cause) }),
        }
        self.index.removed(ObjectKind::Held(kind), name);
        Ok(Applied::Written)
    }
}

/// Whether nothing can be made because the namespace is going.
fn is_ending(error: &kube::core::Status) -> bool {
    error.code == 403 && error.message.contains("being terminated")
}

fn metadata(content: &Content, uid: Option<String>) -> ObjectMeta {
    ObjectMeta {
        name: Some(content.name.name.clone()),
        namespace: Some(content.name.namespace.clone()),
        labels: Some(content.labels.clone()),
        annotations: Some(content.annotations.clone()).filter(|annotations| !annotations.is_empty()),
        uid,
        ..ObjectMeta::default()
    }
}

fn config_map(content: &Content, uid: Option<String>) -> ConfigMap {
    let (binary, text): (Vec<_>, Vec<_>) = content.entries.iter().partition(|(name, _)| name.ends_with(BINARY_ENDING));
    let text = text.into_iter().map(|(name, bytes)| (name.to_owned(), String::from_utf8_lossy(bytes).into_owned()));
    let binary = binary.into_iter().map(|(name, bytes)| (name.to_owned(), ByteString(bytes.to_vec())));
    ConfigMap {
        metadata: metadata(content, uid),
        data: Some(text.collect()).filter(|entries: &BTreeMap<_, _>| !entries.is_empty()),
        binary_data: Some(binary.collect()).filter(|entries: &BTreeMap<_, _>| !entries.is_empty()),
        immutable: None,
    }
}

fn secret(content: &Content, uid: Option<String>) -> Secret {
    let data =
        |entries: &Entries| entries.iter().map(|(name, bytes)| (name.to_owned(), ByteString(bytes.to_vec()))).collect();
    Secret {
        metadata: metadata(content, uid),
        data: Some(data(&content.entries)),
        type_: Some(content.secret_type.to_owned()),
        ..Secret::default()
    }
}
